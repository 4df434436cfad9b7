"""The run folder: its contents, which blocks are done, and which run it belongs to.

`OUT/.geoseg/` contains `plan.json` (what is run, and in which blocks), `lock`, `progress.json`, and a folder named in
the plan with a file in `parts/` per finished block and one in `failed/` per failed block. Parts are written atomically,
so they show what is done whenever a process is killed. Each new run has a folder of its own, so that what a lost worker
still writes for an earlier run is never mixed in. Complete results are moved to `OUT/`, `run.json` last, and `.geoseg`
is removed.
"""

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Real
from pathlib import PurePath
from typing import Any

from geoseg._version import __version__
from geoseg.engines import PRECISIONS
from geoseg.errors import ExistingResultError, MissingFileError, OutputError, RunFolderError
from geoseg.grid import Block
from geoseg.io.aside import check_folder, is_whole_database
from geoseg.io.fingerprint import OTHER_ORDER, name_changes
from geoseg.io.store import LocalStore, Store, open_store, parse_json
from geoseg.io.tables import plural
from geoseg.outputs.footprints import DEFAULT_FORMATS, FORMATS, files_of
from geoseg.outputs.page import PAGE
from geoseg.outputs.project import PROJECT
from geoseg.outputs.stac import ITEM
from geoseg.redaction import redact
from geoseg.run.lease import is_alive, read_holder
from geoseg.run.parts import FOLDER
from geoseg.run.settings import OUTLINING, Facts, RunSettings, key_of
from geoseg.sources.files import RUN_FOLDER

log = logging.getLogger(__name__)

PLAN, PROGRESS = "plan.json", "progress.json"
FAILED = "failed"

RENEWED = "renewed.json"
"""The report of a result whose buildings are being made anew: kept while its files are replaced."""

BATCHES = "batches"
"""Folder of the batches that have their results in a folder, see `geoseg.run.record`."""

PICTURE = "preview.png"
RESULTS = (
    "probability.tif",
    "probability.qml",
    "mask.tif",
    "mask.qml",
    "classes.tif",
    "classes.tif.aux.xml",
    "classes.qml",
    "interior.tif",
    "interior.qml",
    *files_of(FORMATS),
    PICTURE,
    PROJECT,
    PAGE,
    ITEM,
    "run.json",
)
"""All files that a result may have, in the order in which they are published; `run.json` is last."""

EXTRA = (PICTURE, *(name for name in files_of(FORMATS) if name not in files_of(DEFAULT_FORMATS)))
"""Those of them that are made where they are asked for."""

MISSING, EMPTY = "is missing", "is empty"
"""What may be wrong with a file that can be made again without losing anything."""

FORMAT = 1
"""Version of the format of parts and `plan.json`; a run with another one is not continued."""

MODELS_OWN = ("threshold", "min_area_m2", "split_depth", "chip_px", "halo_px")
"""Settings that are the model's if they are not given."""

SHOWN = 4
"""Maximum number of differences that an error lists."""

BYTES_PER_PIXEL = 1.5
"""Disk space required in advance for each raster: its parts and itself, with a margin."""


REPORT_FILE = "run.json"

REPORT: dict[str, Any] = {
    "run": str,
    "facts": {"files": [list], "aoi": list},
    "model": {"name": str, "target": str, "confidence": dict},
    "settings": {"outline": str, "tolerance_m": Real, "simplify_px": Real},
    "scene": {"name": str, "paths": [str], "bands": [int]},
    "counts": {"blocks": int},
    "failed_blocks": [{"block": str, "error": str}],
    "threshold": Real,
    "min_area_m2": Real,
    "fill_holes_m2": Real,
    "split_depth": Real,
}
"""Types of what is read again of a report; None is always allowed."""

PLAN_TYPES: dict[str, Any] = {
    "run": str,
    "key": str,
    "name": str,
    "block_px": int,
    "blocks": int,
    "facts": {"files": [list], "aoi": list},
}


PROGRESS_TYPES: dict[str, Any] = {"now": Real, "session_began": Real, "done_before": int, "dashboard": str}


