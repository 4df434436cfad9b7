"""A confidence is fitted to outcomes and measured against them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from geoseg.bundle import load_bundle, save_bundle
from geoseg.errors import UsageError
from geoseg.evaluate import EvaluateSettings, Evaluation, evaluate_scenes
from geoseg.evaluate.buildings import IGNORED, TP
from geoseg.evaluate.calibration import (
    fit_confidence,
    fit_evaluation,
    measure_confidence,
    tabulate_confidence,
)
from geoseg.evaluate.reliability import calibration_error
from geoseg.vectorize.calibration import Evidence, calibrate

TRUE = {"constant": -6.0, "probability_mean": 9.0, "probability_min": 1.0, "area_log": -0.5}


def buildings(count: int, seed: int = 0) -> tuple[Evidence, np.ndarray]:
    """Buildings that match with the probability that `TRUE` gives."""
    rng = np.random.default_rng(seed)
    evidence = Evidence(
        probability_mean=rng.uniform(0.5, 1, count),
        area_m2=np.exp(rng.normal(4, 1, count)),
        probability_min=rng.uniform(0.4, 0.6, count),
    )
    return evidence, rng.random(count) < calibrate(evidence, TRUE)


def penalized(evidence: Evidence, matched: np.ndarray, ridge: float) -> dict[str, float]:
    """The same as `fit_confidence` by SciPy, from the definition."""
    names = [name for name in evidence.terms() if name != "constant"]
    x = np.column_stack([evidence.terms()[name] for name in names])

    def loss(weights: np.ndarray) -> float:
        total = weights[0] + x @ weights[1:]
        fitted = np.where(matched, np.logaddexp(0, -total), np.logaddexp(0, total)).sum()
        return float(fitted + ridge / 2 * ((weights[1:] * x.std(axis=0)) ** 2).sum())

    start = np.zeros(len(names) + 1)
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-7, "maxiter": 10_000})
    return dict(zip(("constant", *names), found.x.tolist(), strict=True))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), ridge=st.sampled_from([0.1, 1.0, 30.0]))
def test_the_coefficients_are_those_of_an_optimizer(seed: int, ridge: float) -> None:
    evidence, matched = buildings(150, seed)
    found, expected = fit_confidence(evidence, matched, ridge=ridge), penalized(evidence, matched, ridge)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(calibrate(evidence, found), calibrate(evidence, expected), atol=2e-4)


def test_of_many_buildings_the_coefficients_are_those_they_were_made_with() -> None:
    evidence, matched = buildings(200_000)
    found = fit_confidence(evidence, matched)
    assert found == {name: pytest.approx(TRUE[name], abs=0.35) for name in TRUE}
    other, outcome = buildings(50_000, seed=1)
    table = tabulate_confidence(calibrate(other, found), outcome)
    assert calibration_error(table) < 0.01
    assert calibration_error(tabulate_confidence(other.probability_mean, outcome)) > 0.2


def test_buildings_that_a_term_separates_have_finite_coefficients() -> None:
    evidence = Evidence(probability_mean=np.repeat([0.6, 0.9], 20), area_m2=np.full(40, 100.0))
    matched = evidence.probability_mean > 0.7
    found = fit_confidence(evidence, matched)
    assert found.keys() == {"constant", "probability_mean"}  # the area is the same everywhere
    confidence = calibrate(evidence, found)
    assert confidence[0] < 0.2 < 0.8 < confidence[-1] < 1


@pytest.mark.parametrize("seed", [267, 732])
def test_a_fit_settles_where_a_whole_step_of_newton_leads_too_far(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(5, 60))
    mean, area = rng.random(count) ** rng.integers(1, 6), np.exp(rng.standard_t(1.5, count) * 2)
    evidence = Evidence(probability_mean=mean, area_m2=area, probability_min=rng.random(count))
    matched = rng.random(count) < rng.choice([0.03, 0.1, 0.5, 0.9])
    confidence = calibrate(evidence, fit_confidence(evidence, matched, ridge=1e-6))
    assert matched.any()
    np.testing.assert_allclose(confidence, matched, atol=0.05)  # one of these sets of columns separates the outcomes


def test_all_terms_but_the_constant_may_be_left_out() -> None:
    evidence, matched = buildings(100)
    names = [name for name in evidence.terms() if name != "constant"]
    assert fit_confidence(evidence, matched, without=names) == {
        "constant": pytest.approx(math.log(matched.mean() / (1 - matched.mean())))
    }


@pytest.mark.parametrize("value", [True, False])
def test_outcomes_that_are_all_alike_cannot_be_fitted(value: bool) -> None:
    evidence, _ = buildings(10)
    with pytest.raises(UsageError, match=rf"^{10 * value} of 10 buildings match .* give more or larger areas"):
        fit_confidence(evidence, np.full(10, value))


def test_by_hand_a_reliability_table() -> None:
    confidence = np.array([0.0, 0.1, 0.11, 0.2, 0.95, 1.0])
    table = tabulate_confidence(confidence, np.array([False, True, False, False, True, True]))
    assert [(row.low, row.high, row.count) for row in table if row.count] == [
        (0.0, pytest.approx(0.1), 2),
        (pytest.approx(0.1), pytest.approx(0.2), 2),
        (pytest.approx(0.9), 1.0, 2),
    ]
    assert len(table) == 10
    assert [(table[k].confidence, table[k].frequency) for k in (0, 1, 9)] == [
        (pytest.approx(0.05), 0.5),
        (pytest.approx(0.155), 0.0),
        (pytest.approx(0.975), 1.0),
    ]
    assert math.isnan(table[5].frequency)
    assert calibration_error(table) == pytest.approx((0.45 + 0.155 + 0.025) / 3)


def test_without_buildings_nothing_is_known() -> None:
    table = tabulate_confidence(np.zeros(0), np.zeros(0, bool))
    assert sum(row.count for row in table) == 0
    assert math.isnan(calibration_error(table))


HOUSES = ((5, 60, 140), (30, 30, 160), (5, 5, 200), (35, 60, 180), (60, 5, 240), (60, 40, 150))
"""Row, column and value of houses of 10 x 12 px; every second one is true."""


def evaluation(tmp_path: Path, write, model: Path, *, unknown_from: int = 80) -> Evaluation:
    """Evaluate two scenes, so that the buildings of both are put together; from a column on nothing is known."""
    for name, shift in (("a", 0), ("b", 4)):
        values, truth = np.full((80, 80), 10), np.zeros((80, 80), int)
        for number, (row, col, value) in enumerate(HOUSES):
            values[row : row + 10 + shift, col : col + 12] = value
            truth[row : row + 10 + shift, col : col + 12] |= number % 2 == 0
        truth[:, unknown_from:] = 255
        write(tmp_path / "scenes" / f"{name}.tif", values)
        write(tmp_path / "labels" / f"{name}.tif", truth)
    asked = EvaluateSettings(labels=tmp_path / "labels", model=model)
    return evaluate_scenes(tmp_path / "scenes", asked)


def test_the_evidence_of_an_evaluations_buildings_belongs_to_their_outcomes(tmp_path: Path, write, model: Path) -> None:
    counts = evaluation(tmp_path, write, model).total.buildings
    value = np.rint(counts.evidence.probability_mean * 254).astype(int)
    area = np.rint(counts.evidence.area_m2 / 0.09).astype(int)
    right = {value: number % 2 == 0 for number, (_, _, value) in enumerate(HOUSES)}
    assert sorted(zip(value, area, strict=True)) == sorted((v, a) for v in right for a in (120, 168))
    assert [right[v] for v in value] == (counts.outcome[0] == TP).tolist()
    np.testing.assert_array_equal(counts.confidence, counts.evidence.probability_mean)


def test_buildings_that_do_not_count_are_no_evidence(tmp_path: Path, write, model: Path) -> None:
    """Where nothing is known there are two houses, and most of a third."""
    counts = evaluation(tmp_path, write, model, unknown_from=45).total.buildings
    value = np.rint(counts.evidence.probability_mean * 254).astype(int)
    assert sorted(value) == sorted([160, 200, 240, 150] * 2)
    np.testing.assert_array_equal(counts.outcome[0] == TP, np.isin(value, (200, 240)))
    np.testing.assert_array_equal(counts.outcome[0] == IGNORED, value == 150)
    known = value != 150
    assert fit_evaluation(counts) == fit_confidence(counts.evidence.take(known), counts.outcome[0][known] == TP)
    assert sum(row.count for row in measure_confidence(counts)) == 6


def test_a_model_with_coefficients_gives_their_confidence(tmp_path: Path, write, model: Path) -> None:
    coefficients = {"constant": 5.0, "probability_mean": -4.0, "area_log": -0.75}
    bundle = load_bundle(model)
    path = save_bundle(tmp_path / "b.safetensors", replace(bundle.spec, confidence=coefficients), bundle.weights())
    found = evaluation(tmp_path, write, path).total
    counts = found.buildings
    np.testing.assert_array_equal(counts.confidence, calibrate(counts.evidence, coefficients))
    known = tabulate_confidence(counts.confidence, counts.outcome[0] == TP)
    metrics = found.metrics()
    assert metrics["buildings"]["calibration_error"] == pytest.approx(calibration_error(known))
    assert [row["buildings"] for row in metrics["building_reliability"]] == [row.count for row in known]
    assert sum(row.count for row in known) == 12


def test_an_evaluations_buildings_are_fitted_to(tmp_path: Path, write, model: Path) -> None:
    counts = evaluation(tmp_path, write, model).total.buildings
    found = fit_evaluation(counts)
    assert found == fit_confidence(counts.evidence, counts.outcome[0] == TP)
    assert found.keys() == {"constant", "probability_mean", "probability_min", "area_log"}  # none touches another
    assert fit_evaluation(counts, without=["area_log"]).keys() == found.keys() - {"area_log"}


def test_buildings_of_another_tool_cannot_be_fitted_to(tmp_path: Path, write, model: Path) -> None:
    evaluation(tmp_path, write, model)
    labels = tmp_path / "labels" / "a.tif"
    counts = evaluate_scenes([], EvaluateSettings(labels=labels, mask=labels)).total
    assert math.isnan(counts.metrics()["buildings"]["calibration_error"])
    assert counts.metrics()["building_reliability"] == []
    with pytest.raises(UsageError, match="only to buildings that a model predicts"):
        fit_evaluation(counts.buildings)
