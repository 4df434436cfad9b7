"""What a finished run gets without the network: other buildings from its probabilities, other formats of them."""

import hashlib
import json
import logging
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoseg._version import __version__
from geoseg.bundle import Bundle
from geoseg.errors import OutputError, RunFolderError
from geoseg.inference import Plan
from geoseg.io.aside import write_record
from geoseg.io.store import LocalStore, Store
from geoseg.outputs.footprints import ALWAYS, add_format, file_of
from geoseg.outputs.project import PROJECT, outlines_in, write_project
from geoseg.run.job import outlines_of
from geoseg.run.lease import hold_lease, require_lease
from geoseg.run.ledger import (
    PICTURE,
    PLAN,
    RENEWED,
    REPORT_FILE,
    base_store,
    find_damage,
    has_extras,
    is_finished,
    is_lost,
    read_json,
    read_report,
    remove_if_empty,
    remove_leftovers,
)
from geoseg.run.report import Stages, describe_files, describe_outlines, describe_settings
from geoseg.run.results import (
    complete,
    describe,
    open_staging,
    publish,
    stored_pixels,
    write_footprints,
    write_mask,
    write_preview,
)
from geoseg.run.settings import OUTLINING, Facts, RunSettings, key_of

log = logging.getLogger(__name__)

KEPT = (
    "probability.tif",
    "probability.qml",
    "classes.tif",
    "classes.tif.aux.xml",
    "classes.qml",
    "interior.tif",
    "interior.qml",
)
"""Files of a result that do not depend on how buildings are outlined."""

FOOTPRINTS = file_of(ALWAYS)
"""The footprints of every result."""


def can_renew(out: Store, facts: Facts) -> bool:
    """Return True if a folder holds what the buildings of a run can be made of again, without the network.

    That is the result of a run that differs only in how buildings are outlined, or of the same run if files that are
    made of its probabilities are missing; neither of another version of geoseg, nor with failed blocks.
    """
    try:
        report, is_whole = _read_report(out), out.has("run.json")
    except RunFolderError:
        return False
    if not report or base_store(out).has(PLAN):
        return False
    before: Facts = report.get("facts") or {}
    differing = {name for name in before.keys() | facts.keys() if before.get(name) != facts.get(name)}
    is_same = report.get("geoseg") == __version__ and not report.get("failed_blocks")
    is_worth_it = bool(differing) or not is_whole or is_lost(find_damage(out, report))
    is_possible = out.has("probability.tif") and not find_damage(out, report, KEPT)
    return is_same and is_worth_it and differing <= set(OUTLINING) and is_possible


def _read_report(out: Store) -> dict[str, Any]:
    """Return the report of a result; that of before, if the client was killed while it replaced the files."""
    return read_report(out) or read_json(base_store(out), RENEWED) or {}


def renew_buildings(
    out: Store, plan: Plan, bundle: Bundle, settings: RunSettings, facts: Facts, stages: Stages
) -> dict[str, Any]:
    """Make mask, footprints and picture of a finished result anew; return its report.

    The files are those of a new run with the same settings, byte for byte. If it fails for any reason, the old result
    is kept. If the process is killed while files are replaced, the same call makes them anew.

    Args:
        out: The run folder, for which `can_renew` is true.
        plan: The plan of the run.
        bundle: The model.
        settings: See `RunSettings`.
        facts: The facts that decide the result now.
        stages: The clock.

    Raises:
        BusyError: If another client is working on the folder.
        OutputError: If there is not enough space, or no permission.
    """
    base, spec, grid = base_store(out), bundle.spec, plan.scene.grid
    outlines = outlines_of(plan, bundle, settings)
    stages.done("open")
    try:
        with hold_lease(base, lambda: None) as lease, open_staging(out) as staging:
            for name in KEPT:
                if out.has(name):
                    _copy(out, name, staging / name)
            pixels = stored_pixels(grid, staging)
            assert pixels.probability is not None
            building = write_mask(spec, outlines.threshold, pixels.probability, grid, staging)
            stages.done("mask")
            footprints = write_footprints(pixels, staging, [grid.window], outlines, formats=settings.formats)
            stages.done("polygons")
            if settings.picture:
                write_preview(plan, spec, staging, staging / PICTURE)
                stages.done("picture")
            before = _read_report(out)
            report = dict(before)
            counts = {"building_pixels": building, "buildings": footprints.count}
            report |= {
                "facts": facts,
                "key": key_of(facts),
                "settings": describe_settings(settings),
                **describe_outlines(outlines, settings.threshold or spec.threshold),
                "counts": report["counts"] | counts | {"buildings_at_edge": footprints.at_edge},
                "area_m2": round(footprints.area_m2, 1),
                "renewed": {
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "command": sys.argv,
                    "seconds": {name: round(value, 3) for name, value in stages.seconds.items()},
                },
            }
            complete(report, staging, out)
            require_lease(base, lease.token)
            base.write(RENEWED, json.dumps(before).encode())
            publish(staging, out)
            base.remove(RENEWED)
        remove_leftovers(out)
    finally:
        remove_if_empty(out)
    log.info("%s: buildings made anew from its probabilities", out.url)
    return report


