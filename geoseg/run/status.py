"""How far a run is, from any machine that sees its folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoseg.errors import MissingFileError
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.run.batch import BATCHES
from geoseg.run.lease import LEASE_S, is_alive, read_holder
from geoseg.run.ledger import PLAN, PROGRESS, WORK, base_store, read_failed, read_json, work_store
from geoseg.run.parts import FOLDER

FINISHED, WORKING, STOPPED, WAITING = "finished", "working", "stopped", "waiting"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where one run stands.

    Attributes:
        name: Of the scene.
        url: The run folder.
        state: `finished`, `working`, `stopped` (the same command goes on) or `waiting` (of a batch: not begun).
        blocks: In all.
        done: Finished blocks.
        failed: Why blocks could not be done, by name.
        eta_s: Seconds left at the present rate; None where nobody works or nothing is known yet.
        holder: Who works on it, or did last: process, host, user, since.
        dashboard: Address of the cluster's dashboard.
    """

    name: str
    url: str
    state: str
    blocks: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    eta_s: float | None = None
    holder: dict[str, Any] | None = None
    dashboard: str | None = None

    @property
    def left(self) -> int:
        """Blocks that are neither done nor failed."""
        return max(0, self.blocks - self.done - len(self.failed))


def read_status(location: str | Path) -> list[RunStatus]:
    """Return where a run stands, or every run of a batch, in the order of the batch.

    Args:
        location: A run folder, or the folder of a batch: a path or `s3://bucket/prefix`.

    Raises:
        MissingFileError: If there is no run.
    """
    out = open_store(str(location).rstrip("/") or "/")
    own = _status_of(out)
    if own is not None:
        return [own]
    names = _batch_names(out)
    if not names:
        raise MissingFileError(
            f"There is no run in {out.url}: neither {WORK}/{PLAN} nor run.json. Name the folder that --out named."
        )
    return [_status_in_batch(out, name) for name in names]


def _status_in_batch(out: Store, name: str) -> RunStatus:
    store = open_store(f"{out.url}/{name}")
    return _status_of(store) or RunStatus(name, store.url, WAITING)


def _status_of(out: Store) -> RunStatus | None:
    plan, report = read_json(base_store(out), PLAN), read_json(out, "run.json")
    if plan is not None and (report is None or report.get("run") != plan.get("run")):
        return _unfinished(out, plan)
    if report is None or "counts" not in report:
        return None
    failed = {entry["block"]: entry["error"] for entry in report.get("failed_blocks") or []}
    blocks = int(report["counts"]["blocks"])
    return RunStatus(report["scene"]["name"], out.url, FINISHED, blocks + len(failed), blocks, failed)


def _unfinished(out: Store, plan: dict[str, Any]) -> RunStatus:
    base, work = base_store(out), work_store(out, plan)
    holder, progress = read_holder(base), read_json(base, PROGRESS) or {}
    is_working = holder is not None and _is_working(holder, progress)
    done, blocks = len(work.names(FOLDER)), int(plan["blocks"])
    failed = read_failed(work)
    return RunStatus(
        name=str(plan.get("name")),
        url=out.url,
        state=WORKING if is_working else STOPPED,
        blocks=blocks,
        done=done,
        failed=failed,
        eta_s=_eta(progress, done, blocks - done - len(failed)) if is_working else None,
        holder=holder,
        dashboard=progress.get("dashboard") if is_working else None,
    )


def _is_working(holder: dict[str, Any], progress: dict[str, Any]) -> bool:
    """Tell whether the client lives; of another machine's, whether it was heard of within its lease."""
    alive = is_alive(holder)
    return time.time() - float(progress.get("now", 0)) < LEASE_S if alive is None else alive


def _eta(progress: dict[str, Any], done: int, left: int) -> float | None:
    """Return the seconds left, from what this client has done since it began."""
    since = done - int(progress.get("done_before", 0))
    took = time.time() - float(progress.get("session_began", time.time()))
    return None if since <= 0 or took <= 0 else took / since * left


def _batch_names(out: Store) -> Sequence[str]:
    """Return the names of the scenes of all batches that go on in a folder, or of those that are there."""
    base = base_store(out)
    told = [read_json(base, name) or {} for name in base.names(BATCHES)]
    if told:
        return list(dict.fromkeys(str(name) for batch in told for name in batch.get("names", [])))
    if isinstance(out, LocalStore):
        folders = sorted(out.folder.iterdir()) if out.folder.is_dir() else []
        return [f.name for f in folders if (f / "run.json").is_file() or (f / WORK / PLAN).is_file()]
    wanted = ("/run.json", f"/{WORK}/{PLAN}")
    return sorted({name.split("/")[0] for name in out.names("") if name.endswith(wanted) and "/" in name})
