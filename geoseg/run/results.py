"""The results of a run: made from the parts, and put into the run folder, which then holds nothing else.

The client goes down the scene once for the rasters, and once more to outline the buildings in them; files are written
as streams. It holds the polygons of one row of windows that are not finished, those above whose other parts are still
to come, the footprints of one row of windows, and a batch.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec
from geoseg.engines import usable_cores
from geoseg.errors import DamagedPartError, GeosegError, OutputError
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, Plan
from geoseg.io.aside import require_closed, write_record
from geoseg.io.store import LocalStore, Store
from geoseg.mosaic import find_meeting
from geoseg.outputs.batches import BATCH, ROW_GROUP, rebatch, sort_along_curve, to_batch
from geoseg.outputs.footprints import DEFAULT_FORMATS, write_footprint_files
from geoseg.outputs.picture import NODATA_GRAY, draw_image, write_picture
from geoseg.outputs.project import write_project
from geoseg.outputs.rasters import RasterFile, class_file, mask_file, open_rasters, probability_file, rgb
from geoseg.outputs.stac import ITEM, write_item
from geoseg.outputs.tiles import TILE_PX
from geoseg.run.cluster import release_memory
from geoseg.run.job import Job
from geoseg.run.lease import require_lease
from geoseg.run.ledger import PICTURE, RESULTS
from geoseg.run.page import Sight, look
from geoseg.run.parts import RasterName, part_name, read_raster, read_watch
from geoseg.run.report import Counts, FootprintCounts, RunSummary, describe_files, describe_run
from geoseg.scene import Raster, StoredRaster
from geoseg.sources.files import RUN_FOLDER
from geoseg.third_party import allow_no_georeference
from geoseg.vectorize import Footprints, OutlineOptions, Spread, StoredPixels, cut_grid, in_threads, outline_scene

if TYPE_CHECKING:
    import pyarrow

DOWNLOADS = 8
"""Parts that are downloaded from a bucket at the same time."""

CELL_TILES = 8
"""The area of a pixel is measured once per cell of 8 x 8 TIFF tiles (4,096 px), whatever the blocks."""

THREADS = min(8, usable_cores())
"""Threads that outline buildings where the cluster does not."""

IN_THREADS = in_threads(THREADS)

WINDOW_PX = 1024
"""Height and width of the windows that they outline; results do not depend on it."""

PREVIEW_PX = 1024
"""Maximum side of each of the picture's two panels in pixels; smaller scenes keep their working grid."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Cell = tuple[int, int]


