"""Light and lens: cast shadows from the height model, haze, color cast, blur and noise of the sensor."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from geoseg.testing.canvas import MARGIN_PX, SUPERSAMPLING, Canvas
from geoseg.testing.noise import value_noise
from geoseg.testing.style import Style

Floats = NDArray[np.float32]
_FINE = 1 << 20
_TALLEST_M = 14.0


def sun_vector(style: Style) -> tuple[float, float, float]:
    """Give the unit vector to the sun: x, y (scene, y down) and up, kept coarse so that every machine agrees."""
    azimuth, elevation = math.radians(style.sun_azimuth), math.radians(style.sun_elevation)
    parts = (math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation))
    return round(parts[0] * _FINE) / _FINE, round(parts[1] * _FINE) / _FINE, round(parts[2] * _FINE) / _FINE


def cast_shadows(canvas: Canvas, style: Style, strength: float) -> None:
    """Darken what the height model hides from the sun.

    Args:
        canvas: Painted scene.
        style: Gives the sun.
        strength: Light left in the shadow, 0 (black) to 1 (none).
    """
    dark = _hidden(canvas, sun_vector(style))
    for band, blue in enumerate((0.97, 1.0, 1.07)):
        canvas.rgb[..., band] *= 1 - dark * np.float32(1 - min(1.0, strength * blue))


def _hidden(canvas: Canvas, sun: tuple[float, float, float]) -> Floats:
    """Say how deep each sample lies in shadow, 0-1: march towards the sun through the heights."""
    flat = math.sqrt(sun[0] * sun[0] + sun[1] * sun[1])
    rise = sun[2] / flat
    height = canvas.height_m
    highest = np.zeros_like(height)
    for step in range(1, int(_TALLEST_M / rise / canvas.step_m) + 1):
        drop = np.float32(round(step * canvas.step_m * rise * 64) / 64)
        if drop > height.max():
            break
        rows, cols = round(step * sun[1] / flat), round(step * sun[0] / flat)
        to, source = _shifted(height.shape, rows, cols)
        np.maximum(highest[to], height[source] - drop, out=highest[to])
    softness = np.float32(0.35)
    dark: Floats = np.clip((highest - height) / softness, 0, 1)
    return dark


def _shifted(shape: tuple[int, ...], rows: int, cols: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    return (_to(shape[0], rows), _to(shape[1], cols)), (_from(shape[0], rows), _from(shape[1], cols))


def _to(length: int, shift: int) -> slice:
    return slice(max(0, -shift), length - max(0, shift))


def _from(length: int, shift: int) -> slice:
    return slice(max(0, shift), length - max(0, -shift))


def expose(canvas: Canvas, style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn the sheet into the picture: (3, y, x) uint8 without the margin."""
    picture = _shrink(canvas.rgb)
    picture = _grade(picture, style, rng)
    for _ in range(int(rng.integers(1, 3))):
        picture = _blur(picture, np.float32(round(rng.uniform(0.1, 0.6) * 64) / 64))
    noise = np.float32(round(rng.uniform(0.8, 2.6) * 64) / 64)
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * noise
    inner = picture[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    coarse = np.round(inner * 64) / 64
    return np.ascontiguousarray(np.clip(np.floor(coarse + np.float32(0.5)), 0, 255).astype(np.uint8).transpose(2, 0, 1))


def _shrink(samples: Floats) -> Floats:
    step = SUPERSAMPLING
    parts = [samples[row::step, col::step] for row in range(step) for col in range(step)]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total / np.float32(step * step)


def _grade(picture: Floats, style: Style, rng: np.random.Generator) -> Floats:
    """Apply exposure, white balance, haze and slow changes of light across the scene."""
    gain = rng.uniform(*style.brightness)
    warmth = rng.uniform(*style.warmth)
    haze = rng.uniform(*style.haze)
    veil = np.array((176.0, 182.0, 190.0)) + rng.normal(0, 8, 3)
    slow = value_noise(rng, (picture.shape[0], picture.shape[1]), 420.0) * np.float32(0.03) + np.float32(1)
    gains = np.array((gain * (1 + warmth), gain, gain * (1 - 1.6 * warmth))) * rng.normal(1.0, 0.015, 3)
    for band in range(3):
        lit = picture[..., band] * slow * np.float32(gains[band])
        picture[..., band] = lit + (np.float32(veil[band]) - lit) * np.float32(haze)
    _mute(picture, np.float32(rng.uniform(0.05, 0.28)))
    return _curve(picture, np.float32(rng.uniform(0.9, 1.15)))


def _mute(picture: Floats, share: np.float32) -> None:
    """Draw colors towards their gray, as air and cheap lenses do."""
    gray = (picture[..., 0] + picture[..., 1] * np.float32(2) + picture[..., 2]) * np.float32(0.25)
    for band in range(3):
        picture[..., band] += (gray - picture[..., band]) * share


def _curve(picture: Floats, contrast: np.float32) -> Floats:
    curved: Floats = np.clip((picture - np.float32(112)) * contrast + np.float32(112), 3, 252)
    return curved


def _blur(picture: Floats, weight: np.float32) -> Floats:
    """Blend each pixel with its (1, 2, 1) / 4 neighborhood, row-wise and column-wise."""
    for axis in (0, 1):
        before, after = np.roll(picture, 1, axis), np.roll(picture, -1, axis)
        soft = (before + after) * np.float32(0.25) + picture * np.float32(0.5)
        picture = picture + (soft - picture) * weight
    return picture
