"""Outlines cut into arcs, so that a wall that two buildings share is one line and is drawn once.

A *crack* is one unit edge of a pixel. It bounds one polygon, or two where these touch. A corner where the polygon on
the other side changes is a *junction*. An *arc* is a chain of cracks between junctions, or a whole ring without any.
Every ring is a sequence of arcs, each walked forwards or backwards: what is done to an arc is done to both neighbors.
"""

from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vectorize.rings import PolygonArray, open_rings

UNIT = 256
"""Coordinates of finished outlines are multiples of this fraction of a pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Arcs:
    """The arcs of polygons and the rings made of them.

    Attributes:
        corner: Where each crack begins, pixels, arc by arc, `(crack, xy)`; int unless stretched.
        middle: Middle of each crack, moved by its shift, in 1/256 pixel, `(crack, xy)` int.
        start: Cracks before each arc, and the number of all, `(arc + 1,)`.
        left: Polygon that the arc was traced for, `(arc,)`.
        right: Polygon on the other side; -1 for none, `(arc,)`.
        is_exterior: The arc belongs to the exterior of `left`, `(arc,)`.
        right_exterior: The arc belongs to the exterior of `right`, `(arc,)`.
        begin: Junction at its start; -1 for a closed arc, `(arc,)`.
        end: Junction at its end; -1 for a closed arc, `(arc,)`.
        junction: The junctions, pixels, `(junction, xy)`; int unless stretched.
        piece_arc: The arcs of all rings in their order, `(piece,)`.
        piece_forward: True where the ring walks the arc forwards, `(piece,)`.
        piece_ring: Ring of each piece, ascending from zero, `(piece,)`.
        ring_polygon: Polygon of each ring, ascending from zero, the exterior first, `(ring,)`.
    """

    corner: NDArray[np.int64] | NDArray[np.float64]
    middle: NDArray[np.int64]
    start: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    is_exterior: NDArray[np.bool_]
    right_exterior: NDArray[np.bool_]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    junction: NDArray[np.int64] | NDArray[np.float64]
    piece_arc: NDArray[np.int64]
    piece_forward: NDArray[np.bool_]
    piece_ring: NDArray[np.int64]
    ring_polygon: NDArray[np.int64]

    def stretched(self, aspect: float) -> "Arcs":
        """Return the arcs with pixels `aspect` times as high, for grids whose pixels are not square on the ground."""
        if aspect == 1:
            return self
        scale = np.array([1.0, aspect])
        middle = np.rint(self.middle * scale).astype(np.int64)
        return replace(self, corner=self.corner * scale, middle=middle, junction=self.junction * scale)

    @property
    def size(self) -> NDArray[np.int64]:
        """Cracks of each arc."""
        return np.diff(self.start)

    @property
    def is_closed(self) -> NDArray[np.bool_]:
        """True for arcs that are a whole ring."""
        closed: NDArray[np.bool_] = self.begin < 0
        return closed


@dataclass(frozen=True, slots=True, eq=False)
class _Cracks:
    """The cracks of all rings, each ring with its polygon to the right as seen on screen; all arrays are `(crack,)`."""

    corner: NDArray[np.int64]  # where it begins, (crack, xy)
    direction: NDArray[np.int64]  # (crack, xy)
    middle: NDArray[np.int64]  # 1/256 pixel, (crack, xy)
    ring: NDArray[np.int64]
    key: NDArray[np.int64]  # the same for both sides of a crack
    place: NDArray[np.int64]  # of the corner

    def __len__(self) -> int:
        """Return the number of cracks."""
        return len(self.ring)


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Rings cut at junctions."""

    crack: NDArray[np.int64]  # cracks piece by piece, (crack,)
    start: NDArray[np.int64]  # cracks before each piece, and the number of all
    beside: NDArray[np.int64]  # polygon on the other side, -1 for none, (crack,)
    beside_exterior: NDArray[np.bool_]
    is_break: NDArray[np.bool_]  # a junction lies where the crack begins, (crack,)


