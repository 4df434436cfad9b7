"""Outlines of a block: finished where nothing beyond the block can change them, pending otherwise.

A polygon is open where it touches a border of the block inside the scene: it may go on there. A closed one may still
clash with a joined one (`geoseg.vectorize.simplify`), and with nothing else beyond the block, as no closed polygon
leaves its box and so its block. Joined polygons reach `REACH` tolerances beyond their pixels. So what is pending are
the open polygons, and the closed ones that lie so near to an open one of their block, or to a border beyond which
there may be one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Grid, Window
from geoseg.vectorize.blocks import BlockPolygons
from geoseg.vectorize.footprints import Footprints, keep_large, measure_footprints
from geoseg.vectorize.rings import PolygonArray, reading_order
from geoseg.vectorize.seams import join_seams
from geoseg.vectorize.simplify import REACH, find_clashes, simplify_each, simplify_polygons


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """Polygons that wait for those of other blocks.

    Attributes:
        polygons: Polygons in pixels, open and closed.
        clashing: True where a closed one clashes with a neighbour in its own block, `(polygon,)`.
    """

    polygons: BlockPolygons
    clashing: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of polygons."""
        return len(self.polygons)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put those of several blocks one after another."""
        polygons = BlockPolygons.concatenate([part.polygons for part in parts])
        return cls(polygons, np.concatenate([np.zeros(0, dtype=bool), *(part.clashing for part in parts)]))


@dataclass(frozen=True, slots=True, eq=False)
class BlockOutlines:
    """What a block has outlined.

    Attributes:
        finished: Footprints that no other block can change.
        pending: The other polygons.
    """

    finished: Footprints
    pending: Pending


def finish_block(
    polygons: BlockPolygons, window: Window, grid: Grid, *, min_area_m2: float, simplify_px: float
) -> BlockOutlines:
    """Finish the polygons of a block that no other block can change.

    Args:
        polygons: What `polygonize_block` gave.
        window: The block's own pixels.
        grid: Grid of the whole scene's pixels.
        min_area_m2: Drop buildings whose pixels cover less ground than this, before any simplification.
        simplify_px: Tolerance of the simplification in pixels; 0 keeps the pixels' outline.
    """
    is_open = polygons.take(polygons.open)
    closed = keep_large(polygons.take(~polygons.open), grid, min_area_m2)
    simple, clashing = _simplify_closed(closed.polygons, simplify_px)
    waits = _is_near_others(closed.polygons, is_open.polygons, window, grid.shape, REACH * simplify_px)
    done = ~waits
    outlines = np.where(clashing, closed.polygons, simple)
    finished = measure_footprints(closed.take(done), outlines[done], grid)
    pending = BlockPolygons.concatenate([is_open, closed.take(waits)])
    clashing = np.concatenate((np.zeros(len(is_open), dtype=bool), clashing[waits]))
    return BlockOutlines(finished, Pending(pending, clashing))


def finish_pending(pending: Pending, grid: Grid, *, min_area_m2: float, simplify_px: float) -> Footprints:
    """Join the open polygons of all blocks and finish what was pending.

    Args:
        pending: Those of all blocks, in any order.
        grid: See `finish_block`.
        min_area_m2: See `finish_block`.
        simplify_px: See `finish_block`.

    Returns:
        Footprints, sorted by row and column. With the finished ones of the blocks they are those of the scene in one
        piece.
    """
    is_open = pending.polygons.open
    joined = keep_large(join_seams([pending.polygons.take(is_open)]), grid, min_area_m2)
    polygons = BlockPolygons.concatenate([joined, pending.polygons.take(~is_open)])
    kept = np.concatenate((np.zeros(len(joined), dtype=bool), pending.clashing[~is_open]))
    order = reading_order(polygons.polygons)
    polygons, kept = polygons.take(order), kept[order]
    outlines = simplify_polygons(polygons.polygons, simplify_px, kept=kept)
    return measure_footprints(polygons, outlines, grid)


def _simplify_closed(polygons: PolygonArray, tolerance: float) -> tuple[PolygonArray, NDArray[np.bool_]]:
    """Simplify each polygon and say which clash."""
    if tolerance <= 0 or not len(polygons):
        return polygons, np.zeros(len(polygons), dtype=bool)
    simple = simplify_each(polygons, tolerance)
    return simple, find_clashes(polygons, simple)


def _is_near_others(
    closed: PolygonArray, is_open: PolygonArray, window: Window, scene_shape: tuple[int, int], reach_px: float
) -> NDArray[np.bool_]:
    """Say which closed polygons a joined one may clash with."""
    near = np.zeros(len(closed), dtype=bool)
    if reach_px <= 0 or not len(closed):
        return near
    left, top, right, bottom = shapely.bounds(closed).T
    for touches, is_scene in (
        (top <= window.row + reach_px, window.row == 0),
        (bottom >= window.rows.stop - reach_px, window.rows.stop == scene_shape[0]),
        (left <= window.col + reach_px, window.col == 0),
        (right >= window.cols.stop - reach_px, window.cols.stop == scene_shape[1]),
    ):
        near |= touches & (not is_scene)
    if len(is_open):
        near[shapely.STRtree(closed).query(is_open, predicate="dwithin", distance=reach_px)[1]] = True
    return near
