"""Corners into rings: the outlines of pixel regions, in integers from end to end.

For a region with indicator I (1 inside, 0 outside) every pixel corner has the weight

    D = I(north-west) - I(north-east) - I(south-west) + I(south-east)

which is zero wherever the outline runs straight. D is linear: the weights of a union of disjoint regions are the sums
of theirs. One routine therefore outlines the runs of a mask and joins polygons along seams, and both give the same
vertices. Every outline is walked with the region to its right as seen on screen (row axis down), which is
counter-clockwise in (x=col, y=row): a corner of weight +1 starts a horizontal edge, one of weight -1 ends it.
Where |D| = 2 the region touches itself diagonally, and the outlines are parted there: each ring is simple, holes may
touch the exterior or each other in a point, and the polygon is valid (OGC 06-103r4, 6.1.11).
"""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

PolygonArray = NDArray[np.object_]
"""Shapely polygons, `(polygon,)`."""


@dataclass(frozen=True, slots=True, eq=False)
class Corners:
    """Corner weights by region. Regions are numbered from zero without gaps; all arrays are `(corner,)`."""

    region: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    weight: NDArray[np.int64]


def outline(corners: Corners) -> PolygonArray:
    """Draw the polygon of every region.

    Args:
        corners: Weights, in any order and any number of parts per place: parts are summed.

    Returns:
        One valid polygon per region, in region order, in canonical form: exterior first, counter-clockwise in
        (x=col, y=row), holes clockwise and sorted by their first vertex; every ring starts at its smallest
        (row, col); no vertex lies on a straight edge.
    """
    if not len(corners.region):
        return np.zeros(0, dtype=object)
    corners = _merge(corners)
    corner, size = _walk(_next_edges(corners), corners.weight[::2] > 0)
    stop = np.cumsum(size)
    offset = np.concatenate(([0], np.cumsum(size + 1)))
    closed = np.insert(corner, stop, corner[stop - size])
    xy = np.column_stack((corners.col[closed], corners.row[closed])).astype(np.float64)
    rings_of_region = np.bincount(corners.region[corner[stop - size]])
    polygon_offset = np.concatenate(([0], np.cumsum(rings_of_region)))
    polygons: PolygonArray = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (offset, polygon_offset))
    return polygons


def corners_of(polygons: PolygonArray, region: NDArray[np.int64]) -> Corners:
    """Return the corner weights of polygons that `outline` drew.

    Args:
        polygons: Polygons in canonical form.
        region: Region that each polygon is a part of, `(polygon,)`.
    """
    xy, ring, polygon = open_rings(polygons)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    size = np.diff(np.append(first, len(ring)))
    starts_level = xy[first, 1] == xy[first + 1, 1]
    position = np.arange(len(ring)) - np.repeat(first, size)
    weight = np.where(position % 2 == 0, 1, -1) * np.repeat(np.where(starts_level, 1, -1), size)
    return Corners(region[polygon], xy[:, 1], xy[:, 0], weight)


