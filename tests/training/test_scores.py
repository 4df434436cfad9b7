"""Figures per source and class, at every threshold, by hand and against torchmetrics."""

import json
import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from geoseg.datasets.auxiliary import FULL
from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.inference import PROBABILITY_ONE, stored_threshold
from geoseg.training.scores import Scores

LAND = ("building", "land", "water", "unlabelled")


def one_class() -> Scores:
    scores = Scores(("a", "b"), ("building",), target="building")
    probability = torch.tensor([[[0.9, 0.6, 0.2, 0.8, 0.9, 0.9]], [[0.9, 0.1, 0.1, 0.1, 0.1, 0.1]]])
    mask = torch.tensor([[[1, 0, 1, 1, IGNORED, UNSURE]], [[1, 0, 0, 0, 0, 0]]], dtype=torch.uint8)
    scores.update(torch.logit(probability)[:, None], mask, torch.tensor([0, 1]))
    return scores


def logits_of(classes: Tensor, n: int) -> Tensor:
    """Return logits (n, class, y, x) whose likeliest class is (n, y, x) `classes`."""
    return torch.nn.functional.one_hot(classes, n).movedim(-1, 1).float()


def four_classes(unscored: tuple[str, ...] = ("unlabelled",)) -> Scores:
    scores = Scores(("s",), LAND, target="building", unscored=unscored)
    mask = torch.tensor([[[0, 0, 1, 1, 1, 3, IGNORED, UNSURE]]], dtype=torch.uint8)
    scores.update(logits_of(torch.tensor([[[0, 1, 1, 1, 1, 0, 0, 0]]]), 4), mask, torch.tensor([0]))
    return scores


def test_iou_by_hand() -> None:
    assert one_class().figures(0.5)["iou"] == {"a": pytest.approx(2 / 4), "b": pytest.approx(1.0)}
    assert one_class().figures(0.7)["iou"] == {"a": pytest.approx(2 / 3), "b": pytest.approx(1.0)}


def test_the_row_of_one_class_by_hand() -> None:
    row = one_class().row(0.5)
    assert list(row) == ["iou", "iou_a", "iou_b", "dice", "mean_iou", "pixel_accuracy"]
    assert row["iou"] == pytest.approx(0.75)
    assert row["dice"] == pytest.approx((4 / 6 + 1) / 2)
    assert row["pixel_accuracy"] == pytest.approx((2 / 4 + 1) / 2)
    assert row["mean_iou"] == pytest.approx(((2 / 4 + 0) / 2 + 1) / 2)


def test_each_source_counts_the_same_and_all_pixels_together_are_told_too() -> None:
    assert one_class().headline(0.5) == pytest.approx(0.75)
    assert one_class().figures(0.5)["all"]["iou"] == pytest.approx(3 / 5)


def test_the_best_threshold_is_the_one_of_the_best_headline() -> None:
    scores = one_class()
    best = scores.best_threshold()
    assert best == 0.2  # there a finds all its buildings, with one false; of the equal ones nearest 0.5
    assert scores.headline(best) == max(scores.headline(t / 100) for t in range(5, 96))
    assert scores.figures(0.5)["iou_at_best_threshold"]["a"] == pytest.approx(scores.figures(best)["iou"]["a"])


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.73])
def test_a_threshold_cuts_where_the_mask_of_a_run_is_cut(threshold: float) -> None:
    probability = torch.linspace(0.001, 0.999, 997)[None, None]
    scores = Scores(("s",), ("building",), target="building")
    scores.update(torch.logit(probability)[:, None], torch.ones_like(probability, dtype=torch.uint8), torch.zeros(1))
    stored = (probability * PROBABILITY_ONE).round() >= stored_threshold(threshold)
    assert scores.headline(threshold) == pytest.approx(float(stored.float().mean()), abs=0.0021)


def test_batches_add_up() -> None:
    scores = Scores(("a",), ("building",), target="building")
    for truth in (1, 0):
        scores.update(torch.full((1, 1, 1, 1), 9.0), torch.full((1, 1, 1), truth, dtype=torch.uint8), torch.zeros(1))
    assert scores.row(0.5)["iou_a"] == pytest.approx(0.5)


@pytest.mark.parametrize("classes", [("background", "building"), ("building", "background")])
def test_two_channels_score_as_one_with_the_same_probability(classes: tuple[str, str]) -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 1, 8, 8), torch.randint(2, (2, 8, 8), dtype=torch.uint8)
    at = classes.index("building")
    two = torch.cat([torch.zeros_like(logits), logits] if at else [logits, torch.zeros_like(logits)], dim=1)
    single = Scores(("s",), ("building",), target="building")
    double = Scores(("s",), classes, target="building")
    single.update(logits, mask, torch.zeros(2))
    double.update(two, mask if at else 1 - mask, torch.zeros(2))
    assert double.row(0.4) == single.row(0.4)
    assert list(double.figures(0.4)["all"]["classes"]) == ["background", "building"]


def test_the_row_of_several_classes_by_hand() -> None:
    row = four_classes().row(0.5)
    assert list(row) == ["iou_building", "iou_land", "iou_water", "iou_unlabelled", "mean_iou", "pixel_accuracy"]
    assert row["iou_building"] == pytest.approx(1 / 3)
    assert row["iou_land"] == pytest.approx(3 / 4)
    assert math.isnan(row["iou_water"])
    assert row["iou_unlabelled"] == 0.0
    assert row["pixel_accuracy"] == pytest.approx(4 / 6)


