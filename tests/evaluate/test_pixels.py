"""Counts of pixels: by class, near outlines and by probability, by hand and against authorities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from geoseg.evaluate import Confusion, Levels
from geoseg.evaluate.pixels import BoundaryCounts, count_boundary, rim_of
from geoseg.inference import stored_threshold

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
    with pytest.raises(ValueError, match="cannot be added"):
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


ALL = (slice(None), slice(None))
SQUARE = np.ones((3, 3), bool)


def square(size: int, row: int, col: int, side: int) -> np.ndarray:
    """Return `(y, x)` uint8 with one square building."""
    out = np.zeros((size, size), np.uint8)
    out[row : row + side, col : col + side] = 1
    return out


def test_by_hand_a_square_shifted_by_one_pixel() -> None:
    truth, predicted = square(20, 5, 5, 8), square(20, 5, 6, 8)
    counts = count_boundary(predicted, truth, ALL, classes=2, width_px=1)
    # Rings of one pixel have 28 pixels each; they share the upper and lower edge but for their ends (7 each), and at
    # the sides column 12 of the truth meets row 5 and 12 only, which the edges hold already.
    assert counts.common[1] == 14
    assert counts.iou()[1] == pytest.approx(14 / (28 + 28 - 14))


def test_a_wide_boundary_is_the_mask_itself() -> None:
    truth, predicted = square(20, 5, 5, 6), square(20, 6, 5, 6)
    counts = count_boundary(predicted, truth, ALL, classes=2, width_px=10)
    assert (counts.common[1], counts.either[1]) == (30, 42)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), width_px=st.integers(1, 5))
def test_inside_a_picture_it_is_erosion_as_the_authors_do_it(seed: int, width_px: int) -> None:
    mask = np.pad(np.random.default_rng(seed).random((20, 24)) < 0.85, 6)  # a known border of background
    expected = mask & ~binary_erosion(mask, SQUARE, iterations=width_px)
    assert np.array_equal(rim_of(mask, np.zeros_like(mask), width_px), expected)


@settings(max_examples=15)
@given(seed=st.integers(0, 999), block=st.integers(1, 17), width_px=st.integers(1, 4))
def test_windows_with_halos_count_as_the_whole(seed: int, block: int, width_px: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.choice(np.array([0, 1, 2, 255], np.uint8), (2, 23, 19), p=[0.2, 0.6, 0.1, 0.1])
    whole = count_boundary(predicted, truth, ALL, classes=3, width_px=width_px)
    parts = BoundaryCounts.zeros(3)
    for row in range(0, 23, block):
        for col in range(0, 19, block):
            top, left = max(0, row - width_px), max(0, col - width_px)
            seen = (slice(top, row + block + width_px), slice(left, col + block + width_px))
            inner = (slice(row - top, row - top + block), slice(col - left, col - left + block))
            parts += count_boundary(predicted[seen], truth[seen], inner, classes=3, width_px=width_px)
    assert np.array_equal(parts.common, whole.common)
    assert np.array_equal(parts.either, whole.either)


def test_the_border_of_what_is_known_is_no_outline() -> None:
    mask, unknown = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    assert not rim_of(mask, unknown, 2).any()
    unknown[:, 6:] = True
    assert not rim_of(mask, unknown, 2).any()
    mask[:, 6:] = False
    assert not rim_of(mask, unknown, 2).any()
    unknown[:, 6:] = False
    assert rim_of(mask, unknown, 2)[:, 4:6].all()


def test_a_class_that_is_nowhere_has_no_boundary_iou() -> None:
    truth = square(12, 3, 3, 5)
    found = count_boundary(truth, truth, ALL, classes=3, width_px=2).iou()
    assert found[:2] == [1, 1]
    assert math.isnan(found[2])


EVERYWHERE = np.ones((30, 30), bool)


def noise(seed: int, highest: int = 254) -> tuple[np.ndarray, np.ndarray]:
    """Return stored probabilities and a truth that follows them about."""
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, highest + 1, (30, 30)).astype(np.uint8)
    return probability, rng.random((30, 30)) < (probability / 254) ** 2


def test_by_hand_the_calibration_error() -> None:
    probability = np.array([[51, 51, 51, 51], [203, 203, 203, 203]], np.uint8)  # 0.2008 and 0.7992
    truth = np.array([[True, True, False, False], [True, True, True, True]])
    levels = Levels.count(probability, truth, np.ones((2, 4), bool))
    assert levels.calibration_error() == pytest.approx((abs(0.5 - 51 / 254) + abs(1 - 203 / 254)) / 2)
    filled = [b for b in levels.bins() if b.count]
    assert [(b.count, b.frequency) for b in filled] == [(4, 0.5), (4, 1.0)]
    assert filled[0].low < 51 / 254 <= filled[0].high


@settings(max_examples=15)
@given(seed=st.integers(0, 999), bins=st.sampled_from([5, 10, 15]))
def test_the_calibration_error_is_that_of_torchmetrics(seed: int, bins: int) -> None:
    probability, truth = noise(seed, highest=253)  # torchmetrics gives probability 1 a bin of its own
    probability[probability == 127] = 126  # and one half, where it is a border, to the bin above instead of below
    levels = Levels.count(probability, truth, EVERYWHERE)
    preds, target = torch.from_numpy(probability / 254.0), torch.from_numpy(truth.astype(np.int64))
    expected = float(binary_calibration_error(preds.flatten(), target.flatten(), n_bins=bins))
    assert levels.calibration_error(bins) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.003, 0.25, 0.5, 0.75, 0.999])
def test_the_counts_at_any_threshold_are_those_of_its_mask(threshold: float) -> None:
    probability, truth = noise(3)
    mask = (probability >= stored_threshold(threshold)).astype(np.uint8)
    levels = Levels.count(probability, truth, EVERYWHERE)
    assert levels.confusion(threshold) == Confusion.count(mask, truth.astype(np.uint8))


def test_the_curve_has_every_stored_threshold() -> None:
    probability, truth = noise(4)
    curve = Levels.count(probability, truth, EVERYWHERE).curve()
    assert [row["threshold"] for row in curve] == [v / 254 for v in range(1, 255)]
    mask = (probability >= 100).astype(np.uint8)
    assert curve[99]["iou"] == Confusion.count(mask, truth.astype(np.uint8)).metrics()["iou"]
    recalls = [row["recall"] for row in curve]
    assert recalls == sorted(recalls, reverse=True)


def test_unknown_pixels_count_for_nothing_and_areas_pool() -> None:
    probability, truth = noise(5)
    left = np.zeros((30, 30), bool)
    left[:, :11] = True
    both = Levels.count(probability, truth, left) + Levels.count(probability, truth, ~left)
    assert np.array_equal(both.counts, Levels.count(probability, truth, EVERYWHERE).counts)
    assert math.isnan(Levels.count(probability, truth, ~EVERYWHERE).calibration_error())


def test_a_pixel_without_probability_cannot_be_counted() -> None:
    probability, truth = noise(6)
    probability[0, 0] = 255
    with pytest.raises(ValueError, match="no probability"):
        Levels.count(probability, truth, EVERYWHERE)
