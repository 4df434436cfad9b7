"""Polygons that block borders cut: finished where nothing beyond the block can change them, else put together again.

A polygon is open where it may be joined with others (`geoseg.vectorize.instances`). The outline of a closed one may
still depend on what is not known yet: on joined polygons, and on those of other blocks, as far as the steps of the
generalizer go (`geoseg.vectorize.generalize.Generalizer.steps`). So what is pending are the open polygons, the closed
ones whose outlines depend on an open one of their block or on what lies beyond its borders, and those on which in turn
the outlines of what waits, or of what is not known, may depend: these are needed, but done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Grid, Window
from geoseg.vectorize.blocks import BlockPolygons, add_by_region
from geoseg.vectorize.footprints import Footprints, Limits, keep_large, measure_footprints
from geoseg.vectorize.generalize import Generalizer, clip_to_grid
from geoseg.vectorize.instances import Buildings, Links, solve
from geoseg.vectorize.rings import PolygonArray, corners_of, outline, reading_order


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """Polygons that wait for those of other blocks.

    Attributes:
        polygons: Polygons in pixels, open and closed.
        done: True where the outline is finished, and the polygon is only needed for those of others, `(polygon,)`.
    """

    polygons: BlockPolygons
    done: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of polygons."""
        return len(self.polygons)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put those of several blocks one after another."""
        polygons = BlockPolygons.concatenate([part.polygons for part in parts])
        return cls(polygons, np.concatenate([np.zeros(0, dtype=bool), *(part.done for part in parts)]))

    def take(self, index: NDArray[Any]) -> Self:
        """Return the polygons of an index or a boolean array."""
        return type(self)(self.polygons.take(index), self.done[index])


@dataclass(frozen=True, slots=True, eq=False)
class BlockOutlines:
    """What a block has outlined.

    Attributes:
        finished: Footprints that no other block can change.
        pending: The other polygons.
        links: What the scene must know to join the open ones.
    """

    finished: Footprints
    pending: Pending
    links: Links

    @classmethod
    def empty(cls) -> Self:
        """Return the outlines of a block without buildings."""
        return cls(Footprints.empty(), Pending.concatenate([]), Links.empty())


def finish_block(
    polygons: BlockPolygons,
    window: Window,
    grid: Grid,
    *,
    limits: Limits,
    generalizer: Generalizer,
    coefficients: Mapping[str, float] | None = None,
) -> BlockOutlines:
    """Finish the polygons of a block that no other block can change.

    Args:
        polygons: What `polygonize_block` gave.
        window: The block's own pixels.
        grid: Grid of the whole scene's pixels.
        limits: What is too small, before any generalization.
        generalizer: Makes the outlines.
        coefficients: Those of the confidence, `ModelSpec.confidence`.
    """
    is_open = polygons.take(polygons.open)
    closed = keep_large(polygons.take(~polygons.open), grid, limits)
    inside = (
        window.col if window.col > 0 else -np.inf,
        window.row if window.row > 0 else -np.inf,
        window.cols.stop if window.cols.stop < grid.width else np.inf,
        window.rows.stop if window.rows.stop < grid.height else np.inf,
    )
    waits, needed = _find_waiting(closed.polygons, is_open.polygons, inside, generalizer.steps)
    finished = _finish(closed, ~waits, generalizer, grid, coefficients)
    done = np.concatenate((np.zeros(len(is_open), bool), ~waits[waits | needed]))
    pending = Pending(BlockPolygons.concatenate([is_open, closed.take(waits | needed)]), done)
    return BlockOutlines(finished, pending, polygons.links)


def _finish(
    polygons: BlockPolygons,
    chosen: NDArray[np.bool_],
    generalizer: Generalizer,
    grid: Grid,
    coefficients: Mapping[str, float] | None,
) -> Footprints:
    """Outline polygons, and return the footprints of some of them."""
    if not chosen.any():
        return Footprints.empty()
    outlines = generalizer.outlines(polygons.polygons).take(chosen)
    outlines = replace(outlines, polygons=clip_to_grid(outlines.polygons, grid.shape))
    return measure_footprints(polygons.take(chosen), outlines, grid, coefficients=coefficients)


@dataclass(slots=True, eq=False)
class SeamSweep:
    """Joins and finishes what is pending row of blocks by row of blocks, from the top, and holds what is undecided.

    Attributes:
        grid: Grid of the whole scene's pixels.
        buildings: Which of the pending polygons are one building.
        limits: See `finish_block`.
        generalizer: See `finish_block`.
        coefficients: See `finish_block`.
        held: Parts of buildings that continue below, closed polygons whose outlines depend on what is not known, and
            those that the outlines of either depend on.
    """

    grid: Grid
    buildings: Buildings
    limits: Limits
    generalizer: Generalizer
    coefficients: Mapping[str, float] | None = None
    held: Pending = field(default_factory=lambda: Pending.concatenate([]))

    @property
    def first_row(self) -> float:
        """The first row of pixels of what is not finished; infinity if nothing is held."""
        rest = self.held.polygons.polygons[~self.held.done]
        return float(shapely.bounds(rest).reshape(-1, 4)[:, 1].min(initial=np.inf))

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
        continues = self.buildings.find(parts.summit)[1] > end
        held, whole = parts.take(continues), join_open(parts.take(~continues), self.buildings)
        whole = keep_large(whole, self.grid, self.limits)
        others = known.take(~known.polygons.open)
        closed = BlockPolygons.concatenate([whole, others.polygons])
        done = np.concatenate((np.zeros(len(whole), bool), others.done))
        inside = (-np.inf, -np.inf, np.inf, end)
        waits, needed = _find_waiting(closed.polygons, held.polygons, inside, self.generalizer.steps)
        waits &= ~done
        footprints = _finish(closed, ~waits & ~done, self.generalizer, self.grid, self.coefficients)
        stays = waits | needed
        self.held = Pending(
            BlockPolygons.concatenate([held, closed.take(stays)]),
            np.concatenate((np.zeros(len(held), bool), ~waits[stays])),
        )
        return footprints


def _find_waiting(
    closed: PolygonArray, others: PolygonArray, inside: tuple[float, float, float, float], steps: tuple[float, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which closed polygons depend on what is not known yet, and on which those, or the unknown, depend.

    Args:
        closed: The polygons, `(polygon,)`.
        others: Polygons that continue where nothing is known yet.
        inside: Left, top, right and bottom of what is known, infinite at the scene's border.
        steps: See `Generalizer.steps`.
    """
    nothing = np.zeros(len(closed), bool)
    if not steps or not len(closed):
        return nothing, nothing
    box, tree = shapely.bounds(closed), shapely.STRtree(closed)
    left, top, right, bottom = inside
    beyond = np.minimum.reduce((box[:, 0] - left, box[:, 1] - top, right - box[:, 2], bottom - box[:, 3]))

    def spread(start: NDArray[np.bool_], distances: Sequence[float]) -> NDArray[np.bool_]:
        """Return the polygons that are reached from some, and from what is not known, step by step."""
        found, latest, last = start.copy(), start, -1.0
        for distance in distances:
            is_new = distance > last  # otherwise only what was found in the last step can lead further
            seeds = np.concatenate((closed[found], others)) if is_new else closed[latest]
            near = beyond <= distance
            if len(seeds):
                near[tree.query(seeds, predicate="dwithin", distance=distance)[1]] = True
            latest, last = near & ~found, distance
            found |= near
        return found

    waits = spread(nothing, steps[::-1])
    return waits, spread(waits, steps)


