"""Props: trees, cars, walls, hedges, pools, drives, sports fields and clutter."""

import numpy as np

from geoseg.testing.canvas import Canvas, Samples, triangle_wave
from geoseg.testing.sites import Prop
from geoseg.testing.style import RGB, Style

Sun = tuple[float, float, float]

_CARS: tuple[RGB, ...] = (
    (226, 226, 224), (226, 226, 224), (90, 92, 98), (206, 208, 210), (150, 152, 156), (40, 42, 46), (64, 66, 72),
    (112, 36, 40), (60, 80, 116), (172, 160, 130),
)  # fmt: skip
_CLUTTER: tuple[RGB, ...] = (
    (92, 82, 70), (150, 142, 130), (186, 180, 168), (66, 60, 54), (112, 76, 54), (70, 96, 132), (126, 120, 110),
    (164, 74, 58), (96, 104, 80),
)  # fmt: skip
_FIELDS: tuple[RGB, ...] = ((92, 116, 64), (150, 84, 62), (84, 112, 96), (148, 118, 84))


def paint_props(canvas: Canvas, props: list[Prop], style: Style, rng: np.random.Generator) -> None:
    """Paint all props but the trees, in order."""
    for prop in props:
        length, width, height = prop.size_m
        if prop.kind == "car":
            _paint_car(canvas, prop, rng)
        elif prop.kind == "field":
            _paint_field(canvas, prop, rng)
        elif prop.kind == "pool":
            water = np.array((88.0, 158.0, 178.0))
            canvas.fill_box(prop.pose, (length + 2, width + 2), np.array((176.0, 170.0, 160.0)))
            canvas.fill_box(prop.pose, (length, width), water * rng.uniform(0.8, 1.1), grain=4.0)
        elif prop.kind == "clutter":
            color = _draw(rng, _CLUTTER) * rng.uniform(0.8, 1.15)
            canvas.fill_box(prop.pose, (length, width), color, height, grain=14.0)
        elif prop.kind != "tree":
            _paint_strip(canvas, prop, style, rng)


def paint_trees(canvas: Canvas, props: list[Prop], style: Style, sun: Sun, rng: np.random.Generator) -> None:
    """Paint the trees among the props, in order."""
    for prop in props:
        if prop.kind == "tree":
            _paint_tree(canvas, prop, style, sun, rng)


def _draw(rng: np.random.Generator, colors: tuple[RGB, ...]) -> Samples:
    return np.array(colors[int(rng.integers(len(colors)))], np.float64)


def _draw_leaf(style: Style, rng: np.random.Generator) -> Samples:
    return _draw(rng, style.leaf) * rng.normal(1.12, 0.13) + rng.normal(0, 3, 3)


def _paint_tree(canvas: Canvas, tree: Prop, style: Style, sun: Sun, rng: np.random.Generator) -> None:
    radius, pose = tree.size_m[0], tree.pose
    window, u, v = canvas.local(pose, radius * 1.25)
    if u.size == 0:
        return
    wide, mid, fine = canvas.grain_at(window, int(rng.integers(1, 5000)))
    is_bare = rng.random() < style.leaf_off
    reach = radius * (1 + 0.2 * wide + 0.22 * mid)
    far = np.sqrt(u * u + v * v) / np.maximum(reach, 0.3)
    dome = np.sqrt(np.clip(1 - far * far, 0, 1))
    crown = (far < 1) & (fine + mid > (0.15 if is_bare else -1.25) * (1 if is_bare else 1 - 0.5 * far))
    color = np.array((116.0, 102.0, 88.0)) * rng.normal(1.0, 0.12) if is_bare else _draw_leaf(style, rng)
    towards_sun = u * (sun[0] * pose.cos + sun[1] * pose.sin) + v * (sun[1] * pose.cos - sun[0] * pose.sin)
    light = 0.72 + 0.3 * dome + 0.34 * (towards_sun / radius) + 0.2 * mid + 0.16 * fine + 0.1 * wide
    leaves = color[None, :] * np.clip(light, 0.3, 1.7)[crown][:, None]
    blend = 0.55 if is_bare else 0.94
    below = canvas.rgb[window][crown]
    canvas.rgb[window][crown] = below + (leaves.astype(np.float32) - below) * np.float32(blend)
    height = (tree.size_m[2] * (0.45 + 0.55 * dome)).astype(np.float32)
    thin = crown & (fine > 0.35) if is_bare else crown
    canvas.height_m[window][thin] = np.maximum(canvas.height_m[window][thin], height[thin])
    canvas.roof[window][crown] = False


def _paint_car(canvas: Canvas, car: Prop, rng: np.random.Generator) -> None:
    length, width, height = car.size_m
    color = _draw(rng, _CARS)
    canvas.fill_box(car.pose, (length, width), color, height * 0.65)
    glass = np.array((38.0, 44.0, 52.0))
    if length < 6:
        cabin = (length * 0.34, width * 0.86)
        canvas.fill_box(car.pose.moved(0.2 * length - 0.2, 0.0), (0.7, width * 0.85), glass, 0.3)
        canvas.fill_box(car.pose.moved(-0.06 * length, 0.0), cabin, np.clip(color * 1.06, 0, 250), 0.5)
        canvas.fill_box(car.pose.moved(-0.3 * length, 0.0), (0.5, width * 0.8), glass, 0.2)


def _paint_strip(canvas: Canvas, strip: Prop, style: Style, rng: np.random.Generator) -> None:
    """Paint a wall, a hedge or a drive where nothing stands."""
    thick, long, height = strip.size_m
    if strip.kind == "hedge":
        thick *= rng.uniform(0.8, 1.4)
    window, inside = canvas.box(strip.pose, thick, long)
    wide, mid, fine = canvas.grain[:, window[0], window[1]]
    clear = inside & ~canvas.taken[window]
    if strip.kind == "hedge":
        clear &= wide + 0.7 * mid > -0.35
        color = _draw_leaf(style, rng) * (1.0 + 0.22 * mid + 0.2 * fine)[clear][:, None]
    elif strip.kind == "wall":
        color = _draw(rng, style.paved).astype(np.float32) * np.float32(rng.uniform(0.85, 1.15))
    else:
        color = _draw(rng, style.paved) * (1 + 0.06 * mid + 0.04 * fine)[clear][:, None]
    canvas.rgb[window][clear] = color.astype(np.float32)
    if strip.kind != "drive":
        canvas.height_m[window][clear] = np.float32(height)


def _paint_field(canvas: Canvas, field: Prop, rng: np.random.Generator) -> None:
    window, u, v = canvas.local(field.pose, 40.0)
    length, width, _ = field.size_m
    inside = (np.abs(u) < length / 2) & (np.abs(v) < width / 2) & ~canvas.taken[window]
    color = _draw(rng, _FIELDS)
    tone = 1 + 0.04 * np.sign(triangle_wave(u, 9.0)) + 0.06 * canvas.grain[0][window] + 0.04 * canvas.grain[2][window]
    canvas.rgb[window][inside] = (color * tone[inside][:, None]).astype(np.float32)
    edge = np.minimum(length / 2 - 1.5 - np.abs(u), width / 2 - 1.5 - np.abs(v))
    lines = inside & ((np.abs(edge) < 0.1) | ((np.abs(u) < 0.1) & (edge > 0)))
    canvas.rgb[window][lines] = 214
