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
    pixels, sources = _mirrors(valid[partly])
    lines = values[:, partly].reshape(len(values), -1)
    for band in lines:
        band[pixels] = band[sources]
    out[:, partly] = lines.reshape(len(values), *valid[partly].shape)
    rows, sources = _mirrors(has_data[None])
    out[:, rows] = out[:, sources]
    return out


def _mirrors(valid: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the invalid pixels of `(row, x)`, and those whose values they take, by their places in the flat array.

    Every row has a valid pixel. The work is that of the invalid pixels: each run of them is halved, and each half has
    its nearest valid pixel.
    """
    width = valid.shape[1]
    edges = np.diff(np.pad(~valid, ((0, 0), (1, 1))).view(np.int8), axis=1)
    (rows, starts), stops = np.nonzero(edges == 1), np.nonzero(edges == -1)[1]
    left, right = np.where(starts > 0, starts - 1, -2 * width), np.where(stops < width, stops, 3 * width)
    middles = np.clip((left + right) // 2 + 1, starts, stops)
    firsts, near, lines = (np.concatenate(pair) for pair in ((starts, middles), (left, right), (rows, rows)))
    lengths = np.concatenate((middles - starts, stops - middles))
    low = _repeat(lines * width, lengths)
    pixels = np.arange(low.size, dtype=np.int32) + _repeat(
        firsts + lines * width - (np.cumsum(lengths) - lengths), lengths
    )
    nearest = _repeat(near + lines * width, lengths)
    mirrored = 2 * nearest - pixels
    mirrored = np.where((mirrored >= low) & (mirrored < low + width), mirrored, nearest)
    return pixels, np.where(valid.reshape(-1)[mirrored], mirrored, nearest)


def _repeat(values: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.int32]:
    return np.repeat(values.astype(np.int32), lengths)
