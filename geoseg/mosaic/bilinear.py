"""Pixels between pixels: bilinear values at given places, one by one, with weights in whole 1/256.

8-bit pixels are summed as whole numbers, three bands and the mask in the four 16-bit lanes of one 64-bit number: one
look-up fetches a pixel, one multiplication weighs it. Other types go through float64, band by band. Both do the same
operations in the same order for every pixel, so a value depends on nothing but its place and the four pixels around it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.scene import Pixels

ONE = 256
"""Places and weights are whole numbers of 1/256."""

WHOLE = ONE * ONE
"""Sum of the four weights."""

LANES = 3
"""Bands in one 64-bit number, beside the mask."""

STRIP_ROWS = 32
_EVEN = np.uint64(0x0000FFFF0000FFFF)
_LOW = np.uint64(0xFFFFFFFF)
_8, _16, _32 = np.uint64(8), np.uint64(16), np.uint64(32)


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

    def strip(self, rows: slice) -> "Places":
        """Return some rows of places."""
        return Places(self.row[rows], self.col[rows])


def sample(pixels: Pixels, places: Places, inside: NDArray[np.bool_]) -> Pixels:
    """Return bilinear values at places.

    Args:
        pixels: `(band, y, x)` values and `(y, x)` valid mask of a raster.
        places: Where on it; those that are `inside` lie on the raster, give or take 1/256 of a pixel or two.
        inside: `(y, x)`, True for the places that are asked for.

    Returns:
        `(band, y, x)` values of the raster's type, zeros where not valid, and the `(y, x)` valid mask: True where the
        nearest pixel is. A value is the mean of the valid ones of the four nearest pixels, weighted.
    """
    out = np.zeros((len(pixels.values), *inside.shape), pixels.values.dtype)
    valid = sample_mask(pixels.valid, places, inside)
    if not valid.any():
        return Pixels(out, valid)
    weigh = _weigh_bytes if out.dtype == np.uint8 else _weigh
    weigh(pixels, places, valid, out)
    return Pixels(out, valid)


def sample_mask(mask: NDArray[np.bool_], places: Places, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `(y, x)`, True for the places inside whose nearest pixel is valid."""
    if mask.all():
        return inside.copy()
    row = np.clip(places.row >> 8, 0, mask.shape[0] - 1)
    col = np.clip(places.col >> 8, 0, mask.shape[1] - 1)
    return np.asarray(inside & mask.ravel().take(row * mask.shape[1] + col))


@dataclass(frozen=True, slots=True)
class _Corners:
    """For each place the number of its upper left pixel in a raster with a border of one pixel, and the fractions."""

    index: NDArray[np.int64]
    right: NDArray[np.int64]
    down: NDArray[np.int64]
    width: int

    @classmethod
    def of(cls, places: Places, shape: tuple[int, int]) -> "_Corners":
        """Return the corners of places on a raster of this shape, those beyond it moved to its border."""
        row, col = places.row + (ONE // 2), places.col + (ONE // 2)  # minus half a pixel, plus the border's one
        down, right = row & (ONE - 1), col & (ONE - 1)
        row >>= 8
        col >>= 8
        np.clip(row, 0, shape[0], out=row)
        np.clip(col, 0, shape[1], out=col)
        row *= shape[1] + 2
        row += col
        return cls(row, right, down, shape[1] + 2)

    def take(self, flat: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the pixels above left, above right, below left and below right of each place."""
        offsets = (0, 1, self.width, self.width + 1)
        return [flat[offset:].take(self.index, mode="clip") for offset in offsets]  # "raise" would be slower


def _weigh_bytes(pixels: Pixels, places: Places, valid: NDArray[np.bool_], out: NDArray[Any]) -> None:
    for first in range(0, len(out), LANES):
        bands = pixels.values[first : first + LANES]
        packed = _pack(bands, pixels.valid).ravel()
        for top in range(0, len(valid), STRIP_ROWS):
            rows = slice(top, top + STRIP_ROWS)
            corners = _Corners.of(places.strip(rows), pixels.valid.shape)
            even, odd = _lerp(packed, corners)
            for lane in range(len(bands)):
                sums = (odd if lane % 2 else even) >> (_32 if lane == 2 else np.uint64(0))
                out[first + lane, rows] = _mean(sums & _LOW, odd >> _32, valid[rows])


def _pack(bands: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return `(y + 2, x + 2)` 64-bit numbers: a 16-bit lane per band, the fourth is 1 where valid; zeros around."""
    packed = np.zeros((valid.shape[0] + 2, valid.shape[1] + 2), np.uint64)
    inner = packed[1:-1, 1:-1]
    np.left_shift(valid, np.uint64(48), out=inner, dtype=np.uint64, casting="unsafe")
    for lane, band in enumerate(bands):
        inner |= np.left_shift(np.where(valid, band, 0), np.uint64(16 * lane), dtype=np.uint64, casting="unsafe")
    return packed


def _lerp(packed: NDArray[np.uint64], corners: _Corners) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the weighted sums of the even and of the odd lanes, 32 bits each.

    `(a << 8) + (b - a) * f` is `a * (256 - f) + b * f` in every lane, whatever the 64-bit number borrows in between.
    """
    a, b, c, d = corners.take(packed)
    right, down = corners.right.view(np.uint64), corners.down.view(np.uint64)
    above, below = _between(a, b, right), _between(c, d, right)
    even = _between(above & _EVEN, below & _EVEN, down)
    odd = _between((above >> _16) & _EVEN, (below >> _16) & _EVEN, down)
    return even, odd


def _between(a: NDArray[np.uint64], b: NDArray[np.uint64], fraction: NDArray[np.uint64]) -> NDArray[np.uint64]:
    b -= a
    b *= fraction
    a <<= _8
    a += b
    return a


def _mean(sums: NDArray[np.uint64], weight: NDArray[np.uint64], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return sums over weights, rounded half up; zero where not valid."""
    mean = ((sums + np.uint64(WHOLE // 2)) >> _16).astype(np.uint8)
    partly = (weight != WHOLE) & valid
    if partly.any():
        some = weight[partly]
        mean[partly] = (2 * sums[partly] + some) // (2 * some)
    return np.where(valid, mean, np.uint8(0))


def _weigh(pixels: Pixels, places: Places, valid: NDArray[np.bool_], out: NDArray[Any]) -> None:
    """Write the weighted means of pixels of any type, in float64."""
    mask = np.pad(pixels.valid, 1).ravel()
    padded = [np.pad(np.where(pixels.valid, band, 0), 1).ravel() for band in pixels.values]
    for top in range(0, len(valid), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        corners = _Corners.of(places.strip(rows), pixels.valid.shape)
        right, down = corners.right.astype(np.float64), corners.down.astype(np.float64)
        weights = [(ONE - right) * (ONE - down), right * (ONE - down), (ONE - right) * down, right * down]
        parts = [w * m for w, m in zip(weights, corners.take(mask), strict=True)]
        whole = np.maximum(sum(parts), 1)
        for band, flat in enumerate(padded):
            mean = sum(w * v for w, v in zip(weights, corners.take(flat), strict=True)) / whole
            mean = np.floor(mean + 0.5) if out.dtype.kind in "ui" else mean
            out[band, rows] = np.where(valid[rows], mean, 0).astype(out.dtype)