def cut_arcs(polygons: PolygonArray, shift: NDArray[np.int64] | None = None, *, close_px: float = 0.0) -> Arcs:
    """Cut the outlines of polygons into arcs.

    Args:
        polygons: Polygons in canonical form (`geoseg.vectorize.rings.outline`), interiors disjoint, in
            reading order; at least one.
        shift: How far the middle of each crack lies outside the polygon that it bounds, in 1/256 pixel; cracks in
            the order of the rings, each ring from its first vertex, `(crack of a ring,)`. Of a shared crack the shift
            of the first polygon counts.
        close_px: Close gaps up to this wide between two polygons that touch at both ends of the gap: the wall of the
            first polygon becomes that of both.
    """
    cracks, ring_polygon = _cracks_of(polygons, shift)
    is_exterior = np.diff(ring_polygon, prepend=-1) > 0
    pieces = _cut(cracks, ring_polygon, is_exterior)
    if close_px > 0 and pieces.is_break.any():
        closed = _close_gaps(cracks, pieces, ring_polygon, close_px)
        if closed is not None:
            cracks = closed
            pieces = _cut(cracks, ring_polygon, is_exterior)
    piece_size = np.diff(pieces.start)
    name = np.minimum.reduceat(cracks.key[pieces.crack], pieces.start[:-1])
    _, owner, arc = np.unique(name, return_index=True, return_inverse=True)
    by_place = np.argsort(owner)  # arcs in the order in which they are traced first
    rank = np.empty_like(by_place)
    rank[by_place] = np.arange(len(by_place))
    owner, arc = owner[by_place], rank[arc.ravel()]

    size = piece_size[owner]
    start = np.concatenate(([0], np.cumsum(size)))
    crack = pieces.crack[np.arange(start[-1]) + np.repeat(pieces.start[owner] - start[:-1], size)]
    head, last = crack[start[:-1]], crack[start[1:] - 1]
    is_open = pieces.is_break[head]
    head_open, last_open = head[is_open], last[is_open]
    ends = np.concatenate((cracks.corner[head_open], cracks.corner[last_open] + cracks.direction[last_open]))
    low = ends.min(axis=0, initial=0)
    width = int(ends[:, 1].max(initial=0)) - int(low[1]) + 1
    _, one, number = np.unique((ends - low) @ [width, 1], return_index=True, return_inverse=True)
    junction = ends[one]
    ends_of = np.full((2, len(owner)), -1, np.int64)
    ends_of[:, is_open] = number.reshape(2, -1)
    return Arcs(
        corner=cracks.corner[crack],
        middle=cracks.middle[crack],
        start=start,
        left=ring_polygon[cracks.ring[head]],
        right=pieces.beside[head],
        is_exterior=is_exterior[cracks.ring[head]],
        right_exterior=pieces.beside_exterior[head],
        begin=ends_of[0],
        end=ends_of[1],
        junction=junction,
        piece_arc=arc,
        piece_forward=owner[arc] == np.arange(len(arc)),
        piece_ring=cracks.ring[pieces.crack[pieces.start[:-1]]],
        ring_polygon=ring_polygon,
    )


def _cracks_of(polygons: PolygonArray, shift: NDArray[np.int64] | None) -> tuple[_Cracks, NDArray[np.int64]]:
    """Return the cracks of polygons in the order of their rings, and the polygon of each ring."""
    xy, vertex_ring, vertex_polygon = open_rings(polygons)
    ring_start = np.flatnonzero(np.diff(vertex_ring, prepend=-1))
    following = np.arange(1, len(xy) + 1)
    following[np.append(ring_start[1:], len(xy)) - 1] = ring_start
    edge = xy[following] - xy
    length = np.abs(edge).sum(axis=1)
    vertex = np.repeat(np.arange(len(xy)), length)
    position = np.arange(len(vertex)) - np.repeat(np.cumsum(length) - length, length)
    direction = np.sign(edge)[vertex]
    corner = xy[vertex] + position[:, None] * direction
    middle = UNIT * corner + UNIT // 2 * direction
    if shift is not None:
        middle += shift[:, None] * np.column_stack((direction[:, 1], -direction[:, 0]))
    low = corner + np.minimum(direction, 0)
    left, top = low.min(axis=0)
    width = int(low[:, 0].max() - left) + 2
    key = 2 * ((low[:, 1] - top) * width + (low[:, 0] - left)) + (direction[:, 0] != 0)
    place = (corner[:, 1] - top) * width + (corner[:, 0] - left)
    return _Cracks(corner, direction, middle, vertex_ring[vertex], key, place), vertex_polygon[ring_start]


