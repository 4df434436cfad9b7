"""Bootstrap intervals of the scores of buildings: how much they would differ for other buildings of the same kind."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPLICATES = 1000
"""Number of samples of the bootstrap."""

LEVEL = 0.95
"""Share of the samples inside an interval."""

SEED = 12
"""Seed of the samples: the same buildings always have the same intervals."""

MOST_RANKED = 20_000
"""Number of predictions above which average precision gets no interval: it would take seconds, and be below 0.02."""

VALUES_AT_A_TIME = 4_000_000
"""Number of values that are sampled at a time."""

Interval = tuple[float, float]
NOTHING: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Intervals:
    """The intervals of an area's scores, each the low and the high end."""

    precision: Interval = NOTHING
    recall: Interval = NOTHING
    f1: Interval = NOTHING
    ap50: Interval = NOTHING

    def metrics(self) -> dict[str, float]:
        """Return the ends by name: `f1_low`, `f1_high` and so on."""
        ends = {name: getattr(self, name) for name in self.__slots__}
        return {f"{name}_{end}": pair[i] for name, pair in ends.items() for i, end in enumerate(("low", "high"))}


def bootstrap(
    right: int,
    wrong: int,
    missed: int,
    ranked: NDArray[np.bool_] | None = None,
    recalls: NDArray[np.float64] | None = None,
) -> Intervals:
    """Return the percentile intervals of precision, recall, F1 and average precision.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979, and Efron and
    Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: buildings are drawn with replacement, as many as
    there are, and the scores computed anew; an interval holds the middle `LEVEL` of them. What is drawn are the true
    buildings, each with the prediction that found it, and the wrong predictions. How often each is drawn is
    multinomial, so the buildings are not drawn one by one.

    Buildings are taken for independent. Houses of one street resemble each other, so a true interval is rather wider.

    Args:
        right: Number of true positives.
        wrong: Number of false positives.
        missed: Number of false negatives.
        ranked: True for right and False for wrong predictions, in order of decreasing confidence, `(prediction,)`;
            None without confidence.
        recalls: The recalls at which average precision samples the precision, `(recall,)`.
    """
    total = right + wrong + missed
    if total == 0:
        return Intervals()
    draws = np.random.default_rng(SEED).multinomial(total, np.array([right, wrong, missed]) / total, REPLICATES)
    tp, fp, fn = draws.T
    return Intervals(
        precision=_middle(tp, tp + fp),
        recall=_middle(tp, tp + fn),
        f1=_middle(2 * tp, 2 * tp + fp + fn),
        ap50=NOTHING if ranked is None or recalls is None else _average_precision(ranked, missed, recalls),
    )


def _average_precision(ranked: NDArray[np.bool_], missed: int, recalls: NDArray[np.float64]) -> Interval:
    """Return the interval of average precision, as `geoseg.evaluate.buildings.average_precision` defines it."""
    if len(ranked) > MOST_RANKED or (not ranked.any() and not missed):
        return NOTHING
    total = len(ranked) + missed
    chances = np.append(np.full(len(ranked), 1 / total), missed / total)
    rng = np.random.default_rng(SEED)
    rows = max(1, VALUES_AT_A_TIME // len(chances))
    found = []
    for first in range(0, REPLICATES, rows):
        draws = rng.multinomial(total, chances, min(rows, REPLICATES - first))
        drawn, is_missed = draws[:, :-1], draws[:, -1]
        tp = np.cumsum(drawn * ranked, axis=1)
        truths = np.maximum(tp[:, -1:].sum(axis=1) + is_missed, 1)
        precision = tp / np.maximum(np.cumsum(drawn, axis=1), 1)
        best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # The recalls of all samples in one row, those of a sample within a span of its own.
        span = 2.0 * np.arange(len(draws))[:, None]
        at = np.searchsorted((tp / truths[:, None] + span).ravel(), (recalls - 1e-9 + span).ravel(), side="left")
        at = at.reshape(len(draws), -1) - len(ranked) * np.arange(len(draws))[:, None]
        padded = np.append(best_from_here, np.zeros((len(draws), 1)), axis=1)
        found.append(np.take_along_axis(padded, at, axis=1).mean(axis=1))
    return _middle(np.concatenate(found), np.ones(REPLICATES))


def _middle(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Interval:
    """Return the ends of the middle `LEVEL` of the ratios, each `(sample,)`; samples without a whole are left out."""
    defined = np.asarray(whole) > 0
    if not defined.any():
        return NOTHING
    low, high = np.quantile(np.asarray(part)[defined] / np.asarray(whole)[defined], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
