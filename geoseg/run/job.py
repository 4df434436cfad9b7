"""A run as its workers know it, and their work on a block."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

from geoseg.bundle import Bundle
from geoseg.errors import ClusterError, GeosegError
from geoseg.grid import Block
from geoseg.inference import EngineRecipe, Plan, predict_block
from geoseg.io.fingerprint import Fingerprint, fingerprint, name_changes
from geoseg.run.cluster import collect_seldom, limit_memory, peak_memory_mb
from geoseg.run.ledger import PLAN, Ledger, read_json
from geoseg.run.parts import part_name, write_part
from geoseg.run.settings import RunSettings, choose_outlines
from geoseg.scene import is_remote
from geoseg.vectorize import OutlineOptions

SHOWN, RUNS = 3, 256
"""Most files that an error names; most runs that a process knows to be right."""

P = ParamSpec("P")
T = TypeVar("T")


def outlines_of(plan: Plan, bundle: Bundle, settings: RunSettings) -> OutlineOptions:
    """Return how a run outlines buildings."""
    spec, has_interior = bundle.spec, plan.has_interior
    return choose_outlines(
        settings,
        plan.scene.grid,
        threshold=spec.threshold,
        min_area_m2=spec.min_area_m2,
        has_interior=has_interior,
        split_depth=spec.split_depth,
        coefficients=spec.confidence,
    )


@dataclass(frozen=True, slots=True)
class Job:
    """A run as its workers know it; pickles as paths and numbers.

    Attributes:
        plan: The scene, its chips and the engine.
        bundle: The model, for its threshold and the report.
        settings: See `RunSettings`.
        ledger: The run folder, which every worker must be able to access.
        threads: Threads of a worker's engine; those of the worker if None.
        files: Fingerprint of the scene's local files, which workers on other machines compare.
    """

    plan: Plan
    bundle: Bundle
    settings: RunSettings
    ledger: Ledger
    threads: int | None = None
    files: Sequence[Sequence[Any]] = ()

    @property
    def outlines(self) -> OutlineOptions:
        """How buildings are outlined."""
        return outlines_of(self.plan, self.bundle, self.settings)

    def blocks(self) -> list[Block]:
        """Return the blocks that meet the AOI and the data, row by row."""
        return self.plan.blocks(self.ledger.block_px)

    def worker_plan(self) -> Plan:
        """Return the plan with an engine for the threads of this worker."""
        if not isinstance(self.plan.engine, EngineRecipe):
            return self.plan
        threads = self.threads
        if threads is None:
            from distributed import get_worker

            with suppress(ValueError):  # not a worker: use all cores
                threads = int(get_worker().state.nthreads)
        return replace(self.plan, engine=replace(self.plan.engine, threads=threads))


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a worker returns for a block, in addition to the part that it writes.

    Attributes:
        engine: Name and threads of the engine; None if the block did not need it.
        write_s: Seconds spent on writing the part.
        peak_memory_mb: Peak memory of the worker so far; None if unknown.
    """

    engine: tuple[str, int] | None = None
    write_s: float = 0.0
    peak_memory_mb: float | None = None


def without_cause(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function for workers so that its errors have no cause.

    Causes from GDAL cannot be pickled, and dask would then raise a bare Exception.
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
    """Predict one block and write its part, unless the part exists.

    Raises:
        GeosegError: If the pixels cannot be read, the engine cannot be loaded or the part cannot be written.
    """
    _check_run_folder(job.ledger)
    if job.files:
        _check_files(job.ledger.run, job)
    if job.ledger.work.has(part_name(block)):  # its worker died after writing it
        return BlockReport()
    prepare_process()
    plan = job.worker_plan()
    pixels, start = predict_block(plan, block), time.perf_counter()
    _check_run_folder(job.ledger)  # the run may have ended meanwhile
    write_part(job.ledger.work, block, pixels)
    write_s = time.perf_counter() - start
    engine = plan.open_engine() if pixels.watch.chips else None
    return BlockReport((engine.name, engine.threads) if engine else None, write_s, peak_memory_mb())


@without_cause
def call_on_worker(function: Callable[[Any], T], item: Any) -> T:
    """Call a function that reads the finished rasters, which this machine sees as the client does."""
    prepare_process()
    return function(item)


@lru_cache(maxsize=1)
def prepare_process() -> None:
    """Limit memory and garbage collection of this process, and import slow packages before any time is measured."""
    limit_memory()
    collect_seldom()
    import geoseg.datasets  # noqa: F401  # torch and torchgeo


def fingerprint_local(paths: Sequence[str]) -> Fingerprint:
    """Return the fingerprint of a scene's local files; times to the second, as some network file systems cut them."""
    rows = fingerprint(path for path in paths if not is_remote(path))
    return [[*row[:2], row[2] // 1_000_000_000] if len(row) == 3 and isinstance(row[2], int) else row for row in rows]


_checked: OrderedDict[str, None] = OrderedDict()
"""Runs whose scene this process has compared with what the client sees."""


def _check_files(run: str, job: Job) -> None:
    """Raise `ClusterError` if this machine has other files than the client under the paths of the scene."""
    if run in _checked:
        return
    words = ("differs", "is missing", "is not there for the client")
    changes = name_changes([list(row) for row in job.files], fingerprint_local(job.plan.scene.paths), words)
    if changes:
        import socket

        raise ClusterError(
            f"The worker on {socket.gethostname()} finds other files than the client at {job.plan.scene.paths[0]}: "
            f"{'; '.join(changes[:SHOWN])}. Put the scene into a folder that all machines share, or give it as a URL."
        )
    _checked[run] = None
    while len(_checked) > RUNS:
        _checked.popitem(last=False)


def _check_run_folder(ledger: Ledger) -> None:
    """Raise `ClusterError` if this machine does not see the run folder of the client."""
    plan = read_json(ledger.base, PLAN)
    if plan is None or plan.get("run") != ledger.run:
        import socket

        found = "no run" if plan is None else "another run"
        raise ClusterError(
            f"The worker on {socket.gethostname()} finds {found} in {ledger.base.url}. Set `out` to a folder that all "
            "machines share, or to s3://bucket/prefix."
        )
