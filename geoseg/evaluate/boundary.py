"""Boundary IoU: how well outlines agree, counted in pixels near them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOUNDARY_M = 1.0
"""Width of the boundary on the ground, metres: `docs/evaluation.md` says why."""

BOUNDARY_PX = 3
"""Width of the boundary in a picture whose pixels have no size on the ground."""


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
        return [common / either if either else float("nan") for common, either in pairs]


def count_boundary(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], inner: tuple[slice, slice], *, classes: int, width_px: int
) -> BoundaryCounts:
    """Count the boundary pixels of a window.

    Boundary IoU (Cheng, Girshick, Dollar, Berg and Kirillov, "Boundary IoU: improving object-centric image segmentation
    evaluation", CVPR 2021) is `|Gd & Pd| / |Gd | Pd|`, where `Gd` and `Pd` are the pixels of truth and
    prediction that lie within `d` of their outline. As in its authors' code, `Gd` is what `d` erosions by a square of
    3 x 3 pixels take away. Unlike there, the border of what is known is no outline: an object that it cuts goes on.

    Args:
        predicted: Class indices with a halo of `width_px` around the inner pixels, as far as the scene goes, `(y, x)`.
        truth: The same of the truth; indices that are no class are unknown in either.
        inner: The pixels to count.
        classes: How many classes there are.
        width_px: The distance `d`, pixels.
    """
    unknown = (predicted >= classes) | (truth >= classes)
    counts = [_count_class(predicted == i, truth == i, unknown, inner, width_px) for i in range(classes)]
    common, either = zip(*counts, strict=True)
    return BoundaryCounts(np.array(common, np.int64), np.array(either, np.int64))


def _count_class(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    unknown: NDArray[np.bool_],
    inner: tuple[slice, slice],
    d: int,
) -> tuple[int, int]:
    p, g = (rim_of(mask, unknown, d)[inner] for mask in (predicted, truth))
    return int(np.count_nonzero(p & g)), int(np.count_nonzero(p | g))


def rim_of(mask: NDArray[np.bool_], unknown: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a known pixel outside it within `width_px` rows and columns."""
    known = mask & ~unknown
    if not known.any():
        return known
    outside = ~mask & ~unknown
    for axis in (0, 1):
        outside = _spread(outside, width_px, axis)
    return np.asarray(known & outside)


def _spread(mask: NDArray[np.bool_], px: int, axis: int) -> NDArray[np.bool_]:
    """Return where a mask has a True within `px` pixels along an axis, by doubling steps."""
    done, step = mask.copy() if px else mask, 0
    while step < px:
        move = min(max(step, 1), px - step)
        wider = done.copy()
        ahead, behind = _slices(move, axis)
        wider[ahead] |= done[behind]
        wider[behind] |= done[ahead]
        done, step = wider, step + move
    return done


def _slices(px: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of what lies at least `px` after the beginning, and before the end, of an axis."""
    rest = (slice(None),) * axis
    return (*rest, slice(px, None)), (*rest, slice(None, -px))