def _cut(cracks: _Cracks, ring_polygon: NDArray[np.int64], is_exterior: NDArray[np.bool_]) -> _Pieces:
    """Cut rings at their junctions. Those without any start at the corner that is farthest from their middle."""
    count, ring = len(cracks), cracks.ring
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    ring_size = np.diff(np.append(first, count))
    order = np.argsort(cracks.key)
    key = cracks.key[order]
    twin = np.flatnonzero(key[1:] == key[:-1])
    one, other = np.minimum(order[twin], order[twin + 1]), np.maximum(order[twin], order[twin + 1])
    beside, beside_exterior = np.full(count, -1, np.int64), np.zeros(count, bool)
    beside[one], beside[other] = ring_polygon[ring[other]], ring_polygon[ring[one]]
    beside_exterior[one] = is_exterior[ring[other]]

    previous = np.arange(-1, count - 1)
    previous[first] = first + ring_size - 1
    changes = beside != beside[previous]
    is_break = changes
    if changes.any():
        places = np.unique(cracks.place[changes])
        is_break = places[np.minimum(np.searchsorted(places, cracks.place), len(places) - 1)] == cracks.place

    xy = cracks.corner
    mean = np.column_stack([np.bincount(ring, xy[:, axis]) for axis in (0, 1)]) / ring_size[:, None]
    far = np.where(is_break, np.inf, ((xy - mean[ring]) ** 2).sum(axis=1))
    candidate = np.flatnonzero(far == np.maximum.reduceat(far, first)[ring])
    begin = candidate[np.flatnonzero(np.diff(ring[candidate], prepend=-1))]
    rolled = first[ring] + (np.arange(count) - first[ring] + (begin - first)[ring]) % ring_size[ring]
    starts = is_break[rolled]
    starts[first] = True
    return _Pieces(rolled, np.append(np.flatnonzero(starts), count), beside, beside_exterior, is_break)


def _close_gaps(cracks: _Cracks, pieces: _Pieces, ring_polygon: NDArray[np.int64], close_px: float) -> _Cracks | None:
    """Let two polygons share a wall where only a narrow gap parts them; return None if there is no such gap."""
    start, size = pieces.start[:-1], np.diff(pieces.start)
    head, last = pieces.crack[start], pieces.crack[pieces.start[1:] - 1]
    polygon = ring_polygon[cracks.ring[head]]
    begin, end = cracks.corner[head], cracks.corner[last] + cracks.direction[last]
    is_outside = np.flatnonzero(pieces.is_break[head] & (pieces.beside[head] < 0))
    ends = np.concatenate((begin[is_outside], end[is_outside])) - cracks.corner.min(axis=0, initial=0)
    _, name = np.unique(ends @ [int(ends[:, 1].max(initial=0)) + 1, 1], return_inverse=True)
    here, there = name.reshape(2, -1)
    width = int(name.max(initial=0)) + 1
    _, name = np.unique(np.concatenate((here * width + there, there * width + here)), return_inverse=True)
    forth, back = name.reshape(2, -1)
    unique = np.bincount(forth, minlength=int(name.max(initial=0)) + 1) == 1
    match = np.full(len(unique), -1, np.int64)
    match[forth] = is_outside
    partner = np.where(unique[forth] & unique[back], match[back], -1)
    use = (partner > is_outside) & (polygon[is_outside] != polygon[partner])
    a, b = is_outside[use], partner[use]
    # Walked with the polygons to the right, a gap is walked around from the left: its area is negative.
    gap = -(_doubled_area(cracks, pieces, a) + _doubled_area(cracks, pieces, b)) / 2
    use = (gap > 0) & (gap <= close_px * (size[a] + size[b]) / 2)
    a, b = a[use], b[use]
    if not len(a):
        return None
    source, forward = np.arange(len(size)), np.ones(len(size), bool)
    source[b], forward[b] = a, False
    new_size = size[source]
    piece = np.repeat(np.arange(len(size)), new_size)
    position = np.arange(len(piece)) - np.repeat(np.cumsum(new_size) - new_size, new_size)
    is_forward = forward[piece]
    at = start[source[piece]] + np.where(is_forward, position, new_size[piece] - 1 - position)
    crack = pieces.crack[at]
    corner, direction = cracks.corner[crack], cracks.direction[crack]
    corner = np.where(is_forward[:, None], corner, corner + direction)
    direction = np.where(is_forward[:, None], direction, -direction)
    width = 1 + int(cracks.corner[:, 0].max())
    return _Cracks(
        corner, direction, cracks.middle[crack], cracks.ring[head][piece], cracks.key[crack],
        corner[:, 1] * width + corner[:, 0],
    )  # fmt: skip


