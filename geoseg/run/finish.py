"""From parts to results: rasters, footprints, report; then the run folder holds them and nothing else."""

from pathlib import Path
from typing import Any

from geoseg.grid import Block
from geoseg.run.folder import building_site, near, publish
from geoseg.run.job import Job
from geoseg.run.ledger import is_done
from geoseg.run.mosaic import write_rasters
from geoseg.run.parts import read_watch
from geoseg.run.polygons import write_footprints
from geoseg.run.preview import PICTURE, write_preview
from geoseg.run.report import Ending, describe_run
from geoseg.store import Store


def finish_run(job: Job, ending: Ending) -> dict[str, Any]:
    """Make the results of a run whose blocks are done, put them in the run folder and return the report.

    Whatever stops it, the parts stay, and it can be done again.

    Raises:
        OutputError: If there is no room, or no permission.
        DamagedPartError: If a part is not whole.
    """
    done = set(job.work.names("parts"))
    blocks = [block for block in job.blocks() if is_done(block, done)]
    with building_site(job.out) as site:
        with near(job.work, [f"parts/{block.name}.npz" for block in blocks]) as parts:
            report = _make(job, ending, blocks, parts, site)
        publish(site, job.out)
    job.base.remove("")
    return report


def _make(job: Job, ending: Ending, blocks: list[Block], parts: Store, site: Path) -> dict[str, Any]:
    """Write every file of the result into a folder."""
    from geoseg.outputs import write_run_json

    plan, spec, stages = job.plan, job.bundle.spec, ending.stages
    pixels = write_rasters(plan, spec, job.threshold, blocks, parts, site)
    stages.done("mosaic")
    footprints = write_footprints(
        plan, blocks, parts, site, min_area_m2=job.min_area_m2, simplify_px=job.settings.simplify_px
    )
    stages.done("polygons")
    if job.settings.picture:
        write_preview(plan, spec, site, site / PICTURE)
        stages.done("picture")
    report = describe_run(job, ending, [read_watch(parts, block) for block in blocks], pixels, footprints)
    write_run_json(site / "run.json", report)
    return report
