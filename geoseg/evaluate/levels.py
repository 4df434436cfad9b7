"""Pixels by predicted probability: calibration, and the metrics at every threshold, from one small histogram."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluate.confusion import Confusion
from geoseg.inference import PROBABILITY_ONE, stored_threshold

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""

LEVELS = PROBABILITY_ONE + 1


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels whose probability lies in `(low, high]`; the first bin holds 0 too.

    Attributes:
        low: Lower border.
        high: Upper border.
        pixels: How many.
        confidence: Their mean probability, NaN where there are none.
        frequency: Share of them that is the target, NaN where there are none.
    """

    low: float
    high: float
    pixels: int
    confidence: float
    frequency: float


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Pixels by truth and stored probability of the target; it holds every threshold and every bin exactly.

    Attributes:
        counts: `(not target, target; stored probability)` int64, `(2, 255)`.
    """

    counts: NDArray[np.int64]

    @classmethod
    def zeros(cls) -> "Levels":
        """Return no pixels."""
        return cls(np.zeros((2, LEVELS), np.int64))

    @classmethod
    def count(cls, probability: NDArray[np.uint8], truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> "Levels":
        """Count the pixels of `(y, x)` stored probability and truth (True = target) where `known` is True.

        Raises:
            ValueError: If a known pixel has no probability.
        """
        pairs = truth[known] * np.uint16(LEVELS) + probability[known]
        if pairs.size and int(probability[known].max()) > PROBABILITY_ONE:
            raise ValueError("a pixel to be counted has no probability")
        return cls(np.bincount(pairs, minlength=2 * LEVELS).reshape(2, LEVELS).astype(np.int64))

    def __add__(self, other: "Levels") -> "Levels":
        """Pool the pixels of two areas."""
        return Levels(self.counts + other.counts)

    def confusion(self, threshold: float) -> Confusion:
        """Return the counts at a threshold."""
        return self._confusion(stored_threshold(threshold))

    def curve(self) -> list[dict[str, float]]:
        """Return threshold, IoU, Dice, precision and recall of the target at every stored probability above 0."""
        values = range(1, LEVELS)
        figures = [self._confusion(value).of_class("building") for value in values]
        keys = ("iou", "dice", "precision", "recall")
        return [
            {"threshold": value / PROBABILITY_ONE} | {key: found[key] for key in keys}
            for value, found in zip(values, figures, strict=True)
        ]

    def bins(self, count: int = BINS) -> list[Bin]:
        """Return the reliability table: equal bins over 0 to 1."""
        probability = np.arange(LEVELS) / PROBABILITY_ONE
        edges = np.linspace(0, 1, count + 1)
        index = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, count - 1)
        pixels = _sum(index, self.counts.sum(axis=0), count)
        confidence = _sum(index, self.counts.sum(axis=0) * probability, count)
        hits = _sum(index, self.counts[1], count)
        with np.errstate(invalid="ignore"):
            columns = (edges[:-1], edges[1:], pixels, confidence / pixels, hits / pixels)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Bin(low, high, int(n), p, f) for low, high, n, p, f in rows]

    def calibration_error(self, count: int = BINS) -> float:
        """Return the expected calibration error of the target's probability; NaN without pixels.

        The mean over bins of |share that is the target - mean probability|, weighted by their pixels: Naeini, Cooper
        and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; equal bins as in
        Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
        """
        filled = [b for b in self.bins(count) if b.pixels]
        total = sum(b.pixels for b in filled)
        gap = sum(b.pixels * abs(b.frequency - b.confidence) for b in filled)
        return gap / total if total else float("nan")

    def _confusion(self, value: int) -> Confusion:
        below, above = self.counts[:, :value].sum(axis=1), self.counts[:, value:].sum(axis=1)
        return Confusion(np.stack((below, above), axis=1))


def _sum(index: NDArray[np.intp], values: NDArray[np.int64] | NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.bincount(index, weights=values, minlength=count).astype(np.float64)
