"""A scene: one georeferenced image, from one file or several, read lazily on the grid that a model wants.

`open_scene` reads headers only and checks everything that can be checked before any work. A `Scene` is a frozen recipe:
it pickles as paths and numbers, and opens its files lazily, once per thread (GDAL datasets are not thread-safe).
"""

import logging
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from geoseg.errors import (
    BandMismatchError,
    MissingCRSError,
    MissingFileError,
    NotARasterError,
    ReadError,
    TruncatedFileError,
    UsageError,
)
from geoseg.grid import Grid, Window
from geoseg.resample import Axis, resample
from geoseg.tiff import promised_size
from geoseg.vrt import mosaic_vrt

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]
Levels = tuple[tuple[float, float], ...]

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
OPEN_READERS = 8
OVERVIEW_OVERSAMPLING = 2
"""Pixels along an axis that an overview must have per pixel of the working grid (two by area) to be read."""

PLAUSIBLE_GSD_M = (1e-3, 1e5)
"""Metres per pixel outside which coordinates and CRS cannot belong together."""

PICTURE_TRANSFORM = Affine.scale(1, -1)
"""Where a picture without georeference lies: x = column, y = -row, as QGIS shows it."""

LEVEL_PERCENTILES = (2.0, 98.0)
LEVEL_SAMPLE_PX = 1024
REMOTE_ENV = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "VSI_CACHE": "TRUE",
}


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a window holds: `values (band, y, x)` and `valid (y, x)`, True where there is data."""

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
        data_bands: Every band but alpha; red, green and blue first where the file marks them.
        overviews: `(height, width)` of each overview in the file.
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

    def at_gsd(self, gsd_m: float) -> "Scene":
        """Return the scene on the grid of the same extent nearest to `gsd_m` metres per pixel on the ground."""
        return replace(self, grid=self.native.resampled(gsd_m))

    def at_shape(self, shape: tuple[int, int]) -> "Scene":
        """Return the scene on the grid of the same extent with this height and width."""
        return replace(self, grid=self.native.reshaped(shape) if shape != self.native.shape else self.native)

    def with_bands(self, bands: Sequence[int]) -> "Scene":
        """Return the scene with other bands.

        Raises:
            BandMismatchError: If the file has no such band.
        """
        if not bands or min(bands) < 1 or max(bands) > self.band_count:
            raise BandMismatchError(
                f"{self.name} has bands 1 to {self.band_count}, but bands {','.join(map(str, bands))} were asked for. "
                "Name existing bands with --bands."
            )
        return replace(self, bands=tuple(bands), levels=None)

    def with_levels(self) -> "Scene":
        """Return the scene stretched to 0-255 per band, unless its pixels are 8-bit already.

        Levels are the 2nd and 98th percentile of the valid pixels of the whole scene, measured once, never per chip.
        """
        if self.dtype == "uint8" or self.levels is not None:
            return self
        return replace(self, levels=_measure_levels(self))

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
        if shape == self.grid.shape:
            values, valid = self._read_source(window.rows, window.cols, level)
            valid = np.ones(window.shape, bool) if valid is None else valid
        else:
            axes = (Axis(shape[0], self.grid.height), Axis(shape[1], self.grid.width))
            values, valid = resample(
                lambda rows, cols: self._read_source(rows, cols, level),
                axes,
                window.rows,
                window.cols,
                len(self.bands),
                np.dtype(self.dtype),
            )
        return Pixels(stretch(values, self.levels) if self.levels else values, valid)

    def _best_source(self) -> tuple[tuple[int, int], int | None]:
        """Return the shape and overview level with the fewest pixels that still oversample the working grid."""
        needed = tuple(n * OVERVIEW_OVERSAMPLING for n in self.grid.shape)
        fitting = [(s, i) for i, s in enumerate(self.overviews) if s[0] >= needed[0] and s[1] >= needed[1]]
        return min(fitting, default=(self.native.shape, None))

    def _read_source(
        self, rows: slice, cols: slice, level: int | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        window = rasterio.windows.Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        try:
            with _gdal_env(self.paths):
                reader = open_reader(self.source, level, files=self.paths)
                valid = np.asarray(reader.dataset_mask(window=window) > 0) if self.has_mask else None
                values = self._read_valid(reader, window, valid)
        except (RasterioError, OSError) as err:
            raise ReadError(
                f"{self.name}: pixels of rows {rows.start}-{rows.stop} and columns {cols.start}-{cols.stop} cannot be "
                f"read ({err}). The file may be damaged or cut short; copy or download it again."
            ) from err
        return (values, _finite(values, valid)) if values.dtype.kind == "f" else (values, valid)

    def _read_valid(
        self, reader: rasterio.DatasetReader, window: rasterio.windows.Window, valid: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        """Read the columns between the first and the last valid one; the others, which nobody asks for, are zeros."""
        columns = np.flatnonzero(valid.any(axis=0)) if valid is not None else None
        if columns is None or (columns.size and columns[-1] - columns[0] + 1 == window.width):
            return np.asarray(reader.read(self.bands, window=window))
        values = np.zeros((len(self.bands), window.height, window.width), self.dtype)
        if columns.size:
            first, stop = int(columns[0]), int(columns[-1]) + 1
            part = rasterio.windows.Window(window.col_off + first, window.row_off, stop - first, window.height)
            values[:, :, first:stop] = reader.read(self.bands, window=part)
        return values


def _finite(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Take pixels that are not numbers out of the valid mask, in place of the values too."""
    finite = np.isfinite(values).all(axis=0)
    if finite.all():
        return valid
    values[:, ~finite] = 0
    return np.asarray(finite if valid is None else finite & valid)


