"""The files of a result, and how they come into the run folder: complete, `run.json` last."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from geoseg.errors import ExistingResultError, OutputError
from geoseg.io.store import LocalStore, Store
from geoseg.run.ledger import WORK

RESULTS = (
    "probability.tif",
    "mask.tif",
    "mask.qml",
    "classes.tif",
    "classes.tif.aux.xml",
    "classes.qml",
    "buildings.gpkg",
    "buildings.parquet",
    "preview.png",
    "run.json",
)
"""Every file that a result may have, in the order of their making; `run.json` comes last."""

BYTES_PER_PIXEL = 1.5
"""Room asked for in advance, per raster: its parts and itself, with a margin."""

DOWNLOADS = 8


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


def check_free(out: Store) -> None:
    """Refuse a run folder that holds results of something else.

    Raises:
        ExistingResultError: If one of a result's files is there.
    """
    found = [name for name in RESULTS if out.has(name)]
    if found:
        raise ExistingResultError(
            f"{out.url} already holds {', '.join(found)}. "
            "Choose another folder with --out, or replace it with --overwrite."
        )


def remove_if_empty(out: Store) -> None:
    """Remove a local folder in which nothing came to be, and its empty work folder."""
    if isinstance(out, LocalStore):
        for folder in (out.folder / WORK, out.folder):
            with suppress(OSError):  # not there, or not empty
                folder.rmdir()


@contextmanager
def building_site(out: Store) -> Iterator[Path]:
    """Give a local folder to make the results in: on their own disk where that is local, so that renaming is enough."""
    if isinstance(out, LocalStore):
        site = out.folder / WORK / f"ready-{uuid4().hex[:8]}"
        try:
            site.mkdir(parents=True)
        except OSError as err:
            raise OutputError(
                f"{site} cannot be made ({err.strerror}). Make room or get permission to write there, and give the "
                "same command again."
            ) from err
        try:
            yield site
        finally:
            shutil.rmtree(site, ignore_errors=True)
    else:
        with tempfile.TemporaryDirectory(prefix="geoseg-") as site_name:
            yield Path(site_name)


def publish(site: Path, out: Store) -> None:
    """Put the finished files in their place, `run.json` last; what an older result had beside them goes first.

    Raises:
        OutputError: If they cannot be written, or are not there any more.
    """
    made = [name for name in RESULTS if (site / name).exists()]
    if RESULTS[-1] not in made:
        raise OutputError(f"{site} was removed while results were made there. Give the same command again.")
    out.remove(RESULTS[-1])
    for name in RESULTS:
        if name not in made:
            out.remove(name)
    for name in made:
        out.upload(site / name, name)


@contextmanager
def near(work: Store, names: Sequence[str]) -> Iterator[Store]:
    """Give the parts as local files: those in a bucket are fetched once, as each is read several times."""
    if isinstance(work, LocalStore):
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-parts-") as folder, ThreadPoolExecutor(DOWNLOADS) as pool:
        local = LocalStore(Path(folder))
        for _ in pool.map(lambda name: local.write(name, work.read(name)), names):
            pass
        yield local
