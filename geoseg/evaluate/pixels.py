"""Counts of pixels, and the metrics that follow from them: by class, near outlines, by probability."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.inference import PROBABILITY_ONE, stored_threshold

BINARY = ("background", "building")
"""Classes of a binary truth, in the order of its values."""

BOUNDARY_M = 1.0
"""Width of the boundary on the ground, meters: `docs/evaluation.md` says why."""

BOUNDARY_PX = 3
"""Width of the boundary in a picture whose pixels have no size on the ground."""

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""

LEVELS = PROBABILITY_ONE + 1


def ratio(part: float, whole: float) -> float:
    """Return a share, NaN of nothing."""
    return part / whole if whole else float("nan")


def mean(values: Sequence[float]) -> float:
    """Return the mean of the figures that exist, NaN where none does."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


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
        """Count the pixels of `(y, x)` class indices; indices that are not a class are unknown and do not count."""
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
            "iou": ratio(hits, there + found - hits),
            "dice": ratio(2 * hits, there + found),
            "precision": ratio(hits, found),
            "recall": ratio(hits, there),
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
            figure exists: a class that neither truth nor prediction has does not count as zero.
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
        common: In both, `(class,)` int64.
        either: In any of them, `(class,)` int64.
    """

    common: NDArray[np.int64]
    either: NDArray[np.int64]

    @classmethod
    def zeros(cls, classes: int) -> "BoundaryCounts":
        """Return no pixels."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64))

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        """Pool the pixels of two areas."""
        return BoundaryCounts(self.common + other.common, self.either + other.either)

    def iou(self) -> list[float]:
        """Return the boundary IoU of each class, NaN where neither truth nor prediction has it."""
        pairs = zip(self.common.tolist(), self.either.tolist(), strict=True)
        return [ratio(common, either) for common, either in pairs]


def count_boundary(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], inner: tuple[slice, slice], *, classes: int, width_px: int
) -> BoundaryCounts:
    """Count the boundary pixels of a window.

    Boundary IoU (Cheng, Girshick, Dollar, Berg and Kirillov, "Boundary IoU: improving object-centric image segmentation
    evaluation", CVPR 2021) is `|Gd & Pd| / |Gd | Pd|`, where `Gd` and `Pd` are the pixels of truth and prediction that
    lie within `d` of their outline. As in its authors' code, `Gd` is what `d` erosions by a square of 3 x 3 pixels take
    away. Unlike there, the border of the known pixels is not an outline: an object continues beyond it.

    Args:
        predicted: Class indices with a halo of `width_px` around the inner pixels, as far as the scene goes, `(y, x)`.
        truth: The same of the truth; indices that are not a class are unknown in either.
        inner: The pixels to count.
        classes: How many classes there are.
        width_px: The distance `d`, pixels.
    """
    unknown = (predicted >= classes) | (truth >= classes)
    counts = BoundaryCounts.zeros(classes)
    for index in range(classes):
        p, g = (rim_of(raster == index, unknown, width_px)[inner] for raster in (predicted, truth))
        counts.common[index], counts.either[index] = np.count_nonzero(p & g), np.count_nonzero(p | g)
    return counts


def rim_of(mask: NDArray[np.bool_], unknown: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a known pixel outside it within `width_px` rows and columns."""
    known = mask & ~unknown
    if not known.any():
        return known
    outside = ~mask & ~unknown
    return np.asarray(known & _spread(_spread(outside, width_px).T, width_px).T)


def _spread(mask: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    """Return where a mask has a True within `px` rows, by doubling steps."""
    done, step = mask, 0
    while step < px:
        move = min(max(step, 1), px - step)
        wider = done.copy(order="K")  # the layout of a transposed mask is kept: its columns are as fast as its rows
        wider[move:] |= done[:-move]
        wider[:-move] |= done[move:]
        done, step = wider, step + move
    return done


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
    """Pixels by truth and stored probability of the target; every threshold and every bin follow from it exactly.

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
