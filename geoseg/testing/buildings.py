"""Buildings: rectangular wings under one roof form; the same numbers give polygon, heights and painted roof."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from geoseg.testing.canvas import Canvas, Pose, Samples, Window
from geoseg.testing.noise import triangle_wave
from geoseg.testing.style import Material

Wing = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Building:
    """A house.

    Attributes:
        pose: Its place and turn in the scene.
        wings: Rectangles (u0, v0, u1, v1) in local meters, multiples of 1/64.
        roof: Gable, hip, shed, cross or flat.
        material: What covers it.
        color: RGB before shading.
        eaves_m: Height of the eaves.
        pitch: Rise per meter.
        salt: Picks its piece of the texture and its details.
    """

    pose: Pose
    wings: tuple[Wing, ...]
    roof: str
    material: Material
    color: tuple[float, float, float]
    eaves_m: float
    pitch: float
    salt: int

    @property
    def radius_m(self) -> float:
        """Distance from the pose to the farthest corner."""
        return max(math.hypot(max(-u0, u1), max(-v0, v1)) for u0, v0, u1, v1 in self.wings)

    def outline(self) -> Polygon:
        """Give the roof's outline in scene meters (y down)."""
        local = shapely.union_all([box(*wing) for wing in self.wings]).simplify(0.0)
        return shapely.transform(local, self._place)

    def _place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        u, v = points[:, 0], points[:, 1]
        pose = self.pose
        placed = np.stack((pose.x + u * pose.cos - v * pose.sin, pose.y + u * pose.sin + v * pose.cos), axis=1)
        return np.round(placed * 1024) / 1024


@dataclass(slots=True)
class Surface:
    """A roof at each sample of a window: all (y, x)."""

    inside: NDArray[np.bool_]
    height_m: Samples
    plane: NDArray[np.int_]
    along_m: Samples
    down_m: Samples
    ridge_m: Samples
    rim_m: Samples


def cover(building: Building, u: Samples, v: Samples, grow_m: float = 0.0) -> NDArray[np.bool_]:
    """Say which samples a building covers, with a border of `grow_m`."""
    inside = np.zeros(u.shape, np.bool_)
    for u0, v0, u1, v1 in building.wings:
        inside |= (u > u0 - grow_m) & (u < u1 + grow_m) & (v > v0 - grow_m) & (v < v1 + grow_m)
    return inside


def surface(building: Building, u: Samples, v: Samples) -> Surface:
    """Build the roof over the samples: at each the highest of the wings' planes."""
    shape = u.shape
    found = Surface(
        np.zeros(shape, np.bool_), np.full(shape, -1.0), np.full(shape, 4), *(np.zeros(shape) for _ in range(4))
    )
    for index, wing in enumerate(building.wings):
        _raise_wing(found, building, wing, index, u, v)
    return found


def _raise_wing(found: Surface, building: Building, wing: Wing, index: int, u: Samples, v: Samples) -> None:
    u0, v0, u1, v1 = wing
    sides = np.stack((u - u0, u1 - u, v - v0, v1 - v))
    rim = sides.min(axis=0)
    form = _wing_form(building.roof, index)
    planes = _planes(form, u1 - u0 >= v1 - v0)
    distance = sides[planes]
    lowest = distance.min(axis=0)
    height = building.eaves_m + (building.pitch * lowest if form != "flat" else 0.0 * lowest) + (0.001 * index)
    better = (rim > 0) & (height > found.height_m)
    plane = np.asarray(planes)[distance.argmin(axis=0)] if form != "flat" else np.full(u.shape, 4)
    spread = np.sort(distance, axis=0)
    values = (rim > 0, height, plane, np.where(plane < 2, v, u), lowest, _gap(spread))
    names = ("inside", "height_m", "plane", "along_m", "down_m", "ridge_m")
    for name, value in zip(names, values, strict=True):
        getattr(found, name)[better] = value[better]
    found.rim_m = np.maximum(found.rim_m, rim)


def _gap(spread: Samples) -> Samples:
    return spread[1] - spread[0] if len(spread) > 1 else np.full(spread.shape[1:], 9.0)


def _wing_form(roof: str, index: int) -> str:
    return ("gable" if index else "hip") if roof == "cross" else roof


def _planes(form: str, wide: bool) -> list[int]:
    if form == "gable":
        return [2, 3] if wide else [0, 1]
    if form == "shed":
        return [2] if wide else [0]
    return [0, 1, 2, 3]


_DOWNHILL = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))


def plane_light(building: Building, sun: tuple[float, float, float]) -> NDArray[np.float64]:
    """Give the light on planes facing -u, +u, -v, +v and flat, relative to flat ground.

    Args:
        building: Gives turn and pitch.
        sun: Unit vector to the sun: x, y (scene, y down) and up.

    Returns:
        (5,) float64: cosine on the plane divided by the cosine on the ground.
    """
    pose, pitch = building.pose, building.pitch
    length = math.sqrt(1 + pitch * pitch)
    light = []
    for du, dv in _DOWNHILL:
        x, y = du * pose.cos - dv * pose.sin, du * pose.sin + dv * pose.cos
        light.append(max(0.0, (pitch * (x * sun[0] + y * sun[1]) + sun[2]) / (length * sun[2])))
    return np.array([*light, 1.0])


