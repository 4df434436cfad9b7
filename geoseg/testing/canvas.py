"""The canvas a scene is painted on, supersampled and with a margin, and the noise that textures it.

Places are in meters from the scene's top left corner, y down. Noise has the same bits on every machine: it is made of
lattice values and linear interpolation, without a transcendental function.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

Bools = NDArray[np.bool_]
Samples = NDArray[np.float64]
Floats = NDArray[np.float32]
Slices = tuple[slice, slice]

SUPERSAMPLING = 2
MARGIN_PX = 36
_FINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Pose:
    """Place (meters) and rotation of something, rounded so that every machine agrees on them."""

    x: float
    y: float
    cos: float
    sin: float

    @classmethod
    def of_angle(cls, x: float, y: float, angle: float) -> Self:
        """Make a pose from an angle in radians."""
        return cls(
            round(x * 64) / 64,
            round(y * 64) / 64,
            round(math.cos(angle) * _FINE) / _FINE,
            round(math.sin(angle) * _FINE) / _FINE,
        )

    def place(self, u: float, v: float) -> tuple[float, float]:
        """Move local coordinates (meters) to the scene's."""
        return self.x + u * self.cos - v * self.sin, self.y + u * self.sin + v * self.cos

    def moved(self, u: float, v: float) -> "Pose":
        """Return the same rotation at another local place."""
        return Pose(*self.place(u, v), self.cos, self.sin)


class Canvas:
    """Color, height and occupancy of a scene's samples.

    Attributes:
        rgb: (y, x, 3) float32, 0-255.
        height_m: (y, x) float32 above ground.
        taken: (y, x) bool, True where nothing may be built.
        built: (y, x) bool, True where a building stands (roads are taken, not built).
        roof: (y, x) bool, True where a building's roof was painted.
        grain: (3, y, x) float32 noises in [-1, 1]: meters wide, decimeters wide, single samples.
    """

    def __init__(self, size_px: int, gsd_m: float, rng: np.random.Generator) -> None:
        """Prepare an empty canvas for a scene of `size_px` x `size_px` pixels."""
        self.size_px = size_px
        self.gsd_m = gsd_m
        self.step_m = gsd_m / SUPERSAMPLING
        self.margin_m = MARGIN_PX * gsd_m
        side = (size_px + 2 * MARGIN_PX) * SUPERSAMPLING
        self.shape = (side, side)
        self.rgb = np.zeros((side, side, 3), np.float32)
        self.height_m = np.zeros(self.shape, np.float32)
        self.taken = np.zeros(self.shape, np.bool_)
        self.built = np.zeros(self.shape, np.bool_)
        self.roof = np.zeros(self.shape, np.bool_)
        wide = octaves(rng, self.shape, 6.0 / self.step_m, 3)
        mid = octaves(rng, self.shape, 1.2 / self.step_m, 2)
        self.grain = np.stack((wide, mid, value_noise(rng, self.shape, 0.3 / self.step_m)))
        self.centers = (np.arange(side) + 0.5) * self.step_m - self.margin_m

    @property
    def side_m(self) -> float:
        """Length of the scene's side in meters, without the margin."""
        return self.size_px * self.gsd_m

    def local(self, pose: Pose, radius_m: float) -> tuple[Slices, Samples, Samples]:
        """Return the samples around a pose, clipped to the canvas (maybe none), and their local u, v (meters)."""
        spans, side = [], self.shape[0]
        for place in (pose.y, pose.x):
            first = math.floor((place - radius_m + self.margin_m) / self.step_m)
            last = math.ceil((place + radius_m + self.margin_m) / self.step_m)
            spans.append(slice(min(max(first, 0), side), min(max(last, 0), side)))
        window = (spans[0], spans[1])
        dy = (self.centers[window[0]] - pose.y)[:, None]
        dx = (self.centers[window[1]] - pose.x)[None, :]
        return window, dx * pose.cos + dy * pose.sin, dy * pose.cos - dx * pose.sin

    def grain_at(self, window: Slices, shift: int) -> NDArray[np.float32]:
        """Return (3, y, x) noise for a window; `shift` picks another part of the canvas, so that neighbors differ."""
        rows = (np.arange(window[0].start, window[0].stop) + shift * 37) % self.shape[0]
        cols = (np.arange(window[1].start, window[1].stop) + shift * 101) % self.shape[1]
        return self.grain[:, rows[:, None], cols[None, :]]

    def box(self, pose: Pose, length_m: float, width_m: float) -> tuple[Slices, Bools]:
        """Return the samples of a rectangle around a pose."""
        window, u, v = self.local(pose, (length_m + width_m) / 2)
        return window, (np.abs(u) <= length_m / 2) & (np.abs(v) <= width_m / 2)

    def fill_box(
        self, pose: Pose, size_m: tuple[float, float], color: Samples, height_m: float = 0.0, *, grain: float = 6.0
    ) -> None:
        """Paint a rectangle standing `height_m` above what it stands on."""
        window, inside = self.box(pose, *size_m)
        texture = self.grain[1][window][inside][:, None] * np.float32(grain)
        self.rgb[window][inside] = color.astype(np.float32) + texture
        self.height_m[window][inside] += np.float32(height_m)

    def burn(self, shapes: list[tuple[BaseGeometry, int]], dtype: str = "uint16") -> NDArray[np.int_]:
        """Rasterize geometries (meters) with their values onto the samples; later ones lie on top."""
        from affine import Affine
        from rasterio.features import rasterize

        transform = Affine(self.step_m, 0, -self.margin_m, 0, self.step_m, -self.margin_m)
        kept = [(shape, value) for shape, value in shapes if not shape.is_empty]
        if not kept:
            return np.zeros(self.shape, np.int_)
        burnt: NDArray[np.int_] = rasterize(kept, out_shape=self.shape, transform=transform, fill=0, dtype=dtype)
        return burnt


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
    """Return a wave in [-1, 1] without a sine, whose last bits differ between processors."""
    phase = place / period
    return np.abs(phase - np.floor(phase) - 0.5) * 4 - 1
