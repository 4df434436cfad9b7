"""GDAL and PROJ as geoseg calls them: errors, sources of VRTs that failed, PROJ's data, CRSs that place nothing."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, Structure, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pyproj
import rasterio
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from geoseg.errors import InstallationError, MissingCRSError

AnyCRS = TypeVar("AnyCRS")
"""A CRS of rasterio or of pyproj."""

try:
    from botocore.exceptions import BotoCoreError
except ImportError:
    CREDENTIAL_ERRORS: tuple[type[Exception], ...] = ()
else:
    CREDENTIAL_ERRORS = (BotoCoreError,)
"""What rasterio lets pass of boto3, which it asks for credentials where it is installed, such as of a profile that does
not exist."""

GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError, ProjError, SystemError, UnicodeDecodeError, *CREDENTIAL_ERRORS)
"""What rasterio and pyproj raise, which have no root of their own. GDAL's error codes (CPLE) pass through rasterio as
they are, some of its calls return nothing and raise a SystemError, and texts of damaged files are not in UTF-8."""


class HTTPResult(Structure):
    """The first fields of GDAL's answer over HTTP (`CPLHTTPResult` in `cpl_http.h`)."""

    _fields_ = (
        ("status", c_int),  # of curl
        ("content_type", c_char_p),
        ("error", c_char_p),
        ("size", c_int),
        ("allocated", c_int),
        ("data", c_void_p),
    )


GDAL_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "CPLErrorReset": (None, []),
    "CPLGetLastErrorMsg": (c_char_p, []),
    "CPLHTTPDestroyResult": (None, [POINTER(HTTPResult)]),
    "CPLHTTPFetch": (POINTER(HTTPResult), [c_char_p, c_void_p]),
    "CPLPopErrorHandler": (None, []),
    "CPLPushErrorHandler": (None, [c_void_p]),
    "CSLDestroy": (None, [POINTER(c_char_p)]),
    "GDALClose": (c_int, [c_void_p]),
    "GDALGetRasterBand": (c_void_p, [c_void_p, c_int]),
    "GDALOpen": (c_void_p, [c_char_p, c_int]),
    "GDALRasterIO": (c_int, [c_void_p, *[c_int] * 5, c_void_p, *[c_int] * 5]),
    "VSIErrorReset": (None, []),
    "VSIFCloseL": (c_int, [c_void_p]),
    "VSIFOpenExL": (c_void_p, [c_char_p, c_char_p, c_int]),
    "VSIFReadL": (c_size_t, [c_void_p, c_size_t, c_size_t, c_void_p]),
    "VSIFSeekL": (c_int, [c_void_p, c_uint64, c_int]),
    "VSIFTellL": (c_uint64, [c_void_p]),
    "VSIGetFileMetadata": (POINTER(c_char_p), [c_char_p, c_char_p, c_void_p]),
    "VSIGetLastErrorMsg": (c_char_p, []),
}
"""Functions of GDAL's C API that rasterio does not offer, with the types of what they return and take."""

POOL_SIZES = (1, 128, 256, 512, 1024)
"""Sources of VRTs that GDAL may keep: none while no VRT is read, 100 by default (`GDAL_MAX_DATASET_POOL_SIZE`)."""

GDT_BYTE = 1

PROJ_FOLDERS = ("PROJ_DATA", "PROJ_LIB")
"""Environment variables that name the folder of PROJ's data."""


@cache
def check_proj() -> None:
    """Check that PROJ can read its database. Without it, GDAL opens files and loses their CRS without an error.

    Raises:
        InstallationError: If it cannot, such as when an environment variable names the folder of another PROJ.
    """
    try:
        with rasterio.Env():
            CRS.from_epsg(4326)
    except GDAL_ERRORS as err:
        found = " and ".join(f"{name}={os.environ[name]}" for name in PROJ_FOLDERS if os.environ.get(name))
        next_step = "Install rasterio again."
        if found:
            next_step = f"The environment has {found}, the data of another installation: unset what names it."
        raise InstallationError(f"PROJ cannot read its database of coordinate systems ({err}). {next_step}") from err


def placed_crs(crs: AnyCRS | None) -> AnyCRS | None:
    """Return a CRS; None for one whose x and y are no place on Earth: only a name (LOCAL_CS), a height, geocentric.

    GDAL reads a CRS that it does not understand as a name, and the standard of GeoPackage has one for unknown CRSs.
    """
    if crs is None:
        return None
    known = pyproj.CRS.from_user_input(crs)
    parts = (known, *known.sub_crs_list)
    is_nowhere = known.type_name == "Vertical CRS" or any(part.is_engineering or part.is_geocentric for part in parts)
    return None if is_nowhere else crs


