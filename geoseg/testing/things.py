"""Small things: trees, cars, walls, hedges, pools, drives and clutter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geoseg.testing.canvas import Canvas, Samples
from geoseg.testing.noise import triangle_wave
from geoseg.testing.sites import Thing
from geoseg.testing.style import Style

Sun = tuple[float, float, float]
Painter = Callable[[Canvas, Thing, Style, Sun, np.random.Generator], None]

_CARS = (
    (226, 226, 224),
    (226, 226, 224),
    (90, 92, 98),
    (206, 208, 210),
    (150, 152, 156),
    (40, 42, 46),
    (64, 66, 72),
    (112, 36, 40),
    (60, 80, 116),
    (172, 160, 130),
)
_CLUTTER = (
    (92, 82, 70), (150, 142, 130), (186, 180, 168), (66, 60, 54), (112, 76, 54), (70, 96, 132), (126, 120, 110),
    (164, 74, 58), (96, 104, 80),
)  # fmt: skip


def paint_things(
    canvas: Canvas, things: list[Thing], style: Style, sun: Sun, rng: np.random.Generator, kinds: tuple[str, ...]
) -> None:
    """Paint the things of these kinds, in order."""
    for thing in things:
        if thing.kind in kinds:
            _PAINTERS[thing.kind](canvas, thing, style, sun, rng)


def _tree(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    radius = thing.size_m[0]
    window, u, v = canvas.local(thing.pose, radius * 1.25)
    if u.size == 0:
        return
    wide, mid, fine = canvas.grain_at(window, int(rng.integers(1, 5000)))
    bare = rng.random() < style.leaf_off
    reach = radius * (1 + 0.2 * wide + 0.22 * mid)
    far = np.sqrt(u * u + v * v) / np.maximum(reach, 0.3)
    dome = np.sqrt(np.clip(1 - far * far, 0, 1))
    crown = (far < 1) & (fine + mid > (0.15 if bare else -1.25) * (1 if bare else 1 - 0.5 * far))
    color = _leaf_color(style, rng, bare)
    turned = _towards_sun(thing, sun, u, v) / radius
    light = 0.72 + 0.3 * dome + 0.34 * turned + 0.2 * mid + 0.16 * fine + 0.1 * wide
    leaves = color[None, :] * np.clip(light, 0.3, 1.7)[crown][:, None]
    blend = 0.55 if bare else 0.94
    below = canvas.rgb[window][crown]
    canvas.rgb[window][crown] = below + (leaves.astype(np.float32) - below) * np.float32(blend)
    height = (thing.size_m[2] * (0.45 + 0.55 * dome)).astype(np.float32)
    thin = crown & (fine > 0.35) if bare else crown
    canvas.height_m[window][thin] = np.maximum(canvas.height_m[window][thin], height[thin])
    canvas.roof[window][crown] = False


def _towards_sun(thing: Thing, sun: Sun, u: Samples, v: Samples) -> Samples:
    pose = thing.pose
    return u * (sun[0] * pose.cos + sun[1] * pose.sin) + v * (sun[1] * pose.cos - sun[0] * pose.sin)


def _leaf_color(style: Style, rng: np.random.Generator, bare: bool) -> Samples:
    if bare:
        return np.array((116.0, 102.0, 88.0)) * rng.normal(1.0, 0.12)
    leaf = np.array(style.leaf[int(rng.integers(len(style.leaf)))], np.float64)
    return leaf * rng.normal(1.12, 0.13) + rng.normal(0, 3, 3)


def _car(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    length, width, height = thing.size_m
    color = np.array(_CARS[int(rng.integers(len(_CARS)))], np.float64)
    canvas.fill_box(thing.pose, (length, width), color, height * 0.65)
    glass = np.array((38.0, 44.0, 52.0))
    if length < 6:
        canvas.fill_box(thing.pose.moved(0.2 * length - 0.2, 0.0), (0.7, width * 0.85), glass, 0.3)
        canvas.fill_box(
            thing.pose.moved(-0.06 * length, 0.0), (length * 0.34, width * 0.86), np.clip(color * 1.06, 0, 250), 0.5
        )
        canvas.fill_box(thing.pose.moved(-0.3 * length, 0.0), (0.5, width * 0.8), glass, 0.2)


def _wall(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    window, inside = canvas.box(thing.pose, thing.size_m[0], thing.size_m[1])
    clear = inside & ~canvas.taken[window]
    color = np.array(style.paved[int(rng.integers(len(style.paved)))], np.float32) * np.float32(rng.uniform(0.85, 1.15))
    canvas.rgb[window][clear] = color
    canvas.height_m[window][clear] = np.float32(thing.size_m[2])


def _hedge(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    window, inside = canvas.box(thing.pose, thing.size_m[0] * rng.uniform(0.8, 1.4), thing.size_m[1])
    wide, mid, fine = canvas.grain[:, window[0], window[1]]
    clear = inside & ~canvas.taken[window] & (wide + 0.7 * mid > -0.35)
    color = _leaf_color(style, rng, False)
    light = (1.0 + 0.22 * mid + 0.2 * fine)[clear][:, None]
    canvas.rgb[window][clear] = (color * light).astype(np.float32)
    canvas.height_m[window][clear] = np.float32(thing.size_m[2])


def _pool(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    length, width, _ = thing.size_m
    canvas.fill_box(thing.pose, (length + 2, width + 2), np.array((176.0, 170.0, 160.0)))
    canvas.fill_box(thing.pose, (length, width), np.array((88.0, 158.0, 178.0)) * rng.uniform(0.8, 1.1), grain=4.0)


def _strip(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    color = np.array(style.paved[int(rng.integers(len(style.paved)))], np.float64)
    window, inside = canvas.box(thing.pose, thing.size_m[0], thing.size_m[1])
    clear = inside & ~canvas.taken[window]
    mid, fine = canvas.grain[1][window], canvas.grain[2][window]
    canvas.rgb[window][clear] = (color * (1 + 0.06 * mid + 0.04 * fine)[clear][:, None]).astype(np.float32)


def _clutter(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    color = np.array(_CLUTTER[int(rng.integers(len(_CLUTTER)))], np.float64) * rng.uniform(0.8, 1.15)
    canvas.fill_box(thing.pose, (thing.size_m[0], thing.size_m[1]), color, thing.size_m[2], grain=14.0)


def _sport(canvas: Canvas, thing: Thing, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    window, u, v = canvas.local(thing.pose, 40.0)
    length, width, _ = thing.size_m
    inside = (np.abs(u) < length / 2) & (np.abs(v) < width / 2) & ~canvas.taken[window]
    color = np.array(((92, 116, 64), (150, 84, 62), (84, 112, 96), (148, 118, 84))[int(rng.integers(4))], np.float64)
    tone = 1 + 0.04 * np.sign(triangle_wave(u, 9.0)) + 0.06 * canvas.grain[0][window] + 0.04 * canvas.grain[2][window]
    canvas.rgb[window][inside] = (color * tone[inside][:, None]).astype(np.float32)
    edge = np.minimum(length / 2 - 1.5 - np.abs(u), width / 2 - 1.5 - np.abs(v))
    lines = inside & ((np.abs(edge) < 0.1) | ((np.abs(u) < 0.1) & (edge > 0)))
    canvas.rgb[window][lines] = 214


_PAINTERS: dict[str, Painter] = {
    "tree": _tree, "car": _car, "wall": _wall, "hedge": _hedge, "pool": _pool, "strip": _strip,
    "clutter": _clutter, "sport": _sport,
}  # fmt: skip