def stretch(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Map each band's `(low, high)` to 0 and 255, clipped; `(band, y, x)` of any type to uint8."""
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*levels, strict=True))
    scaled = (values.astype(np.float32) - low) * (255 / np.maximum(high - low, np.float32(1e-12)))
    stretched: NDArray[np.uint8] = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return stretched


def _measure_levels(scene: Scene) -> Levels:
    factor = max(1.0, max(scene.native.shape) / LEVEL_SAMPLE_PX)
    height, width = (max(1, round(n / factor)) for n in scene.native.shape)
    sample = scene.at_shape((height, width))
    pixels = sample.read(sample.grid.window)
    if not pixels.valid.any():
        return tuple((0.0, 1.0) for _ in scene.bands)
    low, high = np.percentile(pixels.values[:, pixels.valid], LEVEL_PERCENTILES, axis=1)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


_readers = threading.local()


def open_reader(source: str, level: int | None = None, *, files: Sequence[str] = ()) -> rasterio.DatasetReader:
    """Open a raster once per thread and keep the last few open; a file that was replaced is opened anew.

    Args:
        source: Path, URL or VRT.
        level: Overview to read instead of the full resolution, from 0.
        files: The files behind the source; the source itself by default.
    """
    cache: OrderedDict[tuple[object, ...], rasterio.DatasetReader] = _readers.__dict__.setdefault(
        "cache", OrderedDict()
    )
    files = files or (source,)
    key = (source, level, *map(_stamp, files))
    if key not in cache:
        with _gdal_env(files), quiet_georeference():
            cache[key] = rasterio.open(source) if level is None else rasterio.open(source, overview_level=level)
        while len(cache) > OPEN_READERS:
            cache.popitem(last=False)[1].close()
    cache.move_to_end(key)
    return cache[key]


def _stamp(source: str) -> tuple[int, int] | None:
    """Return a local file's time and size."""
    if source.startswith("<") or is_remote(source):
        return None
    try:
        stat = Path(source).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def close_readers() -> None:
    """Close the calling thread's open rasters, so that the files may be replaced or removed."""
    for reader in _readers.__dict__.pop("cache", {}).values():
        reader.close()


def gdal_options(source: str) -> dict[str, str]:
    """Return GDAL options for a source: a remote file is not searched for neighbours, and reads are retried."""
    return dict(REMOTE_ENV) if is_remote(source) else {}


@contextmanager
def _gdal_env(files: Sequence[str]) -> Iterator[None]:
    """Set GDAL's options for remote files, at opening and at every read: they hold for the calling thread only."""
    if not any(is_remote(file) for file in files):
        yield
        return
    with rasterio.Env(**REMOTE_ENV):
        yield


class _Silence:
    """Keeps rasterio quiet about missing georeference while anyone wants it.

    Python keeps its warning filters for the whole process: the first who comes changes them, the last who leaves puts
    them back. Nobody waits for another, as opening remote files takes its time.
    """

    def __init__(self) -> None:
        self.lock, self.wanted_by, self.filters = threading.Lock(), 0, warnings.catch_warnings()

    def enter(self) -> None:
        with self.lock:
            self.wanted_by += 1
            if self.wanted_by == 1:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.simplefilter("ignore", NotGeoreferencedWarning)

    def leave(self) -> None:
        with self.lock:
            self.wanted_by -= 1
            if self.wanted_by == 0:
                self.filters.__exit__(None, None, None)


