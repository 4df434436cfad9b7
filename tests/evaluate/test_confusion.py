"""Counting pixels by true and predicted class."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from geoseg.evaluate import Confusion

LAND = ("building", "land", "road", "unlabelled")


@settings(max_examples=25)
@given(seed=st.integers(0, 999), shape=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_two_classes_are_counted_as_sets(seed: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth, known = (rng.random(shape) < p for p in (0.4, 0.5, 0.8))
    counts = Confusion.count(predicted.astype(np.uint8), np.where(known, truth, 255).astype(np.uint8))
    p, t = ({*zip(*np.nonzero(mask & known), strict=True)} for mask in (predicted, truth))
    neither = int((~predicted & ~truth & known).sum())
    assert counts == Confusion(np.array([[neither, len(p - t)], [len(t - p), len(p & t)]]))
    assert counts.pixels == known.sum()
    metrics = counts.metrics()
    if p and t:
        assert metrics["iou"] == len(p & t) / len(p | t)
        assert metrics["dice"] == 2 * len(p & t) / (len(p) + len(t))
        assert (metrics["precision"], metrics["recall"]) == (len(p & t) / len(p), len(p & t) / len(t))
        assert metrics["pixel_accuracy"] == pytest.approx((predicted == truth)[known].mean())


@settings(max_examples=10)
@given(seed=st.integers(0, 999))
def test_several_classes_are_as_torchmetrics_counts_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(0, 4, (2, 30, 40)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    counts = Confusion.count(predicted, truth, LAND)
    p, t = (torch.from_numpy(a.astype(np.int64)) for a in (predicted, truth))
    options = {"num_classes": 4, "ignore_index": 255}
    assert np.array_equal(counts.counts, multiclass_confusion_matrix(p, t, **options).numpy())
    figures = counts.metrics(target="building")
    authorities = {
        "iou": multiclass_jaccard_index,
        "dice": multiclass_f1_score,
        "precision": multiclass_precision,
        "recall": multiclass_recall,
    }
    for key, authority in authorities.items():
        expected = authority(p, t, average="none", **options).numpy()
        assert [figures["classes"][name][key] for name in LAND] == pytest.approx(expected, abs=1e-6)
    assert figures["mean_iou"] == pytest.approx(float(multiclass_jaccard_index(p, t, **options)), abs=1e-6)
    accuracy = multiclass_accuracy(p, t, average="micro", **options)
    assert figures["pixel_accuracy"] == pytest.approx(float(accuracy), abs=1e-6)


def test_an_unscored_class_is_shown_but_not_in_the_mean() -> None:
    counts = Confusion(np.array([[6, 2, 0, 0], [0, 8, 0, 0], [0, 0, 4, 0], [0, 0, 4, 0]]), LAND)
    figures = counts.metrics(target="building", unscored=["unlabelled"])
    assert figures["iou"] == 6 / 8
    assert figures["mean_iou"] == pytest.approx((6 / 8 + 8 / 10 + 4 / 8) / 3)
    assert figures["mean_dice"] == pytest.approx((12 / 14 + 16 / 18 + 8 / 12) / 3)
    assert figures["classes"]["unlabelled"]["iou"] == 0
    assert figures["pixel_accuracy"] == 18 / 24
    assert figures["confusion"][0] == [6, 2, 0, 0]


def test_a_class_that_is_nowhere_is_no_zero_in_the_mean() -> None:
    counts = Confusion(np.diag([5, 5, 0, 0]), LAND)
    assert counts.metrics()["mean_iou"] == 1
    assert math.isnan(counts.metrics()["classes"]["road"]["iou"])


def test_pixels_pool_over_areas_of_the_same_classes() -> None:
    one, ten = (Confusion(np.array([[1, 2], [3, 4]]) * n) for n in (1, 10))
    assert one + ten == Confusion(np.array([[11, 22], [33, 44]]))
    assert sum([one] * 3, Confusion.zeros()) == Confusion(one.counts * 3)
    with pytest.raises(ValueError, match="do not pool"):
        one + Confusion.zeros(LAND)


def test_nothing_to_find_is_no_figure_rather_than_a_zero() -> None:
    metrics = Confusion(np.array([[9, 0], [0, 0]])).metrics()
    assert all(math.isnan(metrics[key]) for key in ("iou", "dice", "precision", "recall"))
    assert metrics["pixel_accuracy"] == 1


def test_unknown_pixels_do_not_count() -> None:
    ones, unknown = np.ones((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert Confusion.count(unknown, ones) == Confusion.count(ones, unknown) == Confusion.zeros()


def test_counts_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        Confusion(np.zeros((2, 2), np.int64), ("a", "b", "c"))
