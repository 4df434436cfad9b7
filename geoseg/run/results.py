"""The results of a run: made from the parts, and put into the run folder, which then holds nothing else.

The client goes down the scene once for the rasters and once for the footprints, and writes the files as streams. It
holds the pending polygons of one row of blocks, those above whose other parts are still to come, the footprints of one
row of blocks, and a batch. A row of blocks is written when no unfinished polygon begins in it or above.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec
from geoseg.errors import DamagedPartError, GeosegError, OutputError
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, Plan
from geoseg.io.aside import write_record
from geoseg.io.store import LocalStore, Store
from geoseg.outputs.picture import NODATA_GRAY, draw_image, write_picture
from geoseg.outputs.rasters import class_file, mask_file, open_rasters, probability_file, rgb
from geoseg.outputs.tiles import TILE_PX
from geoseg.run.cluster import release_memory
from geoseg.run.job import Job
from geoseg.run.lease import require_lease
from geoseg.run.ledger import PICTURE, RESULTS
from geoseg.run.parts import FOLDER, part_name, read_finished, read_pending, read_raster, read_watch
from geoseg.run.report import Counts, FootprintCounts, RunSummary, describe_run
from geoseg.sources.files import RUN_FOLDER
from geoseg.third_party import allow_no_georeference
from geoseg.vectorize import Footprints, Pending, SeamSweep, Simplify

if TYPE_CHECKING:
    import pyarrow

DOWNLOADS = 8
"""Parts that are downloaded from a bucket at the same time."""

CELL_TILES = 8
"""The area of a pixel is measured once per cell of 8 x 8 TIFF tiles (4,096 px), whatever the blocks."""

AT_ONCE = 8_000
"""Approximate number of footprints of a row of blocks that are sorted at a time."""

PREVIEW_PX = 1024
"""Maximum side of each of the picture's two panels in pixels; smaller scenes keep their working grid."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Cell = tuple[int, int]


def finish_run(job: Job, summary: RunSummary) -> dict[str, Any]:
    """Make the results of a run whose blocks are done, put them into the run folder and return the report.

    If it fails for any reason, the parts are kept, and it can be repeated.

    Raises:
        OutputError: If there is not enough space, or no permission.
        DamagedPartError: If a part is damaged or missing.
        BusyError: If another client has taken over the run folder.
    """
    ledger = job.ledger
    try:
        done = ledger.done()
        blocks = [block for block in job.blocks() if block.name not in summary.failed]
        missing = [block.name for block in blocks if part_name(block) not in done]
        if missing:
            raise DamagedPartError(
                f"{len(missing)} of the finished blocks have no part in {ledger.work.url}, such as {missing[0]}. "
                "Run the same command again to compute them again."
            )
        with open_staging(ledger.out) as staging:
            with open_local(ledger.work, [part_name(block) for block in blocks]) as parts:
                report = _write_results(job, summary, blocks, parts, staging)
            require_lease(ledger.base, summary.token)
            publish(staging, ledger.out)
    except (GeosegError, OSError):
        require_lease(ledger.base, summary.token)  # another client may have finished the run and removed the parts
        raise
    ledger.close()
    return report


def _write_results(
    job: Job, summary: RunSummary, blocks: Sequence[Block], parts: Store, folder: Path
) -> dict[str, Any]:
    """Write all files of the result into a local folder; return the report."""
    plan, spec, stages = job.plan, job.bundle.spec, summary.stages
    release_memory()
    pixels = write_rasters(plan, spec, job.threshold, blocks, parts, folder)
    stages.done("mosaic")
    release_memory()
    footprints = write_footprints(
        plan,
        blocks,
        parts,
        folder,
        min_area_m2=job.min_area_m2,
        simplify_px=job.settings.simplify_px,
        also=job.settings.also,
        gaps=[block.window for block in job.blocks() if block.name in summary.failed] if summary.failed else [],
    )
    stages.done("polygons")
    if job.settings.picture:
        write_preview(plan, spec, folder, folder / PICTURE)
        stages.done("picture")
    report = describe_run(job, summary, [read_watch(parts, block) for block in blocks], pixels, footprints)
    write_record(folder / "run.json", report)
    return report


