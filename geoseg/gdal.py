"""GDAL and PROJ as geoseg calls them: their errors, whether PROJ finds its data, and CRSs that place nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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

GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError, ProjError, SystemError, UnicodeDecodeError)
"""What rasterio and pyproj raise, which have no root of their own. GDAL's error codes (CPLE) pass through rasterio as
they are, some of its calls return nothing and raise a SystemError, and texts of damaged files are not in UTF-8."""

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
