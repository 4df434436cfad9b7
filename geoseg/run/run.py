"""The main job: one scene, or a mosaic of several, in; rasters and footprints out."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from geoseg.bundle import Bundle, load_bundle
from geoseg.errors import DamagedPartError, GeosegError
from geoseg.inference import EngineRecipe, Plan, plan_inference
from geoseg.io.store import Store, open_store
from geoseg.run.cluster import computing_threads, dashboard_of, open_client
from geoseg.run.finish import finish_run
from geoseg.run.folder import RESULTS
from geoseg.run.job import Job, open_engine, run_block, settle
from geoseg.run.ledger import read_json
from geoseg.run.memory import limit_memory
from geoseg.run.progress import track
from geoseg.run.report import Stages
from geoseg.run.schedule import Outcome, Task, run_tasks
from geoseg.run.session import Session, open_session, out_of
from geoseg.run.settings import RunSettings
from geoseg.scene import Paths, close_idle_readers, close_readers

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the results lie, and what `run.json` says.

    Attributes:
        out: The run folder.
        report: The contents of `run.json`.
        is_new: False where the result was there already.
    """

    out: Store
    report: dict[str, Any]
    is_new: bool = True

    @property
    def folder(self) -> Path:
        """The run folder, where it is local."""
        return Path(self.out.url)

    @property
    def paths(self) -> list[str]:
        """The files, in the order of their making."""
        return [f"{self.out.url}/{name}" for name in RESULTS if self.out.has(name)]


def run_scene(paths: Paths, settings: RunSettings | None = None, *, quiet: bool = False) -> RunResult:
    """Segment a scene and write rasters, footprints and a report; continue where an earlier run was stopped.

    Args:
        paths: A raster, a URL, a folder of rasters, or several of these as one scene of one grid.
        settings: See `RunSettings`.
        quiet: Show no progress.

    Returns:
        The result folder and the report.

    Raises:
        UnfinishedError: If blocks could not be done; the others are kept, and the same call goes on from there.
        GeosegError: For everything else that a user can act upon; nothing is left behind where nothing was done.
    """
    limit_memory()
    settings = settings or RunSettings()
    stages = Stages()
    bundle = load_bundle(settings.model)
    plan = plan_run(paths, bundle, settings)
    return run_plan(plan, bundle, settings, stages=stages, quiet=quiet)


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
    with (
        ExitStack() as last,  # the cluster is closed before: no task writes then to a folder that was given up
        nullcontext(client) if client is not None else open_client(settings, bundle) as own,
    ):
        session = open_session(plan, bundle, settings, stages, computing_threads(own, settings, bundle))
        if session is None:
            return finished_result(open_store(out_of(plan, settings)))
        last.callback(session.close)
        session.dashboard = dashboard_of(own, settings)
        stages.done("open")
        report = _complete(own, session, quiet=quiet)
    close_readers()
    return RunResult(session.job.out, report)


def finished_result(out: Store) -> RunResult:
    """Return the result that is there."""
    log.info("%s is finished already", out.url)
    return RunResult(out, read_json(out, "run.json") or {}, is_new=False)


def _complete(client: "Client", session: Session, *, quiet: bool) -> dict[str, Any]:
    """Compute what is left and make the results; compute again what turns out to be damaged."""
    while True:
        with _warming_up(session):
            for _ in track(_compute(client, session), total=session.left, what="block", quiet=quiet):
                pass
        session.stages.done("blocks")
        session.write_progress()
        if session.job.settings.is_in_process:
            close_idle_readers()
        try:
            return finish_run(session.job, session.ending())
        except DamagedPartError as err:
            session.forget_damaged(err)


@contextmanager
def _warming_up(session: Session) -> Iterator[None]:
    """Import torchgeo while another thread loads the engine, where workers are threads here.

    The thread is waited for: a process that ends while a network is being compiled aborts.
    """
    job = session.job
    is_wanted = job.settings.is_in_process and session.left
    thread = Thread(target=_warm_up, args=(job,), daemon=True) if is_wanted else None
    if thread is not None:
        thread.start()
        settle()
        session.stages.done("imports")
    try:
        yield
    finally:
        if thread is not None:
            thread.join()


def _compute(client: "Client", session: Session) -> Iterator[Outcome]:
    """Compute the blocks of a session, and yield an outcome per block."""

    def next_task() -> Task | None:
        block = session.next_block()
        return None if block is None else block_task(session.job, block)

    for outcome in run_tasks(client, next_task, check=session.lease.check):
        note(session, outcome)
        yield outcome


def block_task(job: Job, block: Any) -> Task:
    """Return the task of a block."""
    return Task(f"block-{block.name}", run_block, job, block)


def note(session: Session, outcome: Outcome) -> None:
    """Tell a session what became of a block."""
    if outcome.error is not None:
        session.block_failed(outcome.task.argument, outcome.error)
    else:
        session.block_done(outcome.result)


def _warm_up(job: Job) -> None:
    """Load the engine while torchgeo is being imported and the first pixels are read; a failure shows in the blocks."""
    if isinstance(job.plan.engine, EngineRecipe):
        with suppress(GeosegError):
            open_engine(job)


def plan_run(paths: Paths, bundle: Bundle, settings: RunSettings) -> Plan:
    """Plan the inference of a run."""
    return plan_inference(paths, bundle, settings)
