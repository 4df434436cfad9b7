"""Exact resampling between two grids of one extent.

Shrinking averages over the area of the new pixel; enlarging is bilinear between pixel centers. Both are separable:
`out = Wy @ pixels @ Wx.T`, with the weights of an axis rounded to multiples of 1/256 that add up to exactly 1.
Whole-number weights make every sum of 8-bit pixels exact in float32 (at most 255 * 2**16 < 2**24) and of 16-bit
pixels exact in float64, so a pixel's value depends neither on the window it was read through, nor on the order of
summation, nor on the machine. GDAL's own averaging depends on the window in the last gray level.

Almost all weights are zero: a target pixel sees three or four source pixels of an axis. So rows are added up one by one
in whole numbers (255 * 256 fits into 16 bits), and columns in small groups, by matrix products.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHT_ONE = 256
STRIP_ROWS = 32
STRIP_COLS = 12
"""Target columns in one matrix product; more would multiply more zeros."""

ROW_SUMS = {"uint8": np.uint16, "uint16": np.uint32}
"""The type that holds a pixel times 256, where sums of rows are whole numbers."""

ReadSource = Callable[[slice, slice], tuple[NDArray[np.generic], NDArray[np.bool_] | None]]
"""Read source rows and columns -> `(band, y, x)` pixels and `(y, x)` valid mask, None where all are valid."""

RowTerms = tuple[NDArray[np.intp], NDArray[np.intp]]
"""What `Axis.terms` returns, the first row of the strip being 0."""

ColumnWeights = list[tuple[slice, slice, NDArray[np.floating]]]
"""Columns of the output, columns of the strip and weights of every group of `STRIP_COLS` columns."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: `source` pixels and `target` pixels over the same extent."""

    source: int
    target: int

    def source_span(self, start: int, stop: int) -> slice:
        """Return the source pixels that the target pixels `[start, stop)` depend on."""
        if self.source >= self.target:
            return slice(start * self.source // self.target, -(-stop * self.source // self.target))
        first, _ = self._between(start)
        last, _ = self._between(stop - 1)
        return slice(max(0, first), min(self.source, last + 2))

    def terms(self, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the source pixels that each target pixel is made of, and their weights.

        Returns:
            Two `(stop - start, n)` arrays: source pixels, and whole-number weights that add up to 256. A source pixel
            may appear with a weight of 0, or twice.
        """
        targets = np.arange(start, stop)[:, None]
        if self.source >= self.target:  # the share of each source pixel in the target pixel's area
            low, high = targets * self.source, (targets + 1) * self.source
            first, last = low // self.target, -(-high // self.target)
            pixels = first + np.arange((last - first).max() + 1)
            edges = np.clip(pixels * self.target, low, high) - low
            weights = np.diff((edges * WEIGHT_ONE + self.source // 2) // self.source)
            return np.minimum(pixels[:, :-1], last - 1), weights
        left, way = np.divmod((2 * targets + 1) * self.source - self.target, 2 * self.target)  # bilinear
        right_weight = np.round(way / (2 * self.target) * WEIGHT_ONE).astype(np.intp)
        pixels = np.clip(left + np.arange(2), 0, self.source - 1)
        return pixels, np.concatenate((WEIGHT_ONE - right_weight, right_weight), axis=1)

    def weights(self, start: int, stop: int, dtype: type[np.floating]) -> NDArray[np.floating]:
        """Return `(stop - start, source pixels of source_span)` whole-number weights; each row adds up to 256."""
        span = self.source_span(start, stop)
        out = np.zeros((stop - start, span.stop - span.start), dtype)
        pixels, weights = self.terms(start, stop)
        np.add.at(out, (np.arange(stop - start)[:, None], pixels - span.start), weights)
        return out

    def _between(self, target: int) -> tuple[int, int]:
        """Return the source pixel left of a target pixel's center, and the way on to the next one times 2 `target`."""
        return divmod((2 * target + 1) * self.source - self.target, 2 * self.target)


def resample(
    read: ReadSource, axes: tuple[Axis, Axis], rows: slice, cols: slice, bands: int, dtype: np.dtype[np.generic]
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Resample a window.

    Args:
        read: Reads rows and columns of the source.
        axes: The `y` and the `x` axis.
        rows: Rows of the target.
        cols: Columns of the target.
        bands: Number of bands that `read` returns.
        dtype: Type of the pixels.

    Returns:
        `(band, y, x)` pixels of `dtype` and the `(y, x)` valid mask: True where at least half of the weight lies on
        valid pixels, of which alone the value is made.
    """
    out = np.zeros((bands, rows.stop - rows.start, cols.stop - cols.start), dtype)
    valid = np.ones(out.shape[1:], bool)
    exact = np.float32 if dtype == np.uint8 else np.float64  # holds every sum of pixels exactly
    span = axes[1].source_span(cols.start, cols.stop)
    columns: ColumnWeights = []
    for left in range(cols.start, cols.stop, STRIP_COLS):
        right = min(left + STRIP_COLS, cols.stop)
        here, source = slice(left - cols.start, right - cols.start), axes[1].source_span(left, right)
        in_strip = slice(source.start - span.start, source.stop - span.start)
        columns.append((here, in_strip, axes[1].weights(left, right, exact)))
    for top in range(rows.start, rows.stop, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, rows.stop)
        here = slice(top - rows.start, bottom - rows.start)
        source = axes[0].source_span(top, bottom)
        pixels, mask = read(source, span)
        lines, weights = axes[0].terms(top, bottom)
        out[:, here], valid[here] = _weigh_strip(pixels, mask, (lines - source.start, weights), columns)
    return out, valid


def _weigh_strip(
    pixels: NDArray[np.generic], mask: NDArray[np.bool_] | None, rows: RowTerms, columns: ColumnWeights
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Average one strip of source pixels, all valid or partly; `(band, y, x)` and `(y, x)`."""
    one, shape = WEIGHT_ONE * WEIGHT_ONE, (len(rows[0]), columns[-1][0].stop)
    if mask is None or mask.all():
        return _divide(_apply(pixels, rows, columns), one, pixels.dtype), np.ones(shape, bool)
    if not mask.any():
        return np.zeros((len(pixels), *shape), pixels.dtype), np.zeros(shape, bool)
    weight = _apply(mask[None].view(np.uint8), rows, columns)
    sums = _apply(pixels * mask, rows, columns)
    return _divide(sums, np.maximum(weight, 1), pixels.dtype), (weight[:, 0] >= one / 2).T


def _apply(pixels: NDArray[Any], rows: RowTerms, columns: ColumnWeights) -> NDArray[Any]:
    """Return the weighted sums of `(band, y, x)` source pixels for the target, as `(x, band, y)`."""
    kind = np.dtype(ROW_SUMS.get(pixels.dtype.name, np.float64))  # sums of rows are whole numbers if the pixels are
    tall = np.zeros((len(pixels), len(rows[0]), pixels.shape[2]), kind)
    term = np.empty_like(tall[:, 0])
    for row, (sources, weights) in enumerate(zip(*rows, strict=True)):
        for source, weight in zip(sources, weights.astype(kind), strict=True):
            if weight:
                tall[:, row] += np.multiply(pixels[:, source], weight, out=term)
    lines = tall.reshape(-1, tall.shape[2])
    exact = columns[0][2].dtype
    out = np.empty((columns[-1][0].stop, len(lines)), exact)
    for target, part, factors in columns:
        np.matmul(factors, lines[:, part].T.astype(exact, order="C"), out=out[target])
    return out.reshape(-1, *tall.shape[:2])


def _divide(sums: NDArray[Any], weight: NDArray[Any] | float, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Return `(band, y, x)` means of `(x, band, y)` sums, rounded where the pixels are whole numbers."""
    mean = np.divide(sums, weight, out=sums)
    if np.issubdtype(dtype, np.integer):
        mean += 0.5
        np.floor(mean, out=mean)
    means: NDArray[np.generic] = mean.astype(dtype).transpose(1, 2, 0)
    return means
