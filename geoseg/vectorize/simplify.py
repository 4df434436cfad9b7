"""Simple outlines: without vertices that matter little, walls shared with the neighbors."""

from dataclasses import dataclass

import numpy as np
import shapely

from geoseg.vectorize.arcs import cut_arcs, join_arcs
from geoseg.vectorize.generalize import RAW, SIMPLE, Outlines, are_sound, part_overlaps
from geoseg.vectorize.rings import PolygonArray, reading_order
from geoseg.vectorize.walls import Chains, Points, find_directions, find_segments, quarter_angle, simple_arcs

MAX_AREA_CHANGE = 0.25
"""Largest change of area, relative, that a simple outline may bring; a building of few pixels keeps its pixels."""
DIRECTION_PX = 0.75
"""Tolerance of the walls that tell the main direction of a building."""


@dataclass(frozen=True, slots=True)
class Simplify:
    """Drops pixel corners by Douglas and Peucker's rule, those of a wall that two polygons share once for both.

    Gaps as wide as the tolerance between two polygons that touch beside them are closed.

    A polygon keeps the outline of its pixels where the simple one is invalid or changed its area by more than
    `MAX_AREA_CHANGE`.

    Attributes:
        tolerance_px: Largest distance of a dropped corner from the new outline, pixels; 0 keeps every pixel corner.
        aspect: Height of a pixel on the ground in its widths, for the directions of buildings.
    """

    tolerance_px: float
    aspect: float = 1.0

    @property
    def steps(self) -> tuple[float, ...]:
        """See `Generalizer.steps`.

        Where a wall begins to be shared, and where a gap is closed, depends on the neighbors. New outlines lie within
        two tolerances of the old ones; what is cut off one where two overlap is looked at once more.
        """
        reach_px = 4 * self.tolerance_px + 2
        return (reach_px, reach_px, 0.0, 0.0, 0.0) if self.tolerance_px > 0 else (0.0,)

    def outlines(self, polygons: PolygonArray) -> Outlines:
        """See `Generalizer.outlines`."""
        if not len(polygons):
            return Outlines(polygons, np.zeros(0, np.int8), np.zeros((0, 2)))
        order = reading_order(polygons)
        raw, back = polygons[order], np.argsort(order)
        arcs = cut_arcs(raw, close_px=self.tolerance_px)
        ground = arcs.stretched(self.aspect)
        points = Points.of(ground)
        walls = find_segments(ground, points, Chains.of(ground, points.xy, DIRECTION_PX))
        cos, sin, _ = find_directions(arcs, walls, len(raw))
        direction = (np.column_stack(quarter_angle(cos, sin)) / [1.0, self.aspect])[back]
        if self.tolerance_px <= 0:
            return Outlines(polygons, np.full(len(raw), RAW, np.int8), direction)
        lines, is_raw = simple_arcs(arcs, Chains.of(arcs, arcs.corner.astype(np.float64), self.tolerance_px))
        found, _ = join_arcs(arcs, *lines)
        same_holes = shapely.get_num_interior_rings(found) == shapely.get_num_interior_rings(raw)
        change = np.abs(shapely.area(found) / shapely.area(raw) - 1)
        kind = np.where(are_sound(found) & same_holes & (change <= MAX_AREA_CHANGE), SIMPLE, RAW).astype(np.int8)
        kind[arcs.left[is_raw & arcs.is_exterior]] = RAW
        found, kind = part_overlaps(raw, np.where(kind == RAW, raw, found), kind)
        return Outlines(found[back], kind[back], direction)
