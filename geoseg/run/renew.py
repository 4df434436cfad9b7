"""What a finished run gets without the network: other buildings and formats, page and project."""

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
from geoseg.errors import MissingFileError, OutputError, RunFolderError
from geoseg.inference import Plan
from geoseg.io.aside import write_record
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.outputs.footprints import ALWAYS, add_format, file_of
from geoseg.outputs.page import PAGE
from geoseg.outputs.project import PROJECT, outlines_in, write_project
from geoseg.run.job import outlines_of
from geoseg.run.lease import Lease, hold_lease, require_lease
from geoseg.run.ledger import (
    PICTURE,
    PLAN,
    RENEWED,
    REPORT_FILE,
    base_store,
    find_damage,
    has_extras,
    is_as_written,
    is_finished,
    is_lost,
    read_json,
    read_report,
    remove_if_empty,
    remove_leftovers,
)
from geoseg.run.page import follow, look, reopen
from geoseg.run.report import Stages, describe_files, describe_outlines, describe_settings, read_status
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
from geoseg.scene import close_readers, open_reader, read_grid
from geoseg.third_party import allow_no_georeference

log = logging.getLogger(__name__)

SHOWN = (REPORT_FILE, "probability.tif", "buildings.parquet")
"""Files that the page of a result is made of."""

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
            sight = None
            if settings.page:
                sight = look(plan.scene, grid, staging)
                stages.done("page")
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
            complete(report, staging, out, sight)
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
            if isinstance(out, LocalStore) and is_outdated and is_as_written(out, PROJECT, report):
                write_project(report, names, staging, out.folder)
            _add(out, staging, report, lease)
        remove_leftovers(out)
    finally:
        remove_if_empty(out)


def write_report(location: str | Path) -> list[str]:
    """Write page and QGIS project of a finished result anew, or of every one of a batch.

    A project in which something was saved is kept.

    Args:
        location: A local result folder, or the folder of a batch.

    Returns:
        The paths of the files.

    Raises:
        MissingFileError: If there is no finished local result.
        BusyError: If another client is working on one.
        OutputError: If a file cannot be written.
    """
    out = open_store(location)
    if not isinstance(out, LocalStore):
        raise MissingFileError(f"{out.url} is not a local folder. Copy the result to this machine first.")
    folders = [Path(status.url) for status in read_status(location)]
    finished = [folder for folder in folders if all((folder / name).is_file() for name in SHOWN)]
    if not finished:
        raise MissingFileError(
            f"{out.url} has no finished result with {', '.join(SHOWN)}. Finish the run first; geoseg status shows it."
        )
    return [path for folder in finished for path in _write_page_of(folder)]


def _write_page_of(folder: Path) -> list[str]:
    """Write the page of a result, and its project unless something was saved in it; list them in `run.json`."""
    out, raster = LocalStore(folder), str(folder / "probability.tif")
    report = read_report(out, "scene.name", "model.target", "counts.buildings", "settings.outline") or {}
    try:
        with hold_lease(base_store(out), lambda: None) as lease, open_staging(out) as staging:
            with allow_no_georeference(), open_reader(raster) as src:
                grid = read_grid(src, raster, None)
            placed, sizes = follow(report, folder), out.sizes()
            scene = reopen(placed, grid)
            if scene is not None and (is_as_written(out, PROJECT, report) or not out.has(PROJECT)):
                sizes[PROJECT] = write_project(placed, sizes, staging, folder).stat().st_size
            elif scene is not None:
                log.info("%s/%s has been saved since it was made, and is kept", folder, PROJECT)
            else:
                log.warning("%s: its scene is not where it was: the page has no image, and no project is made", folder)
            look(scene, grid, folder).write(placed, sizes, staging)
            added = _add(out, staging, report, lease)
    finally:
        close_readers()
        remove_if_empty(out)
    return [f"{folder}/{name}" for name in (PROJECT, PAGE) if name in added]


def _add(out: Store, staging: Path, report: dict[str, Any], lease: Lease) -> list[str]:
    """Move the files of a local folder to a finished result, and list them in its report; return their names."""
    report["files"] = (report.get("files") or {}) | describe_files(staging)
    describe(report, staging, out)
    write_record(staging / REPORT_FILE, report)
    require_lease(base_store(out), lease.token)
    made = sorted(path.name for path in staging.iterdir() if path.name != REPORT_FILE)
    for name in (REPORT_FILE, *made):  # files that are listed and missing are made again
        out.upload(staging / name, name)
    return made


def _copy(out: Store, name: str, path: Path) -> None:
    """Copy a file of a result; a local one by a hard link where the file system has them."""
    if not isinstance(out, LocalStore):
        path.write_bytes(out.read(name))
        return
    try:
        os.link(out.folder / name, path)
    except OSError:
        shutil.copyfile(out.folder / name, path)
