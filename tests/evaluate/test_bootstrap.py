"""Intervals of the bootstrap: against buildings that are drawn one by one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.evaluate.bootstrap import bootstrap
from geoseg.evaluate.buildings import FP, RECALLS, TP, BuildingCounts, average_precision
from geoseg.evaluate.evaluate import Evaluation
from geoseg.evaluate.pixels import BoundaryCounts, Confusion
from geoseg.evaluate.scores import SceneScores

MISSED = 2
AT = np.linspace(0, 1, RECALLS)


def draw_one_by_one(ranked: list[int], missed: int, samples: int = 4000) -> dict[str, tuple[float, float]]:
    """Return the intervals of 4,000 samples, in each of which as many buildings are drawn as there are."""
    rng = np.random.default_rng(99)
    kinds = np.array([*ranked, *[MISSED] * missed])
    scores: dict[str, list[float]] = {"precision": [], "recall": [], "f1": [], "ap50": []}
    for _ in range(samples):
        drawn = kinds[np.sort(rng.integers(0, len(kinds), len(kinds)))]
        tp, fp, fn = (int((drawn == kind).sum()) for kind in (TP, FP, MISSED))
        scores["precision"].append(tp / (tp + fp))
        scores["recall"].append(tp / (tp + fn))
        scores["f1"].append(2 * tp / (2 * tp + fp + fn))
        found = drawn[drawn != MISSED]
        scores["ap50"].append(average_precision(-np.arange(len(found)), found.astype(np.int8), tp + fn))
    return {name: tuple(np.quantile(values, [0.025, 0.975])) for name, values in scores.items()}


def test_intervals_are_those_of_buildings_drawn_one_by_one() -> None:
    rng = np.random.default_rng(3)
    ranked = (rng.random(400) < np.linspace(0.95, 0.3, 400)).astype(int)
    right = int(ranked.sum())
    found = bootstrap(right, 400 - right, 150, ranked == TP, AT)
    expected = draw_one_by_one(ranked.tolist(), 150)
    for name in expected:
        assert getattr(found, name) == pytest.approx(expected[name], abs=0.006), name


def test_a_perfect_map_leaves_no_doubt_and_an_empty_one_has_no_interval() -> None:
    sure = bootstrap(9, 0, 0, np.ones(9, bool), AT)
    assert (sure.precision, sure.recall, sure.f1, sure.ap50) == ((1, 1),) * 4
    missed = bootstrap(0, 0, 5, np.zeros(0, bool), AT)
    assert (missed.recall, missed.f1, missed.ap50) == ((0, 0),) * 3
    assert math.isnan(missed.precision[0])
    assert all(math.isnan(value) for value in bootstrap(0, 0, 0).metrics().values())


@settings(max_examples=30, deadline=None)
@given(right=st.integers(0, 60), wrong=st.integers(0, 60), missed=st.integers(0, 60))
def test_intervals_are_the_same_each_time_and_narrower_for_more_buildings(right: int, wrong: int, missed: int) -> None:
    ranked = np.arange(right + wrong) < right
    once, again = (bootstrap(right, wrong, missed, ranked, AT).metrics() for _ in range(2))
    assert once == pytest.approx(again, nan_ok=True, abs=0)
    more = bootstrap(100 * right, 100 * wrong, 100 * missed)
    if right and wrong + missed:
        assert more.f1[1] - more.f1[0] < once["f1_high"] - once["f1_low"]
        assert more.f1[0] <= 2 * right / (2 * right + wrong + missed) <= more.f1[1]


def test_the_table_shows_the_interval_of_f1_where_buildings_are_few() -> None:
    def scored(times: int) -> SceneScores:
        counts = BuildingCounts(
            truths=20 * times,
            confidence=np.linspace(1, 0, 20 * times),
            outcome=np.tile(np.array([TP, FP, TP, TP], np.int8), (10, 5 * times)),
        )
        return SceneScores(
            Confusion.zeros(("background", "building")), BoundaryCounts.zeros(2), "building", buildings=counts
        )

    few = scored(1).metrics()["buildings"]
    assert f"| 0.7500 | {few['f1_low']:.3f} to {few['f1_high']:.3f} |" in Evaluation({"few": scored(1)}).table()
    assert "| 0.7500 | - |" in Evaluation({"many": scored(100)}).table()
    metrics = scored(100).metrics()["buildings"]
    assert metrics["f1_low"] < 0.75 < metrics["f1_high"]