def paint_building(canvas: Canvas, building: Building, sun: tuple[float, float, float], contrast: float) -> None:
    """Paint a roof: covering, light of each plane, ridges, parapet, details; raise the heights."""
    window, u, v = canvas.local(building.pose, building.radius_m + 0.5)
    if u.size == 0:
        return
    roof = surface(building, u, v)
    color = texture(canvas, building, roof, window)
    light = np.clip(1 + (plane_light(building, sun) - 1) * contrast, 0.42, 1.26)
    color *= light[roof.plane][..., None]
    _ridges(building, roof, color)
    height = roof.height_m.copy()
    if building.roof == "flat":
        _parapet(building, roof, color, height)
    _details(building, roof, (u, v), color, height)
    inside = roof.inside
    canvas.rgb[window][inside] = color[inside].astype(np.float32)
    canvas.height_m[window][inside] = height[inside].astype(np.float32)
    canvas.roof[window][inside] = True


def texture(canvas: Canvas, building: Building, roof: Surface, window: Window) -> Samples:
    """Give the (y, x, 3) color of a covering in even light."""
    wide, mid, fine = canvas.grain_at(window, building.salt).astype(np.float64)
    material = building.material
    mottle = material.wear * (0.07 * wide + 0.05 * mid + 0.03 * fine)
    color: Samples = np.array(building.color)[None, None, :] * (1 + mottle)[..., None]
    if material.kind == "metal":
        return _sheets(building, roof, color, wide + 0.6 * mid)
    if material.kind == "concrete":
        return _stains(building, roof, color, wide, mid)
    if material.kind == "membrane":
        seam = np.floor(roof.along_m / 3.0) != np.floor((roof.along_m + 0.15) / 3.0)
        color *= (1 - 0.06 * seam)[..., None]
        return color
    period = 0.9 if material.kind == "tile" else 0.6
    color *= (1 + 0.035 * triangle_wave(roof.down_m, period))[..., None]
    return color


def _sheets(building: Building, roof: Surface, color: Samples, worn: Samples) -> Samples:
    """Lay corrugated sheets, each with its own tone, some rusted, some replaced."""
    rng = np.random.Generator(np.random.PCG64(building.salt))
    sheet = (0.8 + 0.8 * rng.random(), 1.8 + 1.6 * rng.random())
    row = (np.floor(roof.down_m / sheet[1]) % 16).astype(np.intp)
    col = (np.floor(roof.along_m / sheet[0]) % 32).astype(np.intp)
    rust = building.material.rust
    tone = 1 + (0.05 + 0.14 * rust) * (rng.random((5, 16, 32)) * 2 - 1)
    color *= tone[roof.plane, row, col][..., None]
    bias = (rng.random((5, 16, 32)) * 1.6 - 1.6 + 1.5 * rust)[roof.plane, row, col]
    rusted = np.clip((worn + bias) * 1.5, 0, 0.85) * min(1.0, rust * 4)
    color += (np.array((104.0, 62.0, 42.0)) - color) * rusted[..., None]
    swapped = (rng.random((5, 16, 32)) < 0.06 * min(1.0, rust * 4))[roof.plane, row, col]
    color[swapped] = color[swapped] * 0.35 + np.array((150.0, 142.0, 128.0)) * 0.65
    ribs = 0.05 * triangle_wave(roof.along_m, 0.76)
    return color * (1 + ribs)[..., None]


def _stains(building: Building, roof: Surface, color: Samples, wide: Samples, mid: Samples) -> Samples:
    dirt = np.clip(wide + 0.5 * mid - 0.15, 0, 1) * 0.4 * building.material.wear
    damp = np.clip(1 - roof.rim_m / 1.2, 0, 1) * np.clip(mid + 0.3, 0, 1) * 0.2
    return color * (1 - np.clip(dirt + damp, 0, 0.55))[..., None]


def _ridges(building: Building, roof: Surface, color: Samples) -> None:
    if building.roof in ("flat", "shed"):
        return
    strength = 0.14 if building.material.kind == "tile" else 0.08
    sign = 1.0 if building.salt % 3 else -1.0
    on_ridge = (roof.ridge_m < 0.3) & (roof.rim_m > 0.3)
    color[on_ridge] *= 1 + sign * strength


def _parapet(building: Building, roof: Surface, color: Samples, height: Samples) -> None:
    if building.salt % 4 == 0:
        return
    wall = roof.rim_m < 0.26
    color[wall] = color[wall] * 0.6 + np.array((186.0, 182.0, 174.0)) * 0.4
    height[wall] += 0.9 if building.material.kind == "concrete" else 0.4


