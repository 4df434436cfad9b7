"""Pixels between pixels: bilinear values at given places, with weights in whole 1/256.

Every pixel is computed by the same operations in the same order, so its value depends on nothing but its place and the
four pixels around it. In float64 the weighted sums of whole numbers of up to 16 bits are exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.scene import Pixels

ONE = 256
"""Places and weights are whole numbers of 1/256."""

STRIP_ROWS = 32
"""Rows sampled at a time: their arrays stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the centers of pixels lie on a raster.

    Attributes:
        row: `(y, x)` rows from the raster's upper border, int64 in 1/256 pixels; the first pixel's center is 128.
        col: `(y, x)` columns from its left border, likewise.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]

    def inside(self, shape: tuple[int, int], slack: int = 0) -> NDArray[np.bool_]:
        """Return `(y, x)`, True for places on a raster, or at most `slack` 1/256 pixels beyond its border."""
        rows = (self.row >= -slack) & (self.row < shape[0] * ONE + slack)
        return np.asarray(rows & (self.col >= -slack) & (self.col < shape[1] * ONE + slack))

    def span(self, shape: tuple[int, int]) -> Window | None:
        """Return the pixels of a raster around these places, as far as they lie on it."""
        top, bottom = (int(f(self.row)) // ONE for f in (np.min, np.max))
        left, right = (int(f(self.col)) // ONE for f in (np.min, np.max))
        around = Window(top - 1, left - 1, bottom - top + 3, right - left + 3)
        return around.intersect(Window(0, 0, *shape))

    def moved(self, rows: int, cols: int) -> "Places":
        """Return the places seen from a raster that begins `rows` and `cols` pixels later."""
        return Places(self.row - rows * ONE, self.col - cols * ONE)


def sample(pixels: Pixels, places: Places, inside: NDArray[np.bool_]) -> Pixels:
    """Return bilinear values at places.

    Args:
        pixels: `(band, y, x)` values and `(y, x)` valid mask of a raster.
        places: Where on it; those that are `inside` lie on the raster, give or take 1/256 of a pixel or two.
        inside: `(y, x)`, True for the places to sample.

    Returns:
        `(band, y, x)` values of the raster's type, zeros where not valid, and the `(y, x)` valid mask: True where the
        nearest pixel is. A value is the mean of the valid ones of the four nearest pixels, weighted.
    """
    out = np.zeros((len(pixels.values), *inside.shape), pixels.values.dtype)
    valid = sample_mask(pixels.valid, places, inside)
    if not valid.any():
        return Pixels(out, valid)
    height, width = pixels.valid.shape
    mask = np.pad(pixels.valid, 1).ravel()
    bands = [np.pad(np.where(pixels.valid, band, 0), 1).ravel() for band in pixels.values]
    corners = (0, 1, width + 2, width + 3)
    """From a pixel to itself, the one to its right, the one below, and the one below to its right."""
    for top in range(0, len(valid), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        row, col = places.row[rows] + ONE // 2, places.col[rows] + ONE // 2  # minus half a pixel, plus the border's one
        down, right = (row % ONE).astype(np.float64), (col % ONE).astype(np.float64)
        first = np.clip(row // ONE, 0, height) * (width + 2) + np.clip(col // ONE, 0, width)
        weights = [(ONE - right) * (ONE - down), right * (ONE - down), (ONE - right) * down, right * down]
        # "clip" because "raise" is slower; no index lies outside
        total = sum(w * mask[c:].take(first, mode="clip") for w, c in zip(weights, corners, strict=True))
        total = np.maximum(total, 1)
        for band, flat in zip(out, bands, strict=True):
            mean = sum(w * flat[c:].take(first, mode="clip") for w, c in zip(weights, corners, strict=True)) / total
            mean = np.floor(mean + 0.5) if out.dtype.kind in "ui" else mean
            band[rows] = np.where(valid[rows], mean, 0).astype(out.dtype)
    return Pixels(out, valid)


def sample_mask(mask: NDArray[np.bool_], places: Places, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `(y, x)`, True for the places inside whose nearest pixel is valid."""
    if mask.all():
        return inside.copy()
    row = np.clip(places.row // ONE, 0, mask.shape[0] - 1)
    col = np.clip(places.col // ONE, 0, mask.shape[1] - 1)
    return np.asarray(inside & mask.ravel().take(row * mask.shape[1] + col))
