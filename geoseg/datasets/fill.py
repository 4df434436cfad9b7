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
    out[:, partly] = np.take_along_axis(values[:, partly], _mirrors(valid[partly])[None], axis=2)
    return out if has_data.all() else out[:, _mirrors(has_data[None])[0]]


def _mirrors(valid: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return for each pixel of `(row, x)` the column whose value it takes; every row has a valid pixel."""
    width = valid.shape[1]
    here, beyond = np.arange(width), 2 * width
    left = np.maximum.accumulate(np.where(valid, here, -beyond), axis=1)
    right = np.minimum.accumulate(np.where(valid, here, beyond)[:, ::-1], axis=1)[:, ::-1]
    near = np.where(here - left <= right - here, left, right)
    far = 2 * near - here
    mirrored = np.take_along_axis(valid, np.clip(far, 0, width - 1), axis=1) & (far >= 0) & (far < width)
    return np.asarray(np.where(mirrored, far, near), np.intp)
