"""The street plan: a rectangle cut again and again into convex blocks, then bent as a whole."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from shapely.geometry import LineString, Polygon

from geoseg.testing.canvas import Pose
from geoseg.testing.style import Style

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Edge:
    """A side of a block: its first corner, and the half width of the road along it (meters)."""

    start: Point
    road_half_m: float


Outline = tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Bend:
    """A smooth displacement of the whole plan: sums of waves (amplitude x, amplitude y, wave x, wave y, phase)."""

    waves: tuple[tuple[float, float, float, float, float], ...]

    def __call__(self, x: float, y: float) -> Point:
        """Move a place of the straight plan to its place in the scene (meters, to 1/64)."""
        dx = sum(ax * math.sin(kx * x + ky * y + phase) for ax, _, kx, ky, phase in self.waves)
        dy = sum(ay * math.cos(kx * x + ky * y + phase) for _, ay, kx, ky, phase in self.waves)
        return round((x + dx) * 64) / 64, round((y + dy) * 64) / 64

    def pose(self, x: float, y: float, angle: float) -> Pose:
        """Return the bent place of something that stood at `angle` radians."""
        here = self(x, y)
        ahead = self(x + 4 * math.cos(angle), y + 4 * math.sin(angle))
        return Pose.of_angle(*here, math.atan2(ahead[1] - here[1], ahead[0] - here[0]))

    def line(self, points: list[Point], step_m: float = 6.0) -> list[Point]:
        """Bend a polyline, with points every `step_m`."""
        bent: list[Point] = [self(*points[0])]
        for (x0, y0), (x1, y1) in pairwise(points):
            count = max(int(math.hypot(x1 - x0, y1 - y0) / step_m), 1)
            bent += [self(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(1, count + 1)]
        return bent


@dataclass(frozen=True, slots=True)
class CityBlock:
    """A convex piece of land between roads, in the straight plan."""

    outline: Outline
    kind: str

    @property
    def corners(self) -> list[Point]:
        """The corners, in order."""
        return [edge.start for edge in self.outline]

    @property
    def sides(self) -> list[tuple[Point, Point]]:
        """The sides as pairs of corners, in the order of the outline."""
        return _sides(self.outline)

    @property
    def center(self) -> Point:
        """The mean of the corners."""
        corners = self.corners
        return sum(x for x, _ in corners) / len(corners), sum(y for _, y in corners) / len(corners)

    @property
    def angle(self) -> float:
        """Direction of the longest side, radians."""
        a, b = max(self.sides, key=lambda side: math.dist(*side))
        return math.atan2(b[1] - a[1], b[0] - a[0])

    def room_m(self, x: float, y: float) -> float:
        """Return the distance from a place to the nearest roadside; negative outside."""
        rooms = []
        for edge, (a, b) in zip(self.outline, self.sides, strict=True):
            length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
            distance = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / length
            rooms.append(distance - edge.road_half_m)
        return min(rooms)


@dataclass(frozen=True, slots=True)
class Road:
    """A bent center line and its width in meters."""

    line: LineString
    width_m: float


@dataclass(frozen=True, slots=True)
class Streets:
    """The plan of a scene."""

    blocks: tuple[CityBlock, ...]
    roads: tuple[Road, ...]
    bend: Bend


def plan_streets(rng: np.random.Generator, style: Style, side_m: float) -> Streets:
    """Cut the land around a scene of `side_m` meters into blocks, and put roads on the cuts."""
    bend = _draw_bend(rng, style.bend)
    angle = rng.uniform(0, math.pi)
    half, center = side_m * 0.72 + 60.0, side_m / 2
    cos, sin = math.cos(angle), math.sin(angle)
    corners = ((-half, -half), (half, -half), (half, half), (-half, half))
    land = tuple(Edge((center + u * cos - v * sin, center + u * sin + v * cos), 0.0) for u, v in corners)
    kinds = sorted(style.block_kinds)
    weights = [style.block_kinds[kind] for kind in kinds]
    narrow, wide = style.road_m
    outlines: list[tuple[Outline, int]] = [(land, 0)]
    cuts: list[tuple[Point, Point, float]] = []
    blocks: list[CityBlock] = []
    while outlines:
        outline, depth = outlines.pop()
        target = rng.uniform(*style.block_m)
        rank = max(0.0, 1.0 - depth / 5.0)
        width = float(narrow + (wide - narrow) * min(1.0, rank * rng.uniform(0.7, 1.3)))
        halves = _split(rng, outline, target, width)
        if halves is None:
            blocks.append(CityBlock(outline, kinds[pick(rng, weights)]))
            continue
        left, right = halves
        cuts.append((left[0].start, right[0].start, width))
        outlines += [(left, depth + 1), (right, depth + 1)]
    roads = [Road(LineString(bend.line([a, b])), width) for a, b, width in cuts]
    return Streets(tuple(blocks), tuple(sorted(roads, key=lambda road: road.width_m)), bend)


def pick(rng: np.random.Generator, weights: list[float]) -> int:
    """Draw an index with the given weights."""
    mark = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        mark -= weight
        if mark < 0:
            return index
    return len(weights) - 1


def _draw_bend(rng: np.random.Generator, most: float) -> Bend:
    strength = rng.uniform(0.0, 1.0) * most
    waves = []
    for wavelength in (420.0, 190.0):
        direction, phase = rng.uniform(0, 2 * math.pi, 2)
        turn = 2 * math.pi / wavelength
        amplitude = strength * wavelength * 0.035
        waves.append((amplitude, amplitude, turn * math.cos(direction), turn * math.sin(direction), phase))
    return Bend(tuple(waves))


def _sides(outline: Outline) -> list[tuple[Point, Point]]:
    corners = [edge.start for edge in outline]
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def _split(rng: np.random.Generator, outline: Outline, target: float, width: float) -> tuple[Outline, Outline] | None:
    """Cut an outline across its longest side with a road; None if it is small enough.

    The halves begin at the two ends of the road, which is straight.
    """
    sides = _sides(outline)
    lengths = [math.dist(a, b) for a, b in sides]
    first, count = max(range(len(sides)), key=lengths.__getitem__), len(sides)
    area = Polygon([edge.start for edge in outline]).area
    if lengths[first] < target * 1.35 or area < target * target * 0.9:
        return None
    a, b = sides[first]
    share = rng.uniform(0.36, 0.64)
    start = (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
    angle = math.atan2(b[1] - a[1], b[0] - a[0]) + math.pi / 2 + rng.normal(0, 0.07)
    for step in range(1, count):
        index = (first + step) % count
        end = _meet(start, (math.cos(angle), math.sin(angle)), *sides[index])
        if end is not None:
            ahead = [outline[(first + k) % count] for k in range(1, step + 1)]
            behind = [outline[(index + k) % count] for k in range(1, count - step + 1)]
            left = (Edge(start, outline[first].road_half_m), *ahead, Edge(end, width / 2))
            right = (Edge(end, outline[index].road_half_m), *behind, Edge(start, width / 2))
            return left, right
    return None


def _meet(start: Point, ray: Point, a: Point, b: Point) -> Point | None:
    """Return where a ray meets the side from a to b, if it does."""
    side = (b[0] - a[0], b[1] - a[1])
    cross = ray[0] * side[1] - ray[1] * side[0]
    if abs(cross) < 1e-9:
        return None
    to = (a[0] - start[0], a[1] - start[1])
    along = (to[0] * side[1] - to[1] * side[0]) / cross
    share = (to[0] * ray[1] - to[1] * ray[0]) / cross
    if along <= 1e-6 or not 0 <= share <= 1:
        return None
    return start[0] + ray[0] * along, start[1] + ray[1] * along
