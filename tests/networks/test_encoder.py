"""Encoders: weights by torchgeo's names, first convolutions spread over other numbers of bands, strides moved."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from geoseg.errors import EncoderWeightsError, UnknownNetworkError
from geoseg.networks import build_network
from geoseg.networks.encoder import fit_bands, move_strides

LITE = "tu-tf_efficientnet_lite0"
MOCO = "torchgeo:ResNet18_Weights.SENTINEL2_RGB_MOCO"


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6, 13])
def test_gray_is_answered_as_in_three_bands(bands: int) -> None:
    kernels, gray = torch.randn(5, 3, 3, 3), torch.randn(1, 1, 8, 8)
    spread = fit_bands(kernels, torch.empty(5, bands, 3, 3))
    torch.testing.assert_close(
        F.conv2d(gray.expand(-1, bands, -1, -1), spread), F.conv2d(gray.expand(-1, 3, -1, -1), kernels)
    )


@pytest.mark.parametrize("bands", [3, 4, 6, 13])
def test_repeated_colors_are_answered_as_once(bands: int) -> None:
    kernels, colors = torch.randn(5, 3, 3, 3), torch.randn(1, 3, 8, 8)
    repeated = colors[:, torch.arange(bands) % 3]
    spread = fit_bands(kernels, torch.empty(5, bands, 3, 3))
    torch.testing.assert_close(F.conv2d(repeated, spread), F.conv2d(colors, kernels))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub that has what the test puts in, and remembers how it was asked."""
    from torchvision.models import WeightsEnum

    asked: dict[str, Any] = {}

    def get_state_dict(weight: Any, **options: Any) -> dict[str, torch.Tensor]:
        asked.update(weight=str(weight), options=options)
        state: dict[str, torch.Tensor] = asked["state"]
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    return asked