def _doubled_area(cracks: _Cracks, pieces: _Pieces, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return twice the area between some pieces and the origin, positive to the right of them."""
    size = pieces.start[chosen + 1] - pieces.start[chosen]
    stop = np.cumsum(size)
    crack = pieces.crack[np.arange(size.sum()) + np.repeat(pieces.start[chosen] - (stop - size), size)]
    (x, y), (dx, dy) = cracks.corner[crack].T, cracks.direction[crack].T
    total = np.concatenate(([0], np.cumsum(x * dy - y * dx)))
    area: NDArray[np.int64] = total[stop] - total[stop - size]
    return area


def join_arcs(arcs: Arcs, xy: NDArray[np.float64], start: NDArray[np.int64]) -> tuple[PolygonArray, NDArray[np.bool_]]:
    """Put polygons together of new arcs.

    Args:
        arcs: The arcs that were cut.
        xy: New points of all arcs, pixels, `(point, xy)`. An open arc has both its ends, a closed one each point once.
        start: Points before each arc, and the number of all, `(arc + 1,)`.

    Returns:
        The polygons, and which of them could be made: every ring has three points or more. The others are None.
    """
    size = np.diff(start) - ~arcs.is_closed
    piece_size = size[arcs.piece_arc]
    offset = np.concatenate(([0], np.cumsum(piece_size)))
    piece = np.repeat(np.arange(len(piece_size)), piece_size)
    position = np.arange(offset[-1]) - offset[piece]
    arc, forward = arcs.piece_arc[piece], arcs.piece_forward[piece]
    point = np.where(forward, start[arc] + position, start[arc + 1] - 1 - position)
    xy, ring = xy[point], arcs.piece_ring[piece]

    following = np.arange(1, len(ring) + 1)
    rings = len(arcs.ring_polygon)
    ring_size = np.bincount(ring, minlength=rings)
    ends = np.cumsum(ring_size)
    has = ring_size > 0
    following[ends[has] - 1] = (ends - ring_size)[has]
    keep = (xy != xy[following]).any(axis=1)  # no point twice in a row
    xy, ring = xy[keep], ring[keep]
    ring_size = np.bincount(ring, minlength=rings)
    made = np.ones(int(arcs.ring_polygon[-1]) + 1 if rings else 0, bool)
    made[arcs.ring_polygon[ring_size < 3]] = False
    use = made[arcs.ring_polygon]
    xy, ring_size, ring_polygon = xy[use[ring]], ring_size[use], arcs.ring_polygon[use]
    stop = np.cumsum(ring_size)
    closed = np.insert(np.arange(len(xy)), stop, stop - ring_size)
    polygon_rings = np.bincount(ring_polygon, minlength=len(made))[made]
    found = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        xy[closed],
        (np.concatenate(([0], np.cumsum(ring_size + 1))), np.concatenate(([0], np.cumsum(polygon_rings)))),
    )
    polygons = np.full(len(made), None, dtype=object)
    polygons[made] = found
    return polygons, made
