"""Run many scenes, each with a result of its own, on one cluster; a scene that fails does not stop the others."""

import json
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.bundle import Bundle, load_bundle
from geoseg.errors import (
    BundleError,
    ClusterError,
    DamagedPartError,
    DeviceError,
    ExistingResultError,
    GeosegError,
    OutputError,
    OutsideAOIError,
)
from geoseg.inference import Plan, plan_inference
from geoseg.io.store import Store, open_store
from geoseg.io.tables import plural
from geoseg.outputs.stac import COLLECTION, ITEM, describe_collection
from geoseg.run.cluster import computing_threads, dashboard_of, limit_memory, open_client
from geoseg.run.job import Job, without_cause
from geoseg.run.lease import require_free
from geoseg.run.ledger import (
    PLAN,
    RESULTS,
    base_store,
    check_place,
    has_extras,
    is_finished,
    read_json,
    recorded_precision,
    remove_leftovers,
)
from geoseg.run.record import BatchRecord, known_names, open_record, read_records
from geoseg.run.report import RunSummary, Stages, track, warn_if_blank
from geoseg.run.results import finish_run
from geoseg.run.schedule import Outcome, Task, run_tasks
from geoseg.run.session import Session, open_session
from geoseg.run.settings import RunSettings, run_facts
from geoseg.sources import SceneSource, list_sources

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

REPETITIVE = ("geoseg.scene", "geoseg.inference.plan", "geoseg.inference.aoi", "geoseg.run.ledger")
"""Loggers whose messages often apply to every scene alike."""

PLANNED_AHEAD = 4
"""Number of scenes whose headers are read while others are computed."""

OPEN_AT_ONCE = 64
"""Maximum number of scenes that are being computed; each has a heartbeat."""

READ_AT_ONCE = 16
"""Items of results that are read at the same time."""

FATAL = (OutputError, ClusterError, DeviceError, BundleError)
"""Errors that every scene would run into."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of every scene.

    Attributes:
        done: Result folders that were made.
        skipped: Result folders that existed already.
        outside: Names of the scenes that do not meet the AOI.
        failed: Error messages by scene.
        lost_blocks: Number of blocks that failed and are nodata, by result folder; see `RunSettings.errors`.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    lost_blocks: dict[str, int] = field(default_factory=dict)

    def in_order(self, folders: Sequence[str]) -> "BatchResult":
        """Return the same outcome with the folders in the order of the scenes."""
        done, skipped = ([f for f in folders if f in set(found)] for found in (self.done, self.skipped))
        return replace(self, done=done, skipped=skipped)


def run_each(
    inputs: Sequence[str | Path] | str | Path, settings: RunSettings | None = None, *, quiet: bool = False
) -> BatchResult:
    """Segment every scene on its own; skip finished scenes, continue those that were started.

    Args:
        inputs: Rasters, folders, globs, STAC or manifests; see `geoseg.sources.list_sources`.
        settings: See `RunSettings`; `out` is the parent of the result folders, which are named like the scenes.
        quiet: Show no progress.

    Raises:
        GeosegError: For problems of all scenes: the inputs, the model, the device, the settings, the folder,
            or an AOI that no scene meets.
    """
    settings = settings or RunSettings()
    named = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    return run_sources(find_sources(named, settings), settings, quiet=quiet)


def find_sources(inputs: Sequence[str | Path], settings: RunSettings) -> list[SceneSource]:
    """Return the scenes that a user means; those that have a result in a batch's folder keep the name that it has."""
    records = read_records(open_store(settings.out)) if settings.out is not None else []
    return list_sources(inputs, asset=settings.asset, known=known_names(records))


def run_sources(sources: Sequence[SceneSource], settings: RunSettings, *, quiet: bool = False) -> BatchResult:
    """Segment every source on its own; see `run_each`."""
    limit_memory()
    bundle, result = load_bundle(settings.model), BatchResult()
    with (
        _batch_folder(settings, sources) as record,
        _LogOnce(),
        open_client(settings, bundle) as own,
    ):
        batch = _Batch(own, bundle, settings, result, sources, record)
        try:
            for _ in track(batch.run(), total=len(sources), what="scene", quiet=quiet):
                pass
        finally:
            batch.close()
        if settings.out is not None and result.done:
            _write_collection(open_store(settings.out))
        if sources and len(result.outside) == len(sources):
            raise OutsideAOIError(
                f"None of the {plural(len(sources), 'scene')} meets {settings.aoi_text}; nothing was written. Check "
                "the CRS of both, or omit `aoi`."
            )
    return result.in_order([str(own_settings(source, settings).out) for source in sources])


