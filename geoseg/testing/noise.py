"""Value noise that gives the same bits on every machine: lattice values, linear interpolation, no library transform."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def value_noise(rng: np.random.Generator, shape: tuple[int, int], period_px: float) -> Floats:
    """Paint smooth noise.

    Args:
        rng: Source of the lattice values.
        shape: (y, x) of the result.
        period_px: Distance between lattice points, in pixels.

    Returns:
        (y, x) float32 in [-1, 1].
    """
    period = max(period_px, 1.0)
    lattice_shape = (int(shape[0] / period) + 3, int(shape[1] / period) + 3)
    lattice: Floats = rng.random(lattice_shape, dtype=np.float32)
    lattice = lattice * np.float32(2) - np.float32(1)
    row, row_part = _knots(shape[0], period)
    col, col_part = _knots(shape[1], period)
    lines = lattice[row] + (lattice[row + 1] - lattice[row]) * row_part[:, None]
    return lines[:, col] + (lines[:, col + 1] - lines[:, col]) * col_part[None, :]


def _knots(length: int, period: float) -> tuple[NDArray[np.intp], Floats]:
    place = np.arange(length) / period
    index = place.astype(np.intp)
    part = place - index
    return index, (part * part * (3 - 2 * part)).astype(np.float32)


def octaves(rng: np.random.Generator, shape: tuple[int, int], period_px: float, count: int) -> Floats:
    """Sum `count` noises, each of half the period and 0.6 of the strength of the one before: (y, x), about [-1, 1]."""
    total = np.zeros(shape, np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(count):
        total += value_noise(rng, shape, period_px / 2**octave) * np.float32(weight)
        weights, weight = weights + weight, weight * 0.6
    return total * np.float32(1.6 / weights)


def triangle_wave(place: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Give a wave in [-1, 1] without a sine, whose last bits differ between processors."""
    phase = place / period
    return np.abs(phase - np.floor(phase) - 0.5) * 4 - 1
