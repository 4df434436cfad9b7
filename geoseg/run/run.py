"""The main job: one scene in, rasters and footprints out."""

import logging
import os
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.bundle import Bundle, load_bundle
from geoseg.engines import worker_threads
from geoseg.errors import GeosegError
from geoseg.grid import Block
from geoseg.inference import NODATA, Plan, Stopwatch, plan_inference, predict_block, stored_threshold
from geoseg.run.cluster import local_client, run_tasks
from geoseg.run.folder import RESULTS, check_free, staging
from geoseg.run.mosaic import write_rasters
from geoseg.run.parts import read_polygons, write_part
from geoseg.run.preview import write_preview
from geoseg.run.progress import track
from geoseg.run.report import Stages, describe_run
from geoseg.run.settings import RunSettings
from geoseg.scene import Paths, close_readers

if TYPE_CHECKING:
    from distributed import Client
    from geopandas import GeoDataFrame

log = logging.getLogger(__name__)

GDAL_CACHE_MB = "256"
"""GDAL otherwise takes 5 % of the machine's memory for decoded pixels that geoseg reads once."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the results lie, and what `run.json` says.

    Attributes:
        folder: The result folder.
        report: The contents of `run.json`.
    """

    folder: Path
    report: dict[str, Any]

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of their making."""
        return [self.folder / name for name in RESULTS if (self.folder / name).exists()]


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a block's task tells: chips predicted, seconds per stage."""

    block: Block
    watch: Stopwatch


def run_scene(paths: Paths, settings: RunSettings | None = None, *, quiet: bool = False) -> RunResult:
    """Segment a scene and write rasters, footprints and a report.

    Args:
        paths: A raster, a URL, a folder of rasters, or several of these as one scene.
        settings: See `RunSettings`.
        quiet: Show no progress.

    Returns:
        The result folder and the report.

    Raises:
        GeosegError: For everything that a user can act upon; nothing is left behind then.
    """
    limit_gdal_cache()
    settings = settings or RunSettings()
    stages = Stages()
    bundle = load_bundle(settings.model)
    plan = plan_run(paths, bundle, settings)
    return run_plan(plan, bundle, settings, stages=stages, quiet=quiet)


def limit_gdal_cache() -> None:
    """Keep GDAL's cache small, unless the user chose its size."""
    os.environ.setdefault("GDAL_CACHEMAX", GDAL_CACHE_MB)


def run_plan(
    plan: Plan,
    bundle: Bundle,
    settings: RunSettings,
    *,
    stages: Stages | None = None,
    quiet: bool = False,
    client: "Client | None" = None,
) -> RunResult:
    """Carry out a plan: predict the blocks, mosaic them, outline the buildings, write the results.

    Args:
        plan: The scene, its chips and the engine.
        bundle: The model, for its threshold and the report.
        settings: See `RunSettings`.
        stages: The clock, where it is running already.
        quiet: Show no progress.
        client: The dask client to work with, where there is one already.
    """
    stages = stages or Stages()
    folder = settings.out or Path(f"{plan.scene.name}_geoseg")
    check_free(folder, overwrite=settings.overwrite)
    threshold = stored_threshold(bundle.spec.threshold if settings.threshold is None else settings.threshold)
    rasters = 3 if plan.has_class_raster else 2
    with staging(folder, pixels=plan.scene.grid.height * plan.scene.grid.width, rasters=rasters) as aside:
        threads = worker_threads(settings.device, settings.threads, bundle.form)
        blocks = plan.blocks(settings.block_px or plan.choose_block_px(threads))
        stages.done("open")
        with nullcontext(client) if client is not None else local_client(threads) as own:
            reports = _run_blocks(own, plan, threshold, blocks, aside, quiet=quiet)
        stages.done("blocks")
        counts = write_rasters(plan, bundle.spec, threshold, blocks, aside)
        stages.done("mosaic")
        footprints = _write_footprints(plan, bundle, settings, blocks, aside)
        stages.done("polygons")
        if settings.picture:
            write_preview(plan, bundle.spec, aside, aside / "preview.png")
            stages.done("picture")
        report = describe_run(plan, bundle, settings, stages, [r.watch for r in reports], counts, footprints)
        _write_report(aside, report)
    close_readers()
    return RunResult(folder, report)


def plan_run(paths: Paths, bundle: Bundle, settings: RunSettings) -> Plan:
    """Plan the inference of a run."""
    names = (
        "bands",
        "crs",
        "grid",
        "aoi",
        "aoi_where",
        "blend",
        "device",
        "precision",
        "threads",
        "chip_px",
        "halo_px",
    )
    return plan_inference(paths, bundle, **{name: getattr(settings, name) for name in names})


def _run_blocks(
    client: "Client", plan: Plan, threshold: int, blocks: list[Block], folder: Path, *, quiet: bool
) -> list[BlockReport]:
    Thread(target=_warm_up, args=(plan,), daemon=True).start()
    results = run_tasks(client, partial(run_block, plan, folder, threshold), blocks)
    return list(track(results, total=len(blocks), what="block", quiet=quiet))


def _warm_up(plan: Plan) -> None:
    """Load the engine while torchgeo is being imported and the first pixels are read; a failure shows in the blocks."""
    with suppress(GeosegError):
        plan.open_engine()


def run_block(plan: Plan, folder: Path, threshold: int, block: Block) -> BlockReport:
    """Predict one block, outline its buildings and write its part.

    Args:
        plan: The plan of the run.
        folder: Where the parts go.
        threshold: Smallest stored probability that counts as a building.
        block: Which block.

    Raises:
        GeosegError: If the pixels cannot be read or the engine cannot be loaded.
    """
    try:
        return _run_block(plan, folder, threshold, block)
    except GeosegError as err:
        failure = type(err)(str(err))
    # Without its cause, which GDAL makes unpicklable: dask would otherwise pass on a bare Exception.
    raise failure


def _run_block(plan: Plan, folder: Path, threshold: int, block: Block) -> BlockReport:
    from geoseg.vectorize import polygonize_block

    pixels = predict_block(plan, block)
    start = time.perf_counter()
    ring = block.window.expand(1)
    inside = ring.intersect(plan.scene.grid.window)
    assert inside is not None
    cut = inside.relative_to(ring).slices
    probability = np.pad(pixels.probability, 1, constant_values=NODATA)[cut]
    is_building = (probability >= threshold) & (probability != NODATA)
    polygons = polygonize_block(
        is_building, probability, pixels.valid[cut], block.window, scene_shape=plan.scene.grid.shape
    )
    start = pixels.watch.add("polygonize", start)
    write_part(folder, block, pixels, polygons)
    pixels.watch.add("write", start)
    return BlockReport(block, pixels.watch)


def _write_footprints(
    plan: Plan, bundle: Bundle, settings: RunSettings, blocks: list[Block], folder: Path
) -> "GeoDataFrame":
    from geoseg.outputs import write_geopackage, write_geoparquet
    from geoseg.vectorize import finish_footprints, join_seams

    joined = join_seams([read_polygons(folder, block) for block in blocks])
    min_area_m2 = bundle.spec.min_area_m2 if settings.min_area_m2 is None else settings.min_area_m2
    footprints = finish_footprints(joined, plan.scene.grid, min_area_m2=min_area_m2, simplify_px=settings.simplify_px)
    write_geopackage(footprints, folder / "buildings.gpkg")
    write_geoparquet(footprints, folder / "buildings.parquet")
    return footprints


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    from geoseg.outputs import write_run_json

    write_run_json(folder / "run.json", report)
