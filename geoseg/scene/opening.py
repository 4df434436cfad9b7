"""Opening: headers are read, and everything that can be checked is checked before any work."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterWindow

from geoseg.errors import BandMismatchError, MissingCRSError, MissingFileError, NotARasterError, UsageError
from geoseg.gdal import GDAL_ERRORS, check_proj, clear_errors, name_crs, placed_crs
from geoseg.grid import Grid
from geoseg.io.remote import is_remote
from geoseg.scene.bands import colors_of, is_mask, order_bands
from geoseg.scene.files import Paths, check_file, gdal_env, list_files, open_raster, path_of
from geoseg.scene.georeference import exif_turn, read_grid
from geoseg.scene.pictures import check_picture
from geoseg.scene.scene import NO_OVERVIEW, Scene
from geoseg.scene.tiff import check_complete, check_directories, check_mask, has_unusual_tables
from geoseg.scene.vrt import check_bands, check_sources, mosaic_vrt
from geoseg.third_party import allow_no_georeference

log = logging.getLogger("geoseg.scene")

ALPHA_FILES = 9
"""Most of several files of one scene whose alpha band is sampled."""

PLAUSIBLE_GSD_M = (1e-3, 1e5)
"""Meters per pixel outside which coordinates and CRS cannot belong together."""


def open_scene(
    paths: Paths,
    *,
    bands: Sequence[int] | None = None,
    crs: str | CRS | None = None,
    nodata: float | None = None,
    alpha: bool | None = None,
) -> Scene:
    """Open one or several rasters as one scene; reads headers, and samples of an alpha band.

    Args:
        paths: A raster, a URL, a folder of rasters, or several of these; several files of one grid become one scene.
        bands: One-based band numbers; by default red, green and blue as the file names or marks them, else the first
            three.
        crs: Coordinate reference system to use where the file has none.
        nodata: Nodata value that counts instead of the file's. Mask and alpha bands still count.
        alpha: True if a band that is marked alpha is a mask, False if it is an image; found out by default, from its
            name and its values.

    Raises:
        MissingFileError: If a file is not there.
        NotARasterError: If GDAL reads no raster from it.
        TruncatedFileError: If the file ends before its pixels do.
        SceneMismatchError: If several files do not share one grid.
        BandMismatchError: If the bands are not there.
        MissingCRSError: If `crs` cannot be understood, or the file's CRS does not fit its coordinates.
        GeoreferenceError: If the transform gives the pixels no place or no area.
        InstallationError: If PROJ cannot read its data.
        UsageError: If pixels cannot have the value `nodata`.
    """
    check_proj()
    files = list_files(paths)
    for file in files:
        check_file(file)
        check_directories(file)
        check_sources(file)
    with gdal_env(files), allow_no_georeference():
        source = files[0]
        if len(files) > 1:
            for file in files:
                with _open(file, file) as src:
                    _check_complete(src, file)
            for file in files[:: math.ceil(len(files) / ALPHA_FILES)]:
                with _open(file, file) as src:
                    alpha = _has_alpha(src, file, alpha)
            alpha = alpha is not False
            source = mosaic_vrt(files, nodata, has_alpha=alpha)
        with _open(source, files[0]) as src:
            given = parse_crs(crs) if crs is not None else None
            return _describe(src, source, files, bands, given, nodata, alpha)


def _open(source: str, name: str, **options: int) -> rasterio.DatasetReader:
    try:
        return open_raster(source, **options)
    except GDAL_ERRORS as err:
        kind = MissingFileError if is_remote(name) else NotARasterError
        next_step = "Check it with `gdalinfo`"
        if is_remote(name):
            is_whole_only = "Range downloading not supported" in str(err)
            next_step = "Download it and name the copy" if is_whole_only else "Check the URL and the credentials"
        raise kind(f"{name} cannot be opened as a raster ({err}). {next_step}.") from err


def parse_crs(text: str | CRS, argument: str = "crs") -> CRS:
    """Parse a coordinate reference system; errors name the argument that gave it.

    Raises:
        MissingCRSError: If it is not known, or places nothing on Earth.
        InstallationError: If PROJ cannot read its data.
    """
    check_proj()
    if isinstance(text, str) and not text.strip():
        raise MissingCRSError(f"`{argument}` is empty. Give a coordinate reference system, such as EPSG:32630.")
    try:
        with rasterio.Env():
            crs = CRS.from_user_input(text)
    except (*GDAL_ERRORS, ValueError) as err:
        raise MissingCRSError(
            f"`{argument}={text}` is not a coordinate reference system ({err}). Give one such as EPSG:32630."
        ) from err
    if placed_crs(crs) is None:
        raise MissingCRSError(
            f"`{argument}` is the CRS {name_crs(crs)}, whose x and y are no place on Earth. "
            "Give one such as EPSG:32630."
        )
    return crs


def _describe(
    src: rasterio.DatasetReader,
    source: str,
    files: list[str],
    bands: Sequence[int] | None,
    crs: CRS | None,
    nodata: float | None,
    alpha: bool | None,
) -> Scene:
    name = path_of(files[0]).stem or "scene"
    if src.count == 0:
        raise NotARasterError(
            f"{files[0]} holds {len(src.subdatasets)} subdatasets and no bands of its own. "
            f"Name one of them: {', '.join(src.subdatasets[:3])}"
        )
    _check_complete(src, files[0])
    check_bands(src, files[0])
    if turn := exif_turn(src):
        log.warning(
            "%s has the EXIF orientation %s, by which viewers turn it. Its pixels are read as they are stored, so "
            "masks that were drawn on the turned picture do not fit. Turn the pixels first: mogrify -auto-orient FILE.",
            *(name, turn),
        )
    grid = _grid_of(src, name, crs)
    alpha = _has_alpha(src, name, alpha)
    data_bands = _data_bands(src, name, has_alpha=alpha is not False)
    if len(set(src.dtypes)) > 1 or np.dtype(src.dtypes[0]).kind not in "uif":
        raise NotARasterError(
            f"{name} has pixels of type {', '.join(sorted(set(src.dtypes)))}; real numbers of one type are expected. "
            "Convert it with `gdal_translate -ot UInt16`."
        )
    if nodata is not None:
        _check_nodata(nodata, np.dtype(src.dtypes[0]), name)
    given = nodata if source == files[0] else None  # a VRT of several files declares it
    uses_alpha = alpha is not False or ColorInterp.alpha not in src.colorinterp
    told = (band for band in src.mask_flag_enums if uses_alpha or MaskFlags.alpha not in band)
    flags = {flag for band in told for flag in band} - {MaskFlags.all_valid}
    overviews = []
    try:
        levels = len(src.overviews(1))
    except ZeroDivisionError as err:  # rasterio divides by the size of each
        raise NotARasterError(
            f"{name} names overviews that cannot be opened. Remove them from it, or build it again with `gdalbuildvrt`."
        ) from err
    for level in range(levels):  # COGs round their shapes down and gdaladdo up, so each is opened
        with _open(source, name, overview_level=level) as overview:
            lacks_mask = bool(flags) and all(each == [MaskFlags.all_valid] for each in overview.mask_flag_enums)
            overviews.append(NO_OVERVIEW if lacks_mask else overview.shape)
    if NO_OVERVIEW in overviews:
        log.info("%s: its overviews have no mask, unlike its pixels, so they are not used.", name)
    scene = Scene(
        name=name,
        paths=tuple(files),
        source=source,
        native=grid,
        grid=grid,
        bands=tuple(bands) if bands else data_bands[:3],
        band_count=src.count,
        dtype=str(src.dtypes[0]),
        nodata=src.nodata,
        has_mask=bool(flags) or given is not None,
        file_has_mask=bool(flags),
        given_nodata=given,
        uses_alpha=uses_alpha,
        data_bands=data_bands,
        overviews=tuple(overviews),
    )
    return scene.with_bands(scene.bands)


def _check_nodata(nodata: float, dtype: np.dtype[Any], name: str) -> None:
    """Refuse a nodata value that no pixel can have."""
    if dtype.kind == "f":
        return
    limits = np.iinfo(dtype)
    if not (float(nodata).is_integer() and limits.min <= nodata <= limits.max):
        raise UsageError(
            f"{name} has pixels of type {dtype}, whole numbers from {limits.min} to {limits.max}, so none has the "
            f"value of `nodata={nodata:.15g}`. Give a value that its pixels have."
        )


def _has_alpha(src: rasterio.DatasetReader, name: str, alpha: bool | None) -> bool | None:
    """Return False if a band is marked alpha, but is an image; log a warning where nobody said so.

    Args:
        src: The raster.
        name: Its name, for messages.
        alpha: What is known: True or False, or None.
    """
    if alpha is not None or ColorInterp.alpha not in src.colorinterp:
        return alpha
    try:
        if is_mask(src):
            return None
    except GDAL_ERRORS:  # reading the blocks will report it
        clear_errors()
        return None
    log.warning(
        "%s: band %d is marked as alpha, but holds an image, such as near infrared: it is a band like the others and "
        "no mask. Give `alpha=False` to confirm that, or `alpha=True` if it is a mask.",
        name,
        src.colorinterp.index(ColorInterp.alpha) + 1,
    )
    return False


def _data_bands(src: rasterio.DatasetReader, name: str, *, has_alpha: bool) -> tuple[int, ...]:
    """Order the bands that are not alpha: red, green, blue first where the file names or marks them."""
    if src.colorinterp[0] == ColorInterp.palette:
        raise BandMismatchError(
            f"{name} holds palette indices, not colors. Expand them with `gdal_translate -expand rgb IN OUT`."
        )
    return order_bands(colors_of(src, has_alpha=has_alpha))


def _grid_of(src: rasterio.DatasetReader, name: str, crs: CRS | None) -> Grid:
    """Build the native grid; without a CRS, warn, and use pixel coordinates where there is no transform."""
    transform, own, grid = src.transform, placed_crs(src.crs), read_grid(src, name, crs)
    if transform.is_identity and src.gcps[0]:
        raise MissingCRSError(
            f"{name} is placed by {len(src.gcps[0])} ground control points, not by a transform. "
            "Rectify it first: `gdalwarp -r bilinear IN OUT`."
        )
    if transform.is_identity and src.rpcs is not None:
        raise MissingCRSError(
            f"{name} is placed by rational polynomial coefficients (RPC), not by a transform. "
            "Rectify it first, with a height model if you have one: `gdalwarp -rpc -r bilinear -to RPC_DEM=DEM IN OUT`."
        )
    if transform.is_identity and (own or crs):
        raise MissingCRSError(
            f"{name} has no transform that places its pixels, so the CRS {crs or own} alone cannot place it. "
            "Georeference it first (`gdal_translate -a_srs ... -a_ullr ...`), or run it without a CRS: "
            "the results are in pixel coordinates then."
        )
    if own is None and crs is None:
        log.warning(
            "%s has %s: its own pixels are used as they are and the results are in %s. %s",
            name,
            "no CRS" if src.crs is None else f"the CRS {name_crs(src.crs)}, which is not of a place on Earth",
            "pixel coordinates (x = column, y = -row)" if transform.is_identity else "its own coordinates",
            "" if transform.is_identity else "Give `crs` if you know it.",
        )
    elif src.crs is not None and crs is not None and src.crs != crs:
        log.warning("%s has the CRS %s in its file; `crs=%s` is used instead.", name, name_crs(src.crs), crs)
    low, high = PLAUSIBLE_GSD_M
    try:
        gsd_m, cause = grid.gsd_m, None
    except MissingCRSError as err:  # PROJ knows no place for the coordinates
        gsd_m, cause = (math.nan, math.nan), err
    if gsd_m is not None and not all(low <= axis <= high for axis in gsd_m):  # degrees taken for meters, say
        raise MissingCRSError(
            f"{name} does not fit its CRS {name_crs(grid.crs)}: "
            f"its bounds {tuple(round(b, 6) for b in grid.bounds)} "
            + ("have no place on Earth in it. " if cause else f"give pixels of {gsd_m[0]:.3g} x {gsd_m[1]:.3g} m. ")
            + "Give the right one with `crs`."
        ) from cause
    return grid


def _check_complete(src: rasterio.DatasetReader, name: str) -> None:
    check_picture(name, src.driver)
    if src.driver in ("GTiff", "COG"):
        check_complete(name)
        if has_unusual_tables(name):
            _check_readable(src, name)
        if is_remote(name) and not any(MaskFlags.per_dataset in flags for flags in src.mask_flag_enums):
            check_mask(name)


def _check_readable(src: rasterio.DatasetReader, name: str) -> None:
    """Refuse a raster of which GDAL cannot read the last pixel."""
    try:
        src.read(1, window=RasterWindow(src.width - 1, src.height - 1, 1, 1))
    except GDAL_ERRORS as err:
        clear_errors()
        raise NotARasterError(
            f"{name} says where its pixels lie in numbers of a type that GDAL does not read. Write it again with the "
            "program that made it, as another kind of TIFF or in another format."
        ) from err
