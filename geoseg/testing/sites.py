"""What stands where: blocks become plots, buildings, walls, trees, cars and clutter, none on top of another."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from geoseg.testing.buildings import Building, Wing, cover
from geoseg.testing.canvas import Canvas, Pose
from geoseg.testing.dense import DENSE_BLOCKS, House, build_block
from geoseg.testing.streets import CityBlock, Streets, pick
from geoseg.testing.style import ESTATE_ROOFS, HALL_ROOFS, Material, Style

GRASS, SOIL, PAVED, FIELD, FOREST = range(1, 6)
_GROUNDS = {"halls": PAVED, "park": GRASS, "forest": FOREST, "field": FIELD, "lot": SOIL, "pitch": GRASS}
_PARKED_CAR_M = (4.4, 1.8, 1.5)


@dataclass(frozen=True, slots=True)
class Prop:
    """Something small: kind (tree, car, wall, ...), pose, and size in meters (length, width, height)."""

    kind: str
    pose: Pose
    size_m: tuple[float, float, float]


@dataclass(slots=True)
class Sites:
    """All that a scene holds besides its roads; grounds are (outline in scene meters, ground code).

    Houses are the buildings that share walls; `house_numbers` is (y, x), the index + 1 of the one that covers a sample.
    """

    buildings: list[Building] = field(default_factory=list)
    houses: list[House] = field(default_factory=list)
    house_numbers: NDArray[np.int_] = field(default_factory=lambda: np.zeros((0, 0), np.int_))
    grounds: list[tuple[Polygon, int]] = field(default_factory=list)
    props: list[Prop] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place along a street: pose with u along the street and v away from it, frontage and row number."""

    pose: Pose
    width_m: float
    room_m: float
    row: int