def resnet18_state(bands: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    encoder: Any = build_network("pspnet", bands=bands, classes=1, encoder="resnet18").encoder
    return {key: torch.rand_like(v) if v.is_floating_point() else v for key, v in encoder.state_dict().items()}


def test_torchgeo_weights_reach_the_encoder_without_unpickling(hub: dict[str, Any]) -> None:
    hub["state"] = resnet18_state() | {"fc.weight": torch.zeros(2, 2)}
    encoder: Any = build_network("pspnet", bands=4, classes=1, encoder="resnet18", encoder_weights=MOCO).encoder
    assert hub["weight"] == MOCO.removeprefix("torchgeo:")
    assert hub["options"]["weights_only"] is True
    loaded = encoder.state_dict()
    assert torch.equal(loaded["layer4.1.conv2.weight"], hub["state"]["layer4.1.conv2.weight"])
    torch.testing.assert_close(loaded["conv1.weight"].sum(dim=1), hub["state"]["conv1.weight"].sum(dim=1))


def test_weights_of_a_whole_segmenter_give_its_encoder(hub: dict[str, Any]) -> None:
    state = resnet18_state()
    hub["state"] = {f"encoder.{key}": value for key, value in state.items()} | {"decoder.x": torch.zeros(1)}
    encoder: Any = build_network("pspnet", bands=3, classes=1, encoder="resnet18", encoder_weights=MOCO).encoder
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


def test_a_safetensors_file_of_the_same_weights_does_too(hub: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "moco.safetensors"
    save_file(resnet18_state(), path)
    encoder: Any = build_network("pspnet", bands=3, classes=1, encoder="resnet18", encoder_weights=path).encoder
    assert torch.equal(encoder.state_dict()["conv1.weight"], resnet18_state()["conv1.weight"])
    assert "weight" not in hub  # nobody was asked


def test_weights_for_thirteen_bands_are_refused_for_three(hub: dict[str, Any]) -> None:
    hub["state"] = resnet18_state(bands=13)
    with pytest.raises(EncoderWeightsError, match="reads 13 bands, the network 3; only weights for 3 are adapted"):
        build_network("pspnet", bands=3, classes=1, encoder="resnet18", encoder_weights=MOCO)


def test_an_unknown_name_is_told_its_neighbors() -> None:
    with pytest.raises(EncoderWeightsError, match=r"near it: ResNet18_Weights\.SENTINEL2_RGB_MOCO"):
        build_network("pspnet", bands=3, classes=1, encoder="resnet18", encoder_weights=MOCO.replace("MOCO", "MOKO"))


@pytest.mark.parametrize(
    ("given", "meant"), [("imagenett", "'imagenet'"), (MOCO.removeprefix("torchgeo:"), f"'{MOCO}'")]
)
def test_what_is_no_file_may_have_been_meant_as_a_name(given: str, meant: str) -> None:
    with pytest.raises(EncoderWeightsError, match=f"did you mean {meant}"):
        build_network("pspnet", bands=3, classes=1, encoder="resnet18", encoder_weights=given)


def test_torchgeo_out_of_reach_points_to_a_local_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import WeightsEnum

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("name resolution failed")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(EncoderWeightsError, match=r"name resolution failed.*safetensors file"):
        build_network("pspnet", bands=3, classes=1, encoder="resnet18", encoder_weights=MOCO)


@pytest.mark.parametrize("bands", [3, 4])
def test_a_plain_vision_transformer_takes_imagenet_weights(bands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create, fetched = timm.create_model, {}

    def fake_hub(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        model = create(name, **options)
        if pretrained:
            fetched.update({key: value.clone() for key, value in model.state_dict().items()})
        return model

    monkeypatch.setattr(timm, "create_model", fake_hub)
    small: dict[str, Any] = {"encoder_depth": 1, "decoder_intermediate_channels": [8], "decoder_fusion_channels": 8}
    network = build_network("dpt", bands=bands, classes=1, encoder="tu-test_vit", encoder_weights="imagenet", **small)
    loaded = network.get_submodule("encoder.model").state_dict()
    assert torch.equal(loaded["blocks.0.attn.qkv.weight"], fetched["blocks.0.attn.qkv.weight"])
    torch.testing.assert_close(
        loaded["patch_embed.proj.weight"].sum(dim=1), fetched["patch_embed.proj.weight"].sum(dim=1)
    )


def strides(encoder: Any) -> list[tuple[int, int]]:
    """Strides of the 1x1 and the 3x3 convolution of the first block of stages 2 to 4."""
    blocks = [encoder.layer2[0], encoder.layer3[0], encoder.layer4[0]]
    return [(block.conv1.stride[0], block.conv2.stride[0]) for block in blocks]


def built(name: str, **options: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(name, bands=3, classes=1, encoder="resnet50", **options)


def test_torchvision_and_smp_have_their_strides_on_the_3x3() -> None:
    assert strides(built("unet").encoder) == [(1, 2)] * 3


def test_the_option_moves_the_strides_and_keeps_the_shapes() -> None:
    network: Any = built("unet", encoder_stride_at="conv1")
    assert strides(network.encoder) == [(2, 1)] * 3
    pixels = torch.empty(1, 3, 64, 96, device="meta")
    moved = [feature.shape for feature in network.encoder(pixels)]
    usual: Any = built("unet")
    assert moved == [feature.shape for feature in usual.encoder(pixels)]


def test_the_strides_move_back() -> None:
    assert strides(built("unet", encoder_stride_at="conv2").encoder) == [(1, 2)] * 3


@pytest.mark.parametrize(("output_stride", "expected"), [(16, [(2, 1), (2, 1), (1, 1)]), (8, [(2, 1), (1, 1), (1, 1)])])
def test_dilated_stages_have_no_stride_left_to_move(output_stride: int, expected: list[tuple[int, int]]) -> None:
    network: Any = built("deeplabv3plus", encoder_stride_at="conv1", encoder_output_stride=output_stride)
    assert strides(network.encoder) == expected
    assert network.encoder.layer4[0].conv2.dilation == (32 // output_stride,) * 2
    assert network.eval()(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, 1, 64, 96)


def test_the_result_is_the_same_as_moving_the_strides_before_dilating() -> None:
    with torch.device("meta"):
        encoder = get_encoder("resnet50", weights=None)
        move_strides(encoder, "conv1")
        encoder.make_dilated(16)
    after: Any = built("deeplabv3plus", encoder_stride_at="conv1").encoder
    found, expected = (
        [(m.stride, m.dilation, m.padding) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        for network in (after, encoder)
    )
    assert found == expected


def test_the_strides_change_what_is_computed() -> None:
    torch.manual_seed(0)
    network: Any = build_network("pspnet", bands=3, classes=1, encoder="resnet50", encoder_depth=3).eval()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = network.encoder(pixels)[-1]
        move_strides(network.encoder, "conv1")
        assert not torch.allclose(network.encoder(pixels)[-1], before)


@pytest.mark.parametrize(
    ("encoder", "at", "said"),
    [("resnet50", "conv3", "expected one of conv1, conv2"), ("resnet18", "conv1", "this encoder has none")],
)
def test_what_cannot_be_moved_is_named(encoder: str, at: str, said: str) -> None:
    with pytest.raises(UnknownNetworkError, match=said), torch.device("meta"):
        build_network("unet", bands=3, classes=1, encoder=encoder, encoder_stride_at=at)


@pytest.fixture(scope="module")
def lite_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights of a timm encoder as a classifier has them: with a head that a segmenter does not use."""
    encoder: Any = build_network("unet", bands=3, classes=1, encoder=LITE).encoder
    weights = {key: torch.rand_like(v) if v.is_floating_point() else v for key, v in encoder.model.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    save_file({**weights, "classifier.weight": torch.zeros(2, 2)}, path)
    return path, weights


def test_local_weights_reach_the_encoder(lite_weights: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = lite_weights
    encoder: Any = build_network("unet", bands=3, classes=1, encoder=LITE, encoder_weights=path).encoder
    loaded = encoder.model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_six_bands_respond_to_gray_as_three_do(lite_weights: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = lite_weights
    encoder: Any = build_network("unet", bands=6, classes=1, encoder=LITE, encoder_weights=path).encoder
    adapted = encoder.model.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(adapted.sum(dim=1), weights["conv_stem.weight"].sum(dim=1))


def test_weights_of_another_encoder_are_refused(lite_weights: tuple[Path, dict[str, torch.Tensor]]) -> None:
    with pytest.raises(EncoderWeightsError, match=r"does not fit encoder 'mobilenet_v2'.*missing"):
        build_network("unet", bands=3, classes=1, encoder="mobilenet_v2", encoder_weights=lite_weights[0])


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderWeightsError, match="imagenet"):
        build_network("unet", bands=3, classes=1, encoder=LITE, encoder_weights=tmp_path / "none.safetensors")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv_stem.weight": torch.zeros(1)}, path)
    with pytest.raises(EncoderWeightsError, match="pickled weights are not read"):
        build_network("unet", bands=3, classes=1, encoder=LITE, encoder_weights=path)


def test_a_hub_out_of_reach_points_to_a_local_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("name resolution failed")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_encoder", unreachable)
    with pytest.raises(EncoderWeightsError, match=r"name resolution failed.*safetensors file"):
        build_network("unet", bands=3, classes=1, encoder="mobilenet_v2", encoder_weights="imagenet")
