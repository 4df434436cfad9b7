"""One result being made: the lease on its run folder, the blocks that are left, those that failed."""

import json
import logging
import time
from contextlib import ExitStack
from pathlib import Path

from geoseg.bundle import Bundle
from geoseg.errors import DamagedPartError, GeosegError, ReadError, UnfinishedError
from geoseg.inference import Plan, plan_inference
from geoseg.io.store import LocalStore, open_store
from geoseg.outputs.footprints import FORMATS, add_format
from geoseg.run.cluster import engine_threads
from geoseg.run.job import BlockReport, Job, run_block
from geoseg.run.lease import Lease, hold, require_lease
from geoseg.run.ledger import (
    PICTURE,
    PLAN,
    PROGRESS,
    base_store,
    begin,
    check_place,
    check_room,
    has_all,
    is_finished,
    read_json,
    remove_if_empty,
    sweep,
)
from geoseg.run.parts import is_sound, part_name
from geoseg.run.report import Ending, Stages
from geoseg.run.results import write_preview
from geoseg.run.schedule import Outcome, Task
from geoseg.run.settings import Facts, RunSettings, run_facts
from geoseg.scene import Paths

log = logging.getLogger(__name__)

MENDINGS = 2
"""How often damaged parts are computed again; a disk that damages more is beyond repair."""

SHOWN = 5
"""Most failed blocks that an error lists."""


def plan_run(paths: Paths, bundle: Bundle, settings: RunSettings) -> Plan:
    """Plan the inference of a run."""
    return plan_inference(paths, bundle, settings)


def out_of(plan: Plan, settings: RunSettings) -> str | Path:
    """Return the run folder: as named, or `<scene name>_geoseg`."""
    return settings.out or f"{plan.scene.name}_geoseg"


def _add_missing(plan: Plan, bundle: Bundle, settings: RunSettings, folder: Path) -> None:
    """Add to a finished result what is asked for now and was not then; nothing is computed again."""
    for name in settings.also:
        if not (folder / f"buildings{FORMATS[name].suffix}").exists():
            add_format(folder / "buildings.parquet", plan.scene.grid.crs, name)
    if settings.picture and not (folder / PICTURE).exists():
        write_preview(plan, bundle.spec, folder, folder / PICTURE)


def open_session(
    plan: Plan, bundle: Bundle, settings: RunSettings, stages: Stages, cluster_threads: int
) -> "Session | None":
    """Begin or continue the run of a plan; None where its result is there already.

    Args:
        plan: The scene, its chips and the engine.
        bundle: The model.
        settings: See `RunSettings`.
        stages: The clock.
        cluster_threads: Threads of the cluster, to choose a block's size where the run is new.

    Raises:
        ExistingResultError: If the folder holds another run or result.
        BusyError: If another client works on it.
        OutputError: If nothing can be written there.
    """
    out, facts = open_store(out_of(plan, settings)), run_facts(plan.scene.paths, bundle, settings)
    check_place(out)
    if not settings.overwrite and is_finished(out, facts, settings):
        sweep(out)
        if not has_all(out, settings) and isinstance(out, LocalStore):
            _add_missing(plan, bundle, settings, out.folder)
        return None

    base, stack = base_store(out), ExitStack()
    is_new_folder = isinstance(out, LocalStore) and not out.folder.exists()
    try:
        if is_new_folder or not base.has(PLAN):
            grid = plan.scene.grid
            check_room(out, grid.height * grid.width, 3 if plan.has_class_raster else 2)
        opened: list[Session] = []
        lease = stack.enter_context(hold(base, lambda: opened[0].write_progress() if opened else None))
        if not settings.overwrite and is_finished(out, facts, settings):  # while this client waited for the other
            stack.close()
            remove_if_empty(out)
            return None
        block_px = settings.block_px or plan.choose_block_px(cluster_threads)
        ledger = begin(
            out,
            facts,
            block_px=block_px,
            blocks=len(plan.blocks(block_px)),
            name=plan.scene.name,
            overwrite=settings.overwrite,
        )
        if settings.block_px is not None and ledger.block_px != settings.block_px:
            log.info("The run goes on with the blocks that it was begun with: --block-px %d", ledger.block_px)
        job = Job(plan, bundle, settings, ledger, engine_threads(settings, bundle))
        session = Session(job, facts, stages, lease, stack)
        opened.append(session)
        session.write_progress()
        return session
    except BaseException:
        stack.close()
        remove_if_empty(out)
        raise


