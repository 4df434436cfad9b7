"""A scene: one georeferenced image, from one file or several, read lazily on the grid that a model wants.

`open_scene` reads headers only and checks everything that can be checked before any work. A `Scene` is a frozen recipe:
it pickles as paths and numbers, and opens its files lazily, once per thread (GDAL datasets are not thread-safe).
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterWindow

from geoseg.errors import BandMismatchError, ReadError
from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Grid, Window
from geoseg.scene.files import absolute_path, forget, reach_of
from geoseg.scene.levels import Levels, border_windows, find_border_value, find_collar, measure_levels, stretch
from geoseg.scene.mask import data_boxes, is_blank, read_valid, tiles_under
from geoseg.scene.overviews import FEWEST_SAMPLES, sample_windows, show_the_same
from geoseg.scene.reader import Stamp, Tile, close_readers, fetches, open_reader, stamp_of
from geoseg.scene.resample import Axis, resample
from geoseg.third_party import allow_no_georeference

log = logging.getLogger("geoseg.scene")

Found = TypeVar("Found")

OVERVIEW_OVERSAMPLING = 2
"""Pixels along an axis that an overview must have per pixel of the working grid (two by area) to be read."""

NO_OVERVIEW = (0, 0)
"""Stands for an overview that is not read: it lacks the mask, or shows something else than the pixels."""

REMOTE_ATTEMPTS = 4
"""Times that a remote window is read, reopening the file each time, after GDAL has given up its own retries."""

ATTEMPT_DELAY_S = 0.5
"""Seconds before the second attempt; twice as long before each further one."""

BLANK_DELAY_S = 0.1
"""The same where the mask has no valid pixel, which is so beside the data of many scenes."""

_shown: WeakSet[rasterio.DatasetReader] = WeakSet()
"""Open rasters of whose mask a valid pixel was read."""

REACH_PX = 2
"""Pixels of the file beyond which resampling does not reach."""

LEVEL_SAMPLE_PX = 1024

LARGEST_BLOCK = 1 << 22
"""Pixels that are decoded at once, up to which a few windows are read to look at a border."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a window: `values (band, y, x)` and `valid (y, x)`, True where there is data."""

    values: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """One georeferenced image on its working grid.

    Attributes:
        name: File-safe name, from the first file.
        paths: The files, as the user named them.
        source: What rasterio opens: a path, or a VRT over several files.
        native: The grid of the scene's own pixels.
        grid: The working grid: exactly the same extent, perhaps other pixels.
        bands: One-based band numbers that `read` returns, in this order.
        dtype: Type of the pixels in the file.
        nodata: Nodata value in the file, if any.
        has_mask: True where some pixels may be nodata (nodata value, alpha or mask band).
        file_has_mask: True where the file says so, and not only `given_nodata`.
        given_nodata: Nodata value that a user gave; it counts instead of the file's.
        uses_alpha: False if a band that is marked alpha is an image.
        data_bands: Every band but alpha; red, green and blue first where the file marks them.
        overviews: `(height, width)` of each overview in the file; `NO_OVERVIEW` for one that must not be read.
        levels: Per band `(low, high)` that become 0 and 255; None leaves the values as they are.
    """

    name: str
    paths: tuple[str, ...]
    source: str
    native: Grid
    grid: Grid
    bands: tuple[int, ...]
    band_count: int
    dtype: str
    nodata: float | None
    has_mask: bool
    data_bands: tuple[int, ...] = ()
    overviews: tuple[tuple[int, int], ...] = ()
    levels: Levels | None = None
    file_has_mask: bool = False
    given_nodata: float | None = None
    uses_alpha: bool = True

    def absolute(self) -> "Scene":
        """Return the scene with absolute paths, which a process with another working folder opens, too."""
        whole = {path: absolute_path(path) for path in self.paths}
        return replace(self, paths=tuple(whole.values()), source=whole.get(self.source, self.source))

    def at_gsd(self, gsd_m: float) -> "Scene":
        """Return the scene on the grid of the same extent nearest to `gsd_m` meters per pixel on the ground."""
        return replace(self, grid=self.native.resampled(gsd_m))._without_stale_overviews()

    def at_shape(self, shape: tuple[int, int]) -> "Scene":
        """Return the scene on the grid of the same extent with this height and width."""
        grid = self.native.reshaped(shape) if shape != self.native.shape else self.native
        return replace(self, grid=grid)._without_stale_overviews()

    def with_bands(self, bands: Sequence[int]) -> "Scene":
        """Return the scene with other bands.

        Raises:
            BandMismatchError: If the file has no such band.
        """
        if not bands or min(bands) < 1 or max(bands) > self.band_count:
            raise BandMismatchError(
                f"{self.name} has bands 1 to {self.band_count}, but bands {','.join(map(str, bands))} were requested. "
                "Name existing bands with `bands`."
            )
        return replace(self, bands=tuple(bands), levels=None)

    def with_levels(self) -> "Scene":
        """Return the scene stretched to 0-255 per band, unless its pixels are 8-bit already.

        Levels are the 2nd and 98th percentile of the valid pixels of the whole scene, measured once, never per chip.
        """
        if self.dtype == "uint8" or self.levels is not None:
            return self
        factor = max(1.0, max(self.native.shape) / LEVEL_SAMPLE_PX)
        height, width = (max(1, round(n / factor)) for n in self.native.shape)
        sample = self.at_shape((height, width))
        pixels = sample.read(sample.grid.window)
        self._warn_of_collar(pixels)
        return replace(self, levels=measure_levels(pixels.values[:, pixels.valid]))

    def warn_of_collar(self) -> None:
        """Log a warning if one value fills much of the border, and is not declared as nodata.

        Small windows of a local file are read; none where each would take reading the whole file.
        """
        if reach_of(self.paths) is not None:
            return
        spots: list[tuple[NDArray[Any], NDArray[np.bool_] | None] | None] = []
        read = partial(_read_small, self._read_open)
        with suppress(ReadError):  # reading the blocks will report it
            windows = border_windows(self.native.shape)
            spots.extend(self._look(window.rows, window.cols, None, read) for window in windows)
        value = find_border_value([spot for spot in spots if spot is not None])
        if value is not None:
            log.warning(
                "%s: the value %s fills much of its border in all bands, but is not declared as nodata. If it means "
                "nodata, buildings may be found in it, and those that it cuts are not marked: give `nodata=%s`, or "
                "declare it in the file with `gdal_edit.py -a_nodata %s`.",
                self.name,
                *[value] * 3,
            )

    def _warn_of_collar(self, pixels: Pixels) -> None:
        """Log a warning if a value of the whole scene looks like nodata that nobody declared."""
        found = find_collar(pixels.values, pixels.valid)
        if found is None:
            return
        value, share, levels = found
        log.warning(
            "%s: the value %s fills %.0f %% of the pixels and part of the border, but is not declared as nodata. It "
            "decides the stretch to 8 bits: without it, the levels would be %s. If it means nodata, give `nodata=%s`, "
            "or declare it in the file with `gdal_edit.py -a_nodata %s`.",
            self.name,
            value,
            100 * share,
            ", ".join(f"{low:.6g}-{high:.6g}" for low, high in levels),
            value,
            value,
        )

    def read(self, window: Window) -> Pixels:
        """Read a window of the working grid.

        Args:
            window: Rows and columns, inside the grid.

        Returns:
            `(band, y, x)` values (uint8 where `levels` stretch them, the file's type otherwise) and the valid mask.
            Area-averaged where the working grid is coarser than the file, bilinear where it is finer; a pixel's value
            does not depend on the window.

        Raises:
            ValueError: If the window leaves the grid.
            ReadError: If the pixels cannot be read.
        """
        if window.intersect(self.grid.window) != window:
            raise ValueError(f"window {window} leaves the grid of {self.grid.shape}")
        shape, level = self._best_source()
        read_source = partial(self._look, level=level, look=self._read_open)
        if shape == self.grid.shape:
            values, valid = read_source(window.rows, window.cols)
            valid = np.ones(window.shape, bool) if valid is None else valid
        else:
            axes = (Axis(shape[0], self.grid.height), Axis(shape[1], self.grid.width))
            bands, dtype = len(self.bands), np.dtype(self.dtype)
            values, valid = resample(read_source, axes, window.rows, window.cols, bands, dtype)
        return Pixels(stretch(values, self.levels) if self.levels else values, valid)

    def may_hold_data(self, window: Window) -> bool:
        """Return False where nothing in a window is valid, as far as the mask tells.

        Only pixels of a mask are decoded. True where only the pixels themselves could tell.

        Raises:
            ReadError: If the mask cannot be read.
        """
        if not self.has_mask or not self.follows_file:
            return True
        shape, level = self._best_source()
        axes = (Axis(s, t) for s, t in zip(shape, self.grid.shape, strict=True))
        rows, cols = (a.source_span(s.start, s.stop) for a, s in zip(axes, window.slices, strict=True))
        return not self._look(rows, cols, level, partial(is_blank, is_overview=level is not None))

    @property
    def follows_file(self) -> bool:
        """True where valid is what the file says is valid, so that its directory and mask tell it."""
        return self.given_nodata is None and self.uses_alpha

    @property
    def reads_overview(self) -> bool:
        """True where `read` takes its pixels from an overview of the file."""
        return self._best_source()[1] is not None

    def _best_source(self) -> tuple[tuple[int, int], int | None]:
        """Return the shape and overview level with the fewest pixels that still oversample the working grid."""
        needed = tuple(n * OVERVIEW_OVERSAMPLING for n in self.grid.shape)
        fitting = [(s, i) for i, s in enumerate(self.overviews) if s[0] >= needed[0] and s[1] >= needed[1]]
        return min(fitting, default=(self.native.shape, None))

    def _without_stale_overviews(self) -> "Scene":
        """Return the scene without the overviews for its grid that show something else than its pixels."""
        scene = self
        while (level := scene._best_source()[1]) is not None:
            stamps = tuple(stamp_of(path) for path in scene.paths)
            if _shows_pixels(replace(scene, grid=scene.native, levels=None), level, stamps):
                return scene
            left = [NO_OVERVIEW if i == level else shape for i, shape in enumerate(scene.overviews)]
            scene = replace(scene, overviews=tuple(left))
        return scene

    def _look(
        self,
        rows: slice,
        cols: slice,
        level: int | None,
        look: Callable[[rasterio.DatasetReader, RasterWindow], Found],
    ) -> Found:
        """Return what `look` finds in a window of the source, or of one of its overviews.

        What fails on a server is retried with the files reopened. A mask without a valid pixel counts as failed until
        the last attempt, unless the open raster has shown one before: if a server cuts the directory of the mask short,
        GDAL takes all of its tiles for missing ones and says nothing.
        """
        window = RasterWindow(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        is_remote = reach_of(self.paths) is not None
        for attempt in range(REMOTE_ATTEMPTS if is_remote else 1):
            try:
                with open_reader(self.source, level, files=self.paths) as reader:
                    if self.file_has_mask and all(flags == [MaskFlags.all_valid] for flags in reader.mask_flag_enums):
                        raise OSError("its mask could not be read")  # GDAL does not say so if a server withholds it
                    under = tiles_under(reader, window) if is_remote else ()
                    tiles: set[Tile] = {(self.source, level, *tile) for tile in under}
                    with fetches.claim(tiles):
                        found = look(reader, window)
                    if not is_remote or reader.mask_flag_enums[0] != [MaskFlags.per_dataset]:
                        return found
                    if not _is_empty(found):
                        _shown.add(reader)
                    if reader in _shown or attempt + 1 == REMOTE_ATTEMPTS:
                        return found
                    failure, delay_s = (
                        ReadError(f"{self.name}: the mask has no valid pixel"),
                        BLANK_DELAY_S * 2**attempt,
                    )
            except (*GDAL_ERRORS, OSError) as err:
                place = self.paths[0] + (f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else "")
                failure = ReadError(
                    f"{self.name}: pixels of rows {rows.start}-{rows.stop} and columns {cols.start}-{cols.stop} cannot "
                    f"be read from {place} ({err.__cause__ or err}). The file may be damaged or cut "
                    "short; copy or download it again."
                )
                failure.__cause__, delay_s = err, ATTEMPT_DELAY_S * 2**attempt
            if is_remote and attempt + 1 < REMOTE_ATTEMPTS:
                if failure.__cause__ is not None:
                    log.info("%s: reading failed; retrying.", self.name)
                close_readers()
                time.sleep(delay_s)
                with allow_no_georeference():
                    forget(self.paths)
        raise failure

    def _read_open(
        self, reader: rasterio.DatasetReader, window: RasterWindow
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read the bands of a window and its mask, None if all is valid; pixels that are not numbers become 0."""
        valid: NDArray[np.bool_] | None = None
        if not self.file_has_mask:
            values = np.asarray(reader.read(self.bands, window=window))
        elif self._tells_nodata(reader):
            values = np.asarray(reader.read(self.bands, window=window))
            valid = np.asarray((values != values.dtype.type(self.nodata)).any(axis=0))
        else:
            valid = read_valid(reader, window, uses_nodata=self.given_nodata is None, uses_alpha=self.uses_alpha)
            columns = np.flatnonzero(valid.any(axis=0))
            if columns.size and columns[-1] - columns[0] + 1 == window.width:
                values = np.asarray(reader.read(self.bands, window=window))
            else:  # nothing is needed left of the first valid column and right of the last one
                values = np.zeros((len(self.bands), window.height, window.width), self.dtype)
                if columns.size:
                    first, stop = int(columns[0]), int(columns[-1]) + 1
                    part = RasterWindow(window.col_off + first, window.row_off, stop - first, window.height)
                    values[:, :, first:stop] = reader.read(self.bands, window=part)
        if self.given_nodata is not None:
            has_data = ~self._is_nodata(reader, window, values)
            valid = has_data if valid is None else has_data & valid
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(axis=0)
            if not finite.all():
                values[:, ~finite] = 0
                valid = finite if valid is None else finite & valid
        return values, valid

    def _is_nodata(
        self, reader: rasterio.DatasetReader, window: RasterWindow, values: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return `(y, x)`, True where all bands but alpha have the nodata value that was given, also those not read."""
        nodata = values.dtype.type(self.given_nodata)
        found = np.asarray((values == nodata).all(axis=0))
        others = sorted(set(self.data_bands) - set(self.bands))
        if others and found.any():
            found &= (reader.read(others, window=window) == nodata).all(axis=0)
        return found

    def _tells_nodata(self, reader: rasterio.DatasetReader) -> bool:
        """Return True if the values read suffice to tell nodata: one whole number, in every band of the file.

        GDAL would read all bands again for the mask.
        """
        kind, nodata = np.dtype(self.dtype), self.nodata
        return (
            nodata is not None
            and self.given_nodata is None
            and kind.kind in "ui"
            and float(nodata).is_integer()
            and np.iinfo(kind).min <= nodata <= np.iinfo(kind).max
            and all(flags == [MaskFlags.nodata] for flags in reader.mask_flag_enums)
            and set(reader.nodatavals) == {nodata}
            and set(self.bands) == set(reader.indexes)
            and ColorInterp.alpha not in reader.colorinterp
        )


def _is_empty(found: object) -> bool:
    """Return True if a look at a window found no valid pixel: values and mask, or that it is blank."""
    valid = found[1] if isinstance(found, tuple) else None
    return found is True or (valid is not None and not valid.any())


def _read_small(read: Callable[..., Found], reader: rasterio.DatasetReader, window: RasterWindow) -> Found | None:
    """Return what `read` finds in a window; None where GDAL decodes much more at once, as of a file without tiles."""
    height, width = reader.block_shapes[0]
    return read(reader, window) if height * width <= LARGEST_BLOCK else None


@lru_cache(maxsize=1024)
def _shows_pixels(scene: Scene, level: int, stamps: tuple[Stamp, ...]) -> bool:
    """Return True if an overview shows what the pixels show, in a sample; if not, log a warning once.

    What cannot be read is left out: reading the blocks will report it.

    Args:
        scene: The scene in its own pixels.
        level: Number of the overview.
        stamps: Times and sizes of the files, so that a file that was replaced is compared again.
    """
    shape, native = scene.overviews[level], scene.native.shape
    scene = replace(scene, bands=tuple(dict.fromkeys(scene.bands)))
    axes = (Axis(native[0], shape[0]), Axis(native[1], shape[1]))
    exact, coarse = [], []
    for window in sample_windows(shape, max(native[0] / shape[0], native[1] / shape[1])):
        try:
            read = partial(scene._look, level=None, look=scene._read_open)
            fine = resample(read, axes, window.rows, window.cols, len(scene.bands), np.dtype(scene.dtype))
            values, valid = scene._look(window.rows, window.cols, level, scene._read_open)
        except ReadError:
            continue
        other = values, np.ones(window.shape, bool) if valid is None else valid
        if fine[1].any() or other[1].any():
            exact.append(fine)
            coarse.append(other)
        if len(exact) == FEWEST_SAMPLES:
            break
    if show_the_same(exact, coarse):
        return True
    log.warning(
        "%s: its overview of %d x %d px shows something else than its pixels; it may have been built before they were "
        "written. The pixels are read instead, which takes longer. Build the overviews again with `gdaladdo -clean` "
        "and `gdaladdo`.",
        scene.name,
        shape[1],
        shape[0],
    )
    return False


def data_windows(scene: Scene) -> tuple[Window, ...]:
    """Return windows of the working grid outside which nothing is valid; none where that is not known.

    These are the sources of a VRT, or the TIFF tiles of a local file except those that were never written or are known
    to be empty. The directory of a remote file is not fetched for this.
    """
    if not scene.has_mask or not scene.follows_file or scene.reads_overview or reach_of(scene.paths) is not None:
        return ()
    try:
        with open_reader(scene.source, files=scene.paths) as reader:
            boxes = data_boxes(reader, scene.data_bands)
    except (*GDAL_ERRORS, OSError):  # reading the blocks will report it
        return ()
    if boxes is None:
        return ()
    reach, scale = 0, (1.0, 1.0)
    if scene.grid.shape != scene.native.shape:
        height, width = (ours / own for ours, own in zip(scene.grid.shape, scene.native.shape, strict=True))
        reach, scale = REACH_PX, (width, height)
    first = np.floor((boxes[:, :2] - reach) * scale).astype(int)
    stop = np.ceil((boxes[:, 2:] + reach) * scale).astype(int)
    corners = np.column_stack((first, stop)).tolist()
    windows = (Window(top, left, bottom - top, right - left) for left, top, right, bottom in corners)
    cut = (window.intersect(scene.grid.window) for window in windows)
    return tuple(window for window in cut if window is not None)
