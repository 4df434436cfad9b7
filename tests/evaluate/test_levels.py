"""Calibration and thresholds from one histogram."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from geoseg.evaluate import Confusion, Levels
from geoseg.inference import stored_threshold

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
    filled = [b for b in levels.bins() if b.pixels]
    assert [(b.pixels, b.frequency) for b in filled] == [(4, 0.5), (4, 1.0)]
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