def own_settings(source: SceneSource, settings: RunSettings) -> RunSettings:
    """Return the settings of a scene in a batch, whose result is in `<out>/<name>`, or `<name>_geoseg` by default."""
    parent = settings.out
    out = settings.folder_of(source.name) if parent is None else f"{str(parent).rstrip('/')}/{source.name}"
    return settings.for_source(source, out)


class _Batch:
    """The scenes that are open, and the queue of their tasks."""

    def __init__(
        self,
        client: "Client",
        bundle: Bundle,
        settings: RunSettings,
        result: BatchResult,
        sources: Sequence[SceneSource],
        record: BatchRecord | None,
    ) -> None:
        self.client, self.bundle, self.settings, self.result = client, bundle, settings, result
        self.record = record
        self.dashboard = dashboard_of(client, settings)
        self.threads = computing_threads(client, settings, bundle)
        self.pool = ThreadPoolExecutor(PLANNED_AHEAD, thread_name_prefix="plan")
        self.waiting, self.scenes = deque(sources), len(sources)
        self.planned: deque[tuple[SceneSource, RunSettings, Future[Plan | None]]] = deque()
        self.sessions: dict[int, tuple[SceneSource, Session]] = {}
        self.ready: deque[Task] = deque()
        self.ended = 0

    def run(self) -> Iterator[None]:
        """Run all scenes; yield once per scene that has ended."""
        reported = 0
        for outcome in chain(run_tasks(self.client, self.next_task, check=self.check), [None]):
            if outcome is not None:
                self.take(outcome)
            while reported < self.ended:
                reported += 1
                yield

    def close(self) -> None:
        """Release every run folder."""
        self.pool.shutdown(cancel_futures=True)
        for _, session in self.sessions.values():
            session.close()
        self.sessions.clear()

    def check(self) -> None:
        """Drop the scenes that another client has taken over."""
        for source, session in list(self.sessions.values()):
            with self.keeping_failures(source, session):
                session.lease.check()

    def next_task(self) -> Task | None:
        """Return the next task: finish a scene, compute a block of an open scene, or open another scene."""
        while True:
            if self.ready:
                return self.ready.popleft()
            for _, session in self.sessions.values():
                task = session.next_task()
                if task is not None:
                    return task
            if len(self.sessions) >= OPEN_AT_ONCE or not self.open_next():
                return None

    def open_next(self) -> bool:
        """Open the next scene; return False if there is none."""
        ahead = 1 if len(self.waiting) == self.scenes else PLANNED_AHEAD  # the first scene logs what applies to all
        while self.waiting and len(self.planned) < ahead:
            source = self.waiting.popleft()
            own = own_settings(source, self.settings)
            self.planned.append((source, own, self.pool.submit(_plan_unless_finished, source, self.bundle, own)))
        if not self.planned:
            return False
        source, own, planned = self.planned.popleft()
        with self.keeping_failures(source):
            plan = planned.result()
            session = None if plan is None else open_session(plan, self.bundle, own, Stages(), self.threads)
            if self.record is not None:
                self.record.is_begun = True
            if session is None:
                self.result.skipped.append(str(own.out))
                if own.errors == "nodata":
                    self.note_lost(str(own.out), read_json(open_store(str(own.out)), "run.json") or {})
                self.ended += 1
            else:
                session.dashboard = self.dashboard
                self.sessions[id(session.job)] = (source, session)
                self.finish_if_complete(source, session)
        return True

    def take(self, outcome: Outcome) -> None:
        """Handle the outcome of a task."""
        if id(outcome.task.shared) not in self.sessions:  # its scene has failed meanwhile
            return
        source, session = self.sessions[id(outcome.task.shared)]
        with self.keeping_failures(source, session):
            if not isinstance(outcome.task.argument, RunSummary):
                session.note(outcome)
                self.finish_if_complete(source, session)
            elif isinstance(outcome.error, DamagedPartError):
                session.drop_damaged(outcome.error)
            elif outcome.error is not None:
                raise outcome.error
            else:
                self.drop(session)
                warn_if_blank(outcome.result)
                out = str(session.job.settings.out)  # of the ledger, which goes to workers, it is absolute
                self.result.done.append(out)
                self.note_lost(out, outcome.result)
                self.ended += 1

    def finish_if_complete(self, source: SceneSource, session: Session) -> None:
        """Queue the task that finishes a scene, if all its blocks are done."""
        if session.is_complete:
            session.stages.done("blocks")
            self.ready.append(Task(f"finish-{source.name}", finish_scene, session.job, session.summary()))

    def drop(self, session: Session) -> None:
        """Close a scene."""
        self.sessions.pop(id(session.job), None)
        session.close()

    @contextmanager
    def keeping_failures(self, source: SceneSource, session: Session | None = None) -> Iterator[None]:
        """Record an error as a failure of this scene, unless it is in `FATAL`."""
        try:
            yield
        except OutsideAOIError:
            self.result.outside.append(source.name)
            if self.record is not None:
                self.record.note_outside(source.name)
        except (GeosegError, OSError) as err:
            if isinstance(err, FATAL):
                raise
            self.fail(source, str(err))
        except Exception as err:  # a bug: log it in full, and continue with the other scenes
            log.exception("%s: geoseg failed; please report this", source.name)
            self.fail(source, f"{type(err).__name__}: {err}")
        else:
            return
        self.ended += 1
        if session is not None:
            self.drop(session)

    def note_lost(self, out: str, report: dict[str, Any]) -> None:
        """Note how many blocks of a result are nodata because they failed."""
        lost = len(report.get("failed_blocks") or ())
        if lost:
            self.result.lost_blocks[out] = lost

    def fail(self, source: SceneSource, message: str) -> None:
        """Note that a scene failed."""
        self.result.failed[source.paths[0]] = message
        if self.record is not None:
            report = read_json(open_store(str(own_settings(source, self.settings).out)), "run.json") or {}
            self.record.note_failure(source.name, message, report.get("run"))


