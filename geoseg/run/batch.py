"""Many images, each a scene of its own: one result folder per file, and none that fails stops the others."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from geoseg.bundle import Bundle, load_bundle
from geoseg.engines import worker_threads
from geoseg.errors import GeosegError, OutputError, UsageError
from geoseg.run.cluster import local_client
from geoseg.run.identity import is_finished, run_key
from geoseg.run.progress import track
from geoseg.run.run import limit_gdal_cache, plan_run, run_plan
from geoseg.run.settings import RunSettings
from geoseg.scene import Paths, is_remote, list_files

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

REPETITIVE = ("geoseg.scene", "geoseg.inference.fit")
"""Loggers that say of every picture what is true of all."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file and the folder of its result."""

    file: str
    folder: Path


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of every file.

    Attributes:
        done: Result folders that were made.
        skipped: Result folders that were there already.
        failed: What went wrong, by file.
    """

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_each(paths: Paths, settings: RunSettings | None = None, *, quiet: bool = False) -> BatchResult:
    """Segment every file as a scene of its own; finished ones are skipped, failed ones are told at the end.

    Args:
        paths: Rasters or pictures, URLs, folders of them.
        settings: See `RunSettings`; `out` is the folder of the result folders, which are named like the files.
        quiet: Show no progress.

    Raises:
        GeosegError: For what concerns all files: the model, the device, the settings, the folder.
    """
    limit_gdal_cache()
    settings = settings or RunSettings()
    bundle, jobs = load_bundle(settings.model), plan_jobs(list_files(paths), settings.out)
    result = BatchResult()
    with _result_folder(settings.out), _say_once():
        todo = [job for job in jobs if settings.overwrite or _is_open(job, bundle, settings, result)]
        if todo:
            with local_client(worker_threads(settings.device, settings.threads, bundle.form)) as client:
                for job in track(todo, total=len(todo), what="image", quiet=quiet):
                    _run_job(job, bundle, settings, client, result)
    return result


def plan_jobs(files: Sequence[str], out: Path | None) -> list[Job]:
    """Name every file's result folder: `<out>/<stem>`, or `<stem>_geoseg` without `out`.

    Files that differ in their suffix alone keep it.

    Raises:
        UsageError: If two files would share a folder.
    """
    paths = [Path(urlparse(file).path if is_remote(file) else file) for file in files]
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name.replace(".", "_") for path in paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        both = [file for file, name in zip(files, names, strict=True) if name == twice[0]]
        raise UsageError(
            f"{' and '.join(both[:2])} would share the result folder {twice[0]}. Run their folders one by one, "
            "each with its own --out."
        )
    folders = [Path(f"{name}_geoseg") if out is None else out / name for name in names]
    return [Job(file, folder) for file, folder in zip(files, folders, strict=True)]


@contextmanager
def _result_folder(out: Path | None) -> Iterator[None]:
    """Make the folder of the result folders; remove it again where nothing came into it."""
    is_new = out is not None and not out.exists()
    try:
        if out is not None:
            out.mkdir(exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"{out} cannot be made the folder of the results ({err.strerror}). Choose another one with --out."
        ) from err
    try:
        yield
    finally:
        if is_new and out is not None:
            with suppress(OSError):  # not empty
                out.rmdir()


def _is_open(job: Job, bundle: Bundle, settings: RunSettings, result: BatchResult) -> bool:
    """Tell whether a job is still to be done; write down those that are not."""
    try:
        if not is_finished(job.folder, run_key([job.file], bundle, settings), picture=settings.picture):
            return True
        result.skipped.append(job.folder)
    except GeosegError as err:
        result.failed[job.file] = str(err)
    return False


def _run_job(job: Job, bundle: Bundle, settings: RunSettings, client: "Client", result: BatchResult) -> None:
    own = replace(settings, out=job.folder)
    try:
        run_plan(plan_run(job.file, bundle, own), bundle, own, quiet=True, client=client)
        result.done.append(job.folder)
    except GeosegError as err:
        result.failed[job.file] = str(err)
    except Exception as err:  # a defect in one image of a thousand: told in full, and the others go on
        log.exception("%s: geoseg failed; please report this", job.file)
        result.failed[job.file] = f"{type(err).__name__}: {err}"


class _Once(logging.Filter):
    """Lets the first of each kind of message pass, and counts the others."""

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


@contextmanager
def _say_once() -> Iterator[None]:
    """Say once what would be said of every image, and at the end how often it was true."""
    once, loggers = _Once(), [logging.getLogger(name) for name in REPETITIVE]
    for logger in loggers:
        logger.addFilter(once)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(once)
        for kind, count in once.more.items():
            if count:
                log.warning("%d more images like this: %s", count, once.first[kind])