def join_seams(blocks: Sequence[BlockPolygons]) -> BlockPolygons:
    """Join the polygons of blocks that are one building.

    The result equals that of polygonizing the whole scene at once, vertex for vertex and attribute for attribute, for
    any cut of the scene into disjoint windows. Only open polygons are looked at.

    Args:
        blocks: What `polygonize_block` gave for each block, in any order.

    Returns:
        Polygons sorted by first vertex (row, col), none of them open.

    Raises:
        ValueError: If the blocks are not disjoint, or one of them is missing.
    """
    parts = BlockPolygons.concatenate(blocks)
    whole = join_open(parts.take(parts.open), solve(parts.links))
    joined = BlockPolygons.concatenate([parts.take(~parts.open), whole])
    return joined.take(reading_order(joined.polygons))


def join_open(parts: BlockPolygons, buildings: Buildings) -> BlockPolygons:
    """Join open polygons that are one building, of which all parts are given."""
    if not len(parts):
        return parts
    summit, region = np.unique(buildings.find(parts.summit)[0], return_inverse=True)
    count = len(summit)
    lowest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(lowest, region, parts.probability_min)
    return BlockPolygons(
        polygons=outline(corners_of(parts.polygons, region)),
        summit=summit,
        pixel_count=add_by_region(region, parts.pixel_count, count),
        probability_sum=add_by_region(region, parts.probability_sum, count),
        probability_min=lowest,
        touches=add_by_region(region, parts.touches | buildings.find_touching(parts.summit), count) > 0,
        edge=add_by_region(region, parts.edge, count) > 0,
        open=np.zeros(count, bool),
    )
