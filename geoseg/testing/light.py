"""Light and lens: cast shadows from the height model, haze, color cast, blur and noise of the sensor."""

import math

import numpy as np
from numpy.typing import NDArray

from geoseg.testing.canvas import MARGIN_PX, SUPERSAMPLING, Canvas, value_noise
from geoseg.testing.style import Style

Floats = NDArray[np.float32]
_FINE = 1 << 20
TALLEST_M = 14.0
"""Shadows are followed up to this height, unless told."""


def sun_vector(style: Style) -> tuple[float, float, float]:
    """Return the unit vector to the sun: x, y (scene, y down) and up, rounded so that every machine agrees."""
    azimuth, elevation = math.radians(style.sun_azimuth), math.radians(style.sun_elevation)
    parts = (math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation))
    return round(parts[0] * _FINE) / _FINE, round(parts[1] * _FINE) / _FINE, round(parts[2] * _FINE) / _FINE


def cast_shadows(
    canvas: Canvas, sun: tuple[float, float, float], strength: float, tallest_m: float = TALLEST_M
) -> None:
    """Darken what the height model hides from the sun, by marching towards the sun through the heights.

    Args:
        canvas: Painted scene.
        sun: Unit vector to the sun, as of `sun_vector`.
        strength: Light left in the shadow, 0 (black) to 1 (none).
        tallest_m: Height up to which things cast their whole shadow.
    """
    east, south, up = sun
    flat = math.sqrt(east * east + south * south)
    rise = up / flat
    height = canvas.height_m
    highest = np.zeros_like(height)
    for step in range(1, int(tallest_m / rise / canvas.step_m) + 1):
        drop = np.float32(round(step * canvas.step_m * rise * 64) / 64)
        if drop > height.max():
            break
        shifts = list(zip((round(step * south / flat), round(step * east / flat)), height.shape, strict=True))
        shaded = tuple(slice(max(0, -shift), side - max(0, shift)) for shift, side in shifts)
        source = tuple(slice(max(0, shift), side - max(0, -shift)) for shift, side in shifts)
        np.maximum(highest[shaded], height[source] - drop, out=highest[shaded])
    depth = np.clip((highest - height) / np.float32(0.35), 0, 1)  # 0 in the sun, 1 deep in the shadow
    for band, blue in enumerate((0.97, 1.0, 1.07)):
        canvas.rgb[..., band] *= 1 - depth * np.float32(1 - min(1.0, strength * blue))


def expose(canvas: Canvas, style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture of a painted canvas: (3, y, x) uint8 without the margin."""
    step = SUPERSAMPLING
    parts = [canvas.rgb[row::step, col::step] for row in range(step) for col in range(step)]
    picture = parts[0].copy()
    for part in parts[1:]:
        picture += part
    picture = _grade(picture / np.float32(step * step), style, rng)
    for _ in range(int(rng.integers(1, 3))):
        weight = np.float32(round(rng.uniform(0.1, 0.6) * 64) / 64)
        for axis in (0, 1):  # blend each pixel with its (1, 2, 1) / 4 neighborhood
            before, after = np.roll(picture, 1, axis), np.roll(picture, -1, axis)
            soft = (before + after) * np.float32(0.25) + picture * np.float32(0.5)
            picture = picture + (soft - picture) * weight
    noise = np.float32(round(rng.uniform(0.8, 2.6) * 64) / 64)
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * noise
    inner = picture[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    coarse = np.round(inner * 64) / 64
    return np.ascontiguousarray(np.clip(np.floor(coarse + np.float32(0.5)), 0, 255).astype(np.uint8).transpose(2, 0, 1))


def _grade(picture: Floats, style: Style, rng: np.random.Generator) -> Floats:
    """Apply exposure, white balance, haze, slow changes of light across the scene, muted colors and contrast."""
    gain = rng.uniform(*style.brightness)
    warmth = rng.uniform(*style.warmth)
    haze = rng.uniform(*style.haze)
    veil = np.array((176.0, 182.0, 190.0)) + rng.normal(0, 8, 3)
    slow = value_noise(rng, (picture.shape[0], picture.shape[1]), 420.0) * np.float32(0.03) + np.float32(1)
    gains = np.array((gain * (1 + warmth), gain, gain * (1 - 1.6 * warmth))) * rng.normal(1.0, 0.015, 3)
    for band in range(3):
        lit = picture[..., band] * slow * np.float32(gains[band])
        picture[..., band] = lit + (np.float32(veil[band]) - lit) * np.float32(haze)
    share = np.float32(rng.uniform(0.05, 0.28))
    gray = (picture[..., 0] + picture[..., 1] * np.float32(2) + picture[..., 2]) * np.float32(0.25)
    for band in range(3):
        picture[..., band] += (gray - picture[..., band]) * share
    contrast = np.float32(rng.uniform(0.9, 1.15))
    graded: Floats = np.clip((picture - np.float32(112)) * contrast + np.float32(112), 3, 252)
    return graded
