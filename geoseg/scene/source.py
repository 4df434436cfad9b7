"""Pixels and masks read from a scene's files, with retries for remote ones."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Condition
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from geoseg.errors import ReadError
from geoseg.scene.files import forget, gdal_env, reach_of
from geoseg.scene.mask import is_blank, read_valid, tiles_under
from geoseg.scene.reader import close_readers, open_reader
from geoseg.third_party import allow_no_georeference

if TYPE_CHECKING:
    from geoseg.scene.scene import Scene

log = logging.getLogger("geoseg.scene")

Found = TypeVar("Found")

REMOTE_ATTEMPTS = 4
"""Times that a remote window is read, reopening the file each time, after GDAL has given up its own retries."""

ATTEMPT_DELAY_S = 0.5
"""Seconds before the second attempt; twice as long before each further one."""

KNOWN_TILES = 1 << 16
"""Most TIFF tiles remembered as fetched: a few megabytes."""

Tile = tuple[object, ...]


class Fetches:
    """TIFF tiles that are being fetched: a thread that needs one waits for it, instead of fetching it too."""

    def __init__(self) -> None:
        """Start without any tile."""
        self._changed = Condition()
        self._flying: set[Tile] = set()
        self._fetched: set[Tile] = set()

    @contextmanager
    def claim(self, tiles: set[Tile]) -> Iterator[None]:
        """Wait until no other thread fetches any of these tiles; those fetched before are in GDAL's cache."""
        with self._changed:
            self._changed.wait_for(lambda: self._flying.isdisjoint(tiles))
            mine = tiles - self._fetched
            self._flying |= mine
        try:
            yield
            with self._changed:
                if len(self._fetched) + len(mine) > KNOWN_TILES:
                    self._fetched.clear()
                self._fetched |= mine
        finally:
            with self._changed:
                self._flying -= mine
                self._changed.notify_all()


fetches = Fetches()
"""The fetches of this process."""


def read_source(
    scene: "Scene", rows: slice, cols: slice, level: int | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read rows and columns of the source.

    Args:
        scene: The scene: its files, bands and mask.
        rows: Rows of the source.
        cols: Columns of the source.
        level: Overview to read instead of the full resolution.

    Returns:
        `(band, y, x)` pixels and the `(y, x)` valid mask, None where all are valid.

    Raises:
        ReadError: If they cannot be read.
    """
    return _read(scene, rows, cols, level, partial(_pixels_and_mask, scene))


def is_blank_source(scene: "Scene", rows: slice, cols: slice, level: int | None) -> bool:
    """Return True if nothing there is valid, False if something is or only the pixels could tell.

    Raises:
        ReadError: If the mask cannot be read.
    """
    return _read(scene, rows, cols, level, partial(is_blank, is_overview=level is not None))


def _read(
    scene: "Scene",
    rows: slice,
    cols: slice,
    level: int | None,
    look: Callable[[rasterio.DatasetReader, RasterWindow], Found],
) -> Found:
    """Look at a window of the open files; what fails at a server is retried with the files opened again."""
    window = RasterWindow(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
    is_remote = reach_of(scene.paths) is not None
    for attempt in range(REMOTE_ATTEMPTS if is_remote else 1):
        try:
            with gdal_env(scene.paths), open_reader(scene.source, level, files=scene.paths) as reader:
                if scene.has_mask and all(flags == [MaskFlags.all_valid] for flags in reader.mask_flag_enums):
                    raise OSError("its mask could not be read")  # GDAL does not say so if a server withholds it
                under = tiles_under(reader, window) if is_remote else ()
                tiles: set[Tile] = {(scene.source, level, *tile) for tile in under}
                with fetches.claim(tiles):
                    return look(reader, window)
        except (RasterioError, OSError) as err:
            place = scene.paths[0] + (f" and {len(scene.paths) - 1} more" if len(scene.paths) > 1 else "")
            failure = ReadError(
                f"{scene.name}: pixels of rows {rows.start}-{rows.stop} and columns {cols.start}-{cols.stop} cannot be "
                f"read from {place} ({err}). The file may be damaged or cut short; copy or download it again."
            )
            failure.__cause__ = err
        if is_remote and attempt + 1 < REMOTE_ATTEMPTS:
            log.info("%s: reading failed; retrying.", scene.name)
            close_readers()
            time.sleep(ATTEMPT_DELAY_S * 2**attempt)
            with allow_no_georeference():
                forget(scene.paths)
    raise failure


def _pixels_and_mask(
    scene: "Scene", reader: rasterio.DatasetReader, window: RasterWindow
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read the bands of a window and what of it is valid, None where all is; pixels that are not numbers become 0."""
    valid: NDArray[np.bool_] | None = None
    if not scene.has_mask:
        values = np.asarray(reader.read(scene.bands, window=window))
    elif _is_in_the_pixels(scene, reader):
        values = np.asarray(reader.read(scene.bands, window=window))
        valid = np.asarray((values != values.dtype.type(scene.nodata)).any(axis=0))
    else:
        valid = read_valid(reader, window)
        columns = np.flatnonzero(valid.any(axis=0))
        if columns.size and columns[-1] - columns[0] + 1 == window.width:
            values = np.asarray(reader.read(scene.bands, window=window))
        else:  # nothing is needed left of the first valid column and right of the last one
            values = np.zeros((len(scene.bands), window.height, window.width), scene.dtype)
            if columns.size:
                first, stop = int(columns[0]), int(columns[-1]) + 1
                part = RasterWindow(window.col_off + first, window.row_off, stop - first, window.height)
                values[:, :, first:stop] = reader.read(scene.bands, window=part)
    if values.dtype.kind == "f":
        finite = np.isfinite(values).all(axis=0)
        if not finite.all():
            values[:, ~finite] = 0
            valid = finite if valid is None else finite & valid
    return values, valid


def _is_in_the_pixels(scene: "Scene", reader: rasterio.DatasetReader) -> bool:
    """Return True if the values read suffice to tell nodata: one whole number, in every band of the file.

    GDAL would read all bands again for the mask.
    """
    kind, nodata = np.dtype(scene.dtype), scene.nodata
    return (
        nodata is not None
        and kind.kind in "ui"
        and float(nodata).is_integer()
        and np.iinfo(kind).min <= nodata <= np.iinfo(kind).max
        and all(flags == [MaskFlags.nodata] for flags in reader.mask_flag_enums)
        and set(reader.nodatavals) == {nodata}
        and set(scene.bands) == set(reader.indexes)
        and ColorInterp.alpha not in reader.colorinterp
    )
