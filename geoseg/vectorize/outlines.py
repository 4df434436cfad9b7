"""Outlines of a block: finished where nothing beyond the block can change them, pending otherwise.

A polygon is open where it touches a border of the block inside the scene: it may go on there. A closed one may still
clash with a joined one (`geoseg.vectorize.generalize`), and with nothing else beyond the block, as no closed polygon
leaves its box and so its block. So what is pending are the open polygons, and the closed ones within reach of an open
one of their block, or of a border beyond which there may be one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Grid, Window
from geoseg.vectorize.blocks import BlockPolygons
from geoseg.vectorize.footprints import Footprints, keep_large, measure_footprints
from geoseg.vectorize.generalize import Generalizer, generalize
from geoseg.vectorize.rings import PolygonArray
from geoseg.vectorize.seams import join_open


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """Polygons that wait for those of other blocks.

    Attributes:
        polygons: Polygons in pixels, open and closed.
        clashing: True where a closed one clashes with a neighbor that is known already, `(polygon,)`.
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

    @classmethod
    def empty(cls) -> Self:
        """Return the outlines of a block without buildings."""
        return cls(Footprints.empty(), Pending.concatenate([]))


def finish_block(
    polygons: BlockPolygons, window: Window, grid: Grid, *, min_area_m2: float, generalizer: Generalizer
) -> BlockOutlines:
    """Finish the polygons of a block that no other block can change.

    Args:
        polygons: What `polygonize_block` gave.
        window: The block's own pixels.
        grid: Grid of the whole scene's pixels.
        min_area_m2: Drop buildings whose pixels cover less ground than this, before any generalization.
        generalizer: Makes the outlines.
    """
    is_open = polygons.take(polygons.open)
    closed = keep_large(polygons.take(~polygons.open), grid, min_area_m2)
    new, clashing = generalize(closed.polygons, generalizer)
    waits = _is_near_others(closed.polygons, is_open.polygons, window, grid.shape, generalizer.reach_px)
    done = ~waits
    outlines = np.where(clashing, closed.polygons, new)
    finished = measure_footprints(closed.take(done), outlines[done], grid)
    pending = BlockPolygons.concatenate([is_open, closed.take(waits)])
    clashing = np.concatenate((np.zeros(len(is_open), dtype=bool), clashing[waits]))
    return BlockOutlines(finished, Pending(pending, clashing))


@dataclass(slots=True, eq=False)
class SeamSweep:
    """Joins and finishes what is pending row of blocks by row of blocks, from the top, and holds what is undecided.

    Attributes:
        grid: Grid of the whole scene's pixels.
        min_area_m2: See `finish_block`.
        generalizer: See `finish_block`.
        held: Joined polygons that go on below, and closed ones that may clash with one of those.
    """

    grid: Grid
    min_area_m2: float
    generalizer: Generalizer
    held: Pending = field(default_factory=lambda: Pending.concatenate([]))

    @property
    def first_row(self) -> float:
        """The row of pixels in which the first of what is held begins; infinity where nothing is held."""
        return float(shapely.bounds(self.held.polygons.polygons).reshape(-1, 4)[:, 1].min(initial=np.inf))

    def add(self, pending: Pending, below: int | None) -> Footprints:
        """Take the pending polygons of a row of blocks and finish what nothing below can change.

        With what the blocks finished, all the footprints are those of the scene in one piece.

        Args:
            pending: Those of all blocks of the row.
            below: First row of pixels below the blocks; None where nothing follows.

        Returns:
            Footprints in any order.
        """
        known = Pending.concatenate([self.held, pending])
        joined = self._join(known.polygons.take(known.polygons.open), below)
        goes_on, whole = joined.take(joined.open), keep_large(joined.take(~joined.open), self.grid, self.min_area_m2)
        closed = BlockPolygons.concatenate([whole, known.polygons.take(~known.polygons.open)])
        clashing = np.concatenate((np.zeros(len(whole), dtype=bool), known.clashing[~known.polygons.open]))
        new, found = generalize(closed.polygons, self.generalizer)
        clashing |= found
        waits = self._waits(closed.polygons, goes_on.polygons, below)
        self.held = Pending(
            BlockPolygons.concatenate([goes_on, closed.take(waits)]),
            np.concatenate((np.zeros(len(goes_on), dtype=bool), clashing[waits])),
        )
        return measure_footprints(closed.take(~waits), np.where(clashing, closed.polygons, new)[~waits], self.grid)

    def _join(self, parts: BlockPolygons, below: int | None) -> BlockPolygons:
        """Join open polygons; those that touch what follows stay open."""
        if below is None:
            return join_open(parts)
        return join_open(parts, shapely.bounds(parts.polygons).reshape(-1, 4)[:, 3] >= below)

    def _waits(self, closed: PolygonArray, goes_on: PolygonArray, below: int | None) -> NDArray[np.bool_]:
        """Say which closed polygons may clash with one that is not known yet."""
        reach_px = self.generalizer.reach_px
        if below is None or reach_px <= 0 or not len(closed):
            return np.zeros(len(closed), dtype=bool)
        near: NDArray[np.bool_] = shapely.bounds(closed)[:, 3] >= below - reach_px
        return near | _is_within(closed, goes_on, reach_px)


def _is_within(closed: PolygonArray, others: PolygonArray, reach_px: float) -> NDArray[np.bool_]:
    """Say which closed polygons lie near any of the others."""
    near = np.zeros(len(closed), dtype=bool)
    if len(others) and len(closed):
        near[shapely.STRtree(closed).query(others, predicate="dwithin", distance=reach_px)[1]] = True
    return near


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
    return near | _is_within(closed, is_open, reach_px)
