"""Networks by name: shapes, weights, and what is said when a name or a file is wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from geoseg.errors import EncoderWeightsError, UnknownNetworkError
from geoseg.networks import build_network, network_names

LITE = "tu-tf_efficientnet_lite0"


def test_the_names_are_sorted_and_kebab() -> None:
    assert list(network_names()) == sorted(network_names())
    assert all(name == name.lower() and " " not in name for name in network_names())


def test_the_shipped_network_stays_below_eight_million_parameters() -> None:
    network = build_network(
        "unet", bands=3, classes=1, encoder="tu-tf_efficientnet_lite2", decoder_channels=[256, 128, 64, 32, 16]
    )
    assert sum(p.numel() for p in network.parameters()) < 8_000_000


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("u-net", {}, "unetplusplus"),
        ("unet", {"encoder": "resnet19"}, "resnet19"),
        ("unet", {"encoder": "tu-no_such_model"}, "no_such_model"),
        ("unet", {"decoder_chanels": [1]}, "decoder_channels"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownNetworkError, match=said):
        build_network(name, bands=3, classes=1, **options)


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