@dataclass(frozen=True, slots=True)
class Ledger:
    """The files of a run that is in progress.

    Attributes:
        out: The run folder, for the results.
        base: Its folder `.geoseg`, with `plan.json`.
        work: The folder with the parts, inside `base`; it has the name of the run.
        block_px: Approximate height and width of a block, as chosen when the run was started.
        is_new: True if this client started the run.
    """

    out: Store
    base: Store
    work: Store
    block_px: int
    is_new: bool

    @classmethod
    def of(cls, out: Store, plan: dict[str, Any], *, is_new: bool = False) -> "Ledger":
        """Return the ledger of the run that `plan.json` describes."""
        base = base_store(out)
        return cls(out, base, open_store(f"{base.url}/{plan['run']}"), int(plan["block_px"]), is_new)

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.work.url.rpartition("/")[2]

    def done(self) -> set[str]:
        """Return the names of the parts that exist."""
        return set(self.work.names(FOLDER))

    def failed(self) -> dict[str, str]:
        """Return the errors of failed blocks by name of the block."""
        found = [read_json(self.work, name) or {} for name in self.work.names(FAILED)]
        return {str(entry.get("block")): str(entry.get("error")) for entry in found}

    def fail(self, block: Block, error: str) -> None:
        """Record the error of a failed block."""
        text = redact(json.dumps({"block": block.name, "error": error}))
        self.work.write(f"{FAILED}/{block.name}.json", text.encode())

    def close(self) -> None:
        """Remove everything except the results."""
        self.base.remove(PLAN)
        self.base.remove("")


def base_store(out: Store) -> Store:
    """Return the store for everything except the results."""
    return open_store(f"{out.url}/{RUN_FOLDER}")


