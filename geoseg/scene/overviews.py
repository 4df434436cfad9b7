"""Whether an overview shows the pixels of the full resolution; one that was built before they were written does not.

A sample of both is compared in means of small squares. Filters and lossy compression change these little: even of white
noise, whose overview takes every n-th pixel, by an eighth of the pixels' standard deviation.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window

CELL_PX = 8
"""Side in pixels of the overview of a square whose mean is compared."""

SAMPLE_PX = 512
"""Side of a sample in full resolution; `CELL_PX` of the overview where that is more."""

FEWEST_SAMPLES = 9
"""Samples with data that are compared, if there are as many."""

MOST_DIFFERENT = 0.25
"""Root mean square difference from which on an overview shows something else: of values, in standard deviations; of the
share of pixels that are valid."""

Sample = tuple[NDArray[Any], NDArray[np.bool_]]
"""`(band, y, x)` values and `(y, x)` valid mask."""


def sample_windows(shape: tuple[int, int], factor: float) -> Iterator[Window]:
    """Yield windows of an overview, spread over it: nine, then more for scenes that have little data.

    Args:
        shape: Height and width of the overview.
        factor: Pixels of the full resolution per pixel of the overview, along an axis.
    """
    side = max(CELL_PX, int(SAMPLE_PX / factor) // CELL_PX * CELL_PX)
    height, width = (min(side, max(CELL_PX, n // 3), n) for n in shape)
    for count in (3, 9):
        for row, col in product(range(count), repeat=2):
            top, left = ((2 * i + 1) * n // (2 * count) for i, n in ((row, shape[0]), (col, shape[1])))
            top, left = max(0, top - height // 2), max(0, left - width // 2)
            yield Window(min(top, shape[0] - height), min(left, shape[1] - width), height, width)


def show_the_same(exact: list[Sample], coarse: list[Sample]) -> bool:
    """Return True if samples of an overview show what those of the full resolution, averaged to its pixels, show."""
    true, found, shares, both_pixels = [], [], [], []
    for (fine, fine_valid), (other, other_valid) in zip(exact, coarse, strict=True):
        both = fine_valid & other_valid
        share = _cells(both[None])[0]
        true.append(_cells(fine * both)[:, share > 0] / share[share > 0])
        found.append(_cells(other * both)[:, share > 0] / share[share > 0])
        shares.append(np.abs(_cells(fine_valid[None]) - _cells(other_valid[None])).ravel())
        both_pixels.append((fine[:, fine_valid].astype(np.float64), other[:, other_valid].astype(np.float64)))
    if shares and np.sqrt((np.concatenate(shares) ** 2).mean()) > MOST_DIFFERENT:
        return False
    if not sum(part.size for part in true):
        return True
    pixels, others = (np.concatenate(parts, axis=1) for parts in zip(*both_pixels, strict=True))
    step = 1.0 if exact[0][0].dtype.kind in "ui" else 1e-6 * np.abs(pixels).max(axis=1)  # what rounding may change
    deviation = np.maximum(pixels.std(axis=1), others.std(axis=1))  # averaging makes that of noise smaller
    difference = np.concatenate(true, axis=1) - np.concatenate(found, axis=1)
    return bool((np.sqrt((difference**2).mean(axis=1)) <= np.maximum(MOST_DIFFERENT * deviation, step)).all())


def _cells(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of `(band, y, x)` pixels in squares; what remains at the right and the bottom is left out."""
    high, wide = (min(CELL_PX, n) for n in pixels.shape[1:])
    rows, cols = pixels.shape[1] // high, pixels.shape[2] // wide
    cut = pixels[:, : rows * high, : cols * wide]
    means: NDArray[np.float64] = cut.reshape(len(pixels), rows, high, cols, wide).mean(axis=(2, 4), dtype=np.float64)
    return means
