"""Fewer vertices, without breaking what was right: valid polygons that do not overlap."""

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vectorize.rings import PolygonArray

MAX_AREA_CHANGE = 0.25
"""Largest change of area, relative, that a simplified polygon may bring; a building of few pixels keeps its outline."""


def simplify_polygons(polygons: PolygonArray, tolerance: float) -> PolygonArray:
    """Simplify polygons by Douglas and Peucker's rule, each from the start of its rings.

    A polygon keeps its outline where the simplified one is invalid, lost a hole, changed its area by more than
    `MAX_AREA_CHANGE` or overlaps a neighbour that it did not overlap before.

    Args:
        polygons: Valid polygons whose interiors are disjoint, `(polygon,)`.
        tolerance: Largest distance of a dropped vertex from the new outline, in the polygons' unit.
    """
    if tolerance <= 0 or not len(polygons):
        return polygons
    simple = shapely.simplify(polygons, tolerance, preserve_topology=True)
    simple = np.where(_is_faithful(simple, polygons), simple, polygons)
    while len(clashing := _overlapping(simple)):
        undone = clashing[simple[clashing] != polygons[clashing]]
        if not len(undone):
            return simple
        simple[undone] = polygons[undone]
    return simple


def _is_faithful(simple: PolygonArray, polygons: PolygonArray) -> NDArray[np.bool_]:
    """Say which simplified polygons may stand for their originals."""
    change = np.abs(shapely.area(simple) / shapely.area(polygons) - 1)
    same_holes = shapely.get_num_interior_rings(simple) == shapely.get_num_interior_rings(polygons)
    same_kind = shapely.get_type_id(simple) == shapely.GeometryType.POLYGON
    faithful: NDArray[np.bool_] = shapely.is_valid(simple) & same_kind & same_holes & (change <= MAX_AREA_CHANGE)
    return faithful


def _overlapping(polygons: PolygonArray) -> NDArray[np.int64]:
    """Return the positions of polygons whose interiors meet."""
    a, b = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    a, b = a[a < b], b[a < b]
    meet = shapely.relate_pattern(polygons[a], polygons[b], "T********")
    return np.unique(np.concatenate((a[meet], b[meet])))