def read_json(store: Store, name: str) -> dict[str, Any] | None:
    """Return a JSON object; None if there is no readable one."""
    try:
        found = parse_json(store.read(name))
    except (MissingFileError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_report(out: Store, *needed: str) -> dict[str, Any] | None:
    """Return the contents of `run.json`; None if there is no readable one.

    Args:
        out: The run folder.
        *needed: Keys that it must have, with dots between the levels: `counts.blocks`.

    Raises:
        RunFolderError: If it lacks a key, or a value has another type than geoseg writes.
    """
    return _read_checked(out, REPORT_FILE, REPORT, needed)


def read_plan(base: Store) -> dict[str, Any] | None:
    """Return the contents of `plan.json`; None if there is no readable one.

    Raises:
        RunFolderError: If it lacks a key, or a value has another type than geoseg writes.
    """
    plan = _read_checked(base, PLAN, PLAN_TYPES, ("run", "block_px", "blocks"))
    if plan is not None and not re.fullmatch(r"[\w-]+", plan["run"]):  # a folder of this name is read, and removed
        raise _damaged(base, PLAN, f"its run is {plan['run']!r}")
    return plan


def read_progress(base: Store) -> dict[str, Any]:
    """Return the contents of `progress.json`; nothing if there is no readable one; raises as `read_plan`."""
    return _read_checked(base, PROGRESS, PROGRESS_TYPES, ()) or {}


def read_batch(base: Store, name: str) -> dict[str, Any]:
    """Return the contents of a list in `BATCHES`; nothing if there is no readable one; raises as `read_plan`."""
    types = {"scenes": [{"name": str, "path": str}], "failed": dict, "outside": [str], "days": dict}
    return _read_checked(base, name, types, ("scenes", "failed", "outside")) or {}


def _read_checked(store: Store, name: str, types: Any, needed: Sequence[str]) -> dict[str, Any] | None:
    found = read_json(store, name)
    if found is None:
        return None
    if misfit := _misfit(found, types):
        raise _damaged(store, name, misfit)
    for key in needed:
        value: Any = found
        for part in key.split("."):
            value = (value or {}).get(part)
        if value is None:
            raise _damaged(store, name, f"it has no {key}")
    return found


def _misfit(value: Any, types: Any, key: str = "") -> str:
    """Return what does not fit the types of a document, or nothing: a table, a list of something, or one type."""
    outer: Any = type(types) if isinstance(types, dict | list) else types
    if value is None:
        return ""
    if not isinstance(value, outer) or isinstance(value, bool):
        return f"its {key} is {value!r}"
    inner: list[tuple[Any, Any, str]] = []
    if isinstance(types, dict):
        inner = [(types[name], one, f"{key}.{name}".lstrip(".")) for name, one in value.items() if name in types]
    elif isinstance(types, list):
        inner = [(types[0], one, key) for one in value]
    return next((misfit for kind, one, name in inner if (misfit := _misfit(one, kind, name))), "")


def _damaged(store: Store, name: str, why: str) -> RunFolderError:
    return RunFolderError(
        f"{store.url}/{name} is damaged: {why}. Copy the folder again, or make the result again, in another folder or "
        "with `overwrite=True`."
    )


def recorded_precision(out: Store) -> str | None:
    """Return the precision of the run in a folder, finished or not; None if there is none, or it is not known."""
    base = base_store(out)
    for store, name in ((base, PLAN), (out, REPORT_FILE), (base, RENEWED)):
        facts = (read_json(store, name) or {}).get("facts")
        if isinstance(facts, dict) and facts.get("precision") in PRECISIONS:
            return str(facts["precision"])
    return None


def open_ledger(out: Store, facts: Facts, *, block_px: int, blocks: int, name: str, overwrite: bool = False) -> Ledger:
    """Start a run, or continue the same run if it was started before.

    Args:
        out: The run folder.
        facts: The facts that decide the result.
        block_px: Block size of a new run; a run is always continued with the block size that it was started with.
        blocks: Number of blocks of a new run.
        name: Name of the scene.
        overwrite: Remove another run that was started in the folder.

    Raises:
        ExistingResultError: If another run was started in the folder.
        RunFolderError: If `plan.json` is damaged.
    """
    base = base_store(out)
    try:
        plan = read_plan(base)
    except RunFolderError:
        if not overwrite:
            raise
        plan = None
    if plan is not None:
        is_same_run = plan.get("key") == key_of(facts)
        is_same_version = (plan.get("format"), plan.get("geoseg")) == (FORMAT, __version__)
        if is_same_run and is_same_version:
            ledger = Ledger.of(out, plan)
            log.info("Continuing %s: %s done before", out.url, plural(len(ledger.done()), "block"))
            ledger.work.remove(FAILED)
            return ledger
        if not overwrite:
            if not is_same_run:
                raise refuse_other(out.url, plan.get("facts") or {}, facts)
            raise ExistingResultError(
                f"{out.url} was started with geoseg {plan.get('geoseg')}; this is geoseg {__version__}, which may "
                "compute different pixels. Finish it with that version, or start again with `overwrite=True`."
            )
        base.remove(plan["run"])
        base.remove(PLAN)
    now = datetime.now(UTC)
    plan = {
        "format": FORMAT,
        "geoseg": __version__,
        "key": key_of(facts),
        "facts": facts,
        "name": name,
        "run": f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        "block_px": block_px,
        "blocks": blocks,
        "begun": now.isoformat(timespec="seconds"),
    }
    base.write(PLAN, json.dumps(plan, indent=1).encode())
    return Ledger.of(out, plan, is_new=True)


def is_finished(out: Store, facts: Facts, settings: RunSettings) -> bool:
    """Return True if a folder holds the result of a run with these facts, and all of its files.

    Raises:
        ExistingResultError: If it holds the result of another run or other files of these names, a result with failed
            blocks although `errors` is `stop`, or one whose files have changed since.
        RunFolderError: If `run.json` is damaged.
    """
    report = read_report(out)
    if report is None:
        found = [] if base_store(out).has(PLAN) else [name for name in RESULTS if out.has(name)]
        if found and base_store(out).has(RENEWED):
            raise ExistingResultError(
                f"The buildings in {out.url} were being made anew when geoseg was stopped. Run the same command again, "
                "with `overwrite=True`, or choose another folder with `out`."
            )
        if found:  # with a plan, they are from a client that was killed while publishing
            raise ExistingResultError(
                f"{out.url} already holds {', '.join(found)}. "
                "Choose another folder with `out`, or replace it with `overwrite=True`."
            )
        return False
    before: Facts = report.get("facts") or {}
    if any(before.get(name) != facts.get(name) for name in before.keys() | facts.keys()):
        raise refuse_other(out.url, before, facts)
    failed = report.get("failed_blocks") or []
    if failed and settings.errors == "stop":
        raise ExistingResultError(
            f"The result in {out.url} was made without {plural(len(failed), 'block')} that failed. Give "
            "`errors='nodata'` to keep it, or `overwrite=True` to compute it again."
        )
    damage = find_damage(out, report)
    if damage and not is_lost(damage):
        listed = "; ".join(f"{name} {what}" for name, what in damage.items())
        raise ExistingResultError(
            f"The result in {out.url} has changed since it was made: {listed}. Put the file back, remove it to have it "
            "made again, or replace the result with `overwrite=True`."
        )
    return not damage


def find_damage(out: Store, report: dict[str, Any], names: Sequence[str] = RESULTS) -> dict[str, str]:
    """Return what is wrong with the files of a finished result, by name.

    Sizes are compared with those in `run.json`. Formats and pictures that were asked for besides may be removed, styles
    and auxiliary files be rewritten, and a GeoPackage be edited, as long as it is whole.
    """
    written, sizes, found = report.get("files") or {}, out.sizes(), {}
    for name in names:
        if name not in written or PurePath(name).suffix not in (".tif", *(one.suffix for one in FORMATS.values())):
            continue
        size, expected = sizes.get(name), int(written[name]["bytes"])
        if not size:
            if name not in EXTRA:
                found[name] = MISSING if size is None else EMPTY
        elif size != expected and not (isinstance(out, LocalStore) and is_whole_database(out.folder / name)):
            found[name] = f"has {size:,} bytes instead of {expected:,}"
    return found


def is_as_written(out: Store, name: str, report: dict[str, Any]) -> bool:
    """Return True if a file of a result is there, and nobody has saved anything in it."""
    expected = ((report.get("files") or {}).get(name) or {}).get("sha256")
    return out.has(name) and hashlib.sha256(out.read(name)).hexdigest() == expected


def is_lost(damage: dict[str, str]) -> bool:
    """Return True if files are missing or empty, and none of the others has changed: nothing is lost by new ones."""
    return bool(damage) and set(damage.values()) <= {MISSING, EMPTY}


def has_extras(out: Store, settings: RunSettings) -> bool:
    """Return True if a finished result has the picture and the formats that are asked for."""
    return all(out.has(name) for name in files_of(settings.formats) + [PICTURE] * settings.picture)


def refuse_other(location: str, before: Facts, now: Facts) -> ExistingResultError:
    """Return an error that lists how two runs differ, such as "`threshold`: 0.5 before, 0.7 now"."""
    found = []
    for name in sorted((before.keys() | now.keys()) - {"files"}):
        old, new = before.get(name), now.get(name)
        if old != new:
            shown = ("another", "this one") if name == "model" else (_show(name, old), _show(name, new))
            if shown[0] == shown[1]:  # the same file or kind of area
                shown = (shown[0], "another geometry" if shown[0] == "a geometry" else f"{shown[0]} (changed since)")
            found.append(f"`{name}`: {shown[0]} before, {shown[1]} now")
    old_files, new_files = before.get("files") or [], now.get("files") or []
    if old_files != new_files:
        changes = name_changes(old_files, new_files)
        found += [] if found and changes == [OTHER_ORDER] else changes  # settings may order them
    is_outlining = old_files == new_files and {
        name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
    } <= set(OUTLINING)
    anew = ", which makes the buildings anew from the probabilities, without the network" if is_outlining else ""
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ExistingResultError(
        f"{location} belongs to another run. {'; '.join(found[:SHOWN])}{more}. Choose another folder with `out`, give "
        f"the same scene, model and settings as before, or replace it with `overwrite=True`{anew}."
    )


def _show(name: str, value: Any) -> str:
    """Return the value of a setting, as `run_facts` gives it, for a message."""
    if value is None:
        return "the model's" if name in MODELS_OWN else "not given"
    if name == "aoi" and value:
        return "a geometry" if value[0] == "geometry" else str(value[0])
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def check_place(out: Store) -> None:
    """Check that the run folder can be created, with the folders above it, or written to.

    Raises:
        OutputError: If it or a folder above it is a file, or new files cannot be created there.
    """
    if isinstance(out, LocalStore):
        check_folder(out.folder)


def check_room(out: Store, pixels: int, rasters: int) -> None:
    """Check that the disk has enough free space for a result.

    Raises:
        OutputError: If less is free than so many rasters of so many pixels may take.
    """
    if not isinstance(out, LocalStore):
        return
    parent = next(folder for folder in out.folder.absolute().parents if folder.is_dir())
    size = pixels * rasters * BYTES_PER_PIXEL
    free = shutil.disk_usage(parent).free
    if free < size:
        raise OutputError(
            f"{parent} has {free / 1e6:,.0f} MB free; about {size / 1e6:,.0f} MB are needed. "
            "Make room, or choose another disk with `out`."
        )


def remove_leftovers(out: Store) -> None:
    """Remove what a client left that was killed after it had published its result."""
    base, report = base_store(out), read_json(out, "run.json") or {}
    plan, holder = read_json(base, PLAN), read_holder(base)
    is_another = plan is not None and plan.get("run") != report.get("run")
    if not is_another and (holder is None or is_alive(holder) is False):
        base.remove(PLAN)
        base.remove("")


def remove_if_empty(out: Store) -> None:
    """Remove a local run folder and its work folder if they are empty."""
    if isinstance(out, LocalStore):
        for folder in (out.folder / RUN_FOLDER, out.folder):
            with suppress(OSError):  # missing, or not empty
                folder.rmdir()