def name_crs(crs: Any) -> str:
    """Return the name of a CRS for a message: its code, or what it calls itself."""
    known = pyproj.CRS.from_user_input(crs)
    code = known.to_authority(min_confidence=100)
    return ":".join(code) if code else known.name


@contextmanager
def transforming(source: Any, target: Any) -> Iterator[None]:
    """Turn the errors of rasterio and pyproj between two CRSs into geoseg's.

    Raises:
        MissingCRSError: If PROJ knows no way from one to the other.
    """
    try:
        with rasterio.Env():  # else GDAL prints its errors as well
            yield
    except GDAL_ERRORS as err:
        raise MissingCRSError(
            f"Coordinates cannot be transformed from {name_crs(source)} to {name_crs(target)} ({first_line(err)}). "
            "Check both coordinate reference systems, or reproject the data with `gdalwarp` or `ogr2ogr`."
        ) from err


def first_line(err: Exception) -> str:
    """Return what an error says, without the definitions of CRSs that PROJ quotes."""
    text = str(err).split("{")[0].splitlines()
    return text[0].rstrip(" `'.:") if text and text[0].strip() else type(err).__name__


@contextmanager
def calling_gdal() -> Iterator[Any]:
    """Give GDAL's C API (`GDAL_FUNCTIONS`). Its errors are not printed, and not left for rasterio to raise later."""
    clear_errors()
    gdal = _load_gdal()
    gdal.CPLPushErrorHandler(ctypes.cast(gdal.CPLQuietErrorHandler, c_void_p))
    try:
        yield gdal
    finally:
        gdal.CPLPopErrorHandler()
        clear_errors()


def clear_errors() -> None:
    """Forget what GDAL left behind in this thread when a call failed: rasterio would raise it at the next one."""
    gdal = _load_gdal()
    gdal.CPLErrorReset()
    gdal.VSIErrorReset()


_absent = count()
"""Numbers of sources that do not exist, none of which was used before."""


def forget_failed_sources() -> None:
    """Make GDAL forget the sources of VRTs that it could not open: it would not try again, and would not say so.

    GDAL keeps the sources of all VRTs that are being read in one pool (`gcore/gdalproxypool.cpp`), also those that it
    could not open, each under its name, the thread and the address of its VRT in memory. Where it finds such a one,
    even for another VRT that was opened at that address, it fails without an error, and rasterio returns 0 or nodata.
    No function clears the pool, but it drops what was used longest ago: it is filled with sources that do not exist,
    until it has forgotten the first of them.
    """
    with calling_gdal() as gdal:
        for size in POOL_SIZES:
            absent = gdal.GDALOpen(_vrt_of_absent(size), 0)
            try:
                for column in range(size):
                    _says_why_it_fails(gdal, absent, column)
                if _says_why_it_fails(gdal, absent, 0):
                    return
            finally:
                gdal.GDALClose(absent)


def _vrt_of_absent(size: int) -> bytes:
    """Return a VRT with as many sources that do not exist, each for a pixel of its only row."""
    rect = 'yOff="0" xSize="1" ySize="1"'
    sources = "".join(
        f"<SimpleSource><SourceFilename>/vsimem/geoseg/absent/{next(_absent)}</SourceFilename><SourceBand>1</SourceBand>"
        f'<SrcRect xOff="0" {rect}/><DstRect xOff="{column}" {rect}/></SimpleSource>'
        for column in range(size)
    )
    band = f'<VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand>'
    return f'<VRTDataset rasterXSize="{size}" rasterYSize="1">{band}</VRTDataset>'.encode()


def _says_why_it_fails(gdal: Any, dataset: Any, column: int) -> bool:
    """Read a pixel of the first row, which cannot be read; return True if GDAL says so."""
    gdal.CPLErrorReset()
    pixel = ctypes.create_string_buffer(1)
    gdal.GDALRasterIO(gdal.GDALGetRasterBand(dataset, 1), 0, column, 0, 1, 1, pixel, 1, 1, GDT_BYTE, 0, 0)
    return bool(gdal.CPLGetLastErrorMsg())


@cache
def _load_gdal() -> Any:
    """Return the GDAL that rasterio has loaded, in which its options and its cache are."""
    folder = Path(rasterio.__file__).parent
    # A function is looked up in what a library is linked with as well, but on Windows only in itself.
    for place in (rasterio._env.__file__, *folder.parent.glob("rasterio.libs/gdal*.dll"), "gdal.dll"):
        with suppress(OSError, AttributeError):
            gdal = ctypes.CDLL(str(place))
            for name, (returned, taken) in GDAL_FUNCTIONS.items():
                function = getattr(gdal, name)
                function.restype, function.argtypes = returned, taken
            return gdal
    raise InstallationError(
        "The GDAL inside rasterio does not show its functions. Install rasterio from PyPI or conda-forge."
    )