_silence = _Silence()


@contextmanager
def quiet_georeference() -> Iterator[None]:
    """Silence rasterio about rasters without georeference: geoseg says it once, in `_grid_of`."""
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


def is_remote(path: str) -> bool:
    """Return True for URLs and GDAL's network file systems."""
    return urlparse(path).scheme in ("http", "https", "s3", "gs", "az") or path.startswith(
        ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz")
    )


def open_scene(paths: Paths, *, bands: Sequence[int] | None = None, crs: str | CRS | None = None) -> Scene:
    """Open one or several rasters as one scene; reads headers only.

    Args:
        paths: A raster, a URL, a folder of rasters, or several of these; several files of one grid become one scene.
        bands: One-based band numbers; by default red, green and blue as the file marks them, else the first three.
        crs: Coordinate reference system to use where the file has none.

    Raises:
        MissingFileError: If a file is not there.
        NotARasterError: If GDAL reads no raster from it.
        TruncatedFileError: If the file ends before its pixels do.
        SceneMismatchError: If several files do not share one grid.
        BandMismatchError: If the bands are not there.
        MissingCRSError: If `crs` cannot be understood.
    """
    files = list_files(paths)
    for file in files:
        _check_file(file)
    with _gdal_env(files), quiet_georeference():
        source = files[0] if len(files) == 1 else _join(files)
        with _open(source, files[0]) as src:
            return _describe(src, source, files, bands, parse_crs(crs) if crs is not None else None)


def _join(files: list[str]) -> str:
    """Return a VRT over several files, each of them whole."""
    for file in files:
        with _open(file, file) as src:
            _check_complete(src, file)
    return mosaic_vrt(files)


def list_files(paths: Paths) -> list[str]:
    """Return the files that `paths` name: folders are expanded, URLs kept as they are."""
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    if not named:
        raise UsageError("No scene was named. Name a raster file, a URL or a folder of rasters.")
    return [file for path in named for file in _expand(str(path))]


def _expand(path: str) -> list[str]:
    if is_remote(path) or path.startswith("/vsi") or not Path(path).is_dir():
        return [path]
    found = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in RASTER_SUFFIXES)
    if not found:
        raise MissingFileError(
            f"The folder {path} holds no raster ({', '.join(RASTER_SUFFIXES)}). "
            "Name the file itself if it has another suffix."
        )
    return found


def _check_file(path: str) -> None:
    if is_remote(path) or path.startswith("/vsi"):
        return
    if not Path(path).exists():
        raise MissingFileError(f"There is no file {path}. Check the path; the working folder is {Path.cwd()}.")
    if Path(path).stat().st_size == 0:
        raise TruncatedFileError(f"The file {path} is empty. Copy or download it again.")


def _open(source: str, name: str) -> rasterio.DatasetReader:
    try:
        return rasterio.open(source)
    except RasterioError as err:
        kind = MissingFileError if is_remote(name) else NotARasterError
        next_step = "Check the URL and the credentials" if is_remote(name) else "Check it with `gdalinfo`"
        raise kind(f"{name} cannot be opened as a raster ({err}). {next_step}.") from err


def parse_crs(text: str | CRS) -> CRS:
    """Understand a coordinate reference system.

    Raises:
        MissingCRSError: If nobody knows it.
    """
    try:
        return CRS.from_user_input(text)
    except (CRSError, ValueError) as err:
        raise MissingCRSError(f"--crs {text} is no coordinate reference system ({err}). Try EPSG:32630.") from err


def _describe(
    src: rasterio.DatasetReader, source: str, files: list[str], bands: Sequence[int] | None, crs: CRS | None
) -> Scene:
    name = Path(urlparse(files[0]).path if is_remote(files[0]) else files[0]).stem or "scene"
    if src.count == 0:
        raise NotARasterError(
            f"{files[0]} holds {len(src.subdatasets)} subdatasets and no bands of its own. "
            f"Name one of them: {', '.join(src.subdatasets[:3])}"
        )
    _check_complete(src, files[0])
    grid, data_bands = _grid_of(src, name, crs), _data_bands(src, name)
    scene = Scene(
        name=name,
        paths=tuple(files),
        source=source,
        native=grid,
        grid=grid,
        bands=tuple(bands) if bands else data_bands[:3],
        band_count=src.count,
        dtype=_dtype_of(src, name),
        nodata=src.nodata,
        has_mask=any(MaskFlags.all_valid not in flags for flags in src.mask_flag_enums),
        data_bands=data_bands,
        overviews=_overview_shapes(src, source),
    )
    return scene.with_bands(scene.bands)


