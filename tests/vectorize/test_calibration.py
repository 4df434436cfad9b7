"""The confidence of buildings, from a few columns of each."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.bundle import CONFIDENCE_TERMS
from geoseg.vectorize.calibration import Evidence, calibrate


def make(count: int = 200, seed: int = 0, **columns: Any) -> Evidence:
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.5, 1, count)
    known = {
        "probability_mean": mean,
        "area_m2": np.exp(rng.normal(4, 1, count)),
        "probability_min": mean * rng.random(count),
        "touches": rng.random(count) < 0.3,
    }
    return Evidence(**(known | columns))


def test_without_coefficients_the_confidence_is_the_mean_probability() -> None:
    evidence = make()
    np.testing.assert_array_equal(calibrate(evidence, {}), evidence.probability_mean)


TERMS = {
    "constant": 1.0,
    "probability_mean": 0.75,
    "probability_min": 0.5,
    "area_log": math.log(80),
    "touches": 1.0,
}
"""Those of a building of 80 m2."""


@pytest.mark.parametrize("name", CONFIDENCE_TERMS)
def test_every_term_has_its_coefficient(name: str) -> None:
    columns = {
        name: np.array([value]) for name, value in TERMS.items() if name in {each.name for each in fields(Evidence)}
    }
    one = make(1, **columns, area_m2=np.array([80.0]))
    found = calibrate(one, {"constant": -0.5} | {name: 0.3})
    total = 0.3 if name == "constant" else 0.3 * TERMS[name] - 0.5
    assert found == pytest.approx([1 / (1 + math.exp(-total))], abs=1e-6)


def test_all_terms_together_are_a_logistic_regression() -> None:
    evidence = make()
    coefficients = {name: value for value, name in enumerate(reversed(CONFIDENCE_TERMS), -4)}
    area = np.log(evidence.area_m2)
    by_hand = sum(
        coefficients[name] * term
        for name, term in {
            "constant": 1.0,
            "probability_mean": evidence.probability_mean,
            "probability_min": evidence.probability_min,
            "area_log": np.maximum(area, 0),
            "touches": evidence.touches,
        }.items()
    )
    np.testing.assert_allclose(calibrate(evidence, coefficients), 1 / (1 + np.exp(-by_hand)), atol=1e-6)


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 300), max_size=4), order=st.randoms(use_true_random=False))
def test_the_confidence_does_not_depend_on_which_buildings_are_computed_together(
    seed: int, cuts: list[int], order: Any
) -> None:
    evidence = make(300, seed)
    coefficients = dict(zip(CONFIDENCE_TERMS, (-3.1, 4.7, 0.3, 0.7, -0.6), strict=True))
    whole = calibrate(evidence, coefficients)
    shuffled = list(range(300))
    order.shuffle(shuffled)
    index = np.array(shuffled)
    parts = [calibrate(evidence.take(part), coefficients) for part in np.split(index, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), whole[index])


def test_a_term_that_is_not_known_of_the_buildings_is_an_error() -> None:
    evidence = make(touches=None)
    assert "touches" not in evidence.terms()
    with pytest.raises(ValueError, match="coefficients of touches; these buildings have constant, probability_mean"):
        calibrate(evidence, {"touches": 1.0})


def test_any_building_has_a_confidence() -> None:
    """Off the map it has no area, and without area no logarithm; coefficients may be of any size."""
    odd = make(3, area_m2=np.array([0.0, np.nan, 1e12]))
    for size in (1.0, 1e9):
        found = calibrate(odd, dict.fromkeys(CONFIDENCE_TERMS, -size) | {"area_log": size})
        assert ((found >= 0) & (found <= 1)).all()
    assert calibrate(make(0), {"constant": 1.0}).shape == (0,)


def test_buildings_of_several_areas_are_put_together_with_what_is_known_of_all() -> None:
    first, second = make(5, seed=1), make(7, seed=2, touches=None)
    both = first + second
    assert len(both) == 12
    assert both.touches is None
    np.testing.assert_array_equal(both.take(np.arange(5, 12)).area_m2, second.area_m2)
    np.testing.assert_array_equal(both.probability_min[:5], first.probability_min)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        make(5, area_m2=np.ones(4))
