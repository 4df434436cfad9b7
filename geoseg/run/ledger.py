"""The run folder: what it may hold, what is done of a run in it, and whether it is this run's.

`OUT/.geoseg/` holds `plan.json` (what is being run, and cut into which blocks), `lock`, `progress.json`, and a folder
named in the plan with a file in `parts/` per finished block and one in `failed/` per block that could not be done. A
part is there whole or not at all, so whatever is killed whenever, the parts say what is done. Every run that is begun
has a folder of its own: what a lost worker still writes for an earlier one is never mixed in. When the results are
complete they move into `OUT/`, `run.json` last, and `.geoseg` goes.
"""

import json
import logging
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from geoseg._version import __version__
from geoseg.errors import ExistingResultError, MissingFileError, OutputError
from geoseg.grid import Block
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.outputs.footprints import FORMATS
from geoseg.run.lease import is_alive, read_holder
from geoseg.run.parts import FOLDER
from geoseg.run.settings import Facts, RunSettings, key_of

log = logging.getLogger(__name__)

WORK = ".geoseg"
PLAN, PROGRESS = "plan.json", "progress.json"
FAILED = "failed"

BATCHES = "batches"
"""Folder with a file per batch that is going on, with the names of its scenes: several batches may share a folder."""

PICTURE = "preview.png"
RESULTS = (
    "probability.tif",
    "mask.tif",
    "mask.qml",
    "classes.tif",
    "classes.tif.aux.xml",
    "classes.qml",
    *(f"buildings{writer.suffix}" for writer in FORMATS.values()),
    PICTURE,
    "run.json",
)
"""Every file that a result may have, in the order of their making; `run.json` comes last."""

FORMAT = 1
"""Of the parts and of `plan.json`; a run with another one is not continued."""

SHOWN = 4
"""Most differences that an error lists."""

BYTES_PER_PIXEL = 1.5
"""Room asked for in advance, per raster: its parts and itself, with a margin."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where a run is kept, and what is done of it.

    Attributes:
        out: The run folder, where the results go.
        base: `.geoseg` in it, with `plan.json`.
        work: The folder in that with the parts; its name is the run's.
        block_px: Height and width of a block, about, as the run was begun.
        is_new: True where this client began the run.
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
        return cls(out, base, open_store(f"{base.url}/{plan.get('run')}"), int(plan["block_px"]), is_new)

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.work.url.rpartition("/")[2]

    def done(self) -> set[str]:
        """Return the names of the finished blocks' parts."""
        return set(self.work.names(FOLDER))

    def failed(self) -> dict[str, str]:
        """Return why blocks could not be done, by their name."""
        found = [read_json(self.work, name) or {} for name in self.work.names(FAILED)]
        return {str(entry.get("block")): str(entry.get("error")) for entry in found}

    def fail(self, block: Block, error: str) -> None:
        """Keep why a block could not be done."""
        self.work.write(f"{FAILED}/{block.name}.json", json.dumps({"block": block.name, "error": error}).encode())

    def close(self) -> None:
        """Remove everything but the results."""
        self.base.remove(PLAN)
        self.base.remove("")


def base_store(out: Store) -> Store:
    """Return the store of everything but the results."""
    return open_store(f"{out.url}/{WORK}")


