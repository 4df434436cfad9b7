"""Roofs of houses that share walls: painted exactly onto the samples of their outlines."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geoseg.testing.buildings import RoofSurface, paint_roof
from geoseg.testing.canvas import Bools, Canvas, Pose, Samples, triangle_wave
from geoseg.testing.dense import House
from geoseg.testing.parcels import Ring
from geoseg.testing.style import RGB

Sun = tuple[float, float, float]

_FAR_M = 1e3
_SHEETS: tuple[RGB, ...] = (
    (52, 108, 170), (70, 130, 186), (44, 84, 136), (160, 58, 52), (176, 84, 70), (140, 138, 134), (172, 170, 166),
    (112, 74, 58), (196, 192, 186), (86, 120, 104),
)  # fmt: skip
_WASHING: tuple[RGB, ...] = (
    (206, 204, 200), (176, 62, 62), (70, 96, 160), (206, 170, 72), (90, 130, 96), (150, 86, 130), (52, 54, 62),
)  # fmt: skip
_TANKS: tuple[RGB, ...] = ((36, 38, 42), (36, 38, 42), (58, 92, 146), (206, 206, 202), (92, 150, 120))


def paint_houses(canvas: Canvas, houses: list[House], numbers: NDArray[np.int_], sun: Sun, contrast: float) -> None:
    """Paint houses; `numbers` is (y, x), a house's index + 1 at each of its samples."""
    for index, house in enumerate(houses):
        pose = house.look.pose
        window, u, v = canvas.local(pose, house.look.radius_m + 0.5)
        if u.size == 0:
            continue
        inside = numbers[window] == index + 1
        if not inside.any():
            continue
        surface, party_m = _surface(canvas, house, inside, (u, v), window)
        paint_roof(canvas, house.look, window, (u, v), surface, sun, contrast)
        if house.party != 1.0 and house.look.roof in ("gable", "shed"):
            wall = inside & (party_m < 0.2)
            canvas.rgb[window][wall] *= np.float32(house.party)
            canvas.height_m[window][wall] += np.float32(0.3)
        if house.look.roof == "flat" and house.look.material.kind == "concrete":
            _furnish(canvas, house, surface, (u, v), window)


def _surface(
    canvas: Canvas, house: House, inside: Bools, place: tuple[Samples, Samples], window: tuple[slice, slice]
) -> tuple[RoofSurface, Samples]:
    """Return the roof over the samples, and the distance to the nearest side wall under a pitched roof."""
    u, v = place
    look, pose, shape = house.look, house.look.pose, u.shape
    flat = look.roof == "flat"
    roof = RoofSurface(inside, np.full(shape, look.eaves_m), np.full(shape, 4), *(np.zeros(shape) for _ in range(4)))
    # places along the roof count from the scene's corner, so that the sheets of like houses meet
    start = pose.x * pose.cos + pose.y * pose.sin, pose.y * pose.cos - pose.x * pose.sin
    party, best = np.full(shape, -1.0), np.full(shape, -_FAR_M)
    for index, (ring, is_wide) in enumerate(zip(house.parts, house.is_wide, strict=True)):
        sides = _sides(ring, pose, u, v)
        rim = sides.min(axis=0)
        roof.rim_m = np.maximum(roof.rim_m, rim)
        planes = [0, 1, 2, 3]
        if look.roof in ("gable", "cross"):
            planes = [2, 3] if is_wide else [0, 1]
        elif look.roof == "shed":
            planes = [2] if is_wide else [0]
        distance = np.clip(sides[planes], 0, _FAR_M)
        lowest = np.minimum(distance.min(axis=0), 60.0)
        height = look.eaves_m + (0.0 if flat else look.pitch) * lowest + 0.001 * index
        better = (rim > -0.3) & (height > best)
        plane = np.asarray(planes)[distance.argmin(axis=0)]
        best[better] = height[better]
        roof.height_m[better] = height[better]
        roof.along_m[better] = np.where(plane < 2, v + start[1], u + start[0])[better]
        roof.down_m[better] = lowest[better]
        if not flat:
            spread = np.sort(distance, axis=0)
            roof.plane[better] = plane[better]
            roof.ridge_m[better] = (spread[1] - spread[0])[better] if len(spread) > 1 else 9.0
            walls = [side for side in range(4) if side not in planes]
            party = np.maximum(party, sides[walls].min(axis=0) if walls else -1.0)
    if len(house.parts) > 1:
        roof.rim_m = _rim(canvas, house, window)
    return roof, np.where(party < 0, _FAR_M, party)