def add_extras(out: Store, plan: Plan, bundle: Bundle, settings: RunSettings, facts: Facts) -> None:
    """Make the formats and the picture of a finished result that are asked for and not there; list them in `run.json`.

    Args:
        out: The run folder, for which `is_finished` is true.
        plan: The plan of the run.
        bundle: The model.
        settings: See `RunSettings`.
        facts: The facts that decide the result.

    Raises:
        BusyError: If another client is working on the folder.
        OutputError: If there is not enough space, or no permission.
    """
    if has_extras(out, settings):
        return
    base, formats = base_store(out), [name for name in settings.formats if not out.has(file_of(name))]
    has_picture = not settings.picture or out.has(PICTURE)
    try:
        with hold_lease(base, lambda: None) as lease, open_staging(out) as staging:
            if not is_finished(out, facts, settings):
                raise OutputError(f"{out.url} was removed while files were added. Run the same command again.")
            for name in formats:
                _copy(out, FOOTPRINTS, staging / FOOTPRINTS)
                add_format(staging / FOOTPRINTS, plan.scene.grid.crs, name)
                (staging / FOOTPRINTS).unlink()
            if not has_picture:
                raster = "classes.tif" if plan.has_class_raster else "mask.tif"
                _copy(out, raster, staging / raster)
                write_preview(plan, bundle.spec, staging, staging / PICTURE)
                (staging / raster).unlink()
            report = read_report(out) or {}
            before = set(out.sizes())
            names = before | {path.name for path in staging.iterdir()}
            is_outdated = outlines_in(names) != outlines_in(before)
            if isinstance(out, LocalStore) and is_outdated and _is_as_written(out, PROJECT, report):
                write_project(report, names, staging, out.folder)
            report["files"] = (report.get("files") or {}) | describe_files(staging)
            describe(report, staging, out)
            write_record(staging / REPORT_FILE, report)
            require_lease(base, lease.token)
            made = {path.name for path in staging.iterdir()} - {REPORT_FILE}
            for name in (REPORT_FILE, *sorted(made)):  # files that are listed and missing are made again
                out.upload(staging / name, name)
        remove_leftovers(out)
    finally:
        remove_if_empty(out)


def _is_as_written(out: Store, name: str, report: dict[str, Any]) -> bool:
    """Return True if a file of a result is there, and nobody has saved anything in it."""
    expected = ((report.get("files") or {}).get(name) or {}).get("sha256")
    return out.has(name) and hashlib.sha256(out.read(name)).hexdigest() == expected


def _copy(out: Store, name: str, path: Path) -> None:
    """Copy a file of a result; a local one by a hard link where the file system has them."""
    if not isinstance(out, LocalStore):
        path.write_bytes(out.read(name))
        return
    try:
        os.link(out.folder / name, path)
    except OSError:
        shutil.copyfile(out.folder / name, path)
