"""Incomplete labels: what is unsure is left out while it may be a building."""

import torch

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.training.task import settle_unsure

MASK = torch.tensor([[[1, 0, UNSURE, UNSURE, IGNORED]]], dtype=torch.uint8)


def test_a_young_network_is_not_asked_about_unsure_background() -> None:
    settled = settle_unsure(MASK, None, 0.25)
    assert settled.tolist() == [[[1, 0, IGNORED, IGNORED, IGNORED]]]


def test_unsure_background_that_may_be_a_building_is_left_out_and_the_rest_is_background() -> None:
    settled = settle_unsure(MASK, torch.tensor([[[0.0, 0.9, 0.3, 0.2, 0.9]]]), 0.25)
    assert settled.tolist() == [[[1, 0, IGNORED, 0, IGNORED]]]
