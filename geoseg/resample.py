"""Exact resampling between two grids of one extent.

Shrinking averages over the area of the new pixel; enlarging is bilinear between pixel centres. Both are separable:
`out = Wy @ pixels @ Wx.T`, with the weights of an axis rounded to multiples of 1/256 that add up to exactly 1.
Whole-number weights make every sum of 8-bit pixels exact in float32 (at most 255 * 2**16 < 2**24) and of 16-bit
pixels exact in float64, so a pixel's value depends neither on the window it was read through, nor on the order of
summation, nor on the machine. GDAL's own averaging depends on the window in the last grey level.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEIGHT_ONE = 256
STRIP_ROWS = 32
STRIP_COLS = 64

ReadSource = Callable[[slice, slice], tuple[NDArray[np.generic], NDArray[np.bool_] | None]]
"""Read source rows and columns -> `(band, y, x)` pixels and `(y, x)` valid mask, None where all are valid."""


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

    def weights(self, start: int, stop: int, dtype: type[np.floating]) -> NDArray[np.floating]:
        """Return `(stop - start, source pixels of source_span)` whole-number weights; each row adds up to 256."""
        span = self.source_span(start, stop)
        fill = self._area if self.source >= self.target else self._bilinear
        out = np.zeros((stop - start, span.stop - span.start), dtype)
        for row, target in enumerate(range(start, stop)):
            fill(out[row], target, span.start)
        return out

    def _between(self, target: int) -> tuple[int, float]:
        """Return the source pixel left of a target pixel's centre, and the fraction on to the next one."""
        doubled = (2 * target + 1) * self.source - self.target
        return doubled // (2 * self.target), (doubled % (2 * self.target)) / (2 * self.target)

    def _area(self, row: NDArray[np.floating], target: int, offset: int) -> None:
        lo, hi = target * self.source, (target + 1) * self.source
        first, last = lo // self.target, -(-hi // self.target)
        edges = np.clip(np.arange(first, last + 1) * self.target, lo, hi) - lo
        row[first - offset : last - offset] = np.diff((edges * WEIGHT_ONE + self.source // 2) // self.source)

    def _bilinear(self, row: NDArray[np.floating], target: int, offset: int) -> None:
        left, fraction = self._between(target)
        right_weight = round(fraction * WEIGHT_ONE)
        row[max(0, left) - offset] += WEIGHT_ONE - right_weight
        row[min(self.source - 1, left + 1) - offset] += right_weight


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
    exact = np.float32 if dtype == np.uint8 else np.float64
    out = np.zeros((bands, rows.stop - rows.start, cols.stop - cols.start), dtype)
    valid = np.ones(out.shape[1:], bool)
    column_weights = _column_weights(axes[1], cols, exact)
    span = axes[1].source_span(cols.start, cols.stop)
    for top in range(rows.start, rows.stop, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, rows.stop)
        here = slice(top - rows.start, bottom - rows.start)
        pixels, mask = read(axes[0].source_span(top, bottom), span)
        row_weights = axes[0].weights(top, bottom, exact)
        out[:, here], valid[here] = _weigh_strip(pixels, mask, row_weights, column_weights, dtype)
    return out, valid


ColumnWeights = list[tuple[slice, slice, NDArray[np.floating]]]


def _column_weights(axis: Axis, cols: slice, exact: type[np.floating]) -> ColumnWeights:
    """Return (columns of the output, columns of the strip, weights) of every group of `STRIP_COLS` columns."""
    base = axis.source_span(cols.start, cols.stop).start
    groups = []
    for left in range(cols.start, cols.stop, STRIP_COLS):
        right = min(left + STRIP_COLS, cols.stop)
        span = axis.source_span(left, right)
        source = slice(span.start - base, span.stop - base)
        groups.append((slice(left - cols.start, right - cols.start), source, axis.weights(left, right, exact).T))
    return groups


def _weigh_strip(
    pixels: NDArray[np.generic],
    mask: NDArray[np.bool_] | None,
    row_weights: NDArray[np.floating],
    column_weights: ColumnWeights,
    dtype: np.dtype[np.generic],
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Average one strip of source pixels, all valid or partly."""
    one = float(WEIGHT_ONE * WEIGHT_ONE)
    values = pixels.astype(row_weights.dtype)
    if mask is None or mask.all():
        sums = _apply(values, row_weights, column_weights)
        return _divide(sums, one, dtype), np.ones(sums.shape[1:], bool)
    weight = _apply(mask[None].astype(row_weights.dtype), row_weights, column_weights)[0]
    sums = _apply(np.where(mask, values, 0), row_weights, column_weights)
    return _divide(sums, np.maximum(weight, 1), dtype), weight >= one / 2


def _apply(values: NDArray[np.floating], rows: NDArray[np.floating], columns: ColumnWeights) -> NDArray[np.floating]:
    tall = rows @ values
    out = np.empty((*tall.shape[:2], columns[-1][0].stop), tall.dtype)
    for target, source, weights in columns:
        out[..., target] = tall[..., source] @ weights
    return out


def _divide(
    sums: NDArray[np.floating], weight: NDArray[np.floating] | float, dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    mean = sums / weight
    return (np.floor(mean + 0.5) if np.issubdtype(dtype, np.integer) else mean).astype(dtype)
