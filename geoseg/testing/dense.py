"""Blocks whose houses share walls: terraces, perimeters of courtyards, packed towns, informal settlements."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from shapely.geometry import Polygon

from geoseg.testing.buildings import Building, Wing
from geoseg.testing.canvas import Pose
from geoseg.testing.parcels import Ring, area_of, axes_of, bent_outlines, between, cut, middle_of, span
from geoseg.testing.streets import Bend, CityBlock, pick
from geoseg.testing.style import Range, Style

_SMALLEST_M2 = 6.0
_NARROWEST_M = 1.7


@dataclass(frozen=True, slots=True)
class House:
    """A building that may share walls with others.

    Attributes:
        outline: Its roof in scene meters; its corners are its neighbors' too where it touches them.
        parts: Convex rings that make it up, in scene meters, for the shape of the roof.
        is_wide: For each part, whether its ridge runs along u of the pose.
        look: Everything else: pose, covering, color, heights; its wings are the parts' bounds.
        party: Tone of the wall that rises between two pitched roofs, as a factor; 1.0 where none shows.
        salt: Chooses what stands on the roof.
    """

    outline: Polygon
    parts: tuple[Ring, ...]
    is_wide: tuple[bool, ...]
    look: Building
    party: float
    salt: int


@dataclass(frozen=True, slots=True)
class Parceling:
    """How land is cut into lots, in meters.

    Attributes:
        area_m2: Wanted size of a lot.
        lane_m: Widths of lanes, which part pieces of more than `lane_from_m2`.
        lane_from_m2: See `lane_m`.
        shared: Share of the other cuts at which walls touch.
        gap_m: Widths of the gaps at those where they do not.
        tilt: Standard deviation of the cuts' direction, radians.
        empty: Share of lots without a house.
        yard: Share of lots that keep a yard, on which a shed may stand.
        same: Share of cuts after which both halves look the same.
    """

    area_m2: Range
    lane_m: Range
    lane_from_m2: float
    shared: float
    gap_m: Range
    tilt: float
    empty: float
    yard: float
    same: float


@dataclass(frozen=True, slots=True)
class Rows:
    """How houses stand along the sides of a block; lengths in meters.

    Attributes:
        setback_m: From the road to the row.
        depth_m: Depth of the row.
        unit_m: Widths of its houses.
        wing_m: How far wings reach behind them.
        wings: Share of groups of like houses that have wings.
        passages: Share of groups after which there is a passage.
        sides: How many sides of a block have a row, from the longest.
        infill: Share of blocks with houses in the courtyard.
    """

    setback_m: Range
    depth_m: Range
    unit_m: Range
    wing_m: Range
    wings: float
    passages: float
    sides: int
    infill: float


PARCELING = {
    "packed": Parceling((38.0, 120.0), (1.0, 2.6), 900.0, 0.66, (0.3, 1.5), 0.02, 0.07, 0.3, 0.12),
    "shanty": Parceling((9.0, 44.0), (0.5, 1.8), 640.0, 0.62, (0.2, 1.0), 0.07, 0.04, 0.12, 0.12),
}
ROWS = {
    "terrace": Rows((1.0, 4.5), (7.0, 10.5), (4.2, 7.5), (2.2, 5.0), 0.6, 0.36, 2, 0.0),
    "perimeter": Rows((0.0, 0.6), (8.5, 13.0), (6.5, 16.0), (3.0, 7.0), 0.4, 0.15, 8, 0.4),
    "shops": Rows((0.0, 1.2), (8.0, 16.0), (3.6, 8.5), (2.5, 6.0), 0.5, 0.45, 3, 0.6),
}
DENSE_BLOCKS = frozenset({*PARCELING, *ROWS})


@dataclass(frozen=True, slots=True)
class _Plan:
    """A house of the straight plan; `frame` is the direction of its front, radians."""

    parts: tuple[Ring, ...]
    frame: float
    look: Building
    along: bool | None = None


def build_block(block: CityBlock, bend: Bend, style: Style, rng: np.random.Generator) -> list[House]:
    """Fill a block of one of `DENSE_BLOCKS` with houses."""
    land = _inset(block)
    if not land:
        return []
    if block.kind in ROWS:
        plans = list(_rows(land, ROWS[block.kind], style, rng))
    else:
        plans = list(_parcels(land, block.angle, PARCELING[block.kind], style, rng))
    outlines = bent_outlines([plan.parts for plan in plans], bend)
    pairs = zip(plans, outlines, strict=True)
    return [_house(plan, outline, bend, rng) for plan, outline in pairs if outline.area > _SMALLEST_M2 / 2]


def _inset(block: CityBlock) -> Ring:
    """Return the land of a block between its roads."""
    land: Ring = tuple(block.corners)
    for (a, b), edge in zip(block.sides, block.outline, strict=True):
        _, inward = axes_of(math.atan2(b[1] - a[1], b[0] - a[0]))
        land = cut(land, inward, a[0] * inward[0] + a[1] * inward[1] + edge.road_half_m + 0.3)[1]
    return land


def _is_lot(ring: Ring, angle: float) -> bool:
    if not ring or area_of(ring) < _SMALLEST_M2:
        return False
    return all(high - low > _NARROWEST_M for low, high in (span(ring, axis) for axis in axes_of(angle)))


def _parcels(land: Ring, angle: float, how: Parceling, style: Style, rng: np.random.Generator) -> Iterator[_Plan]:
    """Cut land in two again and again, along walls, gaps and lanes, and build on the lots."""
    pieces = [(land, angle, draw_look(style, rng), False)]
    while pieces:
        ring, turn, look, is_kin = pieces.pop()
        area, axes = area_of(ring), axes_of(turn)
        spans = [span(ring, axis) for axis in axes]
        across = int(spans[1][1] - spans[1][0] > spans[0][1] - spans[0][0])
        low, high = spans[across]
        if area < rng.uniform(*how.area_m2) * 1.5 or high - low < 4.4:
            if _is_lot(ring, turn) and rng.random() > how.empty:
                yield from _build_lot(ring, turn, look if is_kin else draw_look(style, rng), how, style, rng)
            continue
        tilted = turn + rng.normal(0, how.tilt)
        axis = axes_of(tilted)[across]
        low, high = span(ring, axis)
        at = low + (high - low) * rng.uniform(0.38, 0.62)
        gap = 0.0 if rng.random() < how.shared else rng.uniform(*how.gap_m)
        gap = rng.uniform(*how.lane_m) if area > how.lane_from_m2 else gap
        below, above = cut(ring, axis, at)
        if gap:
            below, above = cut(ring, axis, at - gap / 2)[0], cut(ring, axis, at + gap / 2)[1]
        alike = area < how.area_m2[1] * 5 and rng.random() < how.same
        kin = look if is_kin else draw_look(style, rng)
        alike = alike or (is_kin and rng.random() < 0.4)
        pieces += [(piece, tilted, kin, alike) for piece in (below, above) if piece]


def _build_lot(
    ring: Ring, angle: float, look: Building, how: Parceling, style: Style, rng: np.random.Generator
) -> Iterator[_Plan]:
    """Build on a lot: all of it, an L, around a light well, or leave a yard with or without a shed."""
    axes = axes_of(angle)
    sizes = [high - low for low, high in (span(ring, axis) for axis in axes)]
    area = sizes[0] * sizes[1]
    if min(sizes) > 9.5 and rng.random() < style.court * 5:
        parts = _around(ring, angle, rng.uniform(0.28, 0.4) * min(sizes))
        yield _Plan(parts, angle, look if look.roof == "flat" else replace(look, roof="shed"))
        return
    axis, toward = axes[int(rng.random() < 0.5)], rng.random() < 0.5
    low, high = span(ring, axis)
    if rng.random() < how.yard and area > 14:
        at = low + (high - low) * (rng.uniform(0.6, 0.85) if toward else rng.uniform(0.15, 0.4))
        pieces = cut(ring, axis, at)
        keep, yard = pieces if toward else pieces[::-1]
        yield _Plan((keep,), angle, look)
        if _is_lot(yard, angle) and rng.random() < 0.45:
            shed = draw_look(style, rng)
            yield _Plan(
                (yard,), angle, replace(shed, eaves_m=2.3, pitch=0.1, roof="shed" if shed.roof != "flat" else "flat")
            )
        return
    if area > 45 and min(sizes) > 5 and rng.random() < 0.3:
        at = low + (high - low) * rng.uniform(0.4, 0.65)
        near, far = cut(ring, axis, at)
        across = axes[1] if axis is axes[0] else axes[0]
        left, right = span(far, across)
        wing = cut(far, across, left + (right - left) * rng.uniform(0.4, 0.65))[int(toward)]
        yield _Plan((near, wing), angle, look)
        return
    yield _Plan((ring,), angle, look)


def _around(ring: Ring, angle: float, wing_m: float) -> tuple[Ring, ...]:
    """Cut a ring into four wings around a courtyard."""
    parts: list[Ring] = []
    rest = ring
    for axis in axes_of(angle):
        low, high = span(rest, axis)
        near, rest = cut(rest, axis, low + wing_m)
        rest, far = cut(rest, axis, high - wing_m)
        parts += [near, far]
    return tuple(parts)


def _rows(land: Ring, how: Rows, style: Style, rng: np.random.Generator) -> Iterator[_Plan]:
    """Put rows of houses along the longest sides of a block, with wings behind them; what is left is a courtyard."""
    sides = list(zip(land, land[1:] + land[:1], strict=True))
    sides.sort(key=lambda side: -math.dist(*side))
    depth, setback = rng.uniform(*how.depth_m), rng.uniform(*how.setback_m)
    rest = land
    for a, b in sides[: how.sides]:
        frame = math.atan2(b[1] - a[1], b[0] - a[0])
        along, inward = axes_of(frame)
        front = a[0] * inward[0] + a[1] * inward[1] + setback
        if math.dist(a, b) < 9 or span(rest, inward)[1] - front < depth + 2.5:
            continue
        row, behind = between(rest, inward, front, front + depth), cut(rest, inward, front + depth)[1]
        reach = min(rng.uniform(*how.wing_m), (span(behind, inward)[1] - front - depth) * 0.42)
        back, rest = cut(behind, inward, front + depth + max(reach, 0.5))
        place, end = span(row, along)
        while place < end - 2.0:
            count = max(int(rng.integers(2, 11)), 2)
            width = rng.uniform(*how.unit_m)
            look, alike = draw_look(style, rng), rng.random()
            mirrored, winged = rng.random() < 0.5, rng.random() < how.wings
            for unit in range(count):
                step = width if alike < 0.6 else rng.uniform(*how.unit_m)
                stop = place + step if end - place - step > how.unit_m[0] * 0.7 else end
                lot = between(row, along, place, stop)
                if _is_lot(lot, frame):
                    parts = [lot]
                    if winged and reach > 1.8:
                        left = (unit % 2 == 0) if mirrored else True
                        half = place + (stop - place) * (0.55 if left else 0.45)
                        wing = between(back, along, *((place, half) if left else (half, stop)))
                        parts += [wing] if _is_lot(wing, frame) else []
                    yield _Plan(tuple(parts), frame, _vary(look, alike, style, rng), along=True)
                place = stop
                if place >= end:
                    break
            place += rng.uniform(1.0, 3.5) if rng.random() < how.passages else 0.0
    if rng.random() < how.infill and area_of(rest) > 200:
        loose = replace(PARCELING["packed"], empty=rng.uniform(0.3, 0.7))
        a, b = sides[0]
        yield from _parcels(rest, math.atan2(b[1] - a[1], b[0] - a[0]), loose, style, rng)


def _vary(look: Building, alike: float, style: Style, rng: np.random.Generator) -> Building:
    """Return the look of the next house of a group: the same, another tone and height, or any other."""
    if alike < 0.35:
        return look
    if alike < 0.7:
        tone = rng.normal(1.0, 0.07)
        red, green, blue = (min(value * tone, 246.0) for value in look.color)
        eaves = max(look.eaves_m + rng.choice([0.0, 0.0, 0.4, -0.4, 2.8]), 2.3)
        return replace(look, color=(red, green, blue), eaves_m=eaves, salt=int(rng.integers(1, 1 << 30)))
    return draw_look(style, rng)


def draw_look(style: Style, rng: np.random.Generator) -> Building:
    """Draw covering, color, roof and heights of a house; its place is not known yet."""
    material = style.materials[pick(rng, [m.weight for m in style.materials])]
    roof = material.roofs[int(rng.integers(len(material.roofs)))]
    base = material.colors[int(rng.integers(len(material.colors)))]
    tone = rng.normal(1.0, 0.1)
    red, green, blue = (min(max(value * tone + rng.normal(0, 4), 12.0), 246.0) for value in base)
    eaves = rng.uniform(*style.eaves_m)
    if material.kind == "concrete":  # whole storeys
        eaves = 3.1 * max(1, round(eaves / 3.1))
    pitch = 0.12 if roof == "shed" else round(rng.uniform(*style.pitch), 3)
    salt = int(rng.integers(1, 1 << 30)) | (roof == "flat")  # odd ones have a parapet, which shows where houses meet
    return Building(
        Pose(0.0, 0.0, 1.0, 0.0), (), roof, material, (red, green, blue), round(float(eaves), 2), pitch, salt
    )


def _house(plan: _Plan, outline: Polygon, bend: Bend, rng: np.random.Generator) -> House:
    """Move a planned house to its place in the scene."""
    x, y = middle_of(plan.parts[0])
    pose = bend.pose(x, y, plan.frame)
    parts = tuple(tuple(bend(*point) for point in ring) for ring in plan.parts)
    wings = tuple(_bounds(ring, pose) for ring in parts)
    is_wide = [u1 - u0 >= v1 - v0 for u0, v0, u1, v1 in wings]
    if plan.along is not None:
        is_wide = [plan.along, *(not plan.along for _ in wings[1:])]
    look = replace(plan.look, pose=pose, wings=wings)
    party = float(rng.choice([1.0, 0.78, 0.88, 1.12, 1.2]))
    return House(outline, parts, tuple(is_wide), look, party, int(rng.integers(1, 1 << 30)))


def _bounds(ring: Ring, pose: Pose) -> Wing:
    """Return a ring's bounds in a pose's coordinates, to 1/64 m."""
    moved = [(x - pose.x, y - pose.y) for x, y in ring]
    u = [round((dx * pose.cos + dy * pose.sin) * 64) / 64 for dx, dy in moved]
    v = [round((dy * pose.cos - dx * pose.sin) * 64) / 64 for dx, dy in moved]
    return min(u), min(v), max(u), max(v)
