"""Files of building polygons, brought to the pixels of the scored grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import GeosegError, LabelError
from geoseg.evaluate.layers import Bytes
from geoseg.evaluate.shapes import PolygonArray, tidy_polygons
from geoseg.grid import Grid, Window
from geoseg.io.vectors import format_bounds, in_crs_of, read_polygons, to_pixels

CONFIDENCE_COLUMNS = ("confidence", "score", "probability")
"""Columns that are taken for the confidence of a footprint where none is named, in this order."""


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """Buildings of a file.

    Attributes:
        polygons: In pixels of the scored grid, x = column and y = row, valid, `(building,)`.
        confidence: `(building,)`, or None where the file says none.
    """

    polygons: PolygonArray
    confidence: NDArray[np.float64] | None = None

    def burn(self, window: Window) -> Bytes:
        """Return 1 where a building holds a pixel's centre, else 0, `(y, x)`."""
        from affine import Affine
        from rasterio.features import rasterize

        from geoseg.silence import quiet_georeference

        box = shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop)
        here = self.polygons[np.sort(shapely.STRtree(self.polygons).query(box))]
        if not len(here):
            return np.zeros(window.shape, np.uint8)
        place = Affine.translation(window.col, window.row)
        with quiet_georeference():
            return np.asarray(rasterize(here.tolist(), window.shape, transform=place, dtype="uint8"), np.uint8)

    def is_on(self, grid: Grid) -> bool:
        """Return True where any building touches the grid."""
        extent = shapely.box(0, 0, grid.width, grid.height)
        return bool(shapely.intersects(self.polygons, extent).any())


def read_footprints(
    path: Path, grid: Grid, *, what: str, error: type[GeosegError], layer: str = "", confidence: str | None = None
) -> Footprints:
    """Read the buildings of a vector file that lie around a grid.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, GeoParquet or whatever GDAL reads, in any CRS.
        grid: The scored grid.
        what: What the file is, for messages.
        error: Which error to raise.
        layer: Layer of a file that has several with geometry.
        confidence: Column with the confidence; one of `CONFIDENCE_COLUMNS` by default.

    Raises:
        GeosegError: `error`, if the file cannot be read, has no CRS where the grid has one, lacks the column, or lies
            elsewhere: the message has both extents.
    """
    frame = read_polygons(path, what=what, error=error, layer=layer, near=grid)
    if frame.crs is None and grid.crs is not None:
        raise error(f"The {what} {path} have no CRS, the scene has {grid.crs}. Say which with `ogr2ogr -a_srs`.")
    column = _confidence_column(path, frame, confidence, error)
    polygons, kept = tidy_polygons(np.asarray(to_pixels(in_crs_of(frame, grid).geometry.to_numpy(), grid), object))
    values = None if column is None else np.asarray(frame[column], np.float64)[kept]
    return Footprints(polygons, values)


def say_elsewhere(path: Path, grid: Grid, what: str, layer: str = "") -> str:
    """Return the message that a file lies elsewhere, with both extents."""
    frame = read_polygons(path, what=what, error=LabelError, layer=layer)
    extent = f"its extent is {format_bounds(frame.total_bounds)} in {frame.crs}"
    found = extent if len(frame) else "it holds no polygon"
    return (
        f"No polygon of the {what} {path} touches the scene: {found}; the scene's extent is "
        f"{format_bounds(grid.bounds)} in {grid.crs or 'pixels'}. Check that both show the same place."
    )


def _confidence_column(path: Path, frame: Any, named: str | None, error: type[GeosegError]) -> str | None:
    if named is not None and named not in frame.columns:
        raise error(f"{path} has no column {named!r}. It has {', '.join(map(str, frame.columns))}.")
    found = [column for column in CONFIDENCE_COLUMNS if column in frame.columns]
    return named or (found[0] if found else None)
