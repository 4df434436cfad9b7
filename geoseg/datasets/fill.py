"""Pixels without data, filled so that a network sees believable ground there."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill_invalid(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Mirror valid pixels into invalid ones: along the row, and rows without any valid pixel along the column.

    A pixel at offset `d` beyond the nearest valid pixel `p` of its row takes the value at `p - d`; where that lies
    outside the array or is not valid, the value at `p`. Networks otherwise see a hard edge to black and draw buildings
    on it.

    Args:
        values: `(band, y, x)` pixels.
        valid: `(y, x)`, True where there is data.

    Returns:
        `(band, y, x)`: `values` itself where all is valid, else a filled copy; zeros where nothing is valid.
    """
    if valid.all():
        return values
    if not valid.any():
        return np.zeros_like(values)
    out = values.copy()
    has_data = np.asarray(valid.any(axis=1))
    partly = np.flatnonzero(has_data & ~valid.all(axis=1))
    row, col, source = _mirrors(valid[partly])
    row = partly[row]
    out[:, row, col] = values[:, row, source]
    _, empty, source = _mirrors(has_data[None])
    out[:, empty] = out[:, source]
    return out


def _mirrors(valid: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return row and column of each invalid pixel of `(row, x)`, and the column whose value it takes.

    Every row has a valid pixel. The work is that of the invalid pixels, run by run.
    """
    width = valid.shape[1]
    edges = np.diff(np.pad(~valid, ((0, 0), (1, 1))).view(np.int8), axis=1)
    (rows, starts), stops = np.nonzero(edges == 1), np.nonzero(edges == -1)[1]
    lengths = stops - starts
    row = np.repeat(rows, lengths)
    col = np.arange(row.size) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
    left = np.repeat(np.where(starts > 0, starts - 1, -2 * width), lengths)
    right = np.repeat(np.where(stops < width, stops, 3 * width), lengths)
    near = np.where(col - left <= right - col, left, right)
    far = 2 * near - col
    mirrored = (far >= 0) & (far < width) & valid[row, np.clip(far, 0, width - 1)]
    return row, col, np.where(mirrored, far, near)
