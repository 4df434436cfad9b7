"""Counts of pixels and their metrics: by class, near outlines, and by probability."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluate.reliability import Bin, bin_probabilities, calibration_error
from geoseg.inference import PROBABILITY_ONE, stored_threshold

BINARY = ("background", "building")
"""Names of two classes, in the order of their indices."""

BOUNDARY_M = 1.0
"""Default boundary width in meters; `docs/evaluation.md` gives the reason."""

BOUNDARY_PX = 3
"""Default boundary width in pixels for a picture without a CRS."""

BINS = 15
"""Number of bins of the calibration error, as in Guo et al. 2017."""

LEVELS = PROBABILITY_ONE + 1


def ratio(part: float, whole: float) -> float:
    """Return `part / whole`; NaN if `whole` is 0."""
    return part / whole if whole else float("nan")


def mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Pixels by true and predicted class; only valid pixels with a label count.

    Attributes:
        counts: `(true class, predicted class)` int64.
        classes: Names of the classes, in the order of both axes.
    """

    counts: NDArray[np.int64]
    classes: tuple[str, ...] = BINARY

    def __post_init__(self) -> None:
        """Check that there are one row and one column per class."""
        if self.counts.shape != (len(self.classes),) * 2:
            raise ValueError(f"counts of shape {self.counts.shape} for {len(self.classes)} classes")

    @classmethod
    def zeros(cls, classes: Sequence[str] = BINARY) -> "Confusion":
        """Return counts of 0."""
        return cls(np.zeros((len(classes),) * 2, np.int64), tuple(classes))

    @classmethod
    def count(
        cls, predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: Sequence[str] = BINARY
    ) -> "Confusion":
        """Count the pixels of `(y, x)` class indices; other indices are unknown and do not count."""
        n = len(classes)
        known = (predicted < n) & (truth < n)
        pairs = truth[known].astype(np.uint16) * np.uint16(n) + predicted[known]
        return cls(np.bincount(pairs, minlength=n * n).reshape(n, n).astype(np.int64), tuple(classes))

    def __add__(self, other: "Confusion") -> "Confusion":
        """Add the pixels of two areas.

        Raises:
            ValueError: If the classes are not the same.
        """
        if self.classes != other.classes:
            raise ValueError(f"pixels of the classes {self.classes} and of {other.classes} cannot be added")
        return Confusion(self.counts + other.counts, self.classes)

    def __eq__(self, other: object) -> bool:
        """Return True if counts and classes are the same."""
        return (
            isinstance(other, Confusion) and self.classes == other.classes and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]  # an array inside

    @property
    def pixels(self) -> int:
        """Number of counted pixels."""
        return int(self.counts.sum())

    def of_class(self, name: str) -> dict[str, float | int]:
        """Return IoU, Dice (F1), precision and recall of a class, NaN if not defined, and its number of true pixels."""
        index = self.classes.index(name)
        tp = int(self.counts[index, index])
        true, found = int(self.counts[index].sum()), int(self.counts[:, index].sum())
        return {
            "iou": ratio(tp, true + found - tp),
            "dice": ratio(2 * tp, true + found),
            "precision": ratio(tp, found),
            "recall": ratio(tp, true),
            "pixels": true,
        }

    def metrics(self, *, target: str = BINARY[1], unscored: Collection[str] = ()) -> dict[str, Any]:
        """Return all metrics.

        Args:
            target: The class whose IoU, Dice, precision and recall are at the top level.
            unscored: Classes excluded from means; their own metrics are still returned.

        Returns:
            The metrics of the target, `pixel_accuracy`, `mean_iou`, `mean_dice`, `pixels`, `classes` with the metrics
            of each class, and `confusion`, whose rows are true and whose columns are predicted classes. Means are over
            the scored classes with a defined metric: a class that is neither true nor predicted does not count as 0.
        """
        per_class = {name: self.of_class(name) for name in self.classes}
        scored = [figures for name, figures in per_class.items() if name not in unscored]
        first = {key: value for key, value in per_class.get(target, {}).items() if key != "pixels"}
        return first | {
            "pixel_accuracy": ratio(int(np.trace(self.counts)), self.pixels),
            "mean_iou": mean([figures["iou"] for figures in scored]),
            "mean_dice": mean([figures["dice"] for figures in scored]),
            "pixels": self.pixels,
            "classes": per_class,
            "confusion": self.counts.tolist(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryCounts:
    """Boundary pixels of truth and prediction, per class.

    Attributes:
        common: Pixels in both, `(class,)` int64.
        either: Pixels in at least one, `(class,)` int64.
    """

    common: NDArray[np.int64]
    either: NDArray[np.int64]

    @classmethod
    def zeros(cls, classes: int) -> "BoundaryCounts":
        """Return counts of 0."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64))

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        """Add the pixels of two areas."""
        return BoundaryCounts(self.common + other.common, self.either + other.either)

    def iou(self) -> list[float]:
        """Return the boundary IoU of each class; NaN for a class that is neither true nor predicted."""
        pairs = zip(self.common.tolist(), self.either.tolist(), strict=True)
        return [ratio(common, either) for common, either in pairs]


def count_boundary(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], inner: tuple[slice, slice], *, classes: int, width_px: int
) -> BoundaryCounts:
    """Count the boundary pixels of a window.

    Boundary IoU (Cheng, Girshick, Dollar, Berg and Kirillov, "Boundary IoU: improving object-centric image segmentation
    evaluation", CVPR 2021) is `|Gd & Pd| / |Gd | Pd|`, where `Gd` and `Pd` are the pixels of truth and prediction that
    lie within `d` of their outline. As in the authors' code, `Gd` is what `d` erosions by a square of 3 x 3 pixels
    remove. Unlike there, the border of the known pixels is not an outline, as objects continue beyond it.

    Args:
        predicted: Predicted class indices, with a halo of `width_px` around `inner` as far as the scene goes, `(y, x)`.
        truth: True class indices, likewise. Indices that are not a class are unknown.
        inner: The pixels to count.
        classes: Number of classes.
        width_px: The distance `d` in pixels.
    """
    unknown = (predicted >= classes) | (truth >= classes)
    counts = BoundaryCounts.zeros(classes)
    for index in range(classes):
        p, g = (rim_of(raster == index, unknown, width_px)[inner] for raster in (predicted, truth))
        counts.common[index], counts.either[index] = np.count_nonzero(p & g), np.count_nonzero(p | g)
    return counts


def rim_of(mask: NDArray[np.bool_], unknown: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask with a known pixel outside the mask within `width_px` rows and columns."""
    known = mask & ~unknown
    if not known.any():
        return known
    outside = ~mask & ~unknown
    return np.asarray(known & _spread(_spread(outside, width_px).T, width_px).T)


def _spread(mask: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    """Return where a mask is True within `px` rows, computed in doubling steps."""
    done, step = mask, 0
    while step < px:
        move = min(max(step, 1), px - step)
        wider = done.copy(order="K")  # keeps the layout of a transposed mask, so that columns are as fast as rows
        wider[move:] |= done[:-move]
        wider[:-move] |= done[move:]
        done, step = wider, step + move
    return done


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Pixels by truth and stored probability of the target, from which all thresholds and bins follow exactly.

    Attributes:
        counts: `(not target, target; stored probability)` int64, `(2, 255)`.
    """

    counts: NDArray[np.int64]

    @classmethod
    def zeros(cls) -> "Levels":
        """Return counts of 0."""
        return cls(np.zeros((2, LEVELS), np.int64))

    @classmethod
    def count(cls, probability: NDArray[np.uint8], truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> "Levels":
        """Count the pixels of `(y, x)` stored probability and truth (True = target) where `known` is True.

        Raises:
            ValueError: If a known pixel has no probability.
        """
        pairs = truth[known] * np.uint16(LEVELS) + probability[known]
        if pairs.size and int(probability[known].max()) > PROBABILITY_ONE:
            raise ValueError("a known pixel has no probability")
        return cls(np.bincount(pairs, minlength=2 * LEVELS).reshape(2, LEVELS).astype(np.int64))

    def __add__(self, other: "Levels") -> "Levels":
        """Add the pixels of two areas."""
        return Levels(self.counts + other.counts)

    def confusion(self, threshold: float) -> Confusion:
        """Return the confusion at a threshold."""
        return self._confusion(stored_threshold(threshold))

    def curve(self) -> list[dict[str, float]]:
        """Return threshold, IoU, Dice, precision and recall of the target for every stored probability above 0."""
        values = range(1, LEVELS)
        figures = [self._confusion(value).of_class("building") for value in values]
        keys = ("iou", "dice", "precision", "recall")
        return [
            {"threshold": value / PROBABILITY_ONE} | {key: found[key] for key in keys}
            for value, found in zip(values, figures, strict=True)
        ]

    def bins(self, count: int = BINS) -> list[Bin]:
        """Return the reliability table: bins of equal width from 0 to 1."""
        probability = np.arange(LEVELS) / PROBABILITY_ONE
        return bin_probabilities(probability, self.counts.sum(axis=0), self.counts[1], count=count)

    def calibration_error(self, count: int = BINS) -> float:
        """Return the expected calibration error of the target's probability; NaN without pixels."""
        return calibration_error(self.bins(count))

    def _confusion(self, value: int) -> Confusion:
        below, above = self.counts[:, :value].sum(axis=1), self.counts[:, value:].sum(axis=1)
        return Confusion(np.stack((below, above), axis=1))
