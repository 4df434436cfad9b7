"""Buildings: rectangular wings under one kind of roof; the same numbers give polygon, heights and painted roof."""

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from geoseg.testing.canvas import Canvas, Pose, Samples, Slices, triangle_wave
from geoseg.testing.style import Material

Wing = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Building:
    """A building.

    Attributes:
        pose: Its place and rotation in the scene.
        wings: Rectangles (u0, v0, u1, v1) in local meters, multiples of 1/64.
        roof: `gable`, `hip`, `shed`, `cross` or `flat`.
        material: Its covering.
        color: RGB before shading.
        eaves_m: Height of the eaves.
        pitch: Rise per meter.
        salt: Chooses its piece of the texture and its details.
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
        """Return the roof's outline in scene meters (y down), rounded to 1/1024."""

        def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
            u, v = points[:, 0], points[:, 1]
            pose = self.pose
            placed = np.stack((pose.x + u * pose.cos - v * pose.sin, pose.y + u * pose.sin + v * pose.cos), axis=1)
            return np.round(placed * 1024) / 1024

        local = shapely.union_all([box(*wing) for wing in self.wings]).simplify(0.0)
        return shapely.transform(local, place)


@dataclass(slots=True)
class RoofSurface:
    """A roof at each sample of a window: all (y, x).

    Attributes:
        inside: True where there is roof.
        height_m: Height above ground.
        plane: Which plane lies there: facing -u, +u, -v, +v or (4) flat.
        along_m: Place along the eaves.
        down_m: Distance from the eaves.
        ridge_m: Difference of the distances from the two nearest eaves, 0 on a ridge.
        rim_m: Distance from the nearest wall.
    """

    inside: NDArray[np.bool_]
    height_m: Samples
    plane: NDArray[np.int_]
    along_m: Samples
    down_m: Samples
    ridge_m: Samples
    rim_m: Samples


def cover(building: Building, u: Samples, v: Samples, grow_m: float = 0.0) -> NDArray[np.bool_]:
    """Return True at the samples that a building covers, with a border of `grow_m`."""
    inside = np.zeros(u.shape, np.bool_)
    for u0, v0, u1, v1 in building.wings:
        inside |= (u > u0 - grow_m) & (u < u1 + grow_m) & (v > v0 - grow_m) & (v < v1 + grow_m)
    return inside


def surface(building: Building, u: Samples, v: Samples) -> RoofSurface:
    """Build the roof over the samples: at each the highest of the wings' planes."""
    shape = u.shape
    roof = RoofSurface(
        np.zeros(shape, np.bool_), np.full(shape, -1.0), np.full(shape, 4), *(np.zeros(shape) for _ in range(4))
    )
    for index, (u0, v0, u1, v1) in enumerate(building.wings):
        kind = building.roof if building.roof != "cross" else "gable" if index else "hip"
        is_wide = u1 - u0 >= v1 - v0
        planes = [0, 1, 2, 3]
        if kind == "gable":
            planes = [2, 3] if is_wide else [0, 1]
        elif kind == "shed":
            planes = [2] if is_wide else [0]
        sides = np.stack((u - u0, u1 - u, v - v0, v1 - v))
        rim = sides.min(axis=0)
        distance = sides[planes]
        lowest = distance.min(axis=0)
        height = building.eaves_m + (building.pitch * lowest if kind != "flat" else 0.0 * lowest) + (0.001 * index)
        better = (rim > 0) & (height > roof.height_m)
        plane = np.asarray(planes)[distance.argmin(axis=0)] if kind != "flat" else np.full(shape, 4)
        spread = np.sort(distance, axis=0)
        roof.inside |= better
        roof.height_m[better] = height[better]
        roof.plane[better] = plane[better]
        roof.along_m[better] = np.where(plane < 2, v, u)[better]
        roof.down_m[better] = lowest[better]
        roof.ridge_m[better] = (spread[1] - spread[0])[better] if len(spread) > 1 else 9.0
        roof.rim_m = np.maximum(roof.rim_m, rim)
    return roof


_DOWNHILL = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))


