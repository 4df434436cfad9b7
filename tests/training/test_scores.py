"""IoU at every threshold, per source."""

import pytest
import torch

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.training.scores import IouCurve


def curve() -> IouCurve:
    scores = IouCurve(("a", "b"))
    probability = torch.tensor([[[0.9, 0.6, 0.2, 0.8, 0.9, 0.9]], [[0.9, 0.1, 0.1, 0.1, 0.1, 0.1]]])
    mask = torch.tensor([[[1, 0, 1, 1, IGNORED, UNSURE]], [[1, 0, 0, 0, 0, 0]]], dtype=torch.uint8)
    scores.update(probability, mask, torch.tensor([0, 1]))
    return scores


def test_iou_by_hand() -> None:
    assert curve().iou(0.5) == {"a": pytest.approx(2 / 4), "b": pytest.approx(1.0)}
    assert curve().iou(0.7) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1.0)}


def test_each_source_counts_the_same() -> None:
    assert curve().mean_iou(0.5) == pytest.approx(0.75)


def test_the_best_threshold_leaves_the_false_building_out_and_keeps_the_true_ones() -> None:
    assert 0.6 < curve().best_threshold() <= 0.8 or curve().best_threshold() <= 0.2
    assert curve().mean_iou(curve().best_threshold()) == max(curve().mean_iou(t / 100) for t in range(5, 96))


def test_batches_add_up() -> None:
    scores = IouCurve(("a",))
    for truth in (1, 0):
        scores.update(torch.ones(1, 1, 1), torch.full((1, 1, 1), truth, dtype=torch.uint8), torch.zeros(1))
    assert scores.iou() == {"a": pytest.approx(0.5)}