def _plan_unless_finished(source: SceneSource, bundle: Bundle, settings: RunSettings) -> Plan | None:
    """Plan one scene; None if its result exists, which is checked without opening the scene."""
    out = open_store(str(settings.out))
    recorded = recorded_precision(out) if settings.precision == "auto" else None
    facts = run_facts(source.paths, bundle, replace(settings, precision=recorded or settings.precision))
    if not settings.overwrite and is_finished(out, facts, settings) and has_extras(out, settings):
        remove_leftovers(out)
        return None
    return plan_inference(source.paths, bundle, settings)


@without_cause
def finish_scene(job: Job, summary: RunSummary) -> dict[str, Any]:
    """Finish a scene on a worker."""
    summary.stages.restart()
    return finish_run(job, summary)


@contextmanager
def _batch_folder(settings: RunSettings, sources: Sequence[SceneSource]) -> Iterator[BatchRecord | None]:
    """Create the parent of the result folders, with a list of the scenes."""
    if settings.out is None:
        yield None
        return
    out = open_store(settings.out)
    check_place(out)
    _make_way(out, overwrite=settings.overwrite)
    with open_record(out, sources) as record:
        yield record


def _make_way(out: Store, *, overwrite: bool) -> None:
    """Refuse a folder with the result of a single run, or remove that result."""
    base = base_store(out)
    plan = read_json(base, PLAN)
    if plan is None and not out.has("run.json"):
        return
    if not overwrite:
        found = base.url if plan is not None else "run.json"
        raise ExistingResultError(
            f"{out.url} holds a single run ({found}); the results of several scenes would be mixed with it. Choose "
            "another folder with `out`, or replace it with `overwrite=True`."
        )
    require_free(base)
    for name in RESULTS:
        out.remove(name)
    if plan is not None:
        base.remove(PLAN)
        base.remove(str(plan.get("run")))


def _write_collection(out: Store) -> None:
    """Write `collection.json`, the STAC Collection of all results in the folder of batches."""
    names = sorted({name for record in read_records(out) for name in record.paths})
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        found = pool.map(lambda name: read_json(open_store(f"{out.url}/{name}"), ITEM), names)
        items = {name: item for name, item in zip(names, found, strict=True) if item is not None}
    if items:
        document = describe_collection(out.url.rstrip("/").rpartition("/")[2], items)
        out.write(COLLECTION, json.dumps(document, indent=1).encode())


class _LogOnce(logging.Filter):
    """Logs each kind of message once, and at the end how many more there were."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}
        self.more: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg)
        is_new = kind not in self.first
        self.first.setdefault(kind, record.getMessage())
        self.more[kind] += not is_new
        return is_new

    def __enter__(self) -> None:
        for name in REPETITIVE:
            logging.getLogger(name).addFilter(self)

    def __exit__(self, *_: object) -> None:
        for name in REPETITIVE:
            logging.getLogger(name).removeFilter(self)
        for kind, count in self.more.items():
            if count:
                log.warning("%s like this: %s", plural(count, "more scene"), self.first[kind])
