"""Where a raster says that its pixels lie: its CRS and its transform, checked before anything is computed with them."""

import math
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.env import get_gdal_config

from geoseg.errors import GeoreferenceError
from geoseg.gdal import check_proj, placed_crs
from geoseg.grid import Grid
from geoseg.io.datum import warn_once

PLAUSIBLE_STEP = (1e-9, 1e9)
"""Length of a pixel's sides, in units of the coordinates, outside which nothing can be meant by it."""

STEP_OF_COORDINATES = 1e-12
"""Smallest pixel as a share of the coordinates: they have 16 digits, of which corners within pixels need some."""

FLATTEST = 1e-3
"""Sine of the angle between rows and columns below which pixels have no area."""


def read_grid(src: Any, name: str, crs: CRS | None = None) -> Grid:
    """Return the grid of an open raster; without CRS and transform it is a picture.

    A CRS that is no place on Earth counts as none.

    Args:
        src: A raster that rasterio has opened.
        name: What messages call it.
        crs: CRS that counts instead of the raster's own.

    Raises:
        GeoreferenceError: If the transform gives the pixels no place or no area.
        InstallationError: If PROJ cannot read its data.
    """
    check_proj()
    check_transform(src.transform, src.shape, name)
    ignored = str(get_gdal_config("GTIFF_POINT_GEO_IGNORE")).upper() in ("YES", "TRUE", "ON", "1")
    if ignored and src.tags().get("AREA_OR_POINT") == "Point":
        warn_once(
            f"{name}: its coordinates are those of pixel centers, but GTIFF_POINT_GEO_IGNORE in the environment makes "
            "GDAL take them for corners: everything lies half a pixel to the lower right. Unset it."
        )
    return Grid.of_raster(crs or placed_crs(src.crs), src.transform, src.shape)


def exif_turn(src: Any) -> str:
    """Return the EXIF orientation of a picture that viewers turn or mirror, which geoseg does not; "" of all others."""
    found = str(src.tags().get("EXIF_Orientation", "1")).strip()
    return found if found in tuple("2345678") and src.crs is None else ""


def check_transform(transform: Affine, shape: tuple[int, int], name: str) -> None:
    """Check that a transform gives pixels a place and an area.

    Raises:
        GeoreferenceError: If it does not.
    """
    a, b, c, d, e, f = transform[:6]
    sides = math.hypot(a, d), math.hypot(b, e)
    reach = max(abs(c), abs(f)) + max(shape) * max(sides)
    low, high = max(PLAUSIBLE_STEP[0], STEP_OF_COORDINATES * reach), PLAUSIBLE_STEP[1]
    if not np.isfinite(transform[:6]).all():
        found = "holds numbers that are not finite"
    elif abs(a * e - b * d) <= FLATTEST * sides[0] * sides[1]:
        found = "gives pixels no area"
    elif not all(low <= side <= high for side in sides):
        found = f"gives pixels of {sides[0]:.3g} x {sides[1]:.3g} units at coordinates up to {reach:.3g}"
    else:
        return
    raise GeoreferenceError(
        f"{name} has the transform {tuple(float(v) for v in transform[:6])}, which {found}. Expected the size of a "
        "pixel and a corner: georeference it again, such as with `gdal_translate -a_ullr WEST NORTH EAST SOUTH IN OUT`."
    )
