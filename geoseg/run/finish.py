"""From parts to results: they are made aside and moved into the run folder, which then holds nothing else."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from geoseg.errors import DamagedPartError, GeosegError, OutputError
from geoseg.grid import Block
from geoseg.io.aside import write_record
from geoseg.io.store import LocalStore, Store
from geoseg.run.cluster import release_memory
from geoseg.run.job import Job
from geoseg.run.lease import require_lease
from geoseg.run.ledger import PICTURE, RESULTS, WORK
from geoseg.run.parts import part_name, read_watch
from geoseg.run.report import Ending, describe_run
from geoseg.run.results import write_footprints, write_preview, write_rasters

DOWNLOADS = 8
"""Parts fetched from a bucket at a time."""


def finish_run(job: Job, ending: Ending) -> dict[str, Any]:
    """Make the results of a run whose blocks are done, put them in the run folder and return the report.

    Whatever stops it, the parts stay, and it can be done again.

    Raises:
        OutputError: If there is no room, or no permission.
        DamagedPartError: If a part is not whole, or gone.
        BusyError: If another client has taken the run folder over.
    """
    ledger = job.ledger
    try:
        done = ledger.done()
        blocks = [block for block in job.blocks() if block.name not in ending.failed]
        missing = [block.name for block in blocks if part_name(block) not in done]
        if missing:
            raise DamagedPartError(
                f"{len(missing)} finished blocks have no part in {ledger.work.url} any more, such as {missing[0]}. "
                "Give the same command again: they are computed anew."
            )
        with building_site(ledger.out) as site:
            with near(ledger.work, [part_name(block) for block in blocks]) as parts:
                report = _write_results(job, ending, blocks, parts, site)
            require_lease(ledger.base, ending.token)
            publish(site, ledger.out)
    except (GeosegError, OSError):
        require_lease(ledger.base, ending.token)  # another client may have finished the run, and removed what was read
        raise
    ledger.close()
    return report


def _write_results(job: Job, ending: Ending, blocks: Sequence[Block], parts: Store, site: Path) -> dict[str, Any]:
    """Write every file of the result into a folder; return the report."""
    plan, spec, stages = job.plan, job.bundle.spec, ending.stages
    release_memory()
    pixels = write_rasters(plan, spec, job.threshold, blocks, parts, site)
    stages.done("mosaic")
    release_memory()
    footprints = write_footprints(
        plan,
        blocks,
        parts,
        site,
        min_area_m2=job.min_area_m2,
        simplify_px=job.settings.simplify_px,
        also=job.settings.also,
        gaps=[block.window for block in job.blocks() if block.name in ending.failed] if ending.failed else [],
    )
    stages.done("polygons")
    if job.settings.picture:
        write_preview(plan, spec, site, site / PICTURE)
        stages.done("picture")
    report = describe_run(job, ending, [read_watch(parts, block) for block in blocks], pixels, footprints)
    write_record(site / "run.json", report)
    return report


@contextmanager
def building_site(out: Store) -> Iterator[Path]:
    """Give a local folder to make the results in: on their own disk where that is local, so that renaming is enough."""
    if not isinstance(out, LocalStore):
        with tempfile.TemporaryDirectory(prefix="geoseg-") as name:
            yield Path(name)
        return
    site = out.folder / WORK / f"ready-{uuid4().hex[:8]}"
    try:
        site.mkdir(parents=True)
    except OSError as err:
        raise OutputError(
            f"{site} cannot be made ({err.strerror}). Make room or get permission to write there, and give the "
            "same command again."
        ) from err
    try:
        yield site
    finally:
        shutil.rmtree(site, ignore_errors=True)


@contextmanager
def near(work: Store, names: Sequence[str]) -> Iterator[Store]:
    """Give the parts as local files: those in a bucket are fetched once, as each is read several times."""
    if isinstance(work, LocalStore):
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-parts-") as folder, ThreadPoolExecutor(DOWNLOADS) as pool:
        local = LocalStore(Path(folder))
        for _ in pool.map(lambda name: local.write(name, work.read(name)), names):
            pass
        yield local


def publish(site: Path, out: Store) -> None:
    """Put the finished files in their place, `run.json` last; what an older result had beside them goes first.

    Raises:
        OutputError: If they cannot be written, or are not there any more.
    """
    made = [name for name in RESULTS if (site / name).exists()]
    if RESULTS[-1] not in made:
        raise OutputError(f"{site} was removed while results were made there. Give the same command again.")
    out.remove(RESULTS[-1])
    for name in RESULTS:
        if name not in made:
            out.remove(name)
    for name in made:
        out.upload(site / name, name)
