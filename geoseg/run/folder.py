"""The result folder: filled aside, shown when complete."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoseg.errors import ExistingResultError, OutputError

RESULTS = (
    "probability.tif",
    "mask.tif",
    "classes.tif",
    "classes.tif.aux.xml",
    "classes.qml",
    "buildings.gpkg",
    "buildings.parquet",
    "preview.png",
    "run.json",
)
"""Every file that a result may have, in the order of their making; `run.json` comes last."""

BYTES_PER_PIXEL = 2
"""Room asked for in advance, per raster: its parts, itself before and after compression, with a margin."""


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that already holds a result, or that is a file.

    Raises:
        ExistingResultError: If a result is there and `overwrite` is False.
        OutputError: If the path is taken by something else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; a folder for the results is expected. Choose another one with --out.")
    found = [name for name in RESULTS if (folder / name).exists()]
    if found and not overwrite:
        raise ExistingResultError(
            f"{folder} already holds {', '.join(found)}. "
            "Choose another folder with --out, or replace it with --overwrite."
        )


@contextmanager
def staging(folder: Path, *, pixels: int, rasters: int = 2) -> Iterator[Path]:
    """Give a hidden folder beside `folder`; move its files there when the block ends well, else remove it.

    Args:
        folder: The result folder; made if needed.
        pixels: Pixels of the result, to ask for room.
        rasters: Rasters of the result.

    Raises:
        OutputError: If nothing can be written there, or the disk is full.
    """
    aside = _make_aside(folder, pixels * rasters * BYTES_PER_PIXEL)
    try:
        yield aside
        _publish(aside, folder)
    except OSError as err:
        raise _cannot_write(folder, err) from err
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make_aside(folder: Path, size: int) -> Path:
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"There is no folder {parent} to make {folder.name} in. Make it, or choose another one with --out."
        )
    try:
        free = shutil.disk_usage(parent).free
        if free < size:
            raise OutputError(
                f"{parent} has {free / 1e6:,.0f} MB free; about {size / 1e6:,.0f} MB are needed. "
                "Make room, or choose another disk with --out."
            )
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=parent))
    except OSError as err:
        raise _cannot_write(folder, err) from err


def _publish(aside: Path, folder: Path) -> None:
    """Move the finished files; in a fresh folder all of them at once. What an older result had beside them goes."""
    finished = [aside / name for name in RESULTS if (aside / name).exists()]
    ready = aside / "ready"
    ready.mkdir()
    ready.chmod(0o777 & ~_umask())
    for path in finished:
        path.rename(ready / path.name)
    if not folder.exists():
        ready.rename(folder)
        return
    for name in RESULTS:
        if (ready / name).exists():
            (ready / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(folder: Path, err: OSError) -> OutputError:
    reason = "the disk is full" if err.errno == errno.ENOSPC else err.strerror or str(err)
    return OutputError(
        f"The results cannot be written to {folder}: {reason}. Make room, or choose another folder with --out."
    )