class SitePlanner:
    """Fills the blocks of a street plan, one after another, and keeps track of what is taken."""

    def __init__(self, canvas: Canvas, streets: Streets, style: Style, rng: np.random.Generator) -> None:
        """Start with empty land; `canvas.taken` holds the roads."""
        self.canvas, self.streets, self.style, self.rng = canvas, streets, style, rng
        self.bend = streets.bend
        self.sites = Sites()

    def plan(self) -> Sites:
        """Fill every block that reaches into the scene, then add trees, clutter and cars."""
        blocks = [(block, outline) for block in self.streets.blocks if (outline := self._outline(block)) is not None]
        self._build_rows_and_lots([block for block, _ in blocks if block.kind in DENSE_BLOCKS])
        for block, outline in blocks:
            ground = _GROUNDS[block.kind] if block.kind in _GROUNDS else self._draw_ground()
            self.sites.grounds.append((outline, ground))
            self._fill(block)
        self._scatter_props()
        self._add_traffic()
        return self.sites

    def _outline(self, block: CityBlock) -> Polygon | None:
        """Return a block's bent outline if it reaches into the scene or its margin."""
        near, far = -self.canvas.margin_m, self.canvas.side_m + self.canvas.margin_m
        outline = Polygon(self.bend.line([*block.corners, block.corners[0]])).buffer(0)
        left, top, right, bottom = outline.bounds if not outline.is_empty else (far, far, near, near)
        return outline if left < far and top < far and right > near and bottom > near else None

    def _build_rows_and_lots(self, blocks: list[CityBlock]) -> None:
        """Build the blocks whose houses share walls."""
        sites = self.sites
        for block in blocks:
            sites.houses += build_block(block, self.bend, self.style, self.rng)
        shapes: list[tuple[BaseGeometry, int]] = [(house.outline, k + 1) for k, house in enumerate(sites.houses)]
        sites.house_numbers = self.canvas.burn(shapes, "uint32")
        self.canvas.taken |= sites.house_numbers > 0
        self.canvas.built |= sites.house_numbers > 0

    def _fill(self, block: CityBlock) -> None:
        if block.kind == "houses":
            self._build_houses(block)
        elif block.kind == "rows":
            self._build_terraces(block)
        elif block.kind == "halls":
            self._build_halls(block)
        elif block.kind == "estate":
            self._build_estate(block)
        elif block.kind == "pitch":
            self.sites.props.append(Prop("field", self.bend.pose(*block.center, block.angle), (40.0, 24.0, 0.0)))
        elif block.kind == "forest":
            for x, y in self._scatter(block, per_ha=260.0):
                self._plant_tree(x, y, 1.15)
        elif block.kind == "lot":
            for x, y in self._scatter(block, per_ha=70.0):
                pose = self._turned_anyhow(x, y)
                self._add("clutter", pose, (self.rng.uniform(0.5, 2.5), self.rng.uniform(0.4, 1.6), 0.6))
        elif block.kind == "park":
            for x, y in self._scatter(block, per_ha=70.0):
                self._plant_tree(x, y, 1.2)

    def _draw_ground(self) -> int:
        return (GRASS, SOIL, PAVED)[pick(self.rng, list(self.style.plot_ground))]

    def _turned_anyhow(self, x: float, y: float) -> Pose:
        return self.bend.pose(x, y, self.rng.uniform(0, 2 * math.pi))

    def _scatter(self, block: CityBlock, per_ha: float) -> Iterator[tuple[float, float]]:
        """Yield random places in a block."""
        corners = np.array(block.corners)
        low, high = corners.min(axis=0), corners.max(axis=0)
        count = self.rng.poisson(float(np.prod(high - low)) / 1e4 * per_ha)
        for x, y in self.rng.uniform(low, high, (count, 2)).tolist():
            if block.room_m(x, y) > 0.5:
                yield x, y

    def _spots(self, block: CityBlock, rows: int, scale: float = 1.0) -> Iterator[Spot]:
        """Yield places along the streets of a block, row behind row, with frontages of `scale` times the usual."""
        style, rng = self.style, self.rng
        for row in range(rows):
            for (a, b), edge in zip(block.sides, block.outline, strict=True):
                angle, length = math.atan2(b[1] - a[1], b[0] - a[0]), math.dist(a, b)
                place = edge.road_half_m + rng.uniform(1, 4)
                while place < length - 3:
                    width = rng.uniform(*style.frontage_m) * scale
                    depth = edge.road_half_m + style.road_m[0] * 0.2 + row * style.row_step_m
                    x, y = _along(a, angle, place + width / 2, depth)
                    room = block.room_m(*_along(a, angle, place + width / 2, depth + style.depth_m[0] * 0.6))
                    if room > style.depth_m[0] * 0.3:
                        yield Spot(self.bend.pose(x, y, angle), width, room, row)
                    place += width

    def _draw_building(
        self, pose: Pose, wings: tuple[Wing, ...], *, turn: float = 0.0, materials: tuple[Material, ...] | None = None
    ) -> Building:
        rng = self.rng
        choice = materials or self.style.materials
        material = choice[pick(rng, [m.weight for m in choice])]
        roof = material.roofs[int(rng.integers(len(material.roofs)))]
        if roof == "shed" and len(wings) > 1:
            roof = "gable"
        base = material.colors[int(rng.integers(len(material.colors)))]
        tone = rng.normal(1.0, 0.08)
        red, green, blue = (min(max(value * tone + rng.normal(0, 4), 12.0), 246.0) for value in base)
        turned = Pose.of_angle(pose.x, pose.y, math.atan2(pose.sin, pose.cos) + turn)
        eaves, pitch = round(rng.uniform(*self.style.eaves_m), 2), round(rng.uniform(*self.style.pitch), 3)
        pitch = 0.12 if roof == "shed" else pitch
        salt = int(rng.integers(1, 1 << 30))
        return Building(turned, _rounded(wings), roof, material, (red, green, blue), eaves, pitch, salt)

    def _build(self, building: Building, gap_m: float | None = None) -> bool:
        """Add a building if its place is free; courtyards count as built, so that they stay empty."""
        gap = self.style.gap_m if gap_m is None else gap_m
        window, u, v = self.canvas.local(building.pose, building.radius_m + gap + 0.5)
        if u.size == 0:
            return False
        hull = building
        if len(building.wings) >= 4:
            u0, v0, u1, v1 = zip(*building.wings, strict=True)
            hull = replace(building, wings=((min(u0), min(v0), max(u1), max(v1)),))
        if (self.canvas.taken[window] & cover(hull, u, v, gap)).any():
            return False
        self.canvas.taken[window] |= cover(hull, u, v, 0.16)
        self.canvas.built[window] |= cover(hull, u, v, 0.16)
        self.sites.buildings.append(building)
        return True

    def _add(self, kind: str, pose: Pose, size_m: tuple[float, float, float]) -> None:
        """Add a prop; clutter, pools and cars only if their place is free."""
        if kind in ("clutter", "pool", "car"):
            window, inside = self.canvas.box(pose, size_m[0] + 0.3, size_m[1] + 0.3)
            blocked = self.canvas.built if kind == "car" else self.canvas.taken
            if (inside & blocked[window]).any():
                return
        self.sites.props.append(Prop(kind, pose, size_m))

    def _build_houses(self, block: CityBlock) -> None:
        rng, style = self.rng, self.style
        if rng.random() <= style.court * 5:  # a house around a courtyard
            for spot in list(self._spots(block, 1, scale=1.6))[:4]:
                width, depth = rng.uniform(15, 25), rng.uniform(14, 23)
                wings = court_wings(width, depth, rng.uniform(4.2, 6.2))
                pose = spot.pose.moved(0.0, rng.uniform(*style.setback_m) + depth / 2)
                if self._build(self._draw_building(pose, wings)):
                    break
        for spot in self._spots(block, style.rows):
            width = spot.width_m * rng.uniform(*style.fill)
            depth = rng.uniform(*style.depth_m)
            pose = spot.pose.moved(0.0, rng.uniform(*style.setback_m) + depth / 2)
            house = self._draw_building(pose, house_wings(rng, width, depth), turn=rng.normal(0, 0.03))
            is_built = self._build(house) or self._build(_shrunk(house, 0.72))
            if spot.row == 0 or is_built:
                self._add_plot(spot, is_built)
        self._fill_backyards(block)

    def _add_plot(self, spot: Spot, is_built: bool) -> None:
        """Add a plot's ground, walls or hedges, drive and car."""
        rng, style = self.rng, self.style
        half, depth = spot.width_m / 2, min(style.row_step_m, spot.room_m + 6.0)
        ground = self._draw_ground()
        corners = ((-half, -0.6), (half, -0.6), (half, depth), (-half, depth))
        self.sites.grounds.append((Polygon([spot.pose.place(u, v) for u, v in corners]), ground))
        if rng.random() < style.walls:
            kind = "hedge" if rng.random() < style.plot_ground[0] * 0.7 else "wall"
            thick, height = (1.2, 1.6) if kind == "hedge" else (0.3, 1.9)
            for side in (-0.5, 0.5):
                self._add(kind, spot.pose.moved(side * spot.width_m, depth / 2), (thick, depth, height))
        if is_built and style.rows == 1:
            side = rng.uniform(0.34, 0.44) * (1 if rng.random() < 0.5 else -1)
            length = rng.uniform(8, 15)
            self._add("drive", spot.pose.moved(side * spot.width_m, length / 2 - 1.5), (3.0, length, 0.0))
            if rng.random() < 0.35:
                pose = spot.pose.moved(side * spot.width_m, length + 2.0)
                self._build(_low(self._draw_building(pose, ((-2.0, -3.2, 2.0, 3.2),))))
        if rng.random() < style.cars * 0.3:
            pose = spot.pose.moved(rng.uniform(-0.4, 0.4) * spot.width_m, rng.uniform(1, 4))
            if rng.random() < 0.6:
                pose = Pose(pose.x, pose.y, -pose.sin, pose.cos)
            self._add("car", pose, _PARKED_CAR_M)

    def _fill_backyards(self, block: CityBlock) -> None:
        """Fill gaps with sheds, turned like the houses or in any direction; add pools."""
        is_dense = self.style.rows > 2
        for x, y in self._scatter(block, self.style.infill_per_ha):
            u, v = self.rng.uniform(1.2, 4.0 if is_dense else 2.6), self.rng.uniform(1.1, 3.0 if is_dense else 2.2)
            pose = self.bend.pose(x, y, block.angle) if is_dense else self._turned_anyhow(x, y)
            self._build(_low(self._draw_building(pose, ((-u, -v, u, v),), turn=self.rng.normal(0, 0.04))))
        if self.style.name in ("suburb", "old_town"):
            for x, y in self._scatter(block, per_ha=1.5):
                pose = self._turned_anyhow(x, y)
                self._add("pool", pose, (self.rng.uniform(6, 10), self.rng.uniform(3, 5), 0.0))

    def _build_terraces(self, block: CityBlock) -> None:
        """Build houses that share side walls, each with its own roof."""
        rng, style = self.rng, self.style
        for spot in self._spots(block, 1, scale=2.6):
            unit = rng.uniform(5.0, 8.0)
            count = max(int(spot.width_m * 0.95 / unit), 2)
            depth, setback = rng.uniform(*style.depth_m), rng.uniform(*style.setback_m)
            pose = spot.pose.moved(0.0, setback + depth / 2)
            bounds = [round((unit * k - unit * count / 2) * 64) / 64 for k in range(count + 1)]
            whole = self._draw_building(pose, ((bounds[0], -depth / 2, bounds[-1], depth / 2 + 1.5),))
            if self._build(whole):
                self.sites.buildings.pop()
                for u0, u1 in pairwise(bounds):
                    back = round((depth / 2 + rng.choice([0.0, 0.0, 1.5, -1.0])) * 64) / 64
                    other = self._draw_building(whole.pose, ((u0, whole.wings[0][1], u1, back),))
                    look = whole if rng.random() < 0.55 else other
                    house = replace(
                        other,
                        pose=whole.pose,
                        roof="gable" if look.roof in ("hip", "cross") else look.roof,
                        material=look.material,
                        color=look.color,
                        eaves_m=whole.eaves_m + rng.choice([0.0, 0.4, -0.3]),
                        pitch=whole.pitch,
                    )
                    self.sites.buildings.append(house)
            self._add_plot(spot, is_built=False)
        self._fill_backyards(block)

    def _build_halls(self, block: CityBlock) -> None:
        for spot in self._spots(block, 2, scale=self.rng.uniform(2.2, 3.6)):
            size = (spot.width_m * self.rng.uniform(0.65, 0.9), min(self.rng.uniform(16, 42), spot.room_m * 1.4))
            if size[1] < 9:
                continue
            pose = spot.pose.moved(0.0, self.rng.uniform(4, 9) + size[1] / 2)
            drawn = self._draw_building(pose, house_wings(self.rng, *size, plain=0.6), materials=HALL_ROOFS)
            hall = replace(drawn, eaves_m=6.5, pitch=min(drawn.pitch, 0.16))
            if not self._build(hall, 1.5):
                self._build(_shrunk(hall, 0.6), 1.5)
        self._add_parking(block)

    def _build_estate(self, block: CityBlock) -> None:
        """Build blocks of flats, some around a courtyard."""
        rng = self.rng
        for spot in self._spots(block, 3, scale=2.2):
            wings = house_wings(rng, spot.width_m * rng.uniform(0.6, 0.9), rng.uniform(11, 15), plain=0.55)
            if rng.random() < 0.25:
                wings = court_wings(rng.uniform(28, 40), rng.uniform(26, 36), rng.uniform(9, 12))
            pose = spot.pose.moved(0.0, rng.uniform(3, 8) + wings[0][3])
            self._build(self._draw_building(pose, wings, materials=ESTATE_ROOFS), 3.0)
        self._add_parking(block)

    def _add_parking(self, block: CityBlock) -> None:
        if self.style.cars < 0.4:
            return
        for x, y in self._scatter(block, per_ha=5.0):
            pose = self.bend.pose(x, y, block.angle)
            for k in range(int(self.rng.integers(3, 11))):
                if self.rng.random() < 0.75:
                    self._add("car", pose.moved(0.0, 2.6 * k), _PARKED_CAR_M)

    def _scatter_props(self) -> None:
        """Add trees and clutter wherever the land is free."""
        side = self.canvas.side_m
        hectares = (side + 2 * self.canvas.margin_m) ** 2 / 1e4
        rng, style = self.rng, self.style
        for _ in range(rng.poisson(rng.uniform(*style.trees_per_ha) * hectares)):
            x, y = rng.uniform(-8, side + 8, 2).tolist()
            self._plant_tree(x, y, 1.0)
        for _ in range(rng.poisson(style.clutter_per_ha * hectares)):
            x, y = rng.uniform(-8, side + 8, 2).tolist()
            size = (rng.uniform(0.4, 2.4), rng.uniform(0.3, 1.5), rng.uniform(0.1, 1.2))
            self._add("clutter", Pose.of_angle(x, y, rng.uniform(0, 6.28)), size)

    def _plant_tree(self, x: float, y: float, scale: float) -> None:
        """Add a tree where its trunk stands free; the crown may reach over a roof a little."""
        radius = scale * float(np.clip(self.rng.gamma(4.0, 0.62), 0.8, 5.6))
        pose = Pose.of_angle(x, y, self.rng.uniform(0, 6.28))
        window, u, v = self.canvas.local(pose, radius)
        if u.size == 0:
            return
        crown = u * u + v * v < radius * radius
        hidden = int((crown & self.canvas.taken[window]).sum())
        if hidden <= 0.14 * int(crown.sum()):
            self.sites.props.append(Prop("tree", pose, (radius, radius, radius * self.rng.uniform(1.5, 2.4))))

    def _add_traffic(self) -> None:
        """Add cars on the roads and along them."""
        rng = self.rng
        for road in self.streets.roads:
            per_car = 26.0 / max(self.style.cars * (road.width_m / 7.0), 0.15)
            place = rng.uniform(0, per_car)
            while place < road.line.length - 6:
                here, ahead = (road.line.interpolate(place + k) for k in (0.0, 3.0))
                angle = math.atan2(ahead.y - here.y, ahead.x - here.x)
                way = 1 if rng.random() < 0.5 else -1
                side = way * (road.width_m / 2 - 1.2 if rng.random() < 0.6 else road.width_m * 0.22)
                pose = Pose.of_angle(here.x, here.y, angle).moved(0.0, side)
                is_bus = rng.random() < 0.06
                self._add("car", pose, (8.5, 2.4, 2.8) if is_bus else (rng.uniform(3.8, 4.9), 1.8, 1.5))
                place += max(6.0, rng.exponential(per_car))


