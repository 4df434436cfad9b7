"""Whether probabilities mean what they say: of what is given 0.8, four in five should be true."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels or buildings whose probability lies in `(low, high]`; the first bin includes 0.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        count: Number of pixels or buildings.
        confidence: Their mean probability; NaN if there are none.
        frequency: Share of which it is true; NaN if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    frequency: float

    def to_dict(self, what: str) -> dict[str, Any]:
        """Return the values by name, `count` as `what`."""
        columns = {"low": self.low, "high": self.high, what: self.count}
        return columns | {"confidence": self.confidence, "frequency": self.frequency}


def bin_probabilities(
    probability: NDArray[np.float64], total: NDArray[Any], true: NDArray[Any], *, count: int
) -> list[Bin]:
    """Return the reliability table: bins of equal width from 0 to 1.

    Args:
        probability: From 0 to 1, `(value,)`.
        total: How many pixels or buildings have it, `(value,)`.
        true: Of how many of these it is true, `(value,)`.
        count: Number of bins.
    """
    edges = np.linspace(0, 1, count + 1)
    index = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, count - 1)
    size, confidence, hits = (
        np.bincount(index, weights=weights, minlength=count) for weights in (total, total * probability, true)
    )
    with np.errstate(invalid="ignore"):
        columns = (edges[:-1], edges[1:], size, confidence / size, hits / size)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Bin(low, high, int(n), p, f) for low, high, n, p, f in rows]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error of a reliability table; NaN if it is empty.

    The mean over bins of |share that is true - mean probability|, weighted by what is in them: Naeini, Cooper and
    Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; equal bins as in Guo,
    Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    filled = [b for b in bins if b.count]
    total = sum(b.count for b in filled)
    gap = sum(b.count * abs(b.frequency - b.confidence) for b in filled)
    return gap / total if total else float("nan")
