"""Incomplete labels, and depthwise convolutions under mixed precision."""

import torch
from torch import nn

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.training.precision import keep_depthwise_full
from geoseg.training.task import settle_unsure

MASK = torch.tensor([[[1, 0, UNSURE, UNSURE, IGNORED]]], dtype=torch.uint8)


def test_a_young_network_is_not_asked_about_unsure_background() -> None:
    settled = settle_unsure(MASK, None, 0.25)
    assert settled.tolist() == [[[1, 0, IGNORED, IGNORED, IGNORED]]]


def test_unsure_background_that_may_be_a_building_is_left_out_and_the_rest_is_background() -> None:
    settled = settle_unsure(MASK, torch.tensor([[[0.0, 0.9, 0.3, 0.2, 0.9]]]), 0.25)
    assert settled.tolist() == [[[1, 0, IGNORED, 0, IGNORED]]]


def test_depthwise_convolutions_stay_in_full_precision_and_keep_their_names() -> None:
    torch.manual_seed(0)
    depthwise, dense = nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3)
    network = nn.Sequential(depthwise, dense)
    names, seen = set(network.state_dict()), []
    image = torch.rand(1, 4, 8, 8)
    exact = depthwise(image)
    keep_depthwise_full(network)
    depthwise.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(image)
    assert torch.equal(seen[0], exact)
    assert result.dtype == torch.bfloat16
    assert set(network.state_dict()) == names
