"""Measures of one set of polygons: right angles, shared walls, gaps, overlaps and slivers.

All lengths and areas are in the unit of the coordinates: meters on the ground, or pixels without a CRS.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.evaluate.pixels import ratio
from geoseg.evaluate.polygons import Clipped, PolygonArray

RIGHT_WITHIN_DEG = 5.0
"""Largest difference, in degrees, from a multiple of 90 degrees of a corner that counts as right."""

THIN = 0.5
"""Buildings meet if they are nearer than this, and a polygon that is nowhere wider is a sliver."""

SAME_LINE = 0.01
"""Walls are one line within this distance: files often store coordinates to the centimeter."""

SAMPLE = 0.25
"""Largest distance of the points of a wall at which it is asked what lies opposite."""

WALLS_AT_A_TIME = 20_000
"""Number of walls that are sampled at a time, so that memory does not grow with the scene."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Sums over the polygons of an area; those of areas can be added.

    Attributes:
        area: Sum of the areas.
        corners: Vertices of the exteriors and holes of polygons that the scored area does not cut.
        right: Those whose angle is within `RIGHT_WITHIN_DEG` of 90, 180 or 270 degrees.
        facing: Length of the walls of these polygons that have another building within `THIN` before them.
        shared: Length of those that are one line with the other building's wall.
        gap: Area between buildings that is narrower than `THIN`.
        overlap: Area that two buildings have in common, summed over all pairs.
        slivers: Parts of polygons that are nowhere wider than `THIN`.
        repaired: Polygons that were invalid as read.
    """

    area: float = 0.0
    corners: int = 0
    right: int = 0
    facing: float = 0.0
    shared: float = 0.0
    gap: float = 0.0
    overlap: float = 0.0
    slivers: int = 0
    repaired: int = 0

    def __add__(self, other: "Shapes") -> "Shapes":
        """Add the polygons of two areas."""
        return Shapes(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def metrics(self, prefix: str = "") -> dict[str, Any]:
        """Return the measures by name; each name begins with the prefix."""
        found = {
            "area": self.area,
            "orthogonality": ratio(self.right, self.corners),
            "shared_edges": ratio(self.shared, self.facing),
            "facing_length": self.facing,
            "gap_area": self.gap,
            "overlap_area": self.overlap,
            "slivers": self.slivers,
            "invalid": self.repaired,
        }
        return {f"{prefix}{name}": value for name, value in found.items()}


def measure_shapes(buildings: Clipped, *, repaired: int = 0) -> Shapes:
    """Measure buildings.

    Corners, walls and slivers are those of buildings that the border of the scored area does not cut, as a cut makes
    new ones; the areas are those of all parts that lie inside.

    Args:
        buildings: Buildings, clipped to the scored area.
        repaired: Number of polygons that were invalid as read.
    """
    whole = buildings.polygons[buildings.is_whole]
    corners, right = count_corners(whole)
    facing, shared = shared_walls(buildings.polygons, buildings.is_whole)
    return Shapes(
        area=float(shapely.area(buildings.polygons).sum()),
        corners=corners,
        right=right,
        facing=facing,
        shared=shared,
        gap=gap_area(buildings.polygons),
        overlap=overlap_area(buildings.polygons),
        slivers=int(np.count_nonzero(shapely.is_empty(_offset(shapely.get_parts(whole), -THIN / 2)))),
        repaired=repaired,
    )


def count_corners(polygons: PolygonArray) -> tuple[int, int]:
    """Count the corners of polygons, and those that are right or straight.

    The share is a building map's regularity: most roofs are rectangles, and their corners are 90 or 270 degrees. A
    vertex in a straight wall counts as right. Repeated points are one corner.

    Args:
        polygons: Polygons or multipolygons in meters, so that their angles are those on the ground, `(polygon,)`.

    Returns:
        Number of corners, and of those within `RIGHT_WITHIN_DEG` of 90, 180 or 270 degrees.
    """
    start, end, owner = _walls(polygons, by_ring=True)
    if not len(owner):
        return 0, 0
    step = end - start
    angle = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    last = np.append(first[1:], len(owner)) - 1
    before = np.roll(angle, 1)
    before[first] = angle[last]
    turn = (angle - before) % 90
    return len(turn), int(np.count_nonzero(np.minimum(turn, 90 - turn) <= RIGHT_WITHIN_DEG))


def shared_walls(polygons: PolygonArray, measured: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how much wall faces another building at close range, and how much of it both have in common.

    A neighbor's wall that is drawn once is shared by both polygons; drawn twice it leaves gaps and overlaps. ACPV-Net
    (arXiv:2603.16616) reports the share of shared edges, gaps and overlaps of whole coverages; between buildings there
    is open land, so that only walls that face each other are counted here.

    Args:
        polygons: Valid polygons or multipolygons, `(building,)`.
        measured: The buildings whose walls are measured, `(building,)`.

    Returns:
        Length of the walls with another building at most `THIN` before them (or on both sides of them), and of those
        that are one line with the outline of that building.
    """
    start, end, owner = _walls(polygons[measured])
    owner = np.flatnonzero(measured)[owner]
    tree, outlines = shapely.STRtree(polygons), shapely.boundary(polygons)
    wall, near = tree.query(_lines(start, end), predicate="dwithin", distance=THIN)
    close = np.unique(wall[near != owner[wall]])
    shapely.prepare(outlines)
    facing = shared = 0.0
    for at in np.split(close, np.arange(WALLS_AT_A_TIME, len(close), WALLS_AT_A_TIME)):
        length = np.hypot(*(end[at] - start[at]).T)
        count = np.ceil(length / SAMPLE).astype(np.int64)
        index = np.repeat(np.arange(len(at)), count)
        place = (np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[index]
        along = ((end[at] - start[at]) / length[:, None])[index]
        outward = np.column_stack((along[:, 1], -along[:, 0]))  # the inside of a ring lies on its left
        point = start[at][index] + along * (place * length[index])[:, None]
        # The probe begins beyond the wall itself: an outline that lies on the same side is no neighbor's.
        probe, other = tree.query(_lines(point + 2 * SAME_LINE * outward, point + THIN * outward), "intersects")
        is_other = other != owner[at][index][probe]
        probe, other = probe[is_other], other[is_other]
        is_shared = shapely.dwithin(shapely.points(point[probe]), outlines[other], SAME_LINE)
        weight = (length / count)[index]
        facing += float(weight[np.unique(probe)].sum())
        shared += float(weight[np.unique(probe[is_shared])].sum())
    return facing, shared


def gap_area(polygons: PolygonArray) -> float:
    """Return the area between buildings that is narrower than `THIN`.

    The morphological closing of all buildings together (Serra, "Image analysis and mathematical morphology", 1982) by
    half of `THIN`, without that of each building by itself, so that a building's own notches do not count.

    Args:
        polygons: Valid polygons or multipolygons, `(building,)`.
    """
    a, b = _pairs(polygons, within=THIN)
    if not len(a):
        return 0.0
    met, index = np.unique(np.concatenate((a, b)), return_inverse=True)
    group = _connect(len(met), index[: len(a)], index[len(a) :])
    closed = _offset(_offset(polygons[met], THIN / 2), -THIN / 2)
    together = _offset(_offset(_join(polygons[met], group), THIN / 2), -THIN / 2)
    alone = _offset(_join(closed, group), 0.0)
    return float(np.round(np.maximum(shapely.area(together) - shapely.area(alone), 0), 6).sum())


def overlap_area(polygons: PolygonArray) -> float:
    """Return the area that two buildings have in common, summed over all pairs, `polygons` being `(building,)`."""
    a, b = _pairs(polygons, within=0.0)
    return float(np.round(shapely.area(shapely.intersection(polygons[a], polygons[b])), 6).sum())


def holes(buildings: Clipped) -> Clipped:
    """Return the holes of buildings as polygons; those of buildings that the scored area cuts do not count.

    A courtyard that a roof lacks hardly changes IoU, which is why PolyTopoBench (2026) scores holes by themselves.
    """
    parts, owner = shapely.get_parts(buildings.polygons, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    is_hole = np.append(False, part[1:] == part[:-1])[: len(part)]  # the exterior comes first
    return Clipped(shapely.polygons(rings[is_hole]), buildings.is_whole[owner[part[is_hole]]].astype(np.float64))


def _walls(
    polygons: PolygonArray, *, by_ring: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the walls of polygons, whose inside lies on the left of each.

    Returns:
        Start and end, each `(wall, xy)`, and the index of the polygon or of the ring, `(wall,)`.
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    rings, part = shapely.get_rings(shapely.orient_polygons(parts), return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    is_wall = (ring[1:] == ring[:-1]) & (xy[1:] != xy[:-1]).any(axis=1)
    ring = ring[:-1][is_wall].astype(np.int64)
    return xy[:-1][is_wall], xy[1:][is_wall], ring if by_ring else owner[part[ring]].astype(np.int64)


def _lines(start: NDArray[np.float64], end: NDArray[np.float64]) -> PolygonArray:
    """Return lines of two points each, `(line,)`."""
    return np.asarray(shapely.linestrings(np.stack((start, end), axis=1)), object)


def _pairs(polygons: PolygonArray, *, within: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the two buildings of each pair whose distance is at most `within`, each `(pair,)`."""
    a, b = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=within)
    return a[a < b], b[a < b]


def _connect(size: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of buildings that pairs connect, from 0, `(building,)`; each pair is `a[i]` and `b[i]`."""
    label = np.arange(size)
    while True:
        lowest = np.minimum(label[a], label[b])
        new = label.copy()
        np.minimum.at(new, a, lowest)
        np.minimum.at(new, b, lowest)
        new = new[new]
        if np.array_equal(new, label):
            return np.unique(label, return_inverse=True)[1]
        label = new


def _join(polygons: PolygonArray, group: NDArray[np.int64]) -> PolygonArray:
    """Return one multipolygon of the parts of every group, `(group,)`; `group` is `(polygon,)`.

    Its parts may overlap: `shapely.buffer` unites them.
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    order = np.argsort(group[owner], kind="stable")
    return np.asarray(shapely.multipolygons(parts[order], indices=group[owner][order]), object)


def _offset(polygons: PolygonArray, distance: float) -> PolygonArray:
    """Move the outlines of polygons outward; corners stay sharp, so that moving them back restores them."""
    return np.asarray(shapely.buffer(polygons, distance, join_style="mitre", mitre_limit=2.0), object)
