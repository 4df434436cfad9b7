"""Files that are there whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoseg.errors import OutputError


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Give a place beside a file to write to, and put what was written there in the file's place at the end.

    The place has a name of its own per target, so that what a killed run left there goes with the next. Whatever lies
    beside it under the same beginning (journals, overviews under construction) is removed at the end, too.

    Args:
        path: The file to be. An older one is replaced.

    Yields:
        A path in the same folder and with the same suffix, where nothing lies yet.

    Raises:
        OutputError: If the folder is missing, or the file cannot be put in its place.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: found no folder {target.parent}, expected one; create it first")
    aside = target.with_name(f".tmp-{target.name}")
    _remove_all(aside)
    try:
        yield aside
        with reported(target):
            aside.replace(target)
    finally:
        _remove_all(aside)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, aside and then renamed.

    Raises:
        OutputError: If the file cannot be written.
    """
    with write_aside(path) as aside, reported(path):
        aside.write_text(text, encoding="utf-8")
    return Path(path)


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
        raise output_error(path, str(err) or type(err).__name__) from err


def output_error(path: str | Path, found: str) -> OutputError:
    """Say that a file could not be written: found, expected, next step."""
    target = Path(path)
    return OutputError(
        f"cannot write {target}: found {found}; expected room on the disk ({_free_room(target.parent)}) and permission "
        "to write there; make room, or name another folder with --out"
    )


def _free_room(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB are free"
    except OSError:
        return "free space unknown"


def _remove_all(aside: Path) -> None:
    """Remove a file and its companions, `NAME` and `NAME*`."""
    for file in aside.parent.iterdir():
        if file.name.startswith(aside.name):
            file.unlink(missing_ok=True)