@contextmanager
def open_staging(out: Store) -> Iterator[Path]:
    """Create a local folder for the results while they are made; on the disk of a local run folder, to rename them."""
    if not isinstance(out, LocalStore):
        with tempfile.TemporaryDirectory(prefix="geoseg-") as name:
            yield Path(name)
        return
    staging = out.folder / RUN_FOLDER / f"ready-{uuid4().hex[:8]}"
    try:
        staging.mkdir(parents=True)
    except OSError as err:
        raise OutputError(
            f"{staging} cannot be created ({err.strerror}). Make room or get permission to write there, and run the "
            "same command again."
        ) from err
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def open_local(work: Store, names: Sequence[str]) -> Iterator[Store]:
    """Open a local copy of the parts, as each is read several times; parts in a local folder are used in place."""
    if isinstance(work, LocalStore):
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-parts-") as folder, ThreadPoolExecutor(DOWNLOADS) as pool:
        local = LocalStore(Path(folder))
        for _ in pool.map(lambda name: local.write(name, work.read(name)), names):
            pass
        yield local


def publish(staging: Path, out: Store) -> None:
    """Move the finished files to the run folder, `run.json` last; other files of an older result are removed first.

    Raises:
        OutputError: If they cannot be written, or no longer exist.
    """
    made = [name for name in RESULTS if (staging / name).exists()]
    if RESULTS[-1] not in made:
        raise OutputError(f"{staging} was removed while results were made there. Run the same command again.")
    out.remove(RESULTS[-1])
    for name in RESULTS:
        if name not in made:
            out.remove(name)
    for name in made:
        out.upload(staging / name, name)


def write_rasters(
    plan: Plan, spec: ModelSpec, threshold: int, blocks: Sequence[Block], store: Store, folder: Path
) -> Counts:
    """Mosaic the parts into probability, mask and, for more than two classes, class raster; return the pixel counts.

    All rasters are written in one pass. Memory does not grow with the scene, and the files do not depend on the blocks.

    Args:
        plan: The plan of the run.
        spec: The model's names and colors.
        threshold: Smallest stored probability that counts as a building.
        blocks: Blocks that have a part; everything else is nodata.
        store: The parts of the run.
        folder: Local folder for the rasters.

    Raises:
        MissingFileError: If a block has no part.
        DamagedPartError: If a part is damaged.
        OutputError: If there is not enough space.
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
    """Derives the mask of every TIFF tile and counts its pixels; called from several threads."""

    def __init__(self, grid: Grid, threshold: int, classes: int) -> None:
        """Count pixels of at least `threshold`, and those of so many classes, on `grid`."""
        self._grid, self._threshold, self._classes = grid, threshold, classes
        self._valid = self._building = 0
        self._by_cell: dict[Cell, NDArray[np.int64]] = {}
        self._lock = Lock()

    def derive(self, pixels: NDArray[np.uint8], row: int, col: int) -> NDArray[np.uint8]:
        """Return probability, mask and, if there are any, classes of one TIFF tile.

        Args:
            pixels: `(1 or 2, y, x)` probabilities and, optionally, classes.
            row: Row of the TIFF tile, counted in tiles.
            col: Column of the TIFF tile, counted in tiles.
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
        """Return the counts, summed in the order of the cells so that they do not depend on that of the tiles."""
        counts = Counts(self._valid, self._building, np.zeros(self._classes, np.int64), np.zeros(self._classes))
        side = CELL_TILES * TILE_PX
        for (row, col), found in sorted(self._by_cell.items(), key=lambda item: item[0]):
            window = Window(row * side, col * side, side, side).intersect(self._grid.window)
            gsd_m = self._grid.crop(window).gsd_m if window is not None else None  # in the middle of the cell
            counts.class_pixels += found
            counts.class_m2 += found * (gsd_m[0] * gsd_m[1] if gsd_m else 0.0)
        return counts


