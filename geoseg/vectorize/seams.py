"""Polygons that block borders cut: finished where nothing beyond the block can change them, else put together again.

A polygon is open where it touches a border of the block inside the scene: it may continue there. A closed one may still
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
from geoseg.vectorize.blocks import BlockPolygons, add_by_region, connected_components, expand_ranges
from geoseg.vectorize.footprints import Footprints, keep_large, measure_footprints
from geoseg.vectorize.generalize import Generalizer, generalize
from geoseg.vectorize.rings import PolygonArray, corners_of, open_rings, outline, reading_order


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
    inside = (
        window.col if window.col > 0 else -np.inf,
        window.row if window.row > 0 else -np.inf,
        window.cols.stop if window.cols.stop < grid.width else np.inf,
        window.rows.stop if window.rows.stop < grid.height else np.inf,
    )
    waits = _is_waiting(closed.polygons, is_open.polygons, inside, generalizer.reach_px)
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
        held: Joined polygons that continue below, and closed ones that may clash with one of those.
    """

    grid: Grid
    min_area_m2: float
    generalizer: Generalizer
    held: Pending = field(default_factory=lambda: Pending.concatenate([]))

    @property
    def first_row(self) -> float:
        """The first row of pixels of what is held; infinity if nothing is held."""
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
        known, end = Pending.concatenate([self.held, pending]), np.inf if below is None else below
        parts = known.polygons.take(known.polygons.open)
        joined = join_open(parts, shapely.bounds(parts.polygons).reshape(-1, 4)[:, 3] >= end)
        continues, whole = joined.take(joined.open), keep_large(joined.take(~joined.open), self.grid, self.min_area_m2)
        closed = BlockPolygons.concatenate([whole, known.polygons.take(~known.polygons.open)])
        clashing = np.concatenate((np.zeros(len(whole), dtype=bool), known.clashing[~known.polygons.open]))
        new, found = generalize(closed.polygons, self.generalizer)
        clashing |= found
        inside, reach_px = (-np.inf, -np.inf, np.inf, end), self.generalizer.reach_px
        waits = _is_waiting(closed.polygons, continues.polygons, inside, reach_px)
        self.held = Pending(
            BlockPolygons.concatenate([continues, closed.take(waits)]),
            np.concatenate((np.zeros(len(continues), dtype=bool), clashing[waits])),
        )
        return measure_footprints(closed.take(~waits), np.where(clashing, closed.polygons, new)[~waits], self.grid)


def _is_waiting(
    closed: PolygonArray, others: PolygonArray, inside: tuple[float, float, float, float], reach_px: float
) -> NDArray[np.bool_]:
    """Return True for closed polygons that may clash with one that is not known yet.

    Args:
        closed: The polygons, `(polygon,)`.
        others: Polygons that continue where nothing is known yet.
        inside: Left, top, right and bottom of what is known, infinite at the scene's border.
        reach_px: Distance beyond which polygons cannot clash.
    """
    if reach_px <= 0 or not len(closed):
        return np.zeros(len(closed), dtype=bool)
    box, (left, top, right, bottom) = shapely.bounds(closed), inside
    near: NDArray[np.bool_] = (box[:, 0] <= left + reach_px) | (box[:, 1] <= top + reach_px)
    near |= (box[:, 2] >= right - reach_px) | (box[:, 3] >= bottom - reach_px)
    if len(others):
        near[shapely.STRtree(closed).query(others, predicate="dwithin", distance=reach_px)[1]] = True
    return near


def join_seams(blocks: Sequence[BlockPolygons]) -> BlockPolygons:
    """Join the polygons of blocks along their common borders.

    The result equals that of polygonizing the whole scene at once, vertex for vertex and attribute for attribute, for
    any cut of the scene into disjoint windows. Only open polygons are looked at.

    Args:
        blocks: What `polygonize_block` gave for each block, in any order.

    Returns:
        Polygons sorted by first vertex (row, col), none of them open.

    Raises:
        ValueError: If polygons overlap, so that the blocks cannot be disjoint.
    """
    parts = BlockPolygons.concatenate(blocks)
    joined = BlockPolygons.concatenate([parts.take(~parts.open), join_open(parts.take(parts.open))])
    return joined.take(reading_order(joined.polygons))


def join_open(parts: BlockPolygons, continues: NDArray[np.bool_] | None = None) -> BlockPolygons:
    """Join open polygons.

    Args:
        parts: Open polygons.
        continues: True where a polygon may continue beyond all of them, `(polygon,)`; none does by default.

    Returns:
        The joined polygons, open where a part continues.
    """
    if not len(parts):
        return parts
    continues = np.zeros(len(parts), dtype=bool) if continues is None else continues
    xy, ring, polygon = open_rings(parts.polygons)
    last = np.append(ring[1:] != ring[:-1], True)
    following = np.arange(1, len(ring) + 1)
    following[last] = np.flatnonzero(np.append(True, last[:-1]))
    level = _shared_edges(xy, following, polygon, axis=0)
    upright = _shared_edges(xy, following, polygon, axis=1)
    count, region = connected_components(len(parts), *map(np.concatenate, zip(level, upright, strict=True)))
    return BlockPolygons(
        polygons=outline(corners_of(parts.polygons, region)),
        pixel_count=add_by_region(region, parts.pixel_count, count),
        probability_sum=add_by_region(region, parts.probability_sum, count),
        edge=add_by_region(region, parts.edge, count) > 0,
        open=add_by_region(region, continues, count) > 0,
    )


def _shared_edges(
    xy: NDArray[np.int64], following: NDArray[np.int64], polygon: NDArray[np.int64], *, axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the pairs of polygons that share a piece of an edge along one axis (0 = x, 1 = y).

    Polygons lie to the same side of their edges, so neighbors walk a shared edge in opposite directions, and edges of
    the same direction never overlap.
    """
    begin, end = xy[:, axis], xy[following, axis]
    line = xy[:, 1 - axis] * (int(xy[:, axis].max()) + 1)
    forth, back = np.flatnonzero(end > begin), np.flatnonzero(end < begin)
    forth = forth[np.argsort((line + begin)[forth])]
    back = back[np.argsort((line + end)[back])]
    starts, stops = (line + begin)[forth], (line + end)[forth]
    starts_back, stops_back = (line + end)[back], (line + begin)[back]
    if (starts[1:] < stops[:-1]).any() or (starts_back[1:] < stops_back[:-1]).any():
        raise ValueError("polygons overlap, so the blocks overlap; join the polygons of disjoint blocks, each once")
    first = np.searchsorted(stops_back, starts, side="right")
    last = np.searchsorted(starts_back, stops, side="left")
    i, j = expand_ranges(first, last)
    return polygon[forth[i]], polygon[back[j]]