def _along(a: tuple[float, float], angle: float, along: float, inward: float) -> tuple[float, float]:
    cos, sin = math.cos(angle), math.sin(angle)
    return a[0] + cos * along - sin * inward, a[1] + sin * along + cos * inward


def _rounded(wings: tuple[Wing, ...]) -> tuple[Wing, ...]:
    return tuple(
        (round(a * 64) / 64, round(b * 64) / 64, round(c * 64) / 64, round(d * 64) / 64) for a, b, c, d in wings
    )


def _shrunk(house: Building, share: float) -> Building:
    wings = tuple((a * share, b * share, c * share, d * share) for a, b, c, d in house.wings)
    return replace(house, wings=_rounded(wings))


def _low(house: Building) -> Building:
    return replace(house, eaves_m=2.3, pitch=min(house.pitch, 0.3))


def house_wings(rng: np.random.Generator, width: float, depth: float, plain: float = 0.52) -> tuple[Wing, ...]:
    """Draw a ground plan: a rectangle, or an L, T or stepped one, centered, `width` along u and `depth` along v."""
    main = (-width / 2, -depth / 2, width / 2, depth / 2)
    if rng.random() < plain or min(width, depth) < 5.5:
        return (main,)
    wing = max(min(width * rng.uniform(0.35, 0.5), depth), 2.5)
    place = rng.choice([-width / 2, width / 2 - wing, rng.uniform(-width / 2, width / 2 - wing)])
    reach = depth * rng.uniform(0.25, 0.5)
    if rng.random() < 0.5:
        return (main, (place, 0.0, place + wing, depth / 2 + reach))
    return (main, (place, -depth / 2 - reach * 0.5, place + wing, 0.0))


def court_wings(width: float, depth: float, wing: float) -> tuple[Wing, ...]:
    """Lay four wings around a courtyard."""
    u, v = width / 2, depth / 2
    return ((-u, -v, u, -v + wing), (-u, v - wing, u, v), (-u, -v, -u + wing, v), (u - wing, -v, u, v))
