"""A raster at half its size: four pixels become one, and pixels without data do not count.

The rules are those of GDAL's AVERAGE and MODE for a raster of even height and width
(https://gdal.org/programs/gdaladdo.html). Of an odd one GDAL stretches the last row or column over the others; here
cells are always two by two pixels, of which the last may lie outside and then have no data.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from geoseg.inference import NODATA

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
    pairs = np.ascontiguousarray(pixels).view("<u2")
    corners = [side.astype(np.uint8) for row in (pairs[0::2], pairs[1::2]) for side in (row, row >> 8)]
    a, b, c, d = corners
    winner = a.copy()
    cells = np.flatnonzero((a != b) & (a != c))  # most cells hold one value, and elsewhere the first wins too
    first, second, third, fourth = (corner.ravel()[cells] for corner in corners)
    is_pair = (second == third) | (second == fourth)
    winner.flat[cells] = np.where(is_pair, second, np.where(third == fourth, third, first))
    if (pixels == NODATA).any():
        cells = np.flatnonzero((a == NODATA) | (b == NODATA) | (c == NODATA) | (d == NODATA))
        values = np.stack([corner.ravel()[cells] for corner in corners])
        order = np.argsort(values == NODATA, axis=0, kind="stable")
        first, second, third, _ = np.take_along_axis(values, order, axis=0)
        is_pair = (second == third) & (second != first) & (second != NODATA)
        winner.flat[cells] = np.where(is_pair, second, first)
    return winner


def _sum_cells(pixels: Pixels) -> NDArray[np.uint16]:
    """Sum every two by two pixels, neighbors in a row read as one number of 16 bits: strides of two are slow."""
    pairs = np.ascontiguousarray(pixels).view("<u2")
    sums: NDArray[np.uint16] = (pairs & 0xFF) + (pairs >> 8)
    return sums[0::2] + sums[1::2]
