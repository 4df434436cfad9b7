"""Files that are there whole or not at all: written aside, put on the disk, renamed."""

import json
import math
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from geoseg.errors import BusyError, OutputError
from geoseg.redaction import redact

SIDE_FILES = {".gpkg": ("-wal", "-shm", "-journal"), ".tif": (".aux.xml", ".ovr", ".msk")}
"""What other programs put beside a file and read with it: laid over another content it would be damage."""

ASIDE = ".tmp-"
"""Prefix of folders in which files are under construction."""


@contextmanager
def write_aside(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a place to write a file to, and put what was written there in the file's place at the end.

    See `write_all_aside`.
    """
    with write_all_aside([path], shared=shared) as (aside,):
        yield aside


@contextmanager
def write_all_aside(paths: Sequence[str | Path], *, shared: bool = False) -> Iterator[list[Path]]:
    """Give places to write several files of one folder to, and put all of them in place at the end, or none.

    The places lie in a hidden folder beside the first file, which goes with whatever else libraries leave there:
    journals, auxiliary files. Its name follows from the file's, so that the next writer removes what a killed one left.

    Args:
        paths: The files to be, in one folder. Older ones are replaced, in this order.
        shared: Whether several processes may write these files at the same time: each has a folder of its own then.

    Yields:
        A path for each file, with the same name, where nothing lies yet.

    Raises:
        OutputError: If the folder is missing or a file cannot be renamed.
    """
    targets = [Path(path) for path in paths]
    first = targets[0]
    if not first.parent.is_dir():
        raise OutputError(f"{first} cannot be written: there is no folder {first.parent}. Create it first.")
    folder = first.with_name(f"{ASIDE}{first.name}{f'-{uuid.uuid4().hex}' if shared else ''}")
    asides = [folder / target.name for target in targets]
    try:
        with reported(first):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield asides
        for aside, target in zip(asides, targets, strict=True):
            with reported(target):
                sync(aside)
                put_in_place(aside, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, aside and then renamed; secrets of URLs are left out.

    Raises:
        OutputError: If the file cannot be written.
    """
    with write_aside(path) as aside, reported(path):
        aside.write_text(redact(text), encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, document: Any, *, indent: int | None = 1, sort_keys: bool = False) -> Path:
    """Write a JSON file, aside and then renamed.

    Raises:
        OutputError: If the file cannot be written.
    """
    return write_text(path, json.dumps(document, indent=indent, sort_keys=sort_keys))


def write_record(path: str | Path, record: Mapping[str, Any]) -> Path:
    """Write the record of a run as JSON, aside and then renamed: keys sorted, for people and other programs to read.

    Args:
        path: The file to be; an older one is replaced.
        record: What to write. Values of NumPy are written as numbers and lists, numbers that are not finite as null,
            paths, dates and other objects as text.

    Raises:
        OutputError: If the file cannot be written.
    """
    text = json.dumps(_plain(record), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_text(path, f"{text}\n")


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if hasattr(value, "tolist"):  # NumPy's: not imported here, as `geoseg --help` imports this module
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def sync(path: Path) -> None:
    """Flush a file's bytes to the disk: a power failure could otherwise leave its name without them."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def put_in_place(aside: Path, target: Path) -> None:
    """Rename a file whose bytes are on the disk, without the side files of an older one, and flush its new name too."""
    remove_side_files(target)
    aside.replace(target)
    sync_folder(target.parent)


def remove_side_files(path: Path) -> None:
    """Remove what belongs to the content that a file had, see `SIDE_FILES`."""
    for suffix in SIDE_FILES.get(path.suffix.lower(), ()):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def require_closed(path: Path) -> None:
    """Raise `BusyError` if another process has a GeoPackage open, as far as that can be seen.

    A process that may write, such as QGIS, has a journal beside it, and a lock.
    """
    if not path.with_name(f"{path.name}-wal").exists():
        return
    where = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(where, uri=True, timeout=0, isolation_level=None)) as database:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as err:  # others than a lock: a damaged file is replaced
        if "locked" in str(err):
            raise BusyError(
                f"Another program, such as QGIS, has {path} open, which is to be replaced. Close the file there, and "
                "run the same command again."
            ) from err


def is_whole_database(path: Path) -> bool:
    """Return True for an SQLite database, such as a GeoPackage, whose file has as many bytes as its header says.

    https://www.sqlite.org/fileformat2.html#the_database_header
    """
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(b"SQLite format 3\0") or len(head) < 100:
        return False
    page = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    return path.stat().st_size == (65536 if page == 1 else page) * pages


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk; Windows and some network file systems have no such call."""
    with suppress(OSError):
        names = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)


def check_folder(folder: str | Path) -> None:
    """Check that a result folder can be created, or written to if it exists; leave no trace.

    Raises:
        OutputError: If it or a folder above it is a file, or new files cannot be created there.
    """
    folder = Path(folder).absolute()
    with reported(folder):
        place = next(place for place in (folder, *folder.parents) if place.exists())
        if not place.is_dir():
            raise OutputError(f"{place} is a file; a folder for the results is expected. Choose another with `out`.")
        trial = place / f"{ASIDE}{uuid.uuid4().hex}"
        trial.mkdir()
        trial.rmdir()


@contextmanager
def reported(path: str | Path, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a failure to write a file into an `OutputError` that says how much room is left.

    Args:
        path: The file to be.
        kinds: What counts as such a failure besides `OSError`.
    """
    failures: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except failures as err:
        raise output_error(path, getattr(err, "strerror", None) or str(err) or type(err).__name__) from err


def output_error(path: str | Path, found: str) -> OutputError:
    """Return an error for a file that could not be written: why, the room left, what to do next."""
    room = "free space unknown"
    for folder in Path(path).parents:
        with suppress(OSError):
            room = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB free"
            break
    return OutputError(
        f"{path} cannot be written ({found}; {room}). Make room or get permission to write there, and run the same "
        "command again, or choose another place with `out`."
    )