def finish_run(job: Job, summary: RunSummary, spread: Spread = IN_THREADS) -> dict[str, Any]:
    """Make the results of a run whose blocks are done, put them into the run folder and return the report.

    If it fails for any reason, the parts are kept, and it can be repeated.

    Args:
        job: The run.
        summary: What is known of its blocks.
        spread: Where buildings are outlined.

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
                report = _write_results(job, summary, blocks, parts, staging, spread)
            require_lease(ledger.base, summary.token)
            publish(staging, ledger.out)
    except (GeosegError, OSError):
        require_lease(ledger.base, summary.token)  # another client may have finished the run and removed the parts
        raise
    ledger.close()
    return report


def _write_results(
    job: Job, summary: RunSummary, blocks: Sequence[Block], parts: Store, folder: Path, spread: Spread
) -> dict[str, Any]:
    """Write all files of the result into a local folder; return the report."""
    plan, spec, stages = job.plan, job.bundle.spec, summary.stages
    release_memory()
    pixels = write_rasters(plan, spec, job.outlines.threshold, blocks, parts, folder)
    stages.done("mosaic")
    release_memory()
    footprints = write_footprints(
        stored_pixels(plan.scene.grid, folder),
        folder,
        [block.window for block in blocks],
        job.outlines,
        formats=job.settings.formats,
        spread=spread,
    )
    stages.done("polygons")
    if job.settings.picture:
        write_preview(plan, spec, folder, folder / PICTURE)
        stages.done("picture")
    sight = None
    if job.settings.page:
        sight = look(plan.scene, plan.scene.grid, folder)
        stages.done("page")
    report = describe_run(job, summary, [read_watch(parts, block) for block in blocks], pixels, footprints)
    complete(report, folder, job.ledger.out, sight)
    return report


def complete(report: dict[str, Any], folder: Path, out: Store, sight: Sight | None) -> None:
    """Write what is made of a report: the QGIS project of a local result, page, STAC Item, `run.json` with all files.

    Args:
        report: The report, to which the list of files is added.
        folder: Local folder with the files of the result.
        out: Where they will lie.
        sight: What the page shows; None if there is to be none.

    Raises:
        OutputError: If a file cannot be written.
    """
    if isinstance(out, LocalStore):
        write_project(report, [path.name for path in folder.iterdir()], folder, out.folder)
    if sight is not None:
        sight.write(report, LocalStore(folder).sizes(), folder)
    report["files"] = describe_files(folder)
    describe(report, folder, out)
    write_record(folder / "run.json", report)


def describe(report: dict[str, Any], folder: Path, out: Store) -> None:
    """Write the STAC Item of a result whose other files are in its report, and add it to these; see `complete`."""
    if "transform" in report["scene"]["grid"]:  # not in reports of before
        write_item(report, folder, out.folder if isinstance(out, LocalStore) else None)
    report["files"] |= describe_files(folder, [ITEM])


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
        BusyError: If another program has the older GeoPackage open.
    """
    if isinstance(out, LocalStore):
        require_closed(out.folder / "buildings.gpkg")
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
    """Mosaic the parts into rasters: probability, mask, and those of classes and interior; return the pixel counts.

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
    names: list[RasterName] = ["probability"]
    files = [
        probability_file(folder / "probability.tif", description=f"{spec.target} probability"),
        mask_of(spec, folder),
    ]
    if plan.has_class_raster:
        names.append("classes")
        files.append(class_file(folder / "classes.tif", names=spec.classes, colors=spec.class_colors))
    if plan.has_interior:
        names.append("interior")
        files.append(probability_file(folder / "interior.tif", description=f"{spec.target} interior probability"))
    tally = Tally(plan.scene.grid, threshold, len(spec.classes), has_classes=plan.has_class_raster)
    with open_rasters(files, plan.scene.grid, derive=tally.derive, inputs=len(names)) as rasters:
        for block in _row_by_row(blocks):
            rasters.finish_above(block.window.row)
            found = [read_raster(store, block, name) for name in names]
            if any(pixels is not None for pixels in found):
                shape = block.window.shape
                stack = [np.full(shape, NODATA, np.uint8) if pixels is None else pixels for pixels in found]
                rasters.put(block.window, np.stack(stack))
    return tally.count()


def mask_of(spec: ModelSpec, folder: Path) -> RasterFile:
    """Describe the mask of a run."""
    background = "background" if spec.target == "building" else "other"
    return mask_file(folder / "mask.tif", names=(background, spec.target))


def write_mask(spec: ModelSpec, threshold: int, probability: Raster, grid: Grid, folder: Path) -> int:
    """Write `mask.tif` of finished probabilities, byte for byte as `write_rasters` does; return its building pixels.

    Args:
        spec: The model's names.
        threshold: Smallest stored probability that counts as a building.
        probability: Stored probabilities.
        grid: Grid of the scene.
        folder: Local folder for the mask.

    Raises:
        OutputError: If there is not enough space.
    """
    tally = Tally(grid, threshold, len(spec.classes), has_classes=False)
    with open_rasters([mask_of(spec, folder)], grid, derive=lambda *tile: tally.derive(*tile)[1:], inputs=1) as rasters:
        for window in cut_grid(grid.shape, WINDOW_PX):
            rasters.finish_above(window.row)
            rasters.put(window, probability.read(window)[None])
    return tally.count().building


class Tally:
    """Derives the mask of every TIFF tile and counts its pixels; called from several threads."""

    def __init__(self, grid: Grid, threshold: int, classes: int, *, has_classes: bool) -> None:
        """Count pixels of at least `threshold` on `grid`, and those of so many classes if there is a class raster."""
        self._grid, self._threshold, self._classes, self._has_classes = grid, threshold, classes, has_classes
        self._valid = self._building = 0
        self._by_cell: dict[Cell, NDArray[np.int64]] = {}
        self._lock = Lock()

    def derive(self, pixels: NDArray[np.uint8], row: int, col: int) -> NDArray[np.uint8]:
        """Return probability, mask and, if there are any, classes and interior of one TIFF tile.

        Args:
            pixels: `(1 to 3, y, x)` probabilities, classes if there is a class raster, and any other raster.
            row: Row of the TIFF tile, counted in tiles.
            col: Column of the TIFF tile, counted in tiles.
        """
        probability, *others = pixels
        mask, valid = mask_buildings(probability, self._threshold)
        building = int(np.count_nonzero(mask == 1))
        counted = others[:1] if self._has_classes else []
        found = [np.bincount(classes.ravel(), minlength=NODATA + 1)[: self._classes] for classes in counted]
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


def stored_pixels(grid: Grid, folder: Path) -> StoredPixels:
    """Return what buildings are outlined from: the rasters in the folder of a run."""
    interior = folder / "interior.tif"
    surface = StoredRaster(str(interior)) if interior.exists() else None
    return StoredPixels(grid, StoredRaster(str(folder / "probability.tif")), surface=surface)


def write_footprints(
    pixels: StoredPixels,
    folder: Path,
    windows: Sequence[Window],
    options: OutlineOptions,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    omit: Sequence[str] = (),
    spread: Spread = IN_THREADS,
) -> FootprintCounts:
    """Outline the buildings of a scene and write `buildings.parquet` and other formats.

    Footprints are sorted along a space-filling curve, independently of the windows.

    Args:
        pixels: The rasters.
        folder: Local folder for the files.
        windows: Disjoint windows that hold all data.
        options: See `OutlineOptions`.
        formats: Keys of `geoseg.outputs.footprints.FORMATS`; GeoParquet is written in any case.
        omit: Columns that are not written.
        spread: Where buildings are outlined.

    Raises:
        OutputError: If a file cannot be written.
    """
    counts, grid = FootprintCounts(), pixels.grid
    cells = list(cut_grid(grid.shape, WINDOW_PX))
    parts = [cell for cell, is_met in zip(cells, find_meeting(cells, windows), strict=True) if is_met]

    def batch(found: Footprints) -> "pyarrow.RecordBatch":
        made = to_batch(found)
        return made.drop_columns(list(omit)) if omit else made

    def counted(scratch: Path) -> "Iterator[pyarrow.RecordBatch]":
        yield batch(Footprints.empty())
        for found in outline_scene(pixels, options, scratch=scratch, windows=parts, spread=spread):
            counts.count += len(found)
            counts.at_edge += int(found.edge.sum())
            counts.area_m2 += float(found.area_m2.sum())
            yield batch(found)

    with tempfile.TemporaryDirectory(prefix="polygons-", dir=folder) as name:
        scratch = Path(name)
        found = sort_along_curve(rebatch(counted(scratch), BATCH), grid.bounds, scratch / "unsorted.arrow")
        write_footprint_files(rebatch(found, ROW_GROUP), grid.crs, folder / "buildings", formats)
    return counts


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