def open_rings(polygons: PolygonArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the vertices of polygons in pixel coordinates without the closing one of each ring.

    Returns:
        Vertices `(vertex, xy)`, the ring and the polygon of each vertex, both numbered from zero.
    """
    _, xy, (ring_offset, polygon_offset) = shapely.to_ragged_array(polygons)
    ring = np.repeat(np.arange(len(ring_offset) - 1), np.diff(ring_offset))
    polygon = np.repeat(np.arange(len(polygons)), np.diff(polygon_offset))
    keep = np.ones(len(xy), dtype=bool)
    keep[ring_offset[1:] - 1] = False
    return xy[keep].astype(np.int64), ring[keep], polygon[ring[keep]]


def first_corners(polygons: PolygonArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the first vertex of polygons that `outline` drew, `(polygon,)` each.

    It is the upper left corner of a polygon's first pixel, so no two polygons of a scene share it.
    """
    count = shapely.get_num_coordinates(polygons)
    first = shapely.get_coordinates(polygons)[np.cumsum(count) - count].astype(np.int64)
    return first[:, 1], first[:, 0]


def reading_order(polygons: PolygonArray) -> NDArray[np.int64]:
    """Return the order of polygons by the row and the column of their first vertex."""
    row, col = first_corners(polygons)
    return np.lexsort((col, row))


def _merge(corners: Corners) -> Corners:
    """Sum the weights of each region at each place, sort by (region, row, col), and repeat where the sum is two."""
    top, left, regions = corners.row.min(), corners.col.min(), int(corners.region.max()) + 1
    height, width = int(corners.row.max() - top) + 1, int(corners.col.max() - left) + 1
    if regions * height * width >= 2**61:
        raise OverflowError(f"{regions} polygons over {height} x {width} pixels need keys of more than 64 bits")
    key = (corners.region * height + (corners.row - top)) * width + (corners.col - left)
    key = np.sort(2 * key + (corners.weight < 0))
    place, weight = key >> 1, 1 - 2 * (key & 1)
    first = np.flatnonzero(np.diff(place, prepend=-1))
    total = np.add.reduceat(weight, first)
    place = np.repeat(place[first], np.abs(total))
    rest, col = np.divmod(place, width)
    region, row = np.divmod(rest, height)
    return Corners(region, row + top, col + left, np.sign(np.repeat(total, np.abs(total))))


def _next_edges(corners: Corners) -> NDArray[np.int64]:
    """Return the horizontal edge that follows each horizontal edge; edge `k` joins corners `2k` and `2k + 1`.

    Vertical edges join corners that are neighbors in a column. Of two corners at one place the first has the edge to
    the left. Where north-west and south-east are inside (+2), that corner goes around the south-west, so it goes down
    and the other goes up; at -2 it is the other way round.
    """
    top, left = corners.row.min(), corners.col.min()
    height, width = int(corners.row.max() - top) + 1, int(corners.col.max() - left) + 1
    key = (corners.region * width + (corners.col - left)) * height + (corners.row - top)
    repeats = key[1:] == key[:-1]
    goes_down = (np.append(repeats, False) & (corners.weight > 0)) | (np.append(False, repeats) & (corners.weight < 0))
    order = np.argsort(2 * key + goes_down, kind="stable")
    partner = np.empty(len(order), dtype=np.int64)  # the corner at the other end of each corner's vertical edge
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    even_starts = corners.weight[::2] > 0
    following: NDArray[np.int64] = partner[2 * np.arange(len(even_starts)) + even_starts] // 2
    return following


def _walk(following: NDArray[np.int64], is_exterior: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order the edges of all rings by pointer doubling.

    Args:
        following: The edge after each edge, `(edge,)`.
        is_exterior: True where the region lies below the edge, `(edge,)`.

    Returns:
        Corners in the order of the rings, `(corner,)`, and the size of each ring. Rings are sorted by their first edge.
    """
    leader, jump = np.arange(len(following), dtype=np.int64), following  # the smallest edge of each edge's ring
    while not np.array_equal(lower := np.minimum(leader, leader[jump]), leader):
        leader, jump = lower, jump[jump]
    is_last = following == leader
    steps = (~is_last).astype(np.int64)  # the number of edges after each edge before its ring is back at its leader
    jump = np.where(is_last, np.arange(len(following)), following)
    while (further := steps[jump]).any():
        steps, jump = steps + further, jump[jump]
    edge = np.lexsort((-steps, leader))
    size = np.bincount(leader)
    size = 2 * size[size > 0]
    swap = ~is_exterior[edge]
    corner = np.empty(2 * len(edge), dtype=np.int64)
    corner[::2], corner[1::2] = 2 * edge + swap, 2 * edge + ~swap
    # A hole starts one corner later, at its smallest: its first edge runs towards it.
    is_hole = ~is_exterior[np.unique(leader)]
    index = np.arange(len(corner)) + np.repeat(is_hole, size)
    index[np.cumsum(size)[is_hole] - 1] -= size[is_hole]
    return corner[index], size