def read_json(store: Store, name: str) -> dict[str, Any] | None:
    """Return a JSON object; None where there is none that can be read."""
    try:
        found = json.loads(store.read(name))
    except (MissingFileError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def begin(out: Store, facts: Facts, *, block_px: int, blocks: int, name: str, overwrite: bool = False) -> Ledger:
    """Begin a run, or continue the one that is there.

    Args:
        out: The run folder.
        facts: What decides the result.
        block_px: Size of a block where the run is new; a run is continued with the blocks that it was begun with.
        blocks: How many they are, at this size.
        name: Of the scene.
        overwrite: Remove another run that was begun there.

    Raises:
        ExistingResultError: If another run was begun there.
    """
    base = base_store(out)
    plan = read_json(base, PLAN)
    if plan is not None:
        is_same_run = plan.get("key") == key_of(facts)
        is_same_version = (plan.get("format"), plan.get("geoseg")) == (FORMAT, __version__)
        if is_same_run and is_same_version:
            ledger = Ledger.of(out, plan)
            log.info("%d blocks of %s were done before", len(ledger.done()), out.url)
            ledger.work.remove(FAILED)
            return ledger
        if not overwrite:
            if not is_same_run:
                raise refuse_other(out.url, plan.get("facts") or {}, facts)
            raise ExistingResultError(
                f"{out.url} was begun with geoseg {plan.get('geoseg')}; this is geoseg {__version__}, which may "
                "compute other pixels. Finish it with that version, or begin again with --overwrite."
            )
        base.remove(str(plan.get("run")))
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
    """Tell whether a folder holds the result of a run with these facts.

    Raises:
        ExistingResultError: If it holds the result of another run, or of something else, or one that lacks blocks
            where none may be missing.
    """
    report = read_json(out, "run.json")
    if report is None:
        found = [] if base_store(out).has(PLAN) else [name for name in RESULTS if out.has(name)]
        if found:  # without a plan, by which a killed client was moving them there
            raise ExistingResultError(
                f"{out.url} already holds {', '.join(found)}. "
                "Choose another folder with --out, or replace it with --overwrite."
            )
        return False
    before: Facts = report.get("facts") or {}
    if before != facts:
        raise refuse_other(out.url, before, facts)
    failed = report.get("failed_blocks") or []
    if failed and settings.errors == "stop":
        raise ExistingResultError(
            f"The result in {out.url} lacks {len(failed)} blocks that could not be done, and was to be made without "
            "them. Add --errors nodata to keep it so, or --overwrite to make it again."
        )
    return True


def has_all(out: Store, settings: RunSettings) -> bool:
    """Tell whether a finished result has the picture and the further formats too, where they are asked for."""
    wanted = [f"buildings{FORMATS[name].suffix}" for name in settings.also] + [PICTURE] * settings.picture
    return all(out.has(name) for name in wanted)


def refuse_other(location: str, before: Facts, now: Facts) -> ExistingResultError:
    """Name what differs between a folder's run and another one: `threshold: 0.5 before, 0.7 now`."""
    names = sorted((before.keys() | now.keys()) - {"files"})
    found = [f"{n}: {before.get(n)} before, {now.get(n)} now" for n in names if before.get(n) != now.get(n)]
    old_files, new_files = before.get("files") or [], now.get("files") or []
    if old_files != new_files:
        old, new = ({str(name): facts for name, *facts in files} for files in (old_files, new_files))
        about_files = [f"{name} has changed since" for name in new if name in old and new[name] != old[name]]
        about_files += [f"{name} is missing now" for name in old if name not in new]
        about_files += [f"{name} is new" for name in new if name not in old]
        found += about_files or ["the files come in another order"]
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ExistingResultError(
        f"{location} belongs to another run. {'; '.join(found[:SHOWN])}{more}. Choose another folder with --out, give "
        "the same scene, model and settings as before, or replace it with --overwrite."
    )


def check_place(out: Store) -> None:
    """Refuse a run folder that cannot be made.

    Raises:
        OutputError: If a file is in its place, or the folder that it would lie in is missing.
    """
    if not isinstance(out, LocalStore):
        return
    if out.folder.exists() and not out.folder.is_dir():
        raise OutputError(f"{out.folder} is a file; a folder for the results is expected. Choose another with --out.")
    parent = out.folder.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"There is no folder {parent} to make {out.folder.name} in. Make it, or choose another one with --out."
        )


def check_room(out: Store, pixels: int, rasters: int) -> None:
    """Refuse a disk that is too full for a result.

    Raises:
        OutputError: If less is free than rasters of so many pixels may take.
    """
    if not isinstance(out, LocalStore):
        return
    parent, size = out.folder.absolute().parent, pixels * rasters * BYTES_PER_PIXEL
    free = shutil.disk_usage(parent).free
    if free < size:
        raise OutputError(
            f"{parent} has {free / 1e6:,.0f} MB free; about {size / 1e6:,.0f} MB are needed. "
            "Make room, or choose another disk with --out."
        )


def sweep(out: Store) -> None:
    """Remove what a client left that was killed after the last file of its result was in its place."""
    base, report = base_store(out), read_json(out, "run.json") or {}
    plan, holder = read_json(base, PLAN), read_holder(base)
    is_another = plan is not None and plan.get("run") != report.get("run")
    if not is_another and (holder is None or is_alive(holder) is False):
        base.remove(PLAN)
        base.remove("")


def remove_if_empty(out: Store) -> None:
    """Remove a local folder in which nothing came to be, and its empty work folder."""
    if isinstance(out, LocalStore):
        for folder in (out.folder / WORK, out.folder):
            with suppress(OSError):  # not there, or not empty
                folder.rmdir()