def _details(
    building: Building, roof: Surface, place: tuple[Samples, Samples], color: Samples, height: Samples
) -> None:
    """Set small things on the roof: chimneys, skylights, tanks, stair heads, plant."""
    rng = np.random.Generator(np.random.PCG64(building.salt + 1))
    area = sum((u1 - u0) * (v1 - v0) for u0, v0, u1, v1 in building.wings)
    kinds = _detail_kinds(building, area, rng)
    for kind in kinds:
        u0, v0, u1, v1 = building.wings[int(rng.integers(len(building.wings)))]
        spot = (u0 + (u1 - u0) * rng.uniform(0.15, 0.85), v0 + (v1 - v0) * rng.uniform(0.15, 0.85))
        _DETAILS[kind](rng, Stand(place[0] - spot[0], place[1] - spot[1], roof, color, height))


def _detail_kinds(building: Building, area: float, rng: np.random.Generator) -> list[str]:
    if building.roof == "flat" and building.material.kind == "concrete":
        kinds = ["stair"] * int(rng.random() < 0.5 and area > 50) + ["tank"] * int(rng.integers(0, 3))
        return (
            kinds + ["junk"] * int(rng.integers(0, 2 + int(min(area / 30, 6)))) + ["solar"] * int(rng.random() < 0.15)
        )
    if building.roof == "flat":
        return ["plant"] * int(rng.integers(1, 3 + int(min(area / 90, 14)))) + ["skylight"] * int(rng.integers(0, 3))
    if building.material.kind == "metal":
        return ["junk"] * int(rng.integers(0, 3)) + ["tank"] * int(rng.random() < 0.05)
    return (
        ["chimney"] * int(rng.integers(0, 3))
        + ["skylight"] * int(rng.integers(0, 3))
        + ["solar"] * int(rng.random() < 0.08)
    )


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a detail goes: local coordinates around its middle, and the roof, colors and heights it is set upon."""

    u: Samples
    v: Samples
    roof: Surface
    color: Samples
    height: Samples

    def put(self, size_m: tuple[float, float], rgb: tuple[float, ...], rise_m: float) -> None:
        """Set a box on the roof."""
        spot = (np.abs(self.u) < size_m[0] / 2) & (np.abs(self.v) < size_m[1] / 2)
        spot &= self.roof.inside & (self.roof.rim_m > 0.2)
        self.color[spot] = self.color[spot] * 0.15 + np.array(rgb) * 0.85
        self.height[spot] += rise_m


def _chimney(rng: np.random.Generator, stand: Stand) -> None:
    stand.put((0.8, 0.7), (128, 96, 84) if rng.random() < 0.6 else (150, 146, 140), 1.2)


def _skylight(rng: np.random.Generator, stand: Stand) -> None:
    stand.put((0.9, 1.1), (70, 84, 98) if rng.random() < 0.6 else (206, 212, 216), 0.05)


def _tank(rng: np.random.Generator, stand: Stand) -> None:
    spot = (stand.u * stand.u + stand.v * stand.v < 0.55) & stand.roof.inside
    rgb = ((38, 40, 44), (60, 92, 140), (206, 206, 202))[int(rng.integers(3))]
    stand.color[spot] = np.array(rgb)
    stand.height[spot] += 1.4


def _stair(rng: np.random.Generator, stand: Stand) -> None:
    tone = rng.uniform(0.85, 1.15)
    size = (rng.uniform(2.4, 4.2), rng.uniform(2.6, 5.0))
    rgb = ((168, 160, 150), (150, 146, 140), (70, 110, 160), (150, 80, 66))[int(rng.integers(4))]
    stand.put(size, tuple(value * tone for value in rgb), 2.5)


def _junk(rng: np.random.Generator, stand: Stand) -> None:
    rgb = ((96, 88, 80), (176, 170, 160), (80, 100, 130), (140, 90, 70), (60, 58, 56), (90, 104, 78))[
        int(rng.integers(6))
    ]
    stand.put((rng.uniform(0.5, 2.4), rng.uniform(0.4, 1.6)), rgb, rng.uniform(0.1, 0.6))


def _solar(rng: np.random.Generator, stand: Stand) -> None:
    stand.put((rng.uniform(2.0, 5.0), rng.uniform(1.6, 3.2)), (40, 48, 68), 0.15)


def _plant(rng: np.random.Generator, stand: Stand) -> None:
    tone = rng.uniform(120, 200)
    stand.put((rng.uniform(0.8, 2.6), rng.uniform(0.8, 2.2)), (tone, tone, tone * 0.98), rng.uniform(0.5, 1.4))


_DETAILS = {
    "chimney": _chimney, "skylight": _skylight, "tank": _tank, "stair": _stair, "junk": _junk, "solar": _solar,
    "plant": _plant,
}  # fmt: skip
