"""Levels: the values that become 0 and 255 where pixels are stretched to 8 bits; collars, whose value is no pixel's."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window

Levels = tuple[tuple[float, float], ...]
"""Per band the values `(low, high)` that become 0 and 255."""

LEVEL_PERCENTILES = (2.0, 98.0)

COLLAR_BORDER = 0.05
"""Share of a scene's border from which on a value may be that of a collar: a collar in one corner has few percent."""

COLLAR_SHIFT = 0.1
"""Share of the other pixels' range by which a collar moves a level, from which on it is worth a warning."""

LEAST_SIDE_PX = 512
"""Pixels along the shorter side of a scene below which its border is not looked at: it is hardly an orthophoto."""

SPOTS, SPOT_PX = 12, 16
"""Spots along each side of a scene that are looked at, and the side of one in pixels."""

LEAST_SPOTS = 5
"""Spots of one value from which on they are a collar: a tenth of all."""


def stretch(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Map each band's `(low, high)` to 0 and 255, clipped; `(band, y, x)` of any type to uint8.

    Pixels without data may hold anything, also what overflows.
    """
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*levels, strict=True))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values.astype(np.float32) - low) * (255 / np.maximum(high - low, np.float32(1e-12)))
        stretched: NDArray[np.uint8] = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return stretched


def measure_levels(values: NDArray[Any]) -> Levels:
    """Return the levels of `(band, pixel)` values, all of them valid; 0 and 1 where there are none."""
    if not values.shape[1]:
        return tuple((0.0, 1.0) for _ in values)
    exact = values.astype(np.float64) if values.dtype.kind == "f" else values  # differences of floats may overflow
    low, high = np.percentile(exact, LEVEL_PERCENTILES, axis=1)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def find_collar(values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Any, float, Levels] | None:
    """Find a value that looks like undeclared nodata: it fills part of the border, and moves a level.

    Args:
        values: `(band, y, x)` pixels of the whole scene, in coarse resolution.
        valid: `(y, x)`, True where there is data.

    Returns:
        The value, the share of the valid pixels that have it in all bands, and the levels of the others; None if there
        is no such value.
    """
    inner = np.zeros(valid.shape, bool)
    inner[1:-1, 1:-1] = True
    same = valid & (values == values[0]).all(axis=0)
    found, counts = np.unique(values[0][same & ~inner], return_counts=True)
    if not counts.size or counts.max() < COLLAR_BORDER * (~inner).sum():
        return None
    value = found[counts.argmax()]
    collar = same & (values[0] == value)
    others = values[:, valid & ~collar]
    if not others.shape[1]:
        return None
    left = measure_levels(others)
    moves = max(
        max(abs(a - b) for a, b in zip(with_it, without, strict=True)) / max(without[1] - without[0], 1e-12)
        for with_it, without in zip(measure_levels(values[:, valid]), left, strict=True)
    )
    return (value, float(collar.sum() / valid.sum()), left) if moves > COLLAR_SHIFT else None


def border_windows(shape: tuple[int, int]) -> Iterator[Window]:
    """Yield small windows along the border of a scene, from its top to its bottom; none of a small one."""
    height, width = shape
    if min(shape) < LEAST_SIDE_PX:
        return
    rows, cols = (np.linspace(0, side - SPOT_PX, SPOTS).astype(int).tolist() for side in (height, width))
    for row in rows:
        for col in cols if row in (rows[0], rows[-1]) else (cols[0], cols[-1]):
            yield Window(row, col, SPOT_PX, SPOT_PX)


def find_border_value(spots: Sequence[tuple[NDArray[Any], NDArray[np.bool_] | None]]) -> Any | None:
    """Return a value that looks like undeclared nodata: it fills many small windows at the border, in all bands.

    Args:
        spots: `(band, y, x)` values of each window, and which are valid; None if all are.
    """
    valid = [values for values, has_data in spots if has_data is None or has_data.all()]
    found, counts = np.unique([v.flat[0] for v in valid if (v == v.flat[0]).all()], return_counts=True)
    return found[counts.argmax()] if counts.size and counts.max() >= LEAST_SPOTS else None