def _dtype_of(src: rasterio.DatasetReader, name: str) -> str:
    if len(set(src.dtypes)) > 1 or np.dtype(src.dtypes[0]).kind not in "uif":
        raise NotARasterError(
            f"{name} has pixels of type {', '.join(sorted(set(src.dtypes)))}; real numbers of one type are expected. "
            "Convert it with `gdal_translate -ot UInt16`."
        )
    return str(src.dtypes[0])


def _data_bands(src: rasterio.DatasetReader, name: str) -> tuple[int, ...]:
    """Order the bands that are not alpha: red, green, blue first where the file marks them."""
    meaning = src.colorinterp
    if meaning[0] == ColorInterp.palette:
        raise BandMismatchError(
            f"{name} holds palette indices, not colours. Expand them with `gdal_translate -expand rgb IN OUT`."
        )
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    first = [meaning.index(colour) + 1 for colour in rgb] if all(colour in meaning for colour in rgb) else []
    others = [i for i, m in enumerate(meaning, 1) if m != ColorInterp.alpha and i not in first]
    return (*first, *others)


def _grid_of(src: rasterio.DatasetReader, name: str, crs: CRS | None) -> Grid:
    """Build the native grid; without a CRS, say so, and fall back to pixel coordinates where there is no transform."""
    transform, own = src.transform, src.crs
    if transform.is_identity and src.gcps[0]:
        raise MissingCRSError(
            f"{name} is placed by {len(src.gcps[0])} ground control points, not by a transform. "
            "Rectify it first: `gdalwarp -r bilinear IN OUT`."
        )
    if transform.is_identity and (own or crs):
        raise MissingCRSError(
            f"{name} has no transform that places its pixels, so the CRS {crs or own} alone cannot place it. "
            "Georeference it first (`gdal_translate -a_srs ... -a_ullr ...`), or run it without a CRS: "
            "the results are in pixel coordinates then."
        )
    if own is None and crs is None:
        log.warning(
            "%s has no CRS: its own pixels are used as they are and the results are in %s. %s",
            name,
            "pixel coordinates (x = column, y = -row)" if transform.is_identity else "its own coordinates",
            "" if transform.is_identity else "Give --crs EPSG:... if you know it.",
        )
    elif own is not None and crs is not None and own != crs:
        log.warning("%s says its CRS is %s; --crs %s is used instead.", name, own, crs)
    return _checked_gsd(Grid(crs or own, transform, src.shape), name)


def _checked_gsd(grid: Grid, name: str) -> Grid:
    """Refuse coordinates that do not lie in their CRS: degrees taken for metres, or places beyond the world."""
    low, high = PLAUSIBLE_GSD_M
    try:
        gsd_m = grid.gsd_m
    except RasterioError:  # PROJ knows no place for the coordinates
        gsd_m = math.nan, math.nan
    if gsd_m is not None and not all(low <= axis <= high for axis in gsd_m):
        raise MissingCRSError(
            f"{name} does not fit its CRS {grid.crs}: its bounds {tuple(round(b, 6) for b in grid.bounds)} "
            f"give pixels of {gsd_m[0]:.3g} x {gsd_m[1]:.3g} m on the ground. Give the right one with --crs."
        )
    return grid


def _overview_shapes(src: rasterio.DatasetReader, source: str) -> tuple[tuple[int, int], ...]:
    """Return the shape of every overview, in the file's order; COGs round it down and gdaladdo up, so each is asked."""
    shapes = []
    for level in range(len(src.overviews(1))):
        with rasterio.open(source, overview_level=level) as overview:
            shapes.append(overview.shape)
    return tuple(shapes)


def _check_complete(src: rasterio.DatasetReader, name: str) -> None:
    """Compare what a local TIFF's directories promise with the size of its file."""
    if src.driver not in ("GTiff", "COG") or is_remote(name) or not Path(name).is_file():
        return
    size, end = Path(name).stat().st_size, promised_size(name)
    if end > size:
        raise TruncatedFileError(
            f"{name} is cut short: its pixels reach to byte {end:,}, but it ends at {size:,}. "
            "Copy or download it again."
        )
