"""The area a user asked for, in the scene's pixels."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from geoseg.errors import AOIError, OutsideAOIError
from geoseg.gdal import name_crs
from geoseg.grid import Grid, Window
from geoseg.io.datum import DatumShift, check_shift
from geoseg.io.reproject import areal_parts, in_degrees, repaired
from geoseg.io.vectors import (
    describe_bounds,
    format_bounds,
    hint_mirrored,
    in_crs_of,
    only_polygons,
    read_polygons,
    to_pixels,
)
from geoseg.third_party import allow_no_georeference

if TYPE_CHECKING:
    from geopandas import GeoDataFrame, GeoSeries

log = logging.getLogger(__name__)

Area = Union[str, Path, BaseGeometry, "GeoDataFrame", "GeoSeries"]  # `|` takes no strings
"""The area a caller asks for: a vector file or a frame, in any CRS, or a geometry in the scene's CRS.

A file or frame without a CRS is taken to be in the scene's, with a warning.
"""


@dataclass(frozen=True, slots=True)
class AOI:
    """Polygons in pixel coordinates `(x = col, y = row)` of a scene's working grid.

    Attributes:
        polygons: The polygons.
        shift: How they came from their own CRS into that of the scene; None if both have the same one, or one has none.
    """

    polygons: BaseGeometry
    shift: DatumShift | None = None

    def touches(self, window: Window) -> bool:
        """Return True where a window and the area share any ground."""
        return bool(self.polygons.intersects(_box(window)))

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Return `(y, x)`, True for the pixels whose center lies in the area."""
        from rasterio.features import geometry_mask

        parts = shapely.get_parts(self.polygons.intersection(_box(window)), return_index=False)
        here = [part for part in parts if part.geom_type == "Polygon"]  # where the area only touches: lines and points
        if not here:
            return np.zeros(window.shape, bool)
        shift = Affine.translation(window.col, window.row)
        with allow_no_georeference():
            return np.asarray(geometry_mask(here, window.shape, shift, invert=True), bool)


def _box(window: Window) -> BaseGeometry:
    return shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop)


def read_aoi(area: "Area", grid: Grid, *, where: str | None = None) -> AOI:
    """Bring an area to the pixels of a scene.

    Args:
        area: See `Area`.
        grid: The scene's working grid.
        where: OGR attribute filter, such as `split = 'test'`.

    Raises:
        AOIError: If the file cannot be read or holds no polygon.
        OutsideAOIError: If the polygons lie outside the scene.
    """
    frame, name = _read_area(area, where)
    with _overlaying(name):
        return _place(frame, name, area, grid)


def _place(frame: "GeoDataFrame", name: str, area: "Area", grid: Grid) -> AOI:
    """Bring the polygons of an area to the pixels of a scene; see `read_aoi`."""
    if frame.crs is None and grid.crs is not None and not isinstance(area, BaseGeometry):
        log.warning(
            "The AOI%s has no CRS: its coordinates are taken to be in the scene's, %s. "
            "If that is wrong, assign its CRS.",
            name,
            grid.crs,
        )
    shift = check_shift(f"AOI{name}", frame.crs, grid)
    with np.errstate(over="ignore", invalid="ignore"):  # of absurd coordinates, which lie outside
        placed = repaired(in_crs_of(frame, grid, f"AOI{name}").geometry.to_numpy())
        aoi = AOI(to_pixels(shapely.union_all(placed), grid), shift)
        is_here = aoi.touches(grid.window)
    if not is_here:
        raise OutsideAOIError(
            f"The AOI{name} lies outside the scene: its bounds are {describe_bounds(frame, grid)}. Check the CRS of "
            f"both.{hint_mirrored(frame.total_bounds, grid)}"
        )
    return aoi


def read_aoi_bounds(area: "Area", *, where: str | None = None) -> tuple[float, float, float, float] | None:
    """Return the bounds of an AOI in degrees (EPSG:4326); None where it has no CRS.

    Returns:
        West, south, east, north; west is greater than east across the antimeridian.

    Raises:
        AOIError: If the file cannot be read, or holds no polygon on Earth.
    """
    frame, name = _read_area(area, where)
    if frame.crs is None:
        return None
    with _overlaying(name):
        parts = areal_parts(in_degrees(frame.geometry.to_numpy(), frame.crs))
    if not len(parts):
        raise AOIError(
            f"The AOI{name} covers no ground: its bounds are {format_bounds(frame.total_bounds)} in "
            f"{name_crs(frame.crs)}. Check its CRS and its coordinates."
        )
    west, south, east, north = (float(value) for value in shapely.total_bounds(parts))
    left, _, right, _ = shapely.bounds(parts).T
    is_western = right <= 0
    from_0, to_360 = float((left + 360 * is_western).min()), float((right + 360 * is_western).max())
    if to_360 > 180 > to_360 - 180 and to_360 - from_0 < east - west:
        west, east = from_0, to_360 - 360
    return west, south, east, north


@contextmanager
def _overlaying(name: str) -> Iterator[None]:
    """Turn the errors of GEOS into geoseg's.

    Raises:
        AOIError: If GEOS cannot cut or join the polygons.
    """
    try:
        yield
    except GEOSException as err:
        raise AOIError(f"The AOI{name} has polygons that cannot be used ({err}). Repair or draw them again.") from err


def _read_area(area: "Area", where: str | None) -> "tuple[GeoDataFrame, str]":
    """Return the polygons of an area, and its name for messages, if it has one."""
    import geopandas

    if isinstance(area, str | Path):
        frame, name = read_polygons(area, what="AOI", error=AOIError, where=where), f" {area}"
    else:
        rows = geopandas.GeoSeries([area]) if isinstance(area, BaseGeometry) else area.geometry
        if where is not None:
            raise AOIError(f"`aoi_where={where}` selects features of a file. Filter a GeoDataFrame before the call.")
        frame, name = only_polygons(rows.to_frame("geometry"), "AOI", AOIError), ""
    if frame.empty:
        raise AOIError(f"There is no polygon in the AOI{name}{f' where {where}' if where else ''}. Draw at least one.")
    return frame, name
