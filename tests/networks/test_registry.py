"""Networks by name: every architecture, encoders of every family, any bands and classes, wrong names and options.

Networks are built on torch's meta device where they can be: shapes cost no arithmetic.
"""

from typing import Any

import pytest
import torch
from torch import nn

from geoseg.errors import UnknownNetworkError
from geoseg.networks import build_network, default_encoder, network_names, network_stride, register_network

TINY = "tu-test_resnet"
TINY_VIT = {
    "encoder": "tu-test_vit",
    "encoder_depth": 2,
    "decoder_intermediate_channels": [8, 8],
    "decoder_fusion_channels": 8,
}
SMALL: dict[str, dict[str, Any]] = {
    "dpt": TINY_VIT,
    "unet-atrous": {"encoder": TINY, "decoder_channels": [32, 16, 8, 8]},
    "unet-plain": {"filters": 4, "depth": 3},
}


def small_options(name: str) -> dict[str, Any]:
    return SMALL.get(name, {"encoder": TINY})


def logits_shape(name: str, *, bands: int, classes: int, side: int, device: str = "meta", **options: Any) -> list[int]:
    with torch.device(device), torch.no_grad():
        network = build_network(name, bands=bands, classes=classes, **options).eval()
        return list(network(torch.zeros(1, bands, side, 2 * side)).shape)


@pytest.mark.parametrize("name", network_names())
def test_every_architecture_gives_six_logits_per_pixel_of_thirteen_bands(name: str) -> None:
    options = small_options(name)
    side = 2 * network_stride(name, options)  # smp's own networks refuse sides that are no multiples of their stride
    assert logits_shape(name, bands=13, classes=6, side=side, **options) == [1, 6, side, 2 * side]


@pytest.mark.parametrize(
    ("name", "bands", "classes"),
    [("unet", 1, 1), ("unet", 4, 6), ("unet-inception", 3, 1), ("unet-atrous", 4, 1), ("unet-plain", 1, 6)],
)
def test_bands_and_classes_are_free(name: str, bands: int, classes: int) -> None:
    assert logits_shape(name, bands=bands, classes=classes, side=64, **small_options(name)) == [1, classes, 64, 128]


@pytest.mark.parametrize(
    ("name", "encoder", "device"),
    [
        ("unet", "mit_b0", "cpu"),  # a vision transformer; drop path reads values, which meta tensors lack
        ("segformer", "mit_b0", "cpu"),
        ("unet-inception", "mit_b0", "cpu"),
        ("unet-inception", "efficientnet-b0", "cpu"),  # "same" padding reads the input's size
        ("unet-inception", "tu-test_convnext", "meta"),  # begins at a quarter of the input
        ("unet-atrous", "tu-test_efficientnet", "meta"),
        ("deeplabv3plus", "mobilenet_v2", "meta"),
    ],
)
def test_encoders_of_every_family_serve(name: str, encoder: str, device: str) -> None:
    options = {"encoder": encoder} | ({"decoder_channels": [16, 8, 8, 8]} if name.startswith("unet-") else {})
    assert logits_shape(name, bands=3, classes=1, side=64, device=device, **options) == [1, 1, 64, 128]


@pytest.mark.parametrize(
    ("name", "options", "stride"),
    [
        ("unet", {}, 32),
        ("unet", {"encoder": TINY, "encoder_depth": 3, "decoder_channels": [8, 8, 8]}, 8),
        ("unet-inception", {"encoder_depth": 4, "decoder_channels": [8, 8, 8, 8]}, 16),
        ("unet-atrous", {}, 32),
        ("unet-plain", {}, 16),
        ("unet-plain", {"depth": 6}, 64),
        ("deeplabv3", {}, 8),
        ("deeplabv3plus", {"encoder_output_stride": 8}, 8),
        ("deeplabv3plus", {"encoder": "resnet50"}, 16),
        ("pspnet", {}, 8),
        ("pan", {}, 128),
        ("dpt", TINY_VIT, 32),
    ],
)
def test_sides_are_multiples_of_the_stride(name: str, options: dict[str, Any], stride: int) -> None:
    assert network_stride(name, options) == stride


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpt", {"encoder": "tu-test_vit", "decoder_intermediate_channels": [8] * 4, "decoder_fusion_channels": 8}),
        ("pan", {"encoder": TINY}),
        ("unet-plain", {"filters": 2, "depth": 5}),
    ],
)
def test_odd_multiples_of_the_stride_serve(name: str, options: dict[str, Any]) -> None:
    side = 3 * network_stride(name, options)
    assert logits_shape(name, bands=3, classes=1, side=side, **options) == [1, 1, side, 2 * side]


def test_a_network_has_an_encoder_of_its_own_where_none_is_chosen() -> None:
    names = ("unet", "unet-inception", "unet-atrous", "unet-plain")
    assert [default_encoder(name) for name in names] == ["resnet34", "efficientnet-b3", "resnet50", None]


def test_decoder_attention_is_an_option_where_the_architecture_has_it() -> None:
    options: dict[str, Any] = {"encoder": TINY, "decoder_attention_type": "scse"}
    with torch.device("meta"):
        network = build_network("unet", bands=3, classes=1, **options)
    assert any("cSE" in name for name, _ in network.named_modules())


def test_a_new_network_registers_itself_with_its_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.networks.registry.NETWORKS", {})

    @register_network("mine", stride_px=lambda options: 2 * options["steps"])
    class Mine(nn.Conv2d):
        def __init__(self, *, bands: int, classes: int, steps: int = 3) -> None:
            super().__init__(bands, classes, 1)

    assert network_names() == ("mine",)
    assert (default_encoder("mine"), network_stride("mine", {}), network_stride("mine", {"steps": 5})) == (None, 6, 10)
    assert isinstance(build_network("mine", bands=2, classes=3, steps=1), Mine)


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