class Session:
    """A run that this client works on. Close it, whatever happens.

    Attributes:
        job: What the workers are told.
        left: How many blocks are to be done, when it was opened.
    """

    def __init__(self, job: Job, facts: Facts, stages: Stages, lease: Lease, stack: ExitStack) -> None:
        """Take over an open run folder; see `open_session`."""
        self.job, self.facts, self.ledger, self.stages = job, facts, job.ledger, stages
        self.lease, self._stack = lease, stack
        self.dashboard: str | None = None
        self._mendings = 0
        self._plan_blocks()

    def _plan_blocks(self) -> None:
        self.blocks, done = self.job.blocks(), self.ledger.done()
        todo = [block for block in self.blocks if part_name(block) not in done]
        self.left, self.resumed = len(todo), len(self.blocks) - len(todo)
        self.computed, self.began = 0, time.time()
        self.failed: dict[str, str] = {}
        self.engine: tuple[str, int] | None = None
        self.write_s = 0.0
        self.memory_mb: float | None = None
        self._todo = iter(todo)

    def next_task(self) -> Task | None:
        """Give a block to compute; None where all were given."""
        block = next(self._todo, None)
        return None if block is None else Task(f"block-{block.name}", run_block, self.job, block)

    def note(self, outcome: Outcome) -> None:
        """Count a finished block, or keep why it could not be done; raise what concerns more than this block."""
        block, error = outcome.task.argument, outcome.error
        if error is not None:
            if isinstance(error, GeosegError) and not isinstance(error, ReadError):
                require_lease(self.ledger.base, self.lease.token)  # else another client's doings are what it met
                raise error
            found = str(error) if isinstance(error, ReadError) else f"{type(error).__name__}: {error}"
            self.failed[block.name] = found
            self.ledger.fail(block, found)
            log.info("Block %s could not be done: %s", block.name, found)
            return
        report: BlockReport = outcome.result
        self.computed += 1
        self.engine = report.engine or self.engine
        self.write_s += report.write_s
        self.memory_mb = max(self.memory_mb or 0.0, report.peak_memory_mb or 0.0) or None

    @property
    def is_complete(self) -> bool:
        """True where every block has ended, one way or the other."""
        return self.computed + len(self.failed) >= self.left

    def ending(self) -> Ending:
        """Return what finishing needs to know.

        Raises:
            UnfinishedError: If blocks failed, and the result is not to be without them.
        """
        if self.failed and self.job.settings.errors == "stop":
            failed = [block.name for block in self.blocks if block.name in self.failed]
            listed = "\n".join(f"  {name}: {self.failed[name]}" for name in failed[:SHOWN])
            if len(failed) > SHOWN:
                listed += f"\n  and {len(failed) - SHOWN} more: geoseg status lists them"
            raise UnfinishedError(
                f"{len(failed)} of {len(self.blocks)} blocks could not be done; the others are kept in "
                f"{self.ledger.base.url}. Mend the cause and give the same command again, or add --errors nodata for a "
                f"result without them.\n{listed}"
            )
        return Ending(
            stages=self.stages,
            facts=self.facts,
            token=self.lease.token,
            failed=dict(self.failed),
            engine=self.engine,
            resumed=self.resumed,
            write_s=self.write_s,
            worker_memory_mb=self.memory_mb,
        )

    def forget_damaged(self, error: DamagedPartError) -> None:
        """Forget the parts that are not whole, so that their blocks are computed again; give up after `MENDINGS`."""
        damaged = [block for block in self.blocks if not is_sound(self.ledger.work, block)]
        if not damaged or self._mendings == MENDINGS:
            raise error
        log.warning("%s", error)
        self._mendings += 1
        for block in damaged:
            self.ledger.work.remove(part_name(block))
        self._plan_blocks()

    def write_progress(self) -> None:
        """Say how far this client is, for `geoseg status` on any machine."""
        facts = {
            "session_began": self.began,
            "now": time.time(),
            "blocks": len(self.blocks),
            "done_before": self.resumed,
            "done": self.resumed + self.computed,
            "failed": len(self.failed),
            "dashboard": self.dashboard,
        }
        self.ledger.base.write(PROGRESS, json.dumps(facts).encode())

    def close(self) -> None:
        """Let others in; leave nothing behind of a run in which nothing was done."""
        ledger = self.ledger
        self.lease.rest()
        if self.lease.is_held:
            # The result is finished and the last beat wrote beside it once more, or no block was done.
            if not ledger.base.has(PLAN) or (ledger.is_new and not ledger.done()):
                ledger.close()
        else:
            # Another client has finished or replaced the run: remove what came too late for it, nothing else.
            plan = read_json(ledger.base, PLAN)
            if plan is None:
                ledger.base.remove(PROGRESS)
            if plan is None or plan.get("run") != ledger.run:
                ledger.base.remove(ledger.run)
        self._stack.close()
        remove_if_empty(ledger.out)
