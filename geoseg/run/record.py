"""The list of a batch: its scenes and what became of them; it stays in the folder of the results for `geoseg status`.

Several batches may share a folder if they have no scene in common; each has a folder in `OUT/.geoseg/batches/`, with
`scenes.json` and, while a client is working on it, its lock.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from geoseg.errors import ExistingResultError
from geoseg.io.store import Store, open_store
from geoseg.io.tables import plural
from geoseg.redaction import redact
from geoseg.run.lease import hold_lease, require_free
from geoseg.run.ledger import BATCHES, base_store, read_batch, remove_if_empty
from geoseg.sources import SceneSource, identity

SCENES = "scenes.json"


@dataclass(slots=True)
class BatchRecord:
    """The scenes of a batch.

    Attributes:
        store: Its folder.
        paths: The file of each scene, by name.
        failed: What each failed scene failed with, and the `run` of the result that it had then, by name.
        outside: Names of scenes outside the AOI.
        days: When scenes were taken, `2023-05-01`, by name, as far as it is known.
        is_begun: True once one of the scenes has been begun, or was finished before.
    """

    store: Store
    paths: dict[str, str]
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    days: dict[str, str] = field(default_factory=dict)
    is_begun: bool = False

    def note_failure(self, name: str, error: str, run: str | None) -> None:
        """Record that a scene failed."""
        self.failed[name] = {"error": error, "run": run}
        self.write()

    def note_outside(self, name: str) -> None:
        """Record that a scene does not meet the AOI."""
        self.outside.append(name)
        self.write()

    def write(self) -> None:
        """Write the list."""
        scenes = [{"name": name, "path": path} for name, path in self.paths.items()]
        found = {"scenes": scenes, "failed": self.failed, "outside": self.outside, "days": self.days}
        self.store.write(SCENES, redact(json.dumps(found, indent=1)).encode())


def read_records(out: Store) -> list[BatchRecord]:
    """Return the lists of all batches in a folder."""
    base, records = base_store(out), []
    for name in base.names(BATCHES):
        folder, _, last = name.rpartition("/")
        found = read_batch(base, name) if last == SCENES else None
        if found:
            paths = {str(scene["name"]): str(scene["path"]) for scene in found["scenes"]}
            store, days = open_store(f"{base.url}/{folder}"), found.get("days", {})
            records.append(BatchRecord(store, paths, found["failed"], found["outside"], days))
    return records


def known_names(records: Sequence[BatchRecord]) -> Mapping[str, str]:
    """Return the names of all scenes of batches, by the identity of their files."""
    return {path: name for record in records for name, path in record.paths.items()}


def require_no_batch(out: Store, name: str) -> None:
    """Refuse to put a single result among those of a batch, where no one would find it.

    Raises:
        ExistingResultError: If a folder holds a batch.
    """
    records = read_records(out)
    if records:
        count = plural(sum(len(record.paths) for record in records), "scene")
        raise ExistingResultError(
            f"{out.url} holds the results of a batch of {count}, each in a folder of its own; a single result would be "
            f"mixed with them. Choose another folder with `out`, such as {out.url}/{name}."
        )


@contextmanager
def open_record(out: Store, sources: Sequence[SceneSource]) -> Iterator[BatchRecord]:
    """List the scenes of a batch while a `with` block works on it; lists of earlier batches that have some of them go.

    If nothing came of it, neither a result nor a failure, the list is removed.

    Raises:
        BusyError: If another client is working on a batch with one of the scenes.
    """
    paths = {source.name: redact(identity(source.paths[0])) for source in sources}
    own = hashlib.sha256(json.dumps(list(paths)).encode()).hexdigest()[:8]
    days = {source.name: source.datetime.date().isoformat() for source in sources if source.datetime is not None}
    record = BatchRecord(open_store(f"{base_store(out).url}/{BATCHES}/{own}"), paths, days=days)
    is_held = is_kept = False
    try:
        with hold_lease(record.store, lambda: None):
            is_held = True
            record.write()
            others = [one for one in read_records(out) if one.store.url != record.store.url]
            older = [one for one in others if one.paths.keys() & paths.keys()]
            for one in older:
                require_free(one.store)
            for one in older:
                one.store.remove("")
            try:
                yield record
            finally:
                is_kept = bool(record.failed) or (record.is_begun and any(out.names(name) for name in paths))
    finally:
        if is_held and not is_kept:
            _remove(out, record)


def _remove(out: Store, record: BatchRecord) -> None:
    """Remove a list, and what is empty without it."""
    base = base_store(out)
    record.store.remove("")
    if not base.names(""):
        base.remove("")
    remove_if_empty(out)
