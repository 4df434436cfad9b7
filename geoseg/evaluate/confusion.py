"""Counts of right and wrong pixels, and the metrics that follow from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixels by prediction and truth; only pixels with data and label count.

    Attributes:
        hits: Building, and called so.
        false_alarms: Called building, but none.
        misses: Building, but not called so.
        rejections: No building, and not called so.
    """

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    rejections: int = 0

    @classmethod
    def count(cls, predicted: NDArray[np.bool_], truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> "Confusion":
        """Count the pixels of `(y, x)` prediction and truth where `known` is True."""
        pairs = 2 * truth[known].astype(np.uint8) + predicted[known]
        rejections, false_alarms, misses, hits = (int(n) for n in np.bincount(pairs, minlength=4))
        return cls(hits, false_alarms, misses, rejections)

    def __add__(self, other: "Confusion") -> "Confusion":
        """Pool the pixels of two areas."""
        return Confusion(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
            self.rejections + other.rejections,
        )

    @property
    def pixels(self) -> int:
        """Pixels counted."""
        return self.hits + self.false_alarms + self.misses + self.rejections

    def metrics(self) -> dict[str, Any]:
        """Return IoU, Dice, precision, recall (each NaN where nothing could be found) and accuracy."""
        found, there = self.hits + self.false_alarms, self.hits + self.misses
        return {
            "iou": _ratio(self.hits, found + self.misses),
            "dice": _ratio(2 * self.hits, found + there),
            "precision": _ratio(self.hits, found),
            "recall": _ratio(self.hits, there),
            "accuracy": _ratio(self.hits + self.rejections, self.pixels),
            "pixels": self.pixels,
            "building_pixels": there,
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
