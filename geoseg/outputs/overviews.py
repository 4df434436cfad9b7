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
    winner = a.copy()
    _elect(winner, (a != b) & (a != c), (a, b, c, d), _vote)
    if (pixels == NODATA).any():
        _elect(winner, (a == NODATA) | (b == NODATA) | (c == NODATA) | (d == NODATA), (a, b, c, d), _vote_with_gaps)
    return winner


def _elect(
    winner: Pixels, where: NDArray[np.bool_], corners: tuple[Pixels, ...], vote: Callable[[Pixels], Pixels]
) -> None:
    """Put the winners of some cells in their places; most cells hold one value, and the first wins."""
    cells = np.flatnonzero(where)
    winner.flat[cells] = vote(np.stack([corner.ravel()[cells] for corner in corners]))


def _vote(corners: Pixels) -> Pixels:
    """Elect among `(4, cell)` values that all count and of which the first differs from the second and the third."""
    a, b, c, d = corners
    winner: Pixels = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return winner


def _vote_with_gaps(corners: Pixels) -> Pixels:
    """Elect among `(4, cell)` values of which those without data do not count."""
    order = np.argsort(corners == NODATA, axis=0, kind="stable")
    ranked = np.take_along_axis(corners, order, axis=0)
    first, second, third, _ = ranked
    has_pair = (second == third) & (second != first) & (second != NODATA)
    winner: Pixels = np.where(has_pair, second, first)
    return winner


def _sum_cells(pixels: Pixels) -> NDArray[np.uint16]:
    """Sum every two by two pixels, neighbors in a row read as one number of 16 bits: strides of two are slow."""
    pairs = np.ascontiguousarray(pixels).view("<u2")
    sums: NDArray[np.uint16] = (pairs & 0xFF) + (pairs >> 8)
    return sums[0::2] + sums[1::2]


def _split_cells(pixels: Pixels) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return upper left, upper right, lower left and lower right of every two by two pixels."""
    pairs = np.ascontiguousarray(pixels).view("<u2")
    upper, lower = pairs[0::2], pairs[1::2]
    return (
        upper.astype(np.uint8),
        (upper >> 8).astype(np.uint8),
        lower.astype(np.uint8),
        (lower >> 8).astype(np.uint8),
    )
