"""A raster at half its size: four pixels become one, and pixels without data do not count.

The rules are those of GDAL's AVERAGE and MODE for a raster of even height and width
(https://gdal.org/programs/gdaladdo.html). Of an odd one GDAL stretches the last row or column over the others; here
cells are always two by two pixels, of which the last may lie outside and then have no data.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

NODATA = 255

Pixels = NDArray[np.uint8]
Halving = Callable[[Pixels], Pixels]
"""`(2y, 2x)` uint8 pixels to `(y, x)`, 255 where none of the four has data."""


def halve_average(pixels: Pixels) -> Pixels:
    """Return the mean of every two by two pixels that have data, halves rounded up.

    Args:
        pixels: `(2y, 2x)` uint8, 255 = no data.
    """
    is_empty = pixels == NODATA
    if not is_empty.any():
        return ((_sum_cells(pixels) + 2) >> 2).astype(np.uint8)
    total = _sum_cells(np.where(is_empty, np.uint8(0), pixels))
    count = 4 - _sum_cells(is_empty.view(np.uint8))
    mean = ((total + 2) >> 2).astype(np.uint8)
    cut = (count < 4) & (count > 0)
    mean[cut] = (total[cut] + (count[cut] >> 1)) // count[cut]
    mean[count == 0] = NODATA
    return mean


def halve_majority(pixels: Pixels) -> Pixels:
    """Return the commonest value of every two by two pixels that have data.

    Among equally common values wins the one that is complete first in reading order (first row left to right, then
    second): of `0 1 / 1 0` it is 1, the second 1 comes before the second 0; of four different ones it is the first.

    Args:
        pixels: `(2y, 2x)` uint8, 255 = no data.
    """
    a, b, c, d = _split_cells(pixels)
    winner = _vote(a, b, c, d)
    is_cut = (a == NODATA) | (b == NODATA) | (c == NODATA) | (d == NODATA)
    if is_cut.any():
        winner[is_cut] = _vote_with_gaps(np.stack([corner[is_cut] for corner in (a, b, c, d)]))
    return winner


def _vote(a: Pixels, b: Pixels, c: Pixels, d: Pixels) -> Pixels:
    """Elect among four values that all count."""
    b_or_later = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c), a, b_or_later)


def _vote_with_gaps(corners: Pixels) -> Pixels:
    """Elect among `(4, cell)` values of which those without data do not count."""
    order = np.argsort(corners == NODATA, axis=0, kind="stable")
    ranked = np.take_along_axis(corners, order, axis=0)
    first, second, third, _ = ranked
    has_pair = (second == third) & (second != first) & (second != NODATA)
    winner: Pixels = np.where(has_pair, second, first)
    return winner


def _sum_cells(pixels: Pixels) -> NDArray[np.uint16]:
    """Sum every two by two pixels, neighbours in a row read as one number of 16 bits: strides of two are slow."""
    pairs = np.ascontiguousarray(pixels).view("<u2")
    sums: NDArray[np.uint16] = (pairs & 0xFF) + (pairs >> 8)
    return sums[0::2] + sums[1::2]


def _split_cells(pixels: Pixels) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return upper left, upper right, lower left and lower right of every two by two pixels."""
    pairs = np.ascontiguousarray(pixels).view("<u2")
    left, right = pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)
    return left[0::2], right[0::2], left[1::2], right[1::2]