def mask_buildings(probability: NDArray[np.uint8], threshold: int) -> tuple[NDArray[np.uint8], int]:
    """Return the `(y, x)` mask (0, 1, 255 = nodata) of stored probabilities, and the number of valid pixels."""
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
    """Join the polygons of the parts along seams and write `buildings.gpkg`, `buildings.parquet` and other formats.

    Footprints are sorted by row and column of their first pixel, independently of the blocks.

    Args:
        plan: The plan of the run.
        blocks: Blocks of the run; those without a part have no buildings.
        store: The parts of the run.
        folder: Folder for the files.
        min_area_m2: See `outline_block`.
        simplify_px: See `outline_block`.
        also: Other formats, keys of `geoseg.outputs.footprints.FORMATS`.
        gaps: Blocks that failed. A footprint that touches one may continue there, so it is marked as at the edge.

    Raises:
        OutputError: If a file cannot be written.
        DamagedPartError: If a part is damaged.
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
    """Join pending polygons, one row of blocks after the other, and yield all footprints in reading order."""
    from geoseg.outputs.batches import to_batch

    yield to_batch(Footprints.empty())
    rows = [(below, list(row)) for below, row in groupby(_row_by_row(blocks), key=lambda block: block.window.rows.stop)]
    joined, written = Footprints.empty(), 0
    for number, (below, row) in enumerate(rows):
        pending = Pending.concatenate([read_pending(store, block) for block in row])
        pending.polygons.edge[_touching(pending, gaps)] = True
        is_last = number + 1 == len(rows)
        finished = sweep.add(pending, None if is_last else below)
        joined = Footprints.concatenate([joined, finished]).in_reading_order()
        while written < len(rows) and rows[written][0] <= (np.inf if is_last else min(below, sweep.first_row)):
            stop, above = rows[written]
            end = int(np.searchsorted(joined.row, stop))
            yield from _band([*(read_finished(store, block) for block in above), joined.between(0, end)])
            joined, written = joined.between(end, len(joined)), written + 1


def _band(parts: Sequence[Footprints]) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the footprints of a row of blocks in reading order, a few rows of pixels at a time.

    Args:
        parts: Footprints, each in reading order.
    """
    from geoseg.outputs.batches import to_batch

    starts = np.sort(np.concatenate([part.row for part in parts]))
    stops = [*np.unique(starts[AT_ONCE::AT_ONCE]), np.iinfo(np.int64).max]
    cuts = np.array([[0, *np.searchsorted(part.row, stops)] for part in parts])
    for begin, end in pairwise(cuts.T):
        yield to_batch(Footprints.concatenate([p.between(a, b) for p, a, b in zip(parts, begin, end, strict=True)]))


def _touching(pending: Pending, gaps: Sequence[Window]) -> NDArray[np.int64]:
    """Return the indices of the pending polygons that share a piece of their outline with a gap."""
    boxes = np.array([shapely.box(w.cols.start, w.rows.start, w.cols.stop, w.rows.stop) for w in gaps], dtype=object)
    polygons = pending.polygons.polygons
    gap, polygon = shapely.STRtree(polygons).query(boxes, predicate="touches")
    shared = shapely.length(shapely.intersection(boxes[gap], polygons[polygon]))
    touching: NDArray[np.int64] = polygon[shared > 0]
    return touching


def _row_by_row(blocks: Sequence[Block]) -> list[Block]:
    return sorted(blocks, key=lambda block: (block.window.row, block.window.col))


def write_preview(plan: Plan, spec: ModelSpec, folder: Path, path: Path) -> Path:
    """Write image and prediction: buildings in white or, of several classes, each in its color; nodata in gray.

    Args:
        plan: The plan of the run.
        spec: The model's specification.
        folder: Folder that contains `mask.tif` or `classes.tif`.
        path: Path of the PNG.
    """
    shape = preview_shape(plan.scene.grid.shape)
    name, colors = "mask.tif", [BLACK, WHITE]
    if plan.has_class_raster:
        name, colors = "classes.tif", [rgb(color) for color in spec.class_colors]
    with allow_no_georeference(), rasterio.open(folder / name) as raster:  # at about the size of one of its overviews
        values = np.asarray(raster.read(1, out_shape=shape), np.uint8)
    table = np.full((NODATA + 1, 3), NODATA_GRAY, np.uint8)
    table[: len(colors)] = colors
    return write_picture(path, [draw_image(plan.scene, shape), table[values]])


def preview_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a panel of the picture."""
    factor = max(1.0, max(shape) / PREVIEW_PX)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))
