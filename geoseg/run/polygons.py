"""Outlines of the buildings: finished block by block on the workers, joined along seams and written by the client.

The client goes down the scene once. It holds what is pending of one row of blocks and undecided of those above, the
footprints of one row of blocks, and a batch; the files are streams. A row of blocks is written when nothing that is
undecided begins in it or above.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import MissingFileError
from geoseg.grid import Block, Window
from geoseg.inference import NODATA, BlockPixels, Plan
from geoseg.io.store import Store
from geoseg.run.parts import read_finished, read_pending
from geoseg.vectorize import (
    BlockOutlines,
    Footprints,
    Pending,
    SeamSweep,
    Simplify,
    finish_block,
    polygonize_block,
)

if TYPE_CHECKING:
    import pyarrow

AT_ONCE = 8_000
"""Footprints of a row of blocks that are sorted at a time, about."""


@dataclass(slots=True)
class FootprintCounts:
    """What the footprints of a whole scene add up to.

    Attributes:
        count: Footprints.
        at_edge: Those at the edge of the data.
        area_m2: Their ground, square metres.
    """

    count: int = 0
    at_edge: int = 0
    area_m2: float = 0.0

    def add(self, batch: "pyarrow.RecordBatch") -> None:
        """Count a batch."""
        self.count += len(batch)
        self.at_edge += int(batch["edge"].to_numpy(zero_copy_only=False).sum())
        self.area_m2 += float(batch["area_m2"].to_numpy().sum())


def outline_block(
    plan: Plan, pixels: BlockPixels, block: Block, *, threshold: int, min_area_m2: float, simplify_px: float
) -> BlockOutlines:
    """Outline one block's buildings and finish those that no other block can change.

    Args:
        plan: The plan of the run.
        pixels: What `predict_block` gave.
        block: Which block.
        threshold: Smallest stored probability that counts as a building.
        min_area_m2: Drop buildings whose pixels cover less ground than this.
        simplify_px: Tolerance of the simplification in pixels; 0 keeps the pixels' outline.
    """
    if pixels.is_empty:
        return BlockOutlines.empty()
    grid, ring = plan.scene.grid, block.window.expand(1)
    inside = ring.intersect(grid.window)
    assert inside is not None
    cut = inside.relative_to(ring).slices
    probability = np.pad(pixels.probability, 1, constant_values=NODATA)[cut]
    is_building = (probability >= threshold) & (probability != NODATA)
    if not is_building.any():
        return BlockOutlines.empty()
    polygons = polygonize_block(is_building, probability, pixels.valid[cut], block.window, scene_shape=grid.shape)
    return finish_block(polygons, block.window, grid, min_area_m2=min_area_m2, generaliser=Simplify(simplify_px))


def write_footprints(
    plan: Plan,
    blocks: Sequence[Block],
    store: Store,
    folder: Path,
    *,
    min_area_m2: float,
    simplify_px: float,
    gaps: Sequence[Window] = (),
) -> FootprintCounts:
    """Join the parts' polygons along seams and write `buildings.gpkg` and `buildings.parquet`.

    Footprints are sorted by the row and the column of their first pixel, however the scene was cut.

    Args:
        plan: The plan of the run.
        blocks: Its blocks; those without a part have no buildings.
        store: Where the parts are.
        folder: Where the files go.
        min_area_m2: As for `outline_block`.
        simplify_px: As for `outline_block`.
        gaps: Blocks that could not be done; a footprint that reaches one may go on there, and is at the edge.

    Returns:
        What was written, counted.

    Raises:
        OutputError: If a file cannot be written.
        DamagedPartError: If a part is not whole.
    """
    from geoseg.outputs.batches import rebatch
    from geoseg.outputs.footprints import write_footprint_files

    grid, counts = plan.scene.grid, FootprintCounts()
    sweep = SeamSweep(grid, min_area_m2, Simplify(simplify_px))
    batches = _counted(rebatch(_stream(blocks, store, gaps, sweep)), counts)
    write_footprint_files(batches, grid.crs, folder / "buildings")
    return counts


def _reach(pending: Pending, gaps: Sequence[Window]) -> NDArray[np.int64]:
    """Return which pending polygons share a piece of their outline with a gap."""
    boxes = np.array([shapely.box(w.cols.start, w.rows.start, w.cols.stop, w.rows.stop) for w in gaps], dtype=object)
    polygons = pending.polygons.polygons
    gap, polygon = shapely.STRtree(polygons).query(boxes, predicate="touches")
    shared = shapely.length(shapely.intersection(boxes[gap], polygons[polygon]))
    reaching: NDArray[np.int64] = polygon[shared > 0]
    return reaching


def _stream(
    blocks: Sequence[Block], store: Store, gaps: Sequence[Window], sweep: SeamSweep
) -> "Iterator[pyarrow.RecordBatch]":
    """Join what is pending, one row of blocks after the other, and yield all footprints in reading order."""
    from geoseg.outputs.batches import to_batch

    yield to_batch(Footprints.empty())
    rows = _rows(blocks)
    joined, written = Footprints.empty(), 0
    for number, (below, row) in enumerate(rows):
        pending = Pending.concatenate([_pending(store, block) for block in row])
        pending.polygons.edge[_reach(pending, gaps)] = True
        is_last = number + 1 == len(rows)
        finished = sweep.add(pending, None if is_last else below)
        joined = Footprints.concatenate([joined, finished]).in_reading_order()
        while written < len(rows) and rows[written][0] <= (np.inf if is_last else min(below, sweep.first_row)):
            stop, above = rows[written]
            end = int(np.searchsorted(joined.row, stop))
            yield from _band([*(_finished(store, block) for block in above), joined.between(0, end)])
            joined, written = joined.between(end, len(joined)), written + 1


def _band(parts: Sequence[Footprints]) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the footprints of a row of blocks, each part in reading order, a few rows of pixels after the other."""
    from geoseg.outputs.batches import to_batch

    starts = np.sort(np.concatenate([part.row for part in parts]))
    stops = [*np.unique(starts[AT_ONCE::AT_ONCE]), np.iinfo(np.int64).max]
    cuts = np.array([[0, *np.searchsorted(part.row, stops)] for part in parts])
    for begin, end in pairwise(cuts.T):
        yield to_batch(Footprints.concatenate([p.between(a, b) for p, a, b in zip(parts, begin, end, strict=True)]))


def _rows(blocks: Sequence[Block]) -> list[tuple[int, list[Block]]]:
    """Return the rows of blocks from the top, each with the first row of pixels below it."""
    rows = groupby(sorted(blocks, key=_place), key=lambda block: block.window.rows.stop)
    return [(below, list(row)) for below, row in rows]


def _place(block: Block) -> tuple[int, int]:
    return block.window.row, block.window.col


def _counted(batches: "Iterator[pyarrow.RecordBatch]", counts: FootprintCounts) -> "Iterator[pyarrow.RecordBatch]":
    for batch in batches:
        counts.add(batch)
        yield batch


def _pending(store: Store, block: Block) -> Pending:
    try:
        return read_pending(store, block)
    except MissingFileError:
        return Pending.concatenate([])


def _finished(store: Store, block: Block) -> Footprints:
    try:
        return read_finished(store, block)
    except MissingFileError:
        return Footprints.empty()
