"""From parts to results: rasters, footprints, report; then the run folder holds them and nothing else."""

from pathlib import Path
from typing import Any

from geoseg.errors import DamagedPartError, GeosegError
from geoseg.grid import Block
from geoseg.io.store import Store
from geoseg.run.cluster import release_memory
from geoseg.run.folder import building_site, near, publish
from geoseg.run.job import Job
from geoseg.run.lease import require_lease
from geoseg.run.ledger import PLAN, is_done
from geoseg.run.mosaic import write_rasters
from geoseg.run.parts import FOLDER, part_name, read_watch
from geoseg.run.polygons import write_footprints
from geoseg.run.preview import PICTURE, write_preview
from geoseg.run.report import Ending, describe_run


def finish_run(job: Job, ending: Ending) -> dict[str, Any]:
    """Make the results of a run whose blocks are done, put them in the run folder and return the report.

    Whatever stops it, the parts stay, and it can be done again.

    Raises:
        OutputError: If there is no room, or no permission.
        DamagedPartError: If a part is not whole, or gone.
        BusyError: If another client has taken the run folder over.
    """
    try:
        report = _make_and_publish(job, ending)
    except (GeosegError, OSError):
        _check_lease(job, ending)  # another client may have finished the run, and removed what was being read
        raise
    job.base.remove(PLAN)
    job.base.remove("")
    return report


def _make_and_publish(job: Job, ending: Ending) -> dict[str, Any]:
    blocks = _done_blocks(job, ending)
    with building_site(job.out) as site:
        with near(job.work, [part_name(block) for block in blocks]) as parts:
            report = _make(job, ending, blocks, parts, site)
        _check_lease(job, ending)
        publish(site, job.out)
    return report


def _check_lease(job: Job, ending: Ending) -> None:
    if ending.token is not None:
        require_lease(job.base, ending.token)


def _done_blocks(job: Job, ending: Ending) -> list[Block]:
    """Return the blocks that have a part: all but those that are known to have failed."""
    done = set(job.work.names(FOLDER))
    blocks = [block for block in job.blocks() if block.name not in ending.failed]
    missing = [block.name for block in blocks if not is_done(block, done)]
    if missing:
        raise DamagedPartError(
            f"{len(missing)} finished blocks have no part in {job.work.url} any more, such as {missing[0]}. Give the "
            "same command again: they are computed anew."
        )
    return blocks


def _make(job: Job, ending: Ending, blocks: list[Block], parts: Store, site: Path) -> dict[str, Any]:
    """Write every file of the result into a folder."""
    from geoseg.outputs import write_run_json

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
        gaps=[block.window for block in job.blocks() if block.name in ending.failed] if ending.failed else [],
    )
    stages.done("polygons")
    if job.settings.picture:
        write_preview(plan, spec, site, site / PICTURE)
        stages.done("picture")
    report = describe_run(job, ending, [read_watch(parts, block) for block in blocks], pixels, footprints)
    write_run_json(site / "run.json", report)
    return report
