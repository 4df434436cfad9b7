"""What stands where: blocks become plots, buildings, walls, trees, cars and clutter, none on top of another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from shapely.geometry import LineString, Polygon

from geoseg.testing.buildings import Building, Wing, cover
from geoseg.testing.canvas import Bools, Canvas, Pose
from geoseg.testing.streets import Bend, CityBlock, Streets, pick, sides
from geoseg.testing.style import Material, Style

GRASS, SOIL, PAVED, FIELD, FOREST = range(1, 6)


@dataclass(frozen=True, slots=True)
class Thing:
    """Something small: kind (tree, car, wall, ...), pose, and size in meters (length, width, height)."""

    kind: str
    pose: Pose
    size_m: tuple[float, float, float]


@dataclass(slots=True)
class Sites:
    """All that a scene holds besides its roads; grounds are (outline in scene meters, ground code)."""

    buildings: list[Building] = field(default_factory=list)
    grounds: list[tuple[Polygon, int]] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place along a street: pose with u along the street and v away from it, frontage and row number."""

    pose: Pose
    width_m: float
    room_m: float
    row: int
    road_half_m: float


class Settler:
    """Fills the blocks of a plan, one after another, and remembers what is taken."""

    def __init__(self, canvas: Canvas, streets: Streets, style: Style, rng: np.random.Generator) -> None:
        """Start with an empty land on which only the roads are taken."""
        self.canvas, self.streets, self.style, self.rng = canvas, streets, style, rng
        self.bend: Bend = streets.bend
        self.sites = Sites()

    def settle(self) -> Sites:
        """Fill every block that reaches into the scene."""
        for block in self.streets.blocks:
            outline = Polygon(self.bend.line([*block.corners, block.corners[0]])).buffer(0)
            if not outline.is_empty and self._reaches(outline):
                self._fill(block, outline)
        return self.sites

    def _reaches(self, outline: Polygon) -> bool:
        left, top, right, bottom = outline.bounds
        far = self.canvas.side_m + self.canvas.margin_m
        return bool(left < far and top < far and right > -self.canvas.margin_m and bottom > -self.canvas.margin_m)

    def _fill(self, block: CityBlock, outline: Polygon) -> None:
        fillers = {
            "houses": self._houses, "rows": self._rows, "halls": self._halls, "estate": self._estate,
            "park": self._open, "forest": self._open, "field": self._open, "lot": self._open, "pitch": self._open,
        }  # fmt: skip
        self.sites.grounds.append((outline, self._block_ground(block.kind)))
        fillers[block.kind](block)

    def _block_ground(self, kind: str) -> int:
        fixed = {"halls": PAVED, "park": GRASS, "forest": FOREST, "field": FIELD, "lot": SOIL, "pitch": GRASS}
        if kind in fixed:
            return fixed[kind]
        return (GRASS, SOIL, PAVED)[pick(self.rng, list(self.style.plot_ground))]

    # Houses

    def _houses(self, block: CityBlock) -> None:
        self._courts(block)
        for spot in self._spots(block, self.style.rows):
            house = self._house(spot)
            placed = self._try(house) or self._try(_shrunk(house, 0.72))
            if spot.row == 0 or placed:
                self._plot(spot, placed)
        self._backyards(block)

    def _spots(self, block: CityBlock, rows: int, scale: float = 1.0) -> Iterator[Spot]:
        style, rng = self.style, self.rng
        for row in range(rows):
            for (a, b), edge in zip(sides(block), block.outline, strict=True):
                angle, length = math.atan2(b[1] - a[1], b[0] - a[0]), math.dist(a, b)
                place = edge.road_half_m + rng.uniform(1, 4)
                while place < length - 3:
                    width = rng.uniform(*style.frontage_m) * scale
                    depth = edge.road_half_m + style.road_m[0] * 0.2 + row * style.row_step_m
                    x, y = _along(a, angle, place + width / 2, depth)
                    room = block.room_m(*_along(a, angle, place + width / 2, depth + style.depth_m[0] * 0.6))
                    if room > style.depth_m[0] * 0.3:
                        yield Spot(self.bend.pose(x, y, angle), width, room, row, edge.road_half_m)
                    place += width

    def _house(self, spot: Spot) -> Building:
        rng, style = self.rng, self.style
        width = spot.width_m * rng.uniform(*style.fill)
        depth = rng.uniform(*style.depth_m)
        setback = rng.uniform(*style.setback_m)
        pose = spot.pose.moved(0.0, setback + depth / 2)
        return self._building(pose, house_wings(rng, width, depth), turn=rng.normal(0, 0.03))

    def _courts(self, block: CityBlock) -> None:
        """Build, in some blocks, a house around a courtyard."""
        if self.rng.random() > self.style.court * 5:
            return
        for spot in list(self._spots(block, 1, scale=1.6))[:4]:
            width, depth = self.rng.uniform(15, 25), self.rng.uniform(14, 23)
            wings = court_wings(width, depth, self.rng.uniform(4.2, 6.2))
            pose = spot.pose.moved(0.0, self.rng.uniform(*self.style.setback_m) + depth / 2)
            if self._try(self._building(pose, wings)):
                return

    def _building(
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
        color = tuple(min(max(value * tone + rng.normal(0, 4), 12.0), 246.0) for value in base)
        turned = Pose.of_angle(pose.x, pose.y, math.atan2(pose.sin, pose.cos) + turn)
        eaves, pitch = round(rng.uniform(*self.style.eaves_m), 2), round(rng.uniform(*self.style.pitch), 3)
        pitch = 0.12 if roof == "shed" else pitch
        return Building(
            turned,
            _coarse(wings),
            roof,
            material,
            (color[0], color[1], color[2]),
            eaves,
            pitch,
            int(rng.integers(1, 1 << 30)),
        )

    def _try(self, house: Building, gap_m: float | None = None) -> bool:
        """Build a house if its place is free."""
        gap = self.style.gap_m if gap_m is None else gap_m
        window, u, v = self.canvas.local(house.pose, house.radius_m + gap + 0.5)
        if u.size == 0:
            return False
        hull = _whole(house)
        if (self.canvas.taken[window] & cover(hull, u, v, gap)).any():
            return False
        self.canvas.taken[window] |= cover(hull, u, v, 0.16)
        self.canvas.built[window] |= cover(hull, u, v, 0.16)
        self.sites.buildings.append(house)
        return True

    def _plot(self, spot: Spot, built: bool) -> None:
        rng, style = self.rng, self.style
        depth = min(style.row_step_m, spot.room_m + 6.0)
        ground = (GRASS, SOIL, PAVED)[pick(rng, list(style.plot_ground))]
        corners = [spot.pose.place(u, v) for u, v in _corners(spot.width_m / 2, -0.6, depth)]
        self.sites.grounds.append((Polygon(corners), ground))
        if rng.random() < style.walls:
            self._wall(spot, depth)
        if built and style.rows == 1:
            self._driveway(spot)
        if rng.random() < style.cars * 0.3:
            self._thing(
                "car",
                spot.pose.moved(rng.uniform(-0.4, 0.4) * spot.width_m, rng.uniform(1, 4)),
                (4.4, 1.8, 1.5),
                turned=True,
            )

    def _wall(self, spot: Spot, depth: float) -> None:
        kind = "hedge" if self.rng.random() < self.style.plot_ground[0] * 0.7 else "wall"
        thick, height = (1.2, 1.6) if kind == "hedge" else (0.3, 1.9)
        for side in (-0.5, 0.5):
            self._thing(kind, spot.pose.moved(side * spot.width_m, depth / 2), (thick, depth, height))

    def _driveway(self, spot: Spot) -> None:
        side = (self.rng.uniform(0.34, 0.44)) * (1 if self.rng.random() < 0.5 else -1)
        length = self.rng.uniform(8, 15)
        self._thing("strip", spot.pose.moved(side * spot.width_m, length / 2 - 1.5), (3.0, length, 0.0))
        if self.rng.random() < 0.35:
            garage = self._building(spot.pose.moved(side * spot.width_m, length + 2.0), ((-2.0, -3.2, 2.0, 3.2),))
            self._try(_low(garage))

    def _backyards(self, block: CityBlock) -> None:
        """Fill gaps with huts and sheds, set as the houses are or anyhow; add pools."""
        dense = self.style.rows > 2
        for x, y in self._scatter(block, self.style.infill_per_ha):
            size = self.rng.uniform(1.2, 4.0 if dense else 2.6), self.rng.uniform(1.1, 3.0 if dense else 2.2)
            pose = self.bend.pose(x, y, _main_angle(block)) if dense else self._loose(x, y)
            shed = self._building(pose, ((-size[0], -size[1], size[0], size[1]),), turn=self.rng.normal(0, 0.04))
            self._try(_low(shed))
        if self.style.name in ("suburb", "old_town"):
            for x, y in self._scatter(block, per_ha=1.5):
                self._thing(
                    "pool", self._loose(x, y), (self.rng.uniform(6, 10), self.rng.uniform(3, 5), 0.0), free=True
                )

    def _loose(self, x: float, y: float) -> Pose:
        return self.bend.pose(x, y, self.rng.uniform(0, 2 * math.pi))

    def _scatter(self, block: CityBlock, per_ha: float) -> Iterator[tuple[float, float]]:
        corners = np.array(block.corners)
        low, high = corners.min(axis=0), corners.max(axis=0)
        count = self.rng.poisson(float(np.prod(high - low)) / 1e4 * per_ha)
        for x, y in self.rng.uniform(low, high, (count, 2)).tolist():
            if block.room_m(x, y) > 0.5:
                yield x, y

    # Rows, halls, estates

    def _rows(self, block: CityBlock) -> None:
        """Build terraces: houses that share side walls, each with its own roof."""
        for spot in self._spots(block, 1, scale=2.6):
            unit = self.rng.uniform(5.0, 8.0)
            count = max(int(spot.width_m * 0.95 / unit), 2)
            self._terrace(spot, unit, count)
            self._plot(spot, built=False)
        self._backyards(block)

    def _terrace(self, spot: Spot, unit: float, count: int) -> None:
        rng = self.rng
        depth, setback = rng.uniform(*self.style.depth_m), rng.uniform(*self.style.setback_m)
        pose = spot.pose.moved(0.0, setback + depth / 2)
        first = -unit * count / 2
        bounds = [round((first + unit * k) * 64) / 64 for k in range(count + 1)]
        model = self._building(pose, ((bounds[0], -depth / 2, bounds[-1], depth / 2 + 1.5),))
        if not self._try(model):
            return
        self.sites.buildings.pop()
        for u0, u1 in pairwise(bounds):
            back = round((depth / 2 + rng.choice([0.0, 0.0, 1.5, -1.0])) * 64) / 64
            self.sites.buildings.append(self._unit(model, (u0, model.wings[0][1], u1, back)))

    def _unit(self, model: Building, wing: Wing) -> Building:
        other = self._building(model.pose, (wing,))
        same = self.rng.random() < 0.55
        material, roof, color = (
            (model.material, model.roof, model.color) if same else (other.material, other.roof, other.color)
        )
        roof = "gable" if roof in ("hip", "cross") else roof
        return Building(
            model.pose,
            (wing,),
            roof,
            material,
            color,
            model.eaves_m + self.rng.choice([0.0, 0.4, -0.3]),
            model.pitch,
            other.salt,
        )

    def _halls(self, block: CityBlock) -> None:
        large = (
            Material(
                "membrane", ((206, 204, 200), (176, 174, 170), (120, 120, 122), (84, 84, 88)), ("flat",), 3.0, wear=0.8
            ),
            Material(
                "metal",
                ((150, 150, 150), (178, 178, 174), (66, 112, 168), (142, 78, 66), (98, 124, 110)),
                ("gable",),
                3.0,
                rust=0.05,
            ),
        )
        for spot in self._spots(block, 2, scale=self.rng.uniform(2.2, 3.6)):
            size = (spot.width_m * self.rng.uniform(0.65, 0.9), min(self.rng.uniform(16, 42), spot.room_m * 1.4))
            if size[1] < 9:
                continue
            pose = spot.pose.moved(0.0, self.rng.uniform(4, 9) + size[1] / 2)
            hall = self._building(pose, house_wings(self.rng, *size, plain=0.6), materials=large)
            if not self._try(_flatter(hall), 1.5):
                self._try(_flatter(_shrunk(hall, 0.6)), 1.5)
        self._parking(block)

    def _estate(self, block: CityBlock) -> None:
        flats = (
            Material(
                "membrane", ((196, 194, 190), (128, 126, 124), (92, 92, 96), (150, 146, 140)), ("flat",), 3.0, wear=0.9
            ),
            Material("concrete", ((158, 152, 146), (176, 172, 164)), ("flat",), 1.0),
            Material("tile", ((150, 84, 64), (128, 86, 74)), ("hip", "gable"), 1.5),
        )
        for spot in self._spots(block, 3, scale=2.2):
            wings = house_wings(
                self.rng, spot.width_m * self.rng.uniform(0.6, 0.9), self.rng.uniform(11, 15), plain=0.55
            )
            if self.rng.random() < 0.25:
                wings = court_wings(self.rng.uniform(28, 40), self.rng.uniform(26, 36), self.rng.uniform(9, 12))
            pose = spot.pose.moved(0.0, self.rng.uniform(3, 8) + wings[0][3])
            self._try(self._building(pose, wings, materials=flats), 3.0)
        self._parking(block)

    def _parking(self, block: CityBlock) -> None:
        if self.style.cars < 0.4:
            return
        for x, y in self._scatter(block, per_ha=5.0):
            pose = self.bend.pose(x, y, _main_angle(block))
            for k in range(int(self.rng.integers(3, 11))):
                if self.rng.random() < 0.75:
                    self._thing("car", pose.moved(0.0, 2.6 * k), (4.4, 1.8, 1.5), free=True)

    # Open land, and what lies about everywhere

    def _open(self, block: CityBlock) -> None:
        if block.kind == "pitch":
            pose = self.bend.pose(*block.center, _main_angle(block))
            self.sites.things.append(Thing("sport", pose, (40.0, 24.0, 0.0)))
        if block.kind == "forest":
            for x, y in self._scatter(block, per_ha=260.0):
                self._tree(x, y, 1.15)
        if block.kind == "lot":
            for x, y in self._scatter(block, per_ha=70.0):
                self._thing(
                    "clutter",
                    self._loose(x, y),
                    (self.rng.uniform(0.5, 2.5), self.rng.uniform(0.4, 1.6), 0.6),
                    free=True,
                )
        if block.kind == "park":
            for x, y in self._scatter(block, per_ha=70.0):
                self._tree(x, y, 1.2)

    def strew(self) -> None:
        """Add trees and clutter wherever the land is free."""
        side = self.canvas.side_m
        hectares = (side + 2 * self.canvas.margin_m) ** 2 / 1e4
        rng, style = self.rng, self.style
        for _ in range(rng.poisson(rng.uniform(*style.trees_per_ha) * hectares)):
            x, y = rng.uniform(-8, side + 8, 2).tolist()
            self._tree(x, y, 1.0)
        for _ in range(rng.poisson(style.clutter_per_ha * hectares)):
            x, y = rng.uniform(-8, side + 8, 2).tolist()
            size = (rng.uniform(0.4, 2.4), rng.uniform(0.3, 1.5), rng.uniform(0.1, 1.2))
            self._thing("clutter", Pose.of_angle(x, y, rng.uniform(0, 6.28)), size, free=True)

    def traffic(self) -> None:
        """Put cars on the roads and along them."""
        for road in self.streets.roads:
            length = road.line.length
            per_car = 26.0 / max(self.style.cars * (road.width_m / 7.0), 0.15)
            place = self.rng.uniform(0, per_car)
            while place < length - 6:
                self._car(road.line, road.width_m, place)
                place += max(6.0, self.rng.exponential(per_car))

    def _car(self, line: LineString, width_m: float, place: float) -> None:
        here, ahead = (line.interpolate(place + k) for k in (0.0, 3.0))
        angle = math.atan2(ahead.y - here.y, ahead.x - here.x)
        side = (1 if self.rng.random() < 0.5 else -1) * (
            width_m / 2 - 1.2 if self.rng.random() < 0.6 else width_m * 0.22
        )
        pose = Pose.of_angle(here.x, here.y, angle).moved(0.0, side)
        bus = self.rng.random() < 0.06
        self._thing("car", pose, (8.5, 2.4, 2.8) if bus else (self.rng.uniform(3.8, 4.9), 1.8, 1.5))

    def _tree(self, x: float, y: float, scale: float) -> None:
        """Plant a tree where its trunk stands free; the crown may reach over a roof a little."""
        radius = scale * float(np.clip(self.rng.gamma(4.0, 0.62), 0.8, 5.6))
        pose = Pose.of_angle(x, y, self.rng.uniform(0, 6.28))
        window, u, v = self.canvas.local(pose, radius)
        if u.size == 0:
            return
        crown = u * u + v * v < radius * radius
        hidden = int((crown & self.canvas.taken[window]).sum())
        if hidden <= 0.14 * int(crown.sum()):
            self.sites.things.append(Thing("tree", pose, (radius, radius, radius * self.rng.uniform(1.5, 2.4))))

    def _thing(
        self, kind: str, pose: Pose, size_m: tuple[float, float, float], *, free: bool = True, turned: bool = False
    ) -> None:
        if turned:
            pose = Pose(pose.x, pose.y, -pose.sin, pose.cos) if self.rng.random() < 0.6 else pose
        if kind in ("clutter", "pool", "wall", "hedge") or (kind == "car" and free):
            window, inside = self.canvas.box(pose, size_m[0] + 0.3, size_m[1] + 0.3)
            if kind not in ("wall", "hedge") and (inside & self._blocked(kind)[window]).any():
                return
        self.sites.things.append(Thing(kind, pose, size_m))

    def _blocked(self, kind: str) -> Bools:
        return self.canvas.built if kind == "car" else self.canvas.taken


def _along(a: tuple[float, float], angle: float, along: float, inward: float) -> tuple[float, float]:
    cos, sin = math.cos(angle), math.sin(angle)
    return a[0] + cos * along - sin * inward, a[1] + sin * along + cos * inward


def _corners(half: float, near: float, far: float) -> list[tuple[float, float]]:
    return [(-half, near), (half, near), (half, far), (-half, far)]


def _main_angle(block: CityBlock) -> float:
    a, b = max(sides(block), key=lambda side: math.dist(*side))
    return math.atan2(b[1] - a[1], b[0] - a[0])


def _coarse(wings: tuple[Wing, ...]) -> tuple[Wing, ...]:
    return tuple(
        (round(a * 64) / 64, round(b * 64) / 64, round(c * 64) / 64, round(d * 64) / 64) for a, b, c, d in wings
    )


def _shrunk(house: Building, share: float) -> Building:
    wings = tuple((a * share, b * share, c * share, d * share) for a, b, c, d in house.wings)
    return replace(house, wings=_coarse(wings))


def _low(house: Building) -> Building:
    return replace(house, eaves_m=2.3, pitch=min(house.pitch, 0.3))


def _flatter(hall: Building) -> Building:
    return replace(hall, eaves_m=6.5, pitch=min(hall.pitch, 0.16))


def _whole(house: Building) -> Building:
    """The same house with its courtyard filled, so that nothing is built inside."""
    wings = house.wings
    outer = (min(w[0] for w in wings), min(w[1] for w in wings), max(w[2] for w in wings), max(w[3] for w in wings))
    filled = wings if len(wings) < 4 else (outer,)
    return replace(house, wings=filled)


def house_wings(rng: np.random.Generator, width: float, depth: float, plain: float = 0.52) -> tuple[Wing, ...]:
    """Draw a ground plan: a rectangle, or an L, T or stepped one, centerd, `width` along u and `depth` along v."""
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