def plane_light(building: Building, sun: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the light on planes facing -u, +u, -v, +v and flat, relative to flat ground.

    Args:
        building: Gives rotation and pitch.
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
    """Paint a building's roof and raise the heights."""
    window, u, v = canvas.local(building.pose, building.radius_m + 0.5)
    if u.size:
        paint_roof(canvas, building, window, (u, v), surface(building, u, v), sun, contrast)


def paint_roof(
    canvas: Canvas,
    building: Building,
    window: Slices,
    place: tuple[Samples, Samples],
    roof: RoofSurface,
    sun: tuple[float, float, float],
    contrast: float,
) -> None:
    """Paint a roof: covering, light of each plane, ridges, parapet, details; raise the heights.

    Args:
        canvas: The canvas.
        building: Gives covering, color and details.
        window: The samples around it.
        place: Their local u and v in meters, each (y, x).
        roof: The roof at each of them.
        sun: Unit vector to the sun, as of `sun_vector`.
        contrast: How much the planes differ in light.
    """
    kind = building.material.kind
    color = _texture(building, roof, canvas.grain_at(window, building.salt).astype(np.float64))
    light = np.clip(1 + (plane_light(building, sun) - 1) * contrast, 0.42, 1.26)
    color *= light[roof.plane][..., None]
    if building.roof not in ("flat", "shed"):
        strength = 0.14 if kind == "tile" else 0.08
        color[(roof.ridge_m < 0.3) & (roof.rim_m > 0.3)] *= 1 + (strength if building.salt % 3 else -strength)
    height = roof.height_m.copy()
    if building.roof == "flat" and building.salt % 4:
        parapet = roof.rim_m < 0.26
        color[parapet] = color[parapet] * 0.6 + np.array((186.0, 182.0, 174.0)) * 0.4
        height[parapet] += 0.9 if kind == "concrete" else 0.4
    _add_details(building, roof, place, color, height)
    inside = roof.inside
    canvas.rgb[window][inside] = color[inside].astype(np.float32)
    canvas.height_m[window][inside] = height[inside].astype(np.float32)
    canvas.roof[window][inside] = True


def _texture(building: Building, roof: RoofSurface, grain: Samples) -> Samples:
    """Return the (y, x, 3) color of a covering in even light."""
    wide, mid, fine = grain
    material = building.material
    mottle = material.wear * (0.07 * wide + 0.05 * mid + 0.03 * fine)
    color: Samples = np.array(building.color)[None, None, :] * (1 + mottle)[..., None]
    if material.kind == "metal":
        return _sheets(building, roof, color, wide + 0.6 * mid)
    if material.kind == "concrete":
        dirt = np.clip(wide + 0.5 * mid - 0.15, 0, 1) * 0.4 * material.wear
        damp = np.clip(1 - roof.rim_m / 1.2, 0, 1) * np.clip(mid + 0.3, 0, 1) * 0.2
        color *= (1 - np.clip(dirt + damp, 0, 0.55))[..., None]
        return color
    if material.kind == "membrane":
        seam = np.floor(roof.along_m / 3.0) != np.floor((roof.along_m + 0.15) / 3.0)
        color *= (1 - 0.06 * seam)[..., None]
        return color
    period = 0.9 if material.kind == "tile" else 0.6
    color *= (1 + 0.035 * triangle_wave(roof.down_m, period))[..., None]
    return color


def _sheets(building: Building, roof: RoofSurface, color: Samples, worn: Samples) -> Samples:
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


def _add_details(
    building: Building, roof: RoofSurface, place: tuple[Samples, Samples], color: Samples, height: Samples
) -> None:
    """Add small things to the roof: chimneys, skylights, tanks, stair heads, machines."""
    rng = np.random.Generator(np.random.PCG64(building.salt + 1))
    for kind in _draw_details(building, rng):
        u0, v0, u1, v1 = building.wings[int(rng.integers(len(building.wings)))]
        u = place[0] - (u0 + (u1 - u0) * rng.uniform(0.15, 0.85))
        v = place[1] - (v0 + (v1 - v0) * rng.uniform(0.15, 0.85))
        if kind == "tank":
            spot = (u * u + v * v < 0.55) & roof.inside
            color[spot] = np.array(_TANKS[int(rng.integers(3))])
            height[spot] += 1.4
            continue
        (length, width), rgb, rise_m = _draw_box(kind, rng)
        spot = (np.abs(u) < length / 2) & (np.abs(v) < width / 2)
        spot &= roof.inside & (roof.rim_m > 0.2)
        color[spot] = color[spot] * 0.15 + np.array(rgb) * 0.85
        height[spot] += rise_m


def _draw_details(building: Building, rng: np.random.Generator) -> list[str]:
    """Draw what stands on a roof of this kind and size."""
    area = sum((u1 - u0) * (v1 - v0) for u0, v0, u1, v1 in building.wings)
    if building.roof == "flat" and building.material.kind == "concrete":
        kinds = ["stair"] * int(rng.random() < 0.5 and area > 50) + ["tank"] * int(rng.integers(0, 3))
        kinds += ["junk"] * int(rng.integers(0, 2 + int(min(area / 30, 6))))
        return kinds + ["solar"] * int(rng.random() < 0.15)
    if building.roof == "flat":
        kinds = ["machine"] * int(rng.integers(1, 3 + int(min(area / 90, 14))))
        return kinds + ["skylight"] * int(rng.integers(0, 3))
    if building.material.kind == "metal":
        return ["junk"] * int(rng.integers(0, 3)) + ["tank"] * int(rng.random() < 0.05)
    kinds = ["chimney"] * int(rng.integers(0, 3)) + ["skylight"] * int(rng.integers(0, 3))
    return kinds + ["solar"] * int(rng.random() < 0.08)


def _draw_box(kind: str, rng: np.random.Generator) -> tuple[tuple[float, float], tuple[float, ...], float]:
    """Draw length and width in meters, RGB, and height in meters of a detail."""
    if kind == "chimney":
        return (0.8, 0.7), (128, 96, 84) if rng.random() < 0.6 else (150, 146, 140), 1.2
    if kind == "skylight":
        return (0.9, 1.1), (70, 84, 98) if rng.random() < 0.6 else (206, 212, 216), 0.05
    if kind == "solar":
        return (rng.uniform(2.0, 5.0), rng.uniform(1.6, 3.2)), (40, 48, 68), 0.15
    if kind == "junk":
        rgb = _JUNK[int(rng.integers(6))]
        return (rng.uniform(0.5, 2.4), rng.uniform(0.4, 1.6)), rgb, rng.uniform(0.1, 0.6)
    if kind == "stair":
        tone = rng.uniform(0.85, 1.15)
        size = (rng.uniform(2.4, 4.2), rng.uniform(2.6, 5.0))
        return size, tuple(value * tone for value in _STAIRS[int(rng.integers(4))]), 2.5
    tone = rng.uniform(120, 200)
    return (rng.uniform(0.8, 2.6), rng.uniform(0.8, 2.2)), (tone, tone, tone * 0.98), rng.uniform(0.5, 1.4)


_TANKS = ((38, 40, 44), (60, 92, 140), (206, 206, 202))
_STAIRS = ((168, 160, 150), (150, 146, 140), (70, 110, 160), (150, 80, 66))
_JUNK = ((96, 88, 80), (176, 170, 160), (80, 100, 130), (140, 90, 70), (60, 58, 56), (90, 104, 78))
