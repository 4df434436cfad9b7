"""Generalizers: better outlines than those of pixels, without breaking what was right.

The outline of a polygon is a function of the polygon and its direct neighbors, so that it can be made in parts of a
scene: a polygon keeps its own where it clashes with a neighbor. Two polygons clash where the new outline of one
overlaps the new or the original outline of the other; then both keep theirs. Originals never overlap, so nothing does
afterwards, and no second look is needed.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vectorize.rings import PolygonArray

MAX_AREA_CHANGE = 0.25
"""Largest change of area, relative, that a simplified polygon may bring; a building of few pixels keeps its outline."""


class Generalizer(Protocol):
    """Makes new outlines of polygons, each without a look at its neighbors; pickles as its settings."""

    @property
    def reach_px(self) -> float:
        """Distance between two polygons, in pixels, beyond which they cannot clash; 0 where no outline changes."""

    def outline(self, polygons: PolygonArray) -> PolygonArray:
        """Return new outlines of valid polygons, `(polygon,)`; one that has no better outline is returned itself.

        A new outline does not leave the box of its original.
        """


@dataclass(frozen=True, slots=True)
class Simplify:
    """Drops vertices by Douglas and Peucker's rule, each ring from its start.

    A polygon keeps its outline where the simplified one is invalid, lost a hole or changed its area by more than
    `MAX_AREA_CHANGE`.

    Attributes:
        tolerance_px: Largest distance of a dropped vertex from the new outline, pixels; 0 keeps every vertex.
    """

    tolerance_px: float

    @property
    def reach_px(self) -> float:
        """Four tolerances: each of two polygons reaches two beyond its original.

        GEOS drops vertices within one tolerance of the new edge. The old outline between the ends of the edge then lies
        within one tolerance of it, and so does what the two enclose; every point of the edge lies within one tolerance
        of the old outline; together that is two. After that GEOS may drop the first vertex of a ring, within one
        tolerance of the edge that takes its place: what is enclosed then lies within one tolerance of edges of which
        the same holds.
        """
        return 4 * self.tolerance_px

    def outline(self, polygons: PolygonArray) -> PolygonArray:
        """See `Generalizer.outline`.

        GEOS has two ways: the plain one takes a tenth of the time, the other one never breaks a polygon. The second is
        left to those that the first breaks, one in fifty.
        """
        simple: PolygonArray = shapely.simplify(polygons, self.tolerance_px, preserve_topology=False)
        broken = np.flatnonzero(~_is_faithful(simple, polygons))
        careful = shapely.simplify(polygons[broken], self.tolerance_px, preserve_topology=True)
        simple[broken] = np.where(_is_faithful(careful, polygons[broken]), careful, polygons[broken])
        return simple


def generalize(polygons: PolygonArray, generalizer: Generalizer) -> tuple[PolygonArray, NDArray[np.bool_]]:
    """Return new outlines, and which polygons clash with a neighbor and so have to keep theirs.

    Args:
        polygons: Valid polygons whose interiors are disjoint, in pixels, `(polygon,)`.
        generalizer: What makes the outlines.
    """
    if generalizer.reach_px <= 0 or not len(polygons):
        return polygons, np.zeros(len(polygons), dtype=bool)
    outlines = generalizer.outline(polygons)
    is_new, box = outlines != polygons, shapely.bounds(polygons)
    a, b = shapely.STRtree(polygons).query(polygons)
    may_clash = (a < b) & (is_new[a] | is_new[b])
    a, b = a[may_clash], b[may_clash]
    share = (np.maximum(box[a, :2], box[b, :2]) < np.minimum(box[a, 2:], box[b, 2:])).all(axis=1)
    a, b = a[share], b[share]  # boxes that share no more than a border cannot clash
    clash = _overlap(outlines[a], outlines[b]) | _overlap(outlines[a], polygons[b]) | _overlap(polygons[a], outlines[b])
    clashing = np.zeros(len(polygons), dtype=bool)
    clashing[a[clash]] = clashing[b[clash]] = True
    return outlines, clashing


def _is_faithful(simple: PolygonArray, polygons: PolygonArray) -> NDArray[np.bool_]:
    """Return True for simplified polygons that may replace their originals."""
    change = np.abs(shapely.area(simple) / shapely.area(polygons) - 1)
    same_holes = shapely.get_num_interior_rings(simple) == shapely.get_num_interior_rings(polygons)
    same_kind = shapely.get_type_id(simple) == shapely.GeometryType.POLYGON
    faithful: NDArray[np.bool_] = shapely.is_valid(simple) & same_kind & same_holes & (change <= MAX_AREA_CHANGE)
    return faithful


def _overlap(a: PolygonArray, b: PolygonArray) -> NDArray[np.bool_]:
    """Return True for pairs whose interiors intersect."""
    meet: NDArray[np.bool_] = shapely.relate_pattern(a, b, "T********")
    return meet
