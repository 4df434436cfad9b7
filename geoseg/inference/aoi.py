"""The area a user asked for, in the scene's pixels."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geoseg.errors import AOIError, OutsideAOIError
from geoseg.gdal import transforming
from geoseg.grid import Grid, Window
from geoseg.io.vectors import format_bounds, in_crs_of, keep_placed_crs, read_polygons, to_pixels
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
    """Polygons in pixel coordinates `(x = col, y = row)` of a scene's working grid."""

    polygons: BaseGeometry

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
    if frame.crs is None and grid.crs is not None and not isinstance(area, BaseGeometry):
        log.warning(
            "The AOI%s has no CRS: its coordinates are taken to be in the scene's, %s. "
            "If that is wrong, assign its CRS.",
            name,
            grid.crs,
        )
    whole = shapely.union_all(shapely.make_valid(in_crs_of(frame, grid).geometry.values))
    aoi = AOI(to_pixels(whole, grid))
    if not aoi.touches(grid.window):
        raise OutsideAOIError(
            f"The AOI{name} lies outside the scene: its bounds are {format_bounds(whole.bounds)} in the scene's CRS, "
            f"the scene's {format_bounds(grid.bounds)}. Check the CRS of both."
        )
    return aoi


def read_aoi_bounds(area: "Area", *, where: str | None = None) -> tuple[float, float, float, float] | None:
    """Return the bounds of an AOI as west, south, east, north in degrees (EPSG:4326); None where it has no CRS.

    Raises:
        AOIError: If the file cannot be read or holds no polygon.
    """
    frame, _ = _read_area(area, where)
    if frame.crs is None:
        return None
    with transforming(frame.crs, 4326):
        west, south, east, north = (float(value) for value in frame.to_crs(4326).total_bounds)
    return west, south, east, north


def _read_area(area: "Area", where: str | None) -> "tuple[GeoDataFrame, str]":
    """Return the polygons of an area, and its name for messages, if it has one."""
    import geopandas

    if isinstance(area, str | Path):
        frame, name = read_polygons(area, what="AOI", error=AOIError, where=where, any_layer=True), f" {area}"
    else:
        rows = geopandas.GeoSeries([area]) if isinstance(area, BaseGeometry) else area.geometry
        if where is not None:
            raise AOIError(f"`aoi_where={where}` selects features of a file. Filter a GeoDataFrame before the call.")
        frame, name = rows[rows.geom_type.isin(["Polygon", "MultiPolygon"])].to_frame("geometry"), ""
        frame = keep_placed_crs(frame)
    if frame.empty:
        raise AOIError(f"The AOI{name} holds no polygon{f' where {where}' if where else ''}. Draw at least one.")
    return frame, name
