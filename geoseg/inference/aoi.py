"""The area a user asked for, in the scene's pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geoseg.errors import AOIError, OutsideAOIError
from geoseg.grid import Grid, Window
from geoseg.io.vectors import format_bounds, in_crs_of, read_polygons, to_pixels
from geoseg.silence import quiet_georeference

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


@dataclass(frozen=True, slots=True)
class AOI:
    """Polygons in pixel coordinates `(x = col, y = row)` of a scene's working grid."""

    polygons: BaseGeometry

    def touches(self, window: Window) -> bool:
        """Return True where a window and the area share any ground."""
        return bool(self.polygons.intersects(_box(window)))

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Return `(y, x)`, True for the pixels whose centre lies in the area."""
        from rasterio.features import geometry_mask

        here = _polygons(self.polygons.intersection(_box(window)))
        if not here:
            return np.zeros(window.shape, bool)
        shift = Affine.translation(window.col, window.row)
        with quiet_georeference():
            return np.asarray(geometry_mask(here, window.shape, shift, invert=True), bool)


def _polygons(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the polygons of a geometry; lines and points, where an area only touches, would burn pixels."""
    return [part for part in shapely.get_parts(geometry, return_index=False) if part.geom_type == "Polygon"]


def _box(window: Window) -> BaseGeometry:
    return shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop)


def read_aoi(path: str | Path, grid: Grid, *, where: str | None = None) -> AOI:
    """Read the polygons of a vector file in any CRS.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or whatever GDAL reads.
        grid: The scene's working grid.
        where: OGR attribute filter, such as `split = 'test'`.

    Raises:
        AOIError: If the file cannot be read or holds no polygon.
        OutsideAOIError: If the polygons lie outside the scene.
    """
    frame = in_crs_of(_read_area(path, where), grid)
    area = shapely.union_all(shapely.make_valid(frame.geometry.values))
    aoi = AOI(to_pixels(area, grid))
    if not aoi.touches(grid.window):
        raise OutsideAOIError(
            f"The AOI {path} lies outside the scene: its bounds are {format_bounds(area.bounds)} in the scene's CRS, "
            f"the scene's {format_bounds(grid.bounds)}. Check the CRS of both files."
        )
    return aoi


def read_aoi_bounds(path: str | Path, *, where: str | None = None) -> tuple[float, float, float, float] | None:
    """Return the bounds of an AOI as west, south, east, north in degrees (EPSG:4326); None where it has no CRS.

    Raises:
        AOIError: If the file cannot be read or holds no polygon.
    """
    frame = _read_area(path, where)
    if frame.crs is None:
        return None
    west, south, east, north = (float(value) for value in frame.to_crs(4326).total_bounds)
    return west, south, east, north


def _read_area(path: str | Path, where: str | None) -> "GeoDataFrame":
    frame = read_polygons(path, what="AOI", error=AOIError, where=where, any_layer=True)
    if frame.empty:
        raise AOIError(f"The AOI {path} holds no polygon{f' where {where}' if where else ''}. Draw at least one.")
    return frame
