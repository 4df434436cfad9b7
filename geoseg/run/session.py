"""A session of a run: the lease on its run folder, the blocks that are left, those that failed."""

import json
import logging
import time
from contextlib import ExitStack
from dataclasses import replace

from geoseg.bundle import Bundle
from geoseg.errors import DamagedPartError, GeosegError, ReadError, UnfinishedError
from geoseg.inference import Plan
from geoseg.io.aside import require_closed
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.io.tables import plural
from geoseg.outputs.footprints import check_crs
from geoseg.redaction import redact
from geoseg.run.cluster import engine_threads
from geoseg.run.job import BlockReport, Job, fingerprint_local, outlines_of, run_block
from geoseg.run.lease import Lease, hold_lease, require_lease
from geoseg.run.ledger import (
    PLAN,
    PROGRESS,
    base_store,
    check_place,
    check_room,
    find_damage,
    is_finished,
    open_ledger,
    read_json,
    recorded_precision,
    remove_if_empty,
    remove_leftovers,
)
from geoseg.run.parts import is_intact, part_name
from geoseg.run.renew import add_extras, can_renew, renew_buildings
from geoseg.run.report import RunSummary, Stages
from geoseg.run.schedule import Outcome, Task
from geoseg.run.settings import Facts, RunSettings, key_of, run_facts

log = logging.getLogger(__name__)

RECOMPUTATIONS = 2
"""How often damaged parts are computed again before giving up on the disk."""

SHOWN = 5
"""Maximum number of failed blocks that an error lists."""


def open_session(
    plan: Plan, bundle: Bundle, settings: RunSettings, stages: Stages, cluster_threads: int
) -> "Session | None":
    """Start or continue the run of a plan; None if its result exists already.

    A finished result gets the picture and other formats that are now asked for; nothing is computed again. Of
    one that is to be overwritten, and differs only in how buildings are outlined, they are made anew from its
    probabilities.

    Args:
        plan: The scene, its chips and the engine.
        bundle: The model.
        settings: See `RunSettings`.
        stages: The clock.
        cluster_threads: Threads of the cluster, to choose the block size of a new run.

    Raises:
        ExistingResultError: If the folder holds another run or result.
        BusyError: If another client is working on it.
        OutputError: If the folder cannot be written to.
    """
    out, asked = open_store(settings.folder_of(plan.scene.name)), settings
    check_place(out)
    plan, settings, facts = settle_precision(out, plan, bundle, asked)
    if not settings.is_in_process:
        plan, out = plan.absolute(), out.absolute() if isinstance(out, LocalStore) else out
    if settings.overwrite and isinstance(out, LocalStore):
        require_closed(out.folder / "buildings.gpkg")
    outlines_of(plan, bundle, settings)  # tells now what cannot be used
    check_crs(settings.formats, plan.scene.grid.crs, plan.scene.name)
    if not settings.overwrite and is_finished(out, facts, settings):
        log.info("%s is already finished", out.url)
        remove_leftovers(out)
        add_extras(out, plan, bundle, settings, facts)
        return None
    if not settings.overwrite:
        _warn_of_damage(out)
    if can_renew(out, facts):
        renew_buildings(out, plan, bundle, settings, facts, stages)
        return None

    base, stack = base_store(out), ExitStack()
    is_new_folder = isinstance(out, LocalStore) and not out.folder.exists()
    try:
        if is_new_folder or not base.has(PLAN):
            grid = plan.scene.grid
            check_room(out, grid.height * grid.width, plan.raster_count)
        opened: list[Session] = []
        lease = stack.enter_context(hold_lease(base, lambda: opened[0].write_progress() if opened else None))
        plan, settings, facts = settle_precision(out, plan, bundle, asked)  # of a run that another client has started
        if not settings.overwrite and is_finished(out, facts, settings):  # while this client waited for another one
            log.info("%s is already finished", out.url)
            stack.close()
            remove_if_empty(out)
            return None
        block_px = settings.block_px or plan.choose_block_px(cluster_threads)
        ledger = open_ledger(
            out,
            facts,
            block_px=block_px,
            blocks=len(plan.blocks(block_px)),
            name=plan.scene.name,
            overwrite=settings.overwrite,
        )
        if settings.block_px is not None and ledger.block_px != settings.block_px:
            log.info("The run continues with the block size that it was started with: `block_px=%d`", ledger.block_px)
        seen = () if settings.is_in_process else fingerprint_local(plan.scene.paths)
        job = Job(plan, bundle, settings, ledger, engine_threads(settings, bundle), seen)
        session = Session(job, facts, stages, lease, stack)
        opened.append(session)
        session.write_progress()
        return session
    except BaseException:
        stack.close()
        remove_if_empty(out)
        raise


def settle_precision(out: Store, plan: Plan, bundle: Bundle, settings: RunSettings) -> tuple[Plan, RunSettings, Facts]:
    """Return plan, settings and facts with the precision of a run: where `auto` is asked for, that of the run folder.

    So a run is continued in its precision on any machine, and none is mixed with another. One that is overwritten
    counts only if its blocks or probabilities are kept.

    Args:
        out: The run folder.
        plan: The plan, in the precision of this machine if `auto` is asked for.
        bundle: The model.
        settings: What is asked for.
    """
    own = replace(settings, precision=plan.precision) if settings.precision == "auto" else settings
    facts = run_facts(plan.scene.paths, bundle, own)
    recorded = recorded_precision(out)
    if settings.precision != "auto" or recorded in (None, plan.precision):
        return plan, own, facts
    kept = facts | {"precision": recorded}
    is_continued = (read_json(base_store(out), PLAN) or {}).get("key") == key_of(kept)
    if settings.overwrite and not is_continued and not can_renew(out, kept):
        return plan, own, facts
    log.info("%s has a run in `precision=%r`, which is kept", out.url, recorded)
    return plan.in_precision(recorded), replace(settings, precision=recorded), kept


