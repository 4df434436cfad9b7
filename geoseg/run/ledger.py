"""What is done of a run, in its run folder: the parts of the blocks are the ledger.

`OUT/.geoseg/` holds `plan.json` (what is being run, and cut into which blocks), `lock`, `progress.json`, and a folder
named in the plan with a file in `parts/` per finished block and one in `failed/` per block that could not be done. A
part is there whole or not at all, so whatever is killed whenever, the parts say what is done. Every run that is begun
has a folder of its own: what a lost worker still writes for an earlier one is never mixed in. When the results are
complete they move into `OUT/`, `run.json` last, and `.geoseg` goes.
"""

import json
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from geoseg._version import __version__
from geoseg.errors import ExistingResultError, MissingFileError
from geoseg.grid import Block
from geoseg.io.store import Store, open_store
from geoseg.run.lease import is_alive, read_holder
from geoseg.run.parts import FOLDER, part_name
from geoseg.run.settings import Facts, key_of

log = logging.getLogger(__name__)

WORK = ".geoseg"
PLAN, PROGRESS = "plan.json", "progress.json"
BATCHES = "batches"
"""Folder with a file per batch that is going on, with the names of its scenes: several batches may share a folder."""

FORMAT = 1
"""Of the parts and of `plan.json`; another one is not continued."""


SHOWN = 4
"""Most differences that an error lists."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The work folder of a run.

    Attributes:
        out: The run folder.
        base: `.geoseg` in it.
        work: The folder of parts in that.
        block_px: Height and width of a block, about, as the run was begun.
        is_new: True where this client began the run.
    """

    out: Store
    base: Store
    work: Store
    block_px: int
    is_new: bool

    def done(self) -> set[str]:
        """Return the names of the finished blocks' parts."""
        return set(self.work.names(FOLDER))

    def fail(self, block: Block, error: str) -> None:
        """Keep why a block could not be done."""
        self.work.write(f"failed/{block.name}.json", json.dumps({"block": block.name, "error": error}).encode())

    def close(self) -> None:
        """Remove everything but the results."""
        self.base.remove("")

    def give_up(self) -> None:
        """Leave nothing behind of a run that this client began and in which no block was done."""
        if self.is_new and not self.done():
            self.close()


def base_store(out: Store) -> Store:
    """Return the store of everything but the results."""
    return open_store(f"{out.url}/{WORK}")


def work_store(out: Store, plan: dict[str, Any]) -> Store:
    """Return the store of the parts of the run that `plan.json` describes."""
    return open_store(f"{out.url}/{WORK}/{plan.get('run')}")


def run_name(work: Store) -> str:
    """Return the name of a run: that of its folder of parts."""
    return work.url.rpartition("/")[2]


def sweep(out: Store) -> None:
    """Remove what a client left that was killed after the last file of its result was in its place."""
    base, report = base_store(out), read_json(out, "run.json") or {}
    plan, holder = read_json(base, PLAN), read_holder(base)
    is_another = plan is not None and plan.get("run") != report.get("run")
    if not is_another and (holder is None or is_alive(holder) is False):
        base.remove(PLAN)
        base.remove("")


def begin(out: Store, facts: Facts, *, block_px: int, blocks: int, name: str) -> Ledger:
    """Begin a run, or continue the one that is there.

    Args:
        out: The run folder.
        facts: What decides the result.
        block_px: Size of a block where the run is new; a run is continued with the blocks that it was begun with.
        blocks: How many they are, at this size.
        name: Of the scene.

    Raises:
        ExistingResultError: If another run was begun there.
    """
    base = base_store(out)
    plan = read_json(base, PLAN)
    if plan is None:
        plan = _describe(facts, block_px=block_px, blocks=blocks, name=name)
        base.write(PLAN, json.dumps(plan, indent=1).encode())
        return Ledger(out, base, work_store(out, plan), block_px, is_new=True)
    _check_same(out, plan, facts)
    ledger = Ledger(out, base, work_store(out, plan), int(plan["block_px"]), is_new=False)
    log.info("%d blocks of %s were done before", len(ledger.done()), out.url)
    ledger.work.remove("failed")
    return ledger


def _describe(facts: Facts, *, block_px: int, blocks: int, name: str) -> dict[str, Any]:
    """Return what `plan.json` says of a run that begins."""
    now = datetime.now(UTC)
    return {
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


def is_same(plan: dict[str, Any], facts: Facts) -> bool:
    """Tell whether what `plan.json` describes can be continued."""
    return plan.get("key") == key_of(facts) and _version_of(plan) == (FORMAT, __version__)


def _version_of(plan: dict[str, Any]) -> tuple[Any, Any]:
    return plan.get("format"), plan.get("geoseg")


def _check_same(out: Store, plan: dict[str, Any], facts: Facts) -> None:
    if plan.get("key") != key_of(facts):
        raise refuse_other(out.url, plan.get("facts") or {}, facts)
    if not is_same(plan, facts):
        raise ExistingResultError(
            f"{out.url} was begun with geoseg {plan.get('geoseg')}; this is geoseg {__version__}, which may "
            "compute other pixels. Finish it with that version, or begin again with --overwrite."
        )


def read_failed(work: Store) -> dict[str, str]:
    """Return why blocks could not be done, by their name."""
    found = [read_json(work, name) or {} for name in work.names("failed")]
    return {str(entry.get("block")): str(entry.get("error")) for entry in found}


def read_json(store: Store, name: str) -> dict[str, Any] | None:
    """Return a JSON object; None where there is none that can be read."""
    try:
        found = json.loads(store.read(name))
    except (MissingFileError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_done(block: Block, done: set[str]) -> bool:
    """Tell whether a block's part is among those that are there."""
    return part_name(block) in done


def differences(before: Facts, now: Facts) -> list[str]:
    """Name what differs between two runs: `threshold: 0.5 before, 0.7 now`."""
    names = [name for name in sorted(before.keys() | now.keys()) if name != "files"]
    found = [
        f"{name}: {before.get(name)} before, {now.get(name)} now" for name in names if before.get(name) != now.get(name)
    ]
    return found + _file_differences(before.get("files") or [], now.get("files") or [])


def refuse_other(location: str, before: Facts, now: Facts) -> ExistingResultError:
    """Say why a folder's run is another one."""
    found = differences(before, now)
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ExistingResultError(
        f"{location} belongs to another run. {'; '.join(found[:SHOWN])}{more}. Choose another folder with --out, give "
        "the same scene, model and settings as before, or replace it with --overwrite."
    )


def _file_differences(before: list[list[Any]], now: list[list[Any]]) -> list[str]:
    """Name the files that changed, came or went; a file's first fact is its name."""
    old, new = ({str(file[0]): file[1:] for file in files} for files in (before, now))
    changed = [f"{name} has changed since" for name in new if name in old and new[name] != old[name]]
    gone = [f"{name} is missing now" for name in old if name not in new]
    come = [f"{name} is new" for name in new if name not in old]
    if not (changed or gone or come) and before != now:
        return ["the files come in another order"]
    return changed + gone + come
