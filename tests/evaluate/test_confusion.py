"""Counting right and wrong pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.evaluate import Confusion


@settings(max_examples=25)
@given(seed=st.integers(0, 999), shape=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_counts_and_metrics_are_those_of_sets(seed: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth, known = (rng.random(shape) < p for p in (0.4, 0.5, 0.8))
    counts = Confusion.count(predicted, truth, known)
    p, t = ({*zip(*np.nonzero(mask & known), strict=True)} for mask in (predicted, truth))
    assert (counts.hits, counts.false_alarms, counts.misses) == (len(p & t), len(p - t), len(t - p))
    assert counts.pixels == known.sum()
    metrics = counts.metrics()
    if p and t:
        assert metrics["iou"] == len(p & t) / len(p | t)
        assert metrics["dice"] == 2 * len(p & t) / (len(p) + len(t))
        assert (metrics["precision"], metrics["recall"]) == (len(p & t) / len(p), len(p & t) / len(t))
        assert metrics["accuracy"] == pytest.approx((predicted == truth)[known].mean())


def test_pixels_pool_over_areas() -> None:
    assert Confusion(1, 2, 3, 4) + Confusion(10, 20, 30, 40) == Confusion(11, 22, 33, 44)
    assert sum([Confusion(1, 0, 0, 0)] * 3, Confusion()) == Confusion(3)


def test_nothing_to_find_is_no_figure_rather_than_a_zero() -> None:
    metrics = Confusion(rejections=9).metrics()
    assert all(math.isnan(metrics[key]) for key in ("iou", "dice", "precision", "recall"))
    assert metrics["accuracy"] == 1


def test_unknown_pixels_do_not_count() -> None:
    everything = np.ones((4, 4), bool)
    assert Confusion.count(everything, everything, ~everything) == Confusion()
