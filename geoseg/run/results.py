"""The files of a result, made from the parts by the client: rasters, footprints, picture.

The client goes down the scene once for the rasters and once for the footprints. It holds what is pending of one row of
blocks and undecided of those above, the footprints of one row of blocks, and a batch; the files are streams. A row of
blocks is written when nothing that is undecided begins in it or above.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, Plan
from geoseg.io.store import Store
from geoseg.outputs.picture import write_picture
from geoseg.outputs.rasters import class_file, mask_file, open_rasters, probability_file, rgb
from geoseg.outputs.tiles import TILE_PX
from geoseg.run.parts import FOLDER, part_name, read_finished, read_pending, read_raster
from geoseg.third_party import allow_no_georeference
from geoseg.vectorize import Footprints, Pending, SeamSweep, Simplify

if TYPE_CHECKING:
    import pyarrow

CELL_TILES = 8
"""The ground that a pixel covers is measured once per cell of 8 x 8 TIFF tiles (4,096 px), whatever the blocks."""

AT_ONCE = 8_000
"""Footprints of a row of blocks that are sorted at a time, about."""

PREVIEW_PX = 1024
"""Longest side of each of the picture's two panels, pixels; smaller scenes keep their working grid."""

SOURCE_PX = 2048
"""Side of the part of the scene that is held at a time for the picture, pixels of the scene."""

NODATA_GRAY = 96
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Cell = tuple[int, int]


@dataclass(slots=True)
class Counts:
    """Pixels of a whole scene; the ground that classes cover is measured cell by cell, on the ellipsoid.

    Attributes:
        valid: Pixels with data, inside the AOI.
        building: Pixels of the mask.
        class_pixels: Per class.
        class_m2: Square meters per class; zeros without a CRS.
    """

    valid: int = 0
    building: int = 0
    class_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    class_m2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def describe_classes(self, spec: ModelSpec, grid: Grid) -> dict[str, dict[str, Any]]:
        """Return pixels, share of the valid pixels and square meters (None without a CRS) by class name."""
        total = max(1, int(self.class_pixels.sum()))
        return {
            name: {
                "pixels": int(pixels),
                "share": round(int(pixels) / total, 6),
                "area_m2": round(float(area_m2), 1) if grid.crs is not None else None,
            }
            for name, pixels, area_m2 in zip(spec.classes, self.class_pixels, self.class_m2, strict=False)
        }


@dataclass(slots=True)
class FootprintCounts:
    """What the footprints of a whole scene add up to.

    Attributes:
        count: Footprints.
        at_edge: Those at the edge of the data.
        area_m2: Their ground, square meters.
    """

    count: int = 0
    at_edge: int = 0
    area_m2: float = 0.0


def write_rasters(
    plan: Plan, spec: ModelSpec, threshold: int, blocks: Sequence[Block], store: Store, folder: Path
) -> Counts:
    """Mosaic the parts into probability, mask and, for more than two classes, class raster; return what they count.

    All rasters are written in one pass. Memory does not grow with the scene, and the files do not depend on the blocks.

    Args:
        plan: The plan of the run.
        spec: The model's names and colors.
        threshold: Smallest stored probability that counts as a building.
        blocks: Blocks whose parts are there; everywhere else is no data.
        store: The run's parts.
        folder: A local folder for the rasters.

    Raises:
        MissingFileError: If a block has no part.
        DamagedPartError: If a part is not whole.
        OutputError: If there is no room.
    """
    names: tuple[Literal["probability", "classes"], ...] = ("probability",)
    background = "background" if spec.target == "building" else "other"
    files = [
        probability_file(folder / "probability.tif", description=f"{spec.target} probability"),
        mask_file(folder / "mask.tif", names=(background, spec.target)),
    ]
    if plan.has_class_raster:
        names = ("probability", "classes")
        files.append(class_file(folder / "classes.tif", names=spec.classes, colors=spec.class_colors))
    tally = Tally(plan.scene.grid, threshold, len(spec.classes))
    with open_rasters(files, plan.scene.grid, derive=tally.derive, inputs=len(names)) as rasters:
        for block in _row_by_row(blocks):
            rasters.finish_above(block.window.row)
            found = [read_raster(store, block, name) for name in names]
            if any(pixels is not None for pixels in found):
                shape = block.window.shape
                stack = [np.full(shape, NODATA, np.uint8) if pixels is None else pixels for pixels in found]
                rasters.put(block.window, np.stack(stack))
    return tally.count()