def _warn_of_damage(out: Store) -> None:
    """Say which files of a finished result are gone or have changed, as they are made again."""
    damage = find_damage(out, read_json(out, "run.json") or {})
    if damage:
        listed = "; ".join(f"{name} {what}" for name, what in damage.items())
        log.warning("%s was finished, but %s: it is made again.", out.url, listed)


class Session:
    """A run that this client is working on; must be closed.

    Attributes:
        job: The run as its workers know it.
        left: Number of blocks that were left when it was opened.
    """

    def __init__(self, job: Job, facts: Facts, stages: Stages, lease: Lease, stack: ExitStack) -> None:
        """See `open_session`."""
        self.job, self.facts, self.ledger, self.stages = job, facts, job.ledger, stages
        self.lease, self._stack = lease, stack
        self.dashboard: str | None = None
        self._recomputations = 0
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
        """Return a task for the next block; None if there is none left."""
        block = next(self._todo, None)
        return None if block is None else Task(f"block-{block.name}", run_block, self.job, block)

    def note(self, outcome: Outcome) -> None:
        """Record that a block is done or has failed.

        Raises:
            GeosegError: The block's error, unless it is a `ReadError`: other blocks would fail in the same way.
        """
        block, error = outcome.task.argument, outcome.error
        if error is not None:
            if isinstance(error, GeosegError) and not isinstance(error, ReadError):
                require_lease(self.ledger.base, self.lease.token)  # otherwise another client caused the error
                raise error
            found = str(error) if isinstance(error, ReadError) else f"{type(error).__name__}: {error}"
            self.failed[block.name] = found
            self.ledger.fail(block, found)
            log.info("Block %s failed: %s", block.name, found)
            return
        report: BlockReport = outcome.result
        self.computed += 1
        self.engine = report.engine or self.engine
        self.write_s += report.write_s
        self.memory_mb = max(self.memory_mb or 0.0, report.peak_memory_mb or 0.0) or None

    @property
    def is_complete(self) -> bool:
        """True if every block is done or has failed."""
        return self.computed + len(self.failed) >= self.left

    def summary(self) -> RunSummary:
        """Return what is needed to finish the run.

        Raises:
            UnfinishedError: If blocks failed and `errors` is `stop`.
        """
        if self.failed and self.job.settings.errors == "stop":
            failed = [block.name for block in self.blocks if block.name in self.failed]
            listed = [f"{name}: {self.failed[name]}" for name in failed[:SHOWN]]
            if len(failed) > SHOWN:
                listed.append(f"and {len(failed) - SHOWN} more; geoseg status lists them")
            raise UnfinishedError(
                f"{len(failed)} of {plural(len(self.blocks), 'block')} failed; the others are kept in "
                f"{self.ledger.base.url}. Fix the cause and run the same command again, or give `errors='nodata'` for "
                "a result without them.",
                rows=listed,
            )
        return RunSummary(
            stages=self.stages,
            facts=self.facts,
            token=self.lease.token,
            failed=dict(self.failed),
            engine=self.engine,
            resumed=self.resumed,
            write_s=self.write_s,
            worker_memory_mb=self.memory_mb,
        )

    def drop_damaged(self, error: DamagedPartError) -> None:
        """Remove damaged parts so that their blocks are computed again, at most `RECOMPUTATIONS` times.

        Raises:
            DamagedPartError: `error`, if that has happened too often or no part is damaged.
        """
        damaged = [block for block in self.blocks if not is_intact(self.ledger.work, block)]
        if not damaged or self._recomputations == RECOMPUTATIONS:
            raise error
        log.warning("%s", error)
        self._recomputations += 1
        for block in damaged:
            self.ledger.work.remove(part_name(block))
        self._plan_blocks()

    def write_progress(self) -> None:
        """Write how far this client is, for `geoseg status` on any machine."""
        facts = {
            "session_began": self.began,
            "now": time.time(),
            "blocks": len(self.blocks),
            "done_before": self.resumed,
            "done": self.resumed + self.computed,
            "failed": len(self.failed),
            "dashboard": self.dashboard,
        }
        self.ledger.base.write(PROGRESS, redact(json.dumps(facts)).encode())

    def close(self) -> None:
        """Release the run folder; remove it if nothing was done."""
        ledger = self.ledger
        self.lease.stop_beating()
        if self.lease.is_held:
            # The result is finished and the last heartbeat wrote progress once more, or no block was done.
            if not ledger.base.has(PLAN) or (ledger.is_new and not ledger.done()):
                ledger.close()
        else:
            # Another client has finished or replaced the run: remove only what this one wrote after that.
            plan = read_json(ledger.base, PLAN)
            if plan is None:
                ledger.base.remove(PROGRESS)
            if plan is None or plan.get("run") != ledger.run:
                ledger.base.remove(ledger.run)
        self._stack.close()
        remove_if_empty(ledger.out)
