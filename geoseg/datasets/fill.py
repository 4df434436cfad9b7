"""Pixels without data, filled so that a network sees believable ground there."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill_invalid(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Mirror valid pixels into invalid ones, across the nearest valid pixel.

    A pixel at offset `d` beyond its nearest valid pixel `p` takes the value at `p - d`; where that is invalid too, or
    outside the array, it takes the value at `p`. Networks otherwise see a hard edge to black and draw buildings on it.

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
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    rows, cols = np.nonzero(~valid)
    near_rows, near_cols = nearest[:, rows, cols]
    far_rows, far_cols = 2 * near_rows - rows, 2 * near_cols - cols
    height, width = valid.shape
    inside = (far_rows >= 0) & (far_rows < height) & (far_cols >= 0) & (far_cols < width)
    far_rows, far_cols = np.where(inside, far_rows, near_rows), np.where(inside, far_cols, near_cols)
    usable = valid[far_rows, far_cols]
    out = values.copy()
    out[:, rows, cols] = values[:, np.where(usable, far_rows, near_rows), np.where(usable, far_cols, near_cols)]
    return out