def _sides(ring: Ring, pose: Pose, u: Samples, v: Samples) -> Samples:
    """Return the distances inward from the sides that face -u, +u, -v and +v: (4, y, x); far where there is none."""
    local = [((x - pose.x) * pose.cos + (y - pose.y) * pose.sin, (y - pose.y) * pose.cos - (x - pose.x) * pose.sin)
             for x, y in ring]  # fmt: skip
    turn = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(local, local[1:] + local[:1], strict=True))
    sides = np.full((4, *u.shape), _FAR_M)
    for (u0, v0), (u1, v1) in zip(local, local[1:] + local[:1], strict=True):
        length = np.sqrt((u1 - u0) * (u1 - u0) + (v1 - v0) * (v1 - v0))
        if length < 0.05:
            continue
        nu, nv = (v0 - v1) / length, (u1 - u0) / length  # inward if the ring runs counterclockwise
        if turn < 0:
            nu, nv = -nu, -nv
        facing = (0 if nu > 0 else 1) if abs(nu) > abs(nv) else (2 if nv > 0 else 3)
        sides[facing] = np.minimum(sides[facing], (u - u0) * nu + (v - v0) * nv)
    return sides


def _rim(canvas: Canvas, house: House, window: tuple[slice, slice]) -> Samples:
    """Return the distance from the outline of a house of several parts, which share walls within it."""
    y, x = canvas.centers[window[0]][:, None], canvas.centers[window[1]][None, :]
    nearest = np.full(np.broadcast_shapes(y.shape, x.shape), _FAR_M)
    for ring in (house.outline.exterior, *house.outline.interiors):
        points = np.asarray(ring.coords)
        for (x0, y0), (x1, y1) in pairwise(points.tolist()):
            dx, dy = x1 - x0, y1 - y0
            share = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            far = (x - x0 - share * dx) * (x - x0 - share * dx) + (y - y0 - share * dy) * (y - y0 - share * dy)
            nearest = np.minimum(nearest, far)
    rim: Samples = np.sqrt(nearest)
    return rim


def _furnish(
    canvas: Canvas, house: House, roof: RoofSurface, place: tuple[Samples, Samples], window: tuple[slice, slice]
) -> None:
    """Put on a flat roof what towns put there: a tin roof over a part, stair head, tanks, plants, washing."""
    rng = np.random.Generator(np.random.PCG64(house.salt))
    rgb, height = canvas.rgb[window], canvas.height_m[window]
    u0, v0, u1, v1 = house.look.wings[0]
    size = (u1 - u0, v1 - v0)
    grain = canvas.grain[1][window]

    def put(at: tuple[float, float], half: tuple[float, float], color: RGB, rise_m: float, ribs: float = 0.0) -> None:
        spot = (np.abs(place[0] - at[0]) < half[0]) & (np.abs(place[1] - at[1]) < half[1])
        spot &= roof.inside & (roof.rim_m > 0.1)
        tone = 1 + 0.07 * grain[spot] + ribs * triangle_wave(roof.along_m[spot], 0.76)
        rgb[spot] = np.array(color, np.float32) * tone[:, None].astype(np.float32)
        height[spot] += np.float32(rise_m)

    def draw(colors: tuple[RGB, ...]) -> RGB:
        tone = rng.normal(1.0, 0.1)
        red, green, blue = colors[int(rng.integers(len(colors)))]
        return int(red * tone), int(green * tone), int(blue * tone)

    def anywhere() -> tuple[float, float]:
        return u0 + size[0] * rng.uniform(0.08, 0.92), v0 + size[1] * rng.uniform(0.08, 0.92)

    if rng.random() < 0.3:
        share, end = rng.uniform(0.25, 0.6), rng.random() < 0.5
        if rng.random() < 0.5:
            half, at = (size[0] * share / 2, size[1] * 0.48), ((u0 if end else u1), (v0 + v1) / 2)
            at = at[0] + (half[0] if end else -half[0]), at[1]
        else:
            half, at = (size[0] * 0.48, size[1] * share / 2), ((u0 + u1) / 2, (v0 if end else v1))
            at = at[0], at[1] + (half[1] if end else -half[1])
        put(at, half, draw(_SHEETS), 2.4, 0.05)
    if rng.random() < 0.55 and min(size) > 4:
        put(
            anywhere(),
            (rng.uniform(1.1, 1.9), rng.uniform(1.2, 2.4)),
            draw(((166, 160, 152), (142, 138, 132), (128, 76, 62))),
            2.5,
        )
    for _ in range(int(rng.integers(0, 4))):
        put(anywhere(), (0.6, 0.6), draw(_TANKS), 1.5)
    for _ in range(int(rng.integers(0, 2 + int(min(size[0] * size[1] / 25, 5))))):
        put(
            anywhere(),
            (rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.7)),
            draw(((62, 84, 46), (78, 98, 56), (96, 88, 78))),
            0.6,
        )
    if rng.random() < 0.25:
        at = anywhere()
        for step in range(int(rng.integers(3, 9))):
            put((at[0] + 0.5 * step, at[1]), (0.24, 0.15), draw(_WASHING), 0.9)