def test_the_mean_over_classes_leaves_out_unscored_ones_and_those_that_are_nowhere() -> None:
    assert four_classes().headline(0.5) == pytest.approx((1 / 3 + 3 / 4) / 2)
    assert four_classes(unscored=()).headline(0.5) == pytest.approx((1 / 3 + 3 / 4 + 0) / 3)


def test_figures_hold_precision_recall_and_confusion_of_each_class() -> None:
    found = four_classes().figures(0.5)["sources"]["s"]
    assert found["classes"]["building"]["precision"] == pytest.approx(1 / 2)
    assert found["classes"]["building"]["recall"] == pytest.approx(1 / 2)
    assert found["classes"]["building"]["dice"] == pytest.approx(1 / 2)
    assert found["confusion"] == [[1, 1, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_mean_iou_is_the_one_of_torchmetrics() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 4, 16, 16), torch.randint(4, (2, 16, 16), dtype=torch.uint8)
    mask[0, :5] = IGNORED
    scores = Scores(("s",), LAND, target="building")
    scores.update(logits, mask, torch.zeros(2))
    expected = multiclass_jaccard_index(logits, mask.long(), num_classes=4, ignore_index=IGNORED)
    assert scores.headline(0.5) == pytest.approx(float(expected))


@pytest.mark.parametrize("classes", [("building",), ("background", "building"), LAND])
def test_a_batch_without_truth_counts_nothing_and_figures_are_plain_json(classes: tuple[str, ...]) -> None:
    scores = Scores(("a", "b"), classes, target="building")
    mask = torch.full((1, 2, 2), IGNORED, dtype=torch.uint8)
    scores.update(torch.randn(1, len(classes), 2, 2).bfloat16(), mask, torch.tensor([1]))
    assert not scores.counts.any()
    assert scores.headline(0.5) == 0.0
    assert json.loads(json.dumps(scores.figures(0.5), allow_nan=False))["iou"] == {"a": None, "b": None}
    full = Scores(("a", "b"), classes, target="building")
    full.update(torch.randn(1, len(classes), 2, 2), mask * 0, torch.tensor([1]))
    assert list(full.row(0.5)) == list(scores.row(0.5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("classes", [("building",), LAND])
def test_counts_stay_on_the_device_of_the_logits(classes: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, len(classes), 8, 8), torch.randint(2, (2, 8, 8), dtype=torch.uint8)
    here, there = (Scores(("s",), classes, target="building") for _ in range(2))
    here.update(logits, mask, torch.zeros(2))
    there.update(logits.cuda(), mask.cuda(), torch.zeros(2).cuda())
    assert there.counts.is_cuda
    assert there.row(0.5) == pytest.approx(here.row(0.5))


def walls(*sources: str) -> Scores:
    """Score one class, edges of which one is found, one missed and one invented, and distances."""
    scores = Scores(sources, ("building",), target="building", auxiliary=("edge", "distance"))
    found = torch.tensor([[1.0, 2.0, -1.0, -1.0, 3.0], [2.0, -2.0, 2.0, -2.0, -2.0]])
    true = torch.tensor([[1, 0, 1, 0, IGNORED], [FULL, FULL // 2, FULL // 2 - 1, 0, IGNORED]], dtype=torch.uint8)
    for number in range(len(sources)):
        scores.update(found[None, :1, None], true[None, 0, None], torch.tensor([number]))
    scores.update_auxiliary(found[None, :, None], true[None, :, None], torch.tensor([0]))
    return scores


def test_auxiliary_channels_are_scored_at_one_half_by_hand() -> None:
    found = walls("a").figures(0.5)["auxiliary"]
    by_hand = {"iou": 1 / 3, "f1": 1 / 2, "precision": 1 / 2, "recall": 1 / 2}
    assert found == {"edge": {"a": pytest.approx(by_hand)}, "distance": {"a": pytest.approx(by_hand)}}


def test_auxiliary_channels_follow_the_classes_in_a_row_and_do_not_choose_the_weights() -> None:
    row = walls("a", "b").row(0.5)
    classes = ["iou", "iou_a", "iou_b", "dice", "mean_iou", "pixel_accuracy"]
    assert list(row) == [*classes, "edge_iou", "edge_f1", "distance_iou", "distance_f1"]
    assert row["edge_iou"] == pytest.approx(1 / 3)  # b has none
    assert walls("a", "b").figures(0.5)["auxiliary"]["edge"]["b"]["iou"] is None
    assert walls("a").headline(0.5) == row["iou_a"] == pytest.approx(1 / 3)
    plain = Scores(("a",), ("building",), target="building")
    assert "auxiliary" not in plain.figures(0.5)


def test_auxiliary_channels_of_several_batches_and_sources_add_up_by_source() -> None:
    scores = walls("a", "b")
    logits, targets = torch.ones(2, 2, 1, 3), torch.ones(2, 2, 1, 3, dtype=torch.uint8)
    targets[1, 0, 0, 0] = 0
    scores.update_auxiliary(logits, targets, torch.tensor([0, 1]))
    edge = scores.figures(0.5)["auxiliary"]["edge"]
    assert edge["a"]["iou"] == pytest.approx(4 / 6)
    assert edge["b"]["iou"] == pytest.approx(2 / 3)
