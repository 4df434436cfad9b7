"""What a network costs and how far it looks, against counts by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from geoseg.networks import NetworkFacts, build_network, network_facts


class Convolutions(nn.Module):
    """Convolutions without a decoder, of a known field."""

    stride_px = 1

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layers(pixels)
        return features


def conv(kernel: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, padding=dilation * (kernel // 2), dilation=dilation)


@pytest.mark.parametrize(
    ("layers", "reach"),
    [((conv(1),), 0), ((conv(3), conv(3)), 2), ((conv(5),), 2), ((conv(3, dilation=18), conv(3)), 19)],
)
def test_the_field_of_convolutions_is_the_sum_of_their_reaches(layers: tuple[nn.Module, ...], reach: int) -> None:
    assert network_facts(Convolutions(*layers), bands=1).receptive_px == reach


# By hand, for one convolution per level. The farthest pixel lies one level down, where position q is pixels 2q and
# 2q + 1. Pixel 0 merges pixels -1 to 1; -1 is made from position -1 (2x2 up-convolution), which reads -2 to 0, pooled
# from pixel -4 on, which reads -5. With bilinear enlarging, -1 is made from positions -1 and 0; 1 from 0 and 1, which
# reads up to 2, pixels 4 and 5, which reads 6; pixel 0 reads 6.
@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"depth": 0}, 1),
        ({"depth": 0, "convolutions": 3}, 3),
        ({"depth": 1, "convolutions": 1}, 5),
        ({"depth": 1, "convolutions": 1, "upsampling": "interpolated"}, 6),
    ],
)
def test_the_field_of_a_plain_u_net_is_that_found_by_hand(options: dict[str, Any], reach: int) -> None:
    options = {"filters": 2, "convolutions": 1} | options
    facts = network_facts(build_network("unet-plain", bands=1, classes=1, **options), bands=1)
    assert (facts.receptive_px, facts.local_px) == (reach, reach)


def brute_reach(network: nn.Module, stride: int, side: int) -> int:
    """Every output column of one period against every input column, one by one."""
    middle = side // 2
    with torch.inference_mode():
        strips = torch.zeros(side, 3, stride, side)
        for column in range(side):
            strips[column, ..., column] = torch.nan
        touched = network.eval()(strips).isnan().any(dim=1).any(dim=1)  # (input column, output column)
    away = (torch.arange(side)[:, None] - torch.arange(side)[None]).abs()
    return int((away * touched)[:, middle : middle + stride].max())


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("unet-plain", {"depth": 2, "filters": 2}, 96),
        ("unet-plain", {"depth": 2, "filters": 2, "upsampling": "interpolated"}, 96),
        ("unet", {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [4, 4, 4]}, 256),
    ],
)
def test_the_field_found_by_bisection_is_that_of_all_columns(name: str, options: dict[str, Any], side: int) -> None:
    network = build_network(name, bands=3, classes=1, **options)
    facts = network_facts(network)
    assert facts.receptive_px == brute_reach(network, facts.stride_px, side)


def test_operations_are_counted_per_million_pixels() -> None:
    facts = network_facts(build_network("unet-plain", bands=3, classes=1, depth=0, filters=2, convolutions=1))
    assert facts.gflop_per_mpx == pytest.approx(2 * (3 * 9 * 2 + 2) * 1e-3)  # 3x3 from 3 to 2, 1x1 from 2 to 1
    assert facts.parameters == 3 * 9 * 2 + 2 * 2 + 2 + 1  # batch normalization in the place of a bias


def test_resnet18_unet_has_the_counts_that_others_publish() -> None:
    with torch.device("meta"):
        network = build_network("unet", bands=3, classes=1, encoder="resnet18")
    assert sum(p.numel() for p in network.parameters()) == 14_328_209  # smp.Unet("resnet18"), 14.3 M


@pytest.mark.parametrize(("name", "stride"), [("fpn", 32), ("pspnet", 8)])
def test_pooling_over_the_chip_makes_the_field_unbounded(name: str, stride: int) -> None:
    facts = network_facts(build_network(name, bands=3, classes=1, encoder="tu-test_resnet"))
    assert facts.receptive_px is None
    assert facts.local_px is not None
    assert facts.stride_px == stride


def test_scse_makes_the_field_unbounded_and_leaves_the_local_one() -> None:
    options: dict[str, Any] = {"depth": 1, "filters": 2, "convolutions": 1}
    plain = network_facts(build_network("unet-plain", bands=3, classes=1, **options))
    scse = network_facts(build_network("unet-plain", bands=3, classes=1, attention="scse", **options))
    assert (scse.receptive_px, scse.local_px) == (None, plain.local_px)


def test_transformers_have_no_local_field_either() -> None:
    vit: dict[str, Any] = {"encoder": "tu-test_vit", "encoder_depth": 1, "decoder_intermediate_channels": [8]}
    facts = network_facts(build_network("dpt", bands=3, classes=1, decoder_fusion_channels=8, **vit))
    assert (facts.receptive_px, facts.local_px) == (None, None)


@pytest.mark.parametrize(
    ("effective", "local", "halo"), [(53, 651, 64), (64, None, 64), (200, 9, 32), (0, 2, 32), (65, 651, 96)]
)
def test_the_halo_is_the_effective_field_in_whole_strides(effective: int, local: int | None, halo: int) -> None:
    assert NetworkFacts(1, 1.0, local, local, effective, 32).suggested_halo_px == halo


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = build_network("unet-plain", bands=3, classes=1, depth=1, filters=2).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network_facts(network)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
