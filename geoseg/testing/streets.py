"""The street plan: a rectangle cut again and again into convex blocks, gently bent as a whole."""

from __future__ import annotations

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
    """A side of a block: its first corner, and the half width of the road that runs along it (meters)."""

    start: Point
    road_half_m: float


Outline = tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Bend:
    """A smooth displacement of the whole plan: sums of waves (amplitude, wave x, wave y, phase)."""

    waves: tuple[tuple[float, float, float, float, float], ...]

    def __call__(self, x: float, y: float) -> Point:
        """Move a place of the straight plan to where it lies in the scene (meters, to 1/64)."""
        dx = sum(ax * math.sin(kx * x + ky * y + phase) for ax, _, kx, ky, phase in self.waves)
        dy = sum(ay * math.cos(kx * x + ky * y + phase) for _, ay, kx, ky, phase in self.waves)
        return round((x + dx) * 64) / 64, round((y + dy) * 64) / 64

    def pose(self, x: float, y: float, angle: float) -> Pose:
        """Give the bent place of something that stood at `angle` radians."""
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
    def center(self) -> Point:
        """The mean of the corners."""
        corners = self.corners
        return sum(x for x, _ in corners) / len(corners), sum(y for _, y in corners) / len(corners)

    def room_m(self, x: float, y: float) -> float:
        """Say how far a place is from the nearest roadside; negative outside."""
        return min(
            distance - edge.road_half_m for edge, distance in zip(self.outline, self._distances(x, y), strict=True)
        )

    def _distances(self, x: float, y: float) -> list[float]:
        return [_beside(a, b, (x, y)) for a, b in sides(self)]


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


def sides(block: CityBlock) -> list[tuple[Point, Point]]:
    """List the block's sides as pairs of corners."""
    corners = block.corners
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def _beside(a: Point, b: Point, place: Point) -> float:
    length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
    return ((b[0] - a[0]) * (place[1] - a[1]) - (b[1] - a[1]) * (place[0] - a[0])) / length


def plan_streets(rng: np.random.Generator, style: Style, side_m: float) -> Streets:
    """Cut the land around a scene of `side_m` meters into blocks, and lay roads on the cuts."""
    bend = _draw_bend(rng)
    outlines: list[tuple[Outline, int]] = [(_land(rng, side_m), 0)]
    straight: list[tuple[Point, Point, float]] = []
    blocks: list[CityBlock] = []
    while outlines:
        outline, depth = outlines.pop()
        target = rng.uniform(*style.block_m)
        halves = _split(rng, outline, target, _road_width(rng, style, depth))
        if halves is None:
            blocks.append(CityBlock(outline, _draw_kind(rng, style)))
            continue
        straight.append(halves[2])
        outlines += [(halves[0], depth + 1), (halves[1], depth + 1)]
    roads = [Road(LineString(bend.line([a, b])), width) for a, b, width in straight]
    return Streets(tuple(blocks), tuple(sorted(roads, key=lambda road: road.width_m)), bend)


def _draw_bend(rng: np.random.Generator) -> Bend:
    strength = rng.uniform(0.0, 1.0)
    waves = []
    for wavelength in (420.0, 190.0):
        direction, phase = rng.uniform(0, 2 * math.pi, 2)
        turn = 2 * math.pi / wavelength
        amplitude = strength * wavelength * 0.035
        waves.append((amplitude, amplitude, turn * math.cos(direction), turn * math.sin(direction), phase))
    return Bend(tuple(waves))


def _land(rng: np.random.Generator, side_m: float) -> Outline:
    angle = rng.uniform(0, math.pi)
    half = side_m * 0.72 + 60.0
    center = side_m / 2
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    cos, sin = math.cos(angle), math.sin(angle)
    return tuple(Edge((center + u * cos - v * sin, center + u * sin + v * cos), 0.0) for u, v in corners)


def _road_width(rng: np.random.Generator, style: Style, depth: int) -> float:
    low, high = style.road_m
    rank = max(0.0, 1.0 - depth / 5.0)
    return float(low + (high - low) * min(1.0, rank * rng.uniform(0.7, 1.3)))


def _draw_kind(rng: np.random.Generator, style: Style) -> str:
    kinds = sorted(style.block_kinds)
    weights = [style.block_kinds[kind] for kind in kinds]
    return kinds[pick(rng, weights)]


def pick(rng: np.random.Generator, weights: list[float]) -> int:
    """Draw an index with the given weights."""
    mark = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        mark -= weight
        if mark < 0:
            return index
    return len(weights) - 1


def _split(
    rng: np.random.Generator, outline: Outline, target: float, width: float
) -> tuple[Outline, Outline, tuple[Point, Point, float]] | None:
    """Cut an outline across its longest side; None when it is small enough."""
    corners = [edge.start for edge in outline]
    lengths = [math.dist(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    area = Polygon(corners).area
    if lengths[longest] < target * 1.35 or area < target * target * 0.9:
        return None
    a, b = corners[longest], corners[(longest + 1) % len(corners)]
    share = rng.uniform(0.36, 0.64)
    start = (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
    angle = math.atan2(b[1] - a[1], b[0] - a[0]) + math.pi / 2 + rng.normal(0, 0.07)
    return _cut(outline, longest, start, angle, width)


def _cut(
    outline: Outline, first: int, start: Point, angle: float, width: float
) -> tuple[Outline, Outline, tuple[Point, Point, float]] | None:
    corners = [edge.start for edge in outline]
    count = len(corners)
    ray = (math.cos(angle), math.sin(angle))
    for step in range(1, count):
        index = (first + step) % count
        end = _meet(start, ray, corners[index], corners[(index + 1) % count])
        if end is None:
            continue
        ahead = [outline[(first + k) % count] for k in range(1, step + 1)]
        behind = [outline[(index + k) % count] for k in range(1, count - step + 1)]
        left = (Edge(start, outline[first].road_half_m), *ahead, Edge(end, width / 2))
        right = (Edge(end, outline[index].road_half_m), *behind, Edge(start, width / 2))
        return left, right, (start, end, width)
    return None


def _meet(start: Point, ray: Point, a: Point, b: Point) -> Point | None:
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
