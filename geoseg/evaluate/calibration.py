"""Confidence that means something: fitted to buildings whose outcome is known, and measured against outcomes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import UsageError
from geoseg.evaluate.buildings import IGNORED, TP, BuildingCounts
from geoseg.evaluate.reliability import Bin, bin_probabilities
from geoseg.vectorize.calibration import Evidence

Floats = NDArray[np.float64]

RIDGE = 1.0
"""Weight of the penalty: half the sum of squares of the coefficients of standardized terms, against the log-likelihood.

A normal prior of variance 1. It hardly matters beyond a few hundred buildings, and keeps coefficients finite where a
term separates right from wrong buildings completely.
"""

MAX_STEPS, SETTLED = 100, 1e-9
"""Newton's method takes about eight steps; it has settled where no coefficient moves by more than this."""

BUILDING_BINS = 10


def fit_confidence(
    evidence: Evidence, matched: NDArray[np.bool_], *, ridge: float = RIDGE, without: Sequence[str] = ()
) -> dict[str, float]:
    """Fit the coefficients of `calibrate` to buildings whose outcome is known.

    Logistic regression by Newton's method (iteratively reweighted least squares: Hastie, Tibshirani and Friedman, "The
    elements of statistical learning", 2nd edition 2009, section 4.4.1), with a ridge penalty on all coefficients but
    the constant. Terms are standardized first, and coefficients returned for the terms as they are.

    Args:
        evidence: The buildings.
        matched: True where a building matches a true one at IoU 0.5, `(building,)`.
        ridge: Weight of the penalty.
        without: Terms to leave out.

    Returns:
        Coefficients for `ModelSpec.confidence`. Terms that are equal in all buildings have none.

    Raises:
        UsageError: If there are not both matched and other buildings.
    """
    if not (matched.any() and not matched.all()):
        raise UsageError(
            f"{int(matched.sum())} of {len(matched)} buildings match a true one. A confidence can be fitted only to "
            "buildings of which some do and some do not: give more or larger areas."
        )
    terms = {name: term for name, term in evidence.terms().items() if name not in ("constant", *without)}
    varying = {name: term for name, term in terms.items() if np.ptp(term) > 0}
    mean = np.array([term.mean() for term in varying.values()])
    scale = np.array([term.std() for term in varying.values()])
    columns = [(term - m) / s for term, m, s in zip(varying.values(), mean, scale, strict=True)]
    weights = _newton(np.column_stack([np.ones(len(matched)), *columns]), matched.astype(np.float64), ridge)
    slopes = weights[1:] / scale
    constant = float(weights[0] - slopes @ mean)
    return {"constant": constant} | dict(zip(varying, slopes.tolist(), strict=True))


def _newton(x: Floats, y: Floats, ridge: float) -> Floats:
    """Return the coefficients of a penalized logistic regression; the first column of `x` is not penalized.

    Args:
        x: Terms, `(building, term)`.
        y: 0 or 1, `(building,)`.
        ridge: Weight of the penalty.
    """
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 0.0

    def loss(weights: Floats) -> float:
        total = x @ weights
        return float(np.logaddexp(0, total).sum() - y @ total + penalty @ weights**2 / 2)

    weights = np.zeros(x.shape[1])
    for _ in range(MAX_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(x @ weights, -700, 700)))
        gradient = x.T @ (probability - y) + penalty * weights
        curvature = (x.T * (probability * (1 - probability))) @ x + np.diag(penalty)
        step, *_ = np.linalg.lstsq(curvature, gradient, rcond=None)
        size = 1.0
        while size > SETTLED and loss(weights - size * step) > loss(weights):  # a whole step may lead too far
            size /= 2
        weights = weights - size * step
        if float(np.abs(size * step).max()) < SETTLED:
            break
    return weights


def measure_confidence(counts: BuildingCounts) -> list[Bin]:
    """Return the reliability table of the confidence of an evaluation's buildings.

    It is empty if the confidence is unknown or no probability, such as a percentage, which still ranks buildings.
    """
    if counts.confidence is None or (counts.confidence < 0).any() or (counts.confidence > 1).any():
        return []
    known = counts.outcome[0] != IGNORED
    return tabulate_confidence(counts.confidence[known], counts.outcome[0][known] == TP)


def fit_evaluation(counts: BuildingCounts, *, without: Sequence[str] = ()) -> dict[str, float]:
    """Fit the coefficients of `ModelSpec.confidence` to the buildings of an evaluation of a model.

    Args:
        counts: Such as `evaluate_scenes(...).total.buildings`, of areas that the model was not trained on.
        without: Terms to leave out.

    Raises:
        UsageError: If the buildings are not those of a model, or there are not both matched and other ones.
    """
    if counts.evidence is None:
        raise UsageError("A confidence can be fitted only to buildings that a model predicts. Evaluate a model.")
    known = counts.outcome[0] != IGNORED
    return fit_confidence(counts.evidence.take(known), counts.outcome[0][known] == TP, without=without)


def tabulate_confidence(confidence: Floats, matched: NDArray[np.bool_], *, count: int = BUILDING_BINS) -> list[Bin]:
    """Return the reliability table of a confidence.

    Args:
        confidence: 0 to 1, `(building,)`.
        matched: True where a building matches a true one, `(building,)`.
        count: Number of bins.
    """
    return bin_probabilities(confidence, np.ones(len(confidence)), matched, count=count)