class Tally:
    """Makes the mask of every TIFF tile, and counts what it sees; TIFF tiles may come from several threads."""

    def __init__(self, grid: Grid, threshold: int, classes: int) -> None:
        """Count on `grid` what is at least `threshold`, and as many classes."""
        self._grid, self._threshold, self._classes = grid, threshold, classes
        self._valid = self._building = 0
        self._by_cell: dict[Cell, NDArray[np.int64]] = {}
        self._lock = Lock()

    def derive(self, pixels: NDArray[np.uint8], row: int, col: int) -> NDArray[np.uint8]:
        """Return probability, mask and, where there are any, classes of one TIFF tile.

        Args:
            pixels: `(1 or 2, y, x)` probabilities, and classes.
            row: Row of the TIFF tile.
            col: Its column.
        """
        probability, *others = pixels
        mask, valid = mask_buildings(probability, self._threshold)
        building = int(np.count_nonzero(mask == 1))
        found = [np.bincount(classes.ravel(), minlength=NODATA + 1)[: self._classes] for classes in others]
        with self._lock:
            self._valid += valid
            self._building += building
            for counts in found:
                cell = (row // CELL_TILES, col // CELL_TILES)
                self._by_cell[cell] = self._by_cell.get(cell, np.zeros(self._classes, np.int64)) + counts
        return np.stack((probability, mask, *others))

    def count(self) -> Counts:
        """Return what was counted; sums are made in the order of the cells, so that they are always the same."""
        counts = Counts(self._valid, self._building, np.zeros(self._classes, np.int64), np.zeros(self._classes))
        side = CELL_TILES * TILE_PX
        for (row, col), found in sorted(self._by_cell.items(), key=lambda item: item[0]):
            window = Window(row * side, col * side, side, side).intersect(self._grid.window)
            gsd_m = self._grid.crop(window).gsd_m if window is not None else None  # in the middle of the cell
            counts.class_pixels += found
            counts.class_m2 += found * (gsd_m[0] * gsd_m[1] if gsd_m else 0.0)
        return counts


def mask_buildings(probability: NDArray[np.uint8], threshold: int) -> tuple[NDArray[np.uint8], int]:
    """Return the `(y, x)` mask (0, 1, 255 = no data) of stored probabilities, and how many pixels have data."""
    mask = (probability >= threshold).view(np.uint8)
    is_empty = probability == NODATA
    empty = int(np.count_nonzero(is_empty))
    if empty:
        mask[is_empty] = NODATA
    return mask, probability.size - empty


def write_footprints(
    plan: Plan,
    blocks: Sequence[Block],
    store: Store,
    folder: Path,
    *,
    min_area_m2: float,
    simplify_px: float,
    also: Sequence[str] = (),
    gaps: Sequence[Window] = (),
) -> FootprintCounts:
    """Join the parts' polygons along seams and write `buildings.gpkg`, `buildings.parquet` and further formats.

    Footprints are sorted by the row and the column of their first pixel, however the scene was cut.

    Args:
        plan: The plan of the run.
        blocks: Its blocks; those without a part have no buildings.
        store: The run's parts.
        folder: Where the files go.
        min_area_m2: As for `outline_block`.
        simplify_px: As for `outline_block`.
        also: Further formats, keys of `geoseg.outputs.footprints.FORMATS`.
        gaps: Blocks that could not be done; a footprint that reaches one may go on there, and is at the edge.

    Returns:
        What was written, counted.

    Raises:
        OutputError: If a file cannot be written.
        DamagedPartError: If a part is not whole.
    """
    from geoseg.outputs.batches import rebatch
    from geoseg.outputs.footprints import ALWAYS, write_footprint_files

    grid, counts, parts = plan.scene.grid, FootprintCounts(), set(store.names(FOLDER))
    blocks = [block for block in blocks if part_name(block) in parts]
    sweep = SeamSweep(grid, min_area_m2, Simplify(simplify_px))

    def counted() -> "Iterator[pyarrow.RecordBatch]":
        for batch in rebatch(_joined(blocks, store, gaps, sweep)):
            counts.count += len(batch)
            counts.at_edge += int(batch["edge"].to_numpy(zero_copy_only=False).sum())
            counts.area_m2 += float(batch["area_m2"].to_numpy().sum())
            yield batch

    write_footprint_files(counted(), grid.crs, folder / "buildings", (*ALWAYS, *also))
    return counts


def _joined(
    blocks: Sequence[Block], store: Store, gaps: Sequence[Window], sweep: SeamSweep
) -> "Iterator[pyarrow.RecordBatch]":
    """Join what is pending, one row of blocks after the other, and yield all footprints in reading order."""
    from geoseg.outputs.batches import to_batch

    yield to_batch(Footprints.empty())
    rows = [(below, list(row)) for below, row in groupby(_row_by_row(blocks), key=lambda block: block.window.rows.stop)]
    joined, written = Footprints.empty(), 0
    for number, (below, row) in enumerate(rows):
        pending = Pending.concatenate([read_pending(store, block) for block in row])
        pending.polygons.edge[_reach(pending, gaps)] = True
        is_last = number + 1 == len(rows)
        finished = sweep.add(pending, None if is_last else below)
        joined = Footprints.concatenate([joined, finished]).in_reading_order()
        while written < len(rows) and rows[written][0] <= (np.inf if is_last else min(below, sweep.first_row)):
            stop, above = rows[written]
            end = int(np.searchsorted(joined.row, stop))
            yield from _band([*(read_finished(store, block) for block in above), joined.between(0, end)])
            joined, written = joined.between(end, len(joined)), written + 1


def _band(parts: Sequence[Footprints]) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the footprints of a row of blocks, each part in reading order, a few rows of pixels after the other."""
    from geoseg.outputs.batches import to_batch

    starts = np.sort(np.concatenate([part.row for part in parts]))
    stops = [*np.unique(starts[AT_ONCE::AT_ONCE]), np.iinfo(np.int64).max]
    cuts = np.array([[0, *np.searchsorted(part.row, stops)] for part in parts])
    for begin, end in pairwise(cuts.T):
        yield to_batch(Footprints.concatenate([p.between(a, b) for p, a, b in zip(parts, begin, end, strict=True)]))


def _reach(pending: Pending, gaps: Sequence[Window]) -> NDArray[np.int64]:
    """Return which pending polygons share a piece of their outline with a gap."""
    boxes = np.array([shapely.box(w.cols.start, w.rows.start, w.cols.stop, w.rows.stop) for w in gaps], dtype=object)
    polygons = pending.polygons.polygons
    gap, polygon = shapely.STRtree(polygons).query(boxes, predicate="touches")
    shared = shapely.length(shapely.intersection(boxes[gap], polygons[polygon]))
    reaching: NDArray[np.int64] = polygon[shared > 0]
    return reaching


def _row_by_row(blocks: Sequence[Block]) -> list[Block]:
    return sorted(blocks, key=lambda block: (block.window.row, block.window.col))


def write_preview(plan: Plan, spec: ModelSpec, folder: Path, path: Path) -> Path:
    """Write image and prediction: buildings (the target) in white, several classes in their colors, nodata in gray.

    Args:
        plan: What was run.
        spec: The model's specification.
        folder: Where `mask.tif` or `classes.tif` is.
        path: The PNG to be.
    """
    shape = preview_shape(plan.scene.grid.shape)
    name, colors = "mask.tif", [BLACK, WHITE]
    if plan.has_class_raster:
        name, colors = "classes.tif", [rgb(color) for color in spec.class_colors]
    with allow_no_georeference(), rasterio.open(folder / name) as raster:  # at about the size of one of its overviews
        values = np.asarray(raster.read(1, out_shape=shape), np.uint8)
    table = np.full((NODATA + 1, 3), NODATA_GRAY, np.uint8)
    table[: len(colors)] = colors

    # The scene, part by part: its first three bands, or its first in gray.
    small = (plan.scene if shape == plan.scene.grid.shape else plan.scene.at_shape(shape)).with_levels()
    image = np.full((*shape, 3), NODATA_GRAY, np.uint8)
    factor = max(small.native.height / shape[0], small.native.width / shape[1])
    step = max(1, int(SOURCE_PX / max(factor, 1)))
    for row in range(0, shape[0], step):
        for col in range(0, shape[1], step):
            window = Window(row, col, min(step, shape[0] - row), min(step, shape[1] - col))
            pixels = small.read(window)
            bands = pixels.values[:3] if len(pixels.values) >= 3 else pixels.values[[0, 0, 0]]
            image[window.slices] = np.where(pixels.valid[..., None], bands.transpose(1, 2, 0), NODATA_GRAY)
    return write_picture(path, [image, table[values]])


def preview_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a panel of the picture."""
    factor = max(1.0, max(shape) / PREVIEW_PX)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))
