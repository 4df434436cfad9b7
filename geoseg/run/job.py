"""What a worker is told of a run, and what it does with a block."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np

from geoseg.bundle import Bundle
from geoseg.errors import ClusterError, GeosegError
from geoseg.grid import Block
from geoseg.inference import NODATA, BlockPixels, EngineRecipe, Plan, predict_block, stored_threshold
from geoseg.run.cluster import collect_seldom, limit_memory, peak_memory_mb
from geoseg.run.ledger import PLAN, Ledger, read_json
from geoseg.run.parts import part_name, write_part
from geoseg.run.settings import RunSettings
from geoseg.vectorize import BlockOutlines, Simplify, finish_block, polygonize_block

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """A run as its workers know it; pickles as paths and numbers.

    Attributes:
        plan: The scene, its chips and the engine.
        bundle: The model, for its threshold and the report.
        settings: See `RunSettings`.
        ledger: Where the run is kept; workers must see its plan there.
        threads: Threads of a worker's engine; None is as many as the worker has.
    """

    plan: Plan
    bundle: Bundle
    settings: RunSettings
    ledger: Ledger
    threads: int | None = None

    @property
    def threshold(self) -> int:
        """Smallest stored probability that is a building."""
        own = self.settings.threshold
        return stored_threshold(self.bundle.spec.threshold if own is None else own)

    @property
    def min_area_m2(self) -> float:
        """Smallest footprint kept, square meters."""
        own = self.settings.min_area_m2
        return self.bundle.spec.min_area_m2 if own is None else own

    def blocks(self) -> list[Block]:
        """Return the blocks that share ground with the AOI, row by row."""
        return self.plan.blocks(self.ledger.block_px)

    def worker_plan(self) -> Plan:
        """Return the plan with an engine of as many threads as this worker has."""
        if not isinstance(self.plan.engine, EngineRecipe):
            return self.plan
        threads = self.threads
        if threads is None:
            from distributed import get_worker

            with suppress(ValueError):  # no worker: every core
                threads = int(get_worker().state.nthreads)
        return replace(self.plan, engine=replace(self.plan.engine, threads=threads))


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a worker tells of a block that it has done; the rest is in the part.

    Attributes:
        engine: Name and threads of the engine; None where the block needed none.
        write_s: Seconds that writing the part took.
        peak_memory_mb: Of the worker until now; None where unknown.
    """

    engine: tuple[str, int] | None = None
    write_s: float = 0.0
    peak_memory_mb: float | None = None


def without_cause(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function that workers call raise its errors without their cause.

    GDAL makes the cause unpicklable, and dask would pass on a bare Exception.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except GeosegError as err:
            failure = type(err)(str(err))
        raise failure

    return call


@without_cause
def run_block(job: Job, block: Block) -> BlockReport:
    """Predict one block, outline its buildings and write its part, unless the part is there.

    Raises:
        GeosegError: If the pixels cannot be read, the engine cannot be loaded or the part cannot be written.
    """
    _require_sight(job.ledger)
    if job.ledger.work.has(part_name(block)):  # a worker that died after its last byte
        return BlockReport()
    settle()
    plan = job.worker_plan()
    pixels, start = predict_block(plan, block), time.perf_counter()
    outlines = outline_block(
        plan,
        pixels,
        block,
        threshold=job.threshold,
        min_area_m2=job.min_area_m2,
        simplify_px=job.settings.simplify_px,
    )
    start = pixels.watch.add("polygonize", start)
    _require_sight(job.ledger)  # not into a run that was ended meanwhile
    write_part(job.ledger.work, block, pixels, outlines)
    write_s = time.perf_counter() - start
    engine = plan.open_engine() if pixels.watch.chips else None
    return BlockReport((engine.name, engine.threads) if engine else None, write_s, peak_memory_mb())


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
    return finish_block(polygons, block.window, grid, min_area_m2=min_area_m2, generalizer=Simplify(simplify_px))


@lru_cache(maxsize=1)
def settle() -> None:
    """Keep this process small and its garbage collector quiet, and import what takes seconds before any clock runs."""
    limit_memory()
    collect_seldom()
    import geoseg.datasets  # noqa: F401  # torch and torchgeo


def _require_sight(ledger: Ledger) -> None:
    """Refuse to work where this machine does not see the run folder that the client sees."""
    plan = read_json(ledger.base, PLAN)
    if plan is None or plan.get("run") != ledger.run:
        import socket

        found = "nothing there" if plan is None else "another run"
        raise ClusterError(
            f"The worker on {socket.gethostname()} sees {found} at {ledger.base.url}, where this run is kept. Choose a "
            "folder with --out that all machines share, or s3://bucket/prefix."
        )
