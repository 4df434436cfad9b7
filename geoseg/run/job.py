"""What a worker is told of a run, and what it does with a block."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from geoseg.bundle import Bundle
from geoseg.engines import Engine
from geoseg.errors import ClusterError, GeosegError
from geoseg.grid import Block
from geoseg.inference import EngineRecipe, Plan, predict_block, stored_threshold
from geoseg.io.store import Store
from geoseg.run.cluster import collect_seldom, limit_memory, peak_memory_mb
from geoseg.run.ledger import PLAN, read_json
from geoseg.run.parts import part_name, write_part
from geoseg.run.polygons import outline_block
from geoseg.run.settings import RunSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """A run as its workers know it; pickles as paths and numbers.

    Attributes:
        plan: The scene, its chips and the engine.
        bundle: The model, for its threshold and the report.
        settings: See `RunSettings`.
        out: The run folder.
        base: Where `plan.json` lies.
        work: Where parts go; workers must find it named in the plan.
        block_px: Height and width of a block, about.
        threads: Threads of a worker's engine; None is as many as the worker has.
    """

    plan: Plan
    bundle: Bundle
    settings: RunSettings
    out: Store
    base: Store
    work: Store
    block_px: int
    threads: int | None = None

    @property
    def threshold(self) -> int:
        """Smallest stored probability that is a building."""
        own = self.settings.threshold
        return stored_threshold(self.bundle.spec.threshold if own is None else own)

    @property
    def min_area_m2(self) -> float:
        """Smallest footprint kept, square metres."""
        own = self.settings.min_area_m2
        return self.bundle.spec.min_area_m2 if own is None else own

    def blocks(self) -> list[Block]:
        """Return the blocks that share ground with the AOI, row by row."""
        return self.plan.blocks(self.block_px)


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a worker tells of a block that it has done; the rest stands in the part.

    Attributes:
        engine: Name and threads of the engine; None where the block needed none.
        write_s: Seconds that writing the part took.
        peak_memory_mb: Of the worker until now; None where unknown.
    """

    engine: tuple[str, int] | None = None
    write_s: float = 0.0
    peak_memory_mb: float | None = None


def run_block(job: Job, block: Block) -> BlockReport:
    """Predict one block, outline its buildings and write its part, unless the part is there.

    Raises:
        GeosegError: If the pixels cannot be read, the engine cannot be loaded or the part cannot be written.
    """
    return without_cause(lambda: _run_block(job, block))


def without_cause(call: Callable[[], T]) -> T:
    """Make a call on a worker; its error goes to the client without its cause.

    GDAL makes that unpicklable, and dask would pass on a bare Exception.
    """
    try:
        return call()
    except GeosegError as err:
        failure = type(err)(str(err))
    raise failure


def _run_block(job: Job, block: Block) -> BlockReport:
    _check_sight(job.base, job.work)
    if job.work.has(part_name(block)):  # a worker that died after its last byte
        return BlockReport()
    settle()
    plan = _own_plan(job)
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
    _require_sight(job.base, job.work)  # not into a run that was ended meanwhile
    write_part(job.work, block, pixels, outlines)
    write_s = time.perf_counter() - start
    engine = plan.open_engine() if pixels.watch.chips else None
    return BlockReport((engine.name, engine.threads) if engine else None, write_s, peak_memory_mb())


@lru_cache(maxsize=1)
def settle() -> None:
    """Keep this process small and its garbage collector quiet, and import what takes seconds before any clock runs."""
    limit_memory()
    collect_seldom()
    import geoseg.datasets  # noqa: F401  # torch and torchgeo


def open_engine(job: Job) -> Engine:
    """Return this process's engine for a job."""
    return _own_plan(job).open_engine()


def _own_plan(job: Job) -> Plan:
    """Return the plan with an engine of as many threads as this worker has."""
    if not isinstance(job.plan.engine, EngineRecipe):
        return job.plan
    return replace(job.plan, engine=replace(job.plan.engine, threads=job.threads or _worker_threads()))


def _worker_threads() -> int | None:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # no worker: every core
        return None


_looking = threading.Lock()


def _check_sight(base: Store, work: Store) -> None:
    """Require sight of the run folder before a process's first block."""
    with _looking:
        _look_once(base, work)  # type: ignore[arg-type]  # every store is a frozen dataclass, which hashes


@lru_cache(maxsize=64)
def _look_once(base: Store, work: Store) -> None:
    _require_sight(base, work)


def _require_sight(base: Store, work: Store) -> None:
    """Refuse to work where this machine does not see the run folder that the client sees."""
    plan = read_json(base, PLAN)
    if plan is None or not work.url.endswith(f"/{plan.get('run')}"):
        import socket

        found = "nothing there" if plan is None else "another run"
        raise ClusterError(
            f"The worker on {socket.gethostname()} sees {found} at {base.url}, where this run is kept. Choose a folder "
            "with --out that all machines share, or s3://bucket/prefix."
        )
