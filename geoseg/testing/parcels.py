"""Land cut into convex parcels that share their corners exactly, so that houses on them share walls."""

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from geoseg.testing.streets import Bend, Point

Ring = tuple[Point, ...]

_ON_LINE_M = 1e-6


def cut(ring: Ring, axis: Point, at: float) -> tuple[Ring, Ring]:
    """Cut a convex ring along a line.

    Args:
        ring: Corners in order, without the first again at the end.
        axis: Unit normal of the line.
        at: The line's place along the axis, meters from the origin.

    Returns:
        The parts below and above `at`, which share the two points of the cut; () for a part that is empty.
    """
    if not ring:
        return (), ()
    below: list[Point] = []
    above: list[Point] = []
    sides = [x * axis[0] + y * axis[1] - at for x, y in ring]
    for index, (here, side) in enumerate(zip(ring, sides, strict=True)):
        if side <= _ON_LINE_M:
            below.append(here)
        if side >= -_ON_LINE_M:
            above.append(here)
        ahead, next_side = ring[(index + 1) % len(ring)], sides[(index + 1) % len(ring)]
        if min(side, next_side) < -_ON_LINE_M and max(side, next_side) > _ON_LINE_M:
            share = side / (side - next_side)
            crossing = (here[0] + (ahead[0] - here[0]) * share, here[1] + (ahead[1] - here[1]) * share)
            below.append(crossing)
            above.append(crossing)
    return (tuple(below) if min(sides) < -_ON_LINE_M else ()), (tuple(above) if max(sides) > _ON_LINE_M else ())


def between(ring: Ring, axis: Point, low: float, high: float) -> Ring:
    """Return the part of a convex ring between two lines across an axis."""
    return cut(cut(ring, axis, low)[1], axis, high)[0]


def span(ring: Ring, axis: Point) -> tuple[float, float]:
    """Return where a ring begins and ends along an axis, meters from the origin; (0, 0) if it is empty."""
    places = [x * axis[0] + y * axis[1] for x, y in ring] or [0.0]
    return min(places), max(places)


def axes_of(angle: float) -> tuple[Point, Point]:
    """Return the unit vectors along an angle (radians) and a quarter turn ahead of it."""
    return (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))


def area_of(ring: Ring) -> float:
    """Return a ring's area, square meters."""
    return float(abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, ring[1:] + ring[:1], strict=True))) / 2)


def middle_of(ring: Ring) -> Point:
    """Return the mean of the corners."""
    return sum(x for x, _ in ring) / len(ring), sum(y for _, y in ring) / len(ring)


def bent_outlines(houses: Sequence[tuple[Ring, ...]], bend: Bend) -> list[Polygon]:
    """Bend houses to their places in the scene, with every corner on a shared wall in both of its houses.

    Args:
        houses: Parts of each, convex rings of the straight plan that do not overlap.
        bend: Moves corners; what lies on a wall is made a corner first, so that a wall bends the same on both sides.

    Returns:
        One polygon for each house, in scene meters; empty where the parts are apart or nothing remains.
    """
    parts = [ring for rings in houses for ring in rings]
    if not parts:
        return []
    corners = np.unique(np.round(np.array([point for ring in parts for point in ring]), 7), axis=0)
    bent: list[Polygon] = []
    for rings in houses:
        polygons = [Polygon([bend(x, y) for x, y in _noded(ring, corners)]) for ring in rings]
        whole = polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)
        bent.append(whole if whole.geom_type == "Polygon" and whole.is_valid else Polygon())
    return bent


def _noded(ring: Ring, corners: NDArray[np.float64]) -> list[Point]:
    """Return a ring with those of all corners that lie on its edges, each at its place."""
    start = np.array(ring)
    edge = np.roll(start, -1, axis=0) - start
    length = np.maximum(np.sqrt((edge * edge).sum(axis=1)), 1e-9)
    low, high = start.min(axis=0) - 0.01, start.max(axis=0) + 0.01
    near = corners[((corners > low) & (corners < high)).all(axis=1)]
    offset = near[None] - start[:, None]
    along = (offset * edge[:, None]).sum(axis=2) / length[:, None]
    aside = np.abs(offset[..., 0] * edge[:, None, 1] - offset[..., 1] * edge[:, None, 0]) / length[:, None]
    is_on = (aside < 1e-5) & (along > 1e-4) & (along < length[:, None] - 1e-4)
    noded: list[Point] = []
    for index, point in enumerate(ring):
        noded.append(point)
        hits = np.flatnonzero(is_on[index])
        noded += [(float(near[hit, 0]), float(near[hit, 1])) for hit in hits[np.argsort(along[index, hits])]]
    return noded
