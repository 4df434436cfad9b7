"""Counts of pixels by true and predicted class, and the metrics that follow from them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINARY = ("background", "building")
"""Classes of a binary truth, in the order of its values."""


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Pixels by truth and prediction; only pixels with data and label count.

    Attributes:
        counts: `(true class, predicted class)` int64.
        classes: Names of the classes, in the order of both axes.
    """

    counts: NDArray[np.int64]
    classes: tuple[str, ...] = BINARY

    def __post_init__(self) -> None:
        """Refuse counts that are not one row and one column per class."""
        if self.counts.shape != (len(self.classes),) * 2:
            raise ValueError(f"counts of shape {self.counts.shape} for {len(self.classes)} classes")

    @classmethod
    def zeros(cls, classes: Sequence[str] = BINARY) -> "Confusion":
        """Return no pixels."""
        return cls(np.zeros((len(classes),) * 2, np.int64), tuple(classes))

    @classmethod
    def count(
        cls, predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: Sequence[str] = BINARY
    ) -> "Confusion":
        """Count the pixels of `(y, x)` class indices; indices that are no class are unknown and do not count."""
        n = len(classes)
        known = (predicted < n) & (truth < n)
        pairs = truth[known].astype(np.uint16) * np.uint16(n) + predicted[known]
        return cls(np.bincount(pairs, minlength=n * n).reshape(n, n).astype(np.int64), tuple(classes))

    def __add__(self, other: "Confusion") -> "Confusion":
        """Pool the pixels of two areas.

        Raises:
            ValueError: If the classes are not the same.
        """
        if self.classes != other.classes:
            raise ValueError(f"pixels of the classes {self.classes} and of {other.classes} do not pool")
        return Confusion(self.counts + other.counts, self.classes)

    def __eq__(self, other: object) -> bool:
        """Return True for the same counts of the same classes."""
        return (
            isinstance(other, Confusion) and self.classes == other.classes and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]  # an array inside

    @property
    def pixels(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    def of_class(self, name: str) -> dict[str, float | int]:
        """Return IoU, Dice (F1), precision and recall of a class, each NaN where it does not exist, and its pixels."""
        index = self.classes.index(name)
        hits = int(self.counts[index, index])
        there, found = int(self.counts[index].sum()), int(self.counts[:, index].sum())
        return {
            "iou": _ratio(hits, there + found - hits),
            "dice": _ratio(2 * hits, there + found),
            "precision": _ratio(hits, found),
            "recall": _ratio(hits, there),
            "pixels": there,
        }

    def metrics(self, *, target: str = BINARY[1], unscored: Collection[str] = ()) -> dict[str, Any]:
        """Return all metrics.

        Args:
            target: The class whose IoU, Dice, precision and recall stand by themselves.
            unscored: Classes that the means leave out; their own figures are there all the same.

        Returns:
            The target's figures, `pixel_accuracy`, `mean_iou`, `mean_dice`, `pixels`, `classes` with the figures of
            each, and `confusion`: rows are the truth, columns the prediction. Means are over the scored classes whose
            figure exists: a class that neither truth nor prediction has is no zero.
        """
        per_class = {name: self.of_class(name) for name in self.classes}
        scored = [figures for name, figures in per_class.items() if name not in unscored]
        first = {key: value for key, value in per_class.get(target, {}).items() if key != "pixels"}
        return first | {
            "pixel_accuracy": _ratio(int(np.trace(self.counts)), self.pixels),
            "mean_iou": _mean([figures["iou"] for figures in scored]),
            "mean_dice": _mean([figures["dice"] for figures in scored]),
            "pixels": self.pixels,
            "classes": per_class,
            "confusion": self.counts.tolist(),
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
