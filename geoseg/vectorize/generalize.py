"""Generalizers: better outlines than those of pixels, without breaking what was right.

The outline of a polygon is a function of the polygon and those near it, so that it can be made in parts of a scene: a
generalizer states how near (`Generalizer.steps`), and `geoseg.vectorize.seams` holds polygons until all those are
known. Outlines never overlap: what two have in common is cut off the less regular of them (`part_overlaps`).
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vectorize.rings import PolygonArray

RAW, SIMPLE, REGULAR = 0, 1, 2
"""Kinds of outlines; a higher one has priority where two overlap."""
KINDS = ("raw", "simple", "regular")
"""Their names."""

CLEARANCE_PX = 1e-6
"""Distance from which a vertex is safely beside an edge."""
TRIVIAL = 5
"""Coordinates of a ring of four vertices: none of them lies on another edge if it is valid."""


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """New outlines.

    Attributes:
        polygons: The outlines, pixels, `(polygon,)`.
        kind: `RAW`, `SIMPLE` or `REGULAR`, `(polygon,)`.
        direction: Direction of some of the walls in pixels, of any length, `(polygon, xy)`.
    """

    polygons: PolygonArray
    kind: NDArray[np.int8]
    direction: NDArray[np.float64]

    def take(self, index: NDArray[Any]) -> Self:
        """Return the outlines of an index or a boolean array."""
        return type(self)(self.polygons[index], self.kind[index], self.direction[index])


class Generalizer(Protocol):
    """Makes new outlines of polygons; pickles as its settings."""

    @property
    def steps(self) -> tuple[float, ...]:
        """How near other polygons are on which an outline depends: distances in pixels, one for each step.

        The outline of a polygon is a function of it, of those within the first distance of it, of those within the
        second distance of any of these, and so on; 0 means that two touch. It does not depend on the order of the
        polygons.
        """

    def outlines(self, polygons: PolygonArray) -> Outlines:
        """Return new outlines, valid and without overlaps.

        Args:
            polygons: Valid polygons in canonical form (`geoseg.vectorize.rings.outline`) whose interiors are disjoint,
                in pixels, `(polygon,)`.
        """


def are_sound(polygons: PolygonArray) -> NDArray[np.bool_]:
    """Return True for polygons that are valid, and stay so where their coordinates are rounded, in the world.

    A vertex in the middle of another edge of its own polygon may come to lie on the other side of it.
    """
    sound = shapely.is_valid(polygons)
    corners = np.flatnonzero(sound & (shapely.get_num_coordinates(polygons) > TRIVIAL))
    sound[corners] = shapely.minimum_clearance(polygons[corners]) > CLEARANCE_PX
    found: NDArray[np.bool_] = sound
    return found


def clip_to_grid(outlines: PolygonArray, shape: tuple[int, int]) -> PolygonArray:
    """Return outlines without what lies beyond the pixels of the scene, of each the largest part, `(polygon,)`.

    Args:
        outlines: Polygons in pixels.
        shape: Height and width of the scene, pixels.
    """
    height, width = shape
    left, top, right, bottom = shapely.bounds(outlines).reshape(-1, 4).T
    beyond = np.flatnonzero((left < 0) | (top < 0) | (right > width) | (bottom > height))
    if not len(beyond):
        return outlines
    clipped = outlines.copy()
    which, parts = _largest_parts(shapely.intersection(outlines[beyond], shapely.box(0, 0, width, height)))
    clipped[beyond[which]] = parts
    return clipped


def _largest_parts(shapes: PolygonArray) -> tuple[NDArray[np.int64], PolygonArray]:
    """Return which shapes are not empty, and the largest part of each of these, the first of several that are equal."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    order = np.lexsort((np.arange(len(parts)), -shapely.area(parts), owner))
    largest = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    return owner[largest], parts[largest]


def part_overlaps(
    raw: PolygonArray, found: PolygonArray, kind: NDArray[np.int8]
) -> tuple[PolygonArray, NDArray[np.int8]]:
    """Cut off what outlines overlap: from the less regular of two, or the later one.

    What is cut off are the other outlines as they were before any was cut, so that nothing depends on more than the
    neighbors. A polygon of which less than half would be left, or a part that is not sound, gets its pixels as its
    outline, and takes precedence over all others; no two such polygons overlap.
    """
    loser, winner = _overlaps(found, kind)
    if not len(loser):
        return found, kind
    cut = _cut_off(found, loser, winner)
    lost = np.unique(loser)
    lost = lost[(shapely.area(cut[lost]) < 0.5 * shapely.area(raw[lost])) | ~are_sound(cut[lost])]
    if len(lost):
        found, kind, rank = found.copy(), kind.copy(), kind.copy()
        found[lost], kind[lost], rank[lost] = raw[lost], RAW, REGULAR + 1
        cut = _cut_off(found, *_overlaps(found, rank))
    return cut, kind


def _overlaps(found: PolygonArray, rank: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of polygons whose interiors intersect: the one that gives way, and the other, sorted."""
    a, b = shapely.STRtree(found).query(found)
    box = shapely.bounds(found)
    pairs = (a < b) & (np.maximum(box[a, :2], box[b, :2]) < np.minimum(box[a, 2:], box[b, 2:])).all(axis=1)
    a, b = a[pairs], b[pairs]
    overlap = shapely.relate_pattern(found[a], found[b], "T********")
    a, b = a[overlap], b[overlap]
    a_wins = rank[a] >= rank[b]  # polygons are in reading order, so the first one wins a tie
    loser, winner = np.where(a_wins, b, a), np.where(a_wins, a, b)
    order = np.lexsort((winner, loser))
    return loser[order], winner[order]


def _cut_off(found: PolygonArray, loser: NDArray[np.int64], winner: NDArray[np.int64]) -> PolygonArray:
    """Return polygons without what others cover, of each the largest part."""
    if not len(loser):
        return found
    cut = found.copy()
    one, head = np.unique(loser, return_index=True)
    covers = np.array([shapely.union_all(found[part]) for part in np.split(winner, head[1:])], object)
    which, rest = _largest_parts(shapely.difference(found[one], covers))
    cut[one[which]] = rest
    return cut
