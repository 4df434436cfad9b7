"""Files of building polygons, brought to the pixels of the scored grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import GeosegError
from geoseg.evaluate.layers import Bytes
from geoseg.evaluate.shapes import PolygonArray, tidy_polygons
from geoseg.grid import Grid, Window

CONFIDENCE_COLUMNS = ("confidence", "score", "probability")
"""Columns that are taken for the confidence of a footprint where none is named, in this order."""

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".png", ".jp2", ".jpg", ".jpeg", ".img", ".bmp", ".gif")


def is_raster(path: Path) -> bool:
    """Return True for the suffix of a raster."""
    return path.suffix.lower() in RASTER_SUFFIXES


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
    if not path.exists():
        raise error(f"There is no file {path} with {what}. Check the path; the working folder is {Path.cwd()}.")
    frame = _read_frame(path, grid, what, error, layer)
    if frame.crs is None and grid.crs is not None:
        raise error(f"The {what} {path} have no CRS, the scene has {grid.crs}. Say which with `ogr2ogr -a_srs`.")
    column = _confidence_column(path, frame, confidence, error)
    geometry = _to_pixels(frame, grid)
    polygons, kept = tidy_polygons(geometry)
    values = None if column is None else np.asarray(frame[column], np.float64)[kept]
    return Footprints(polygons, values)


def say_elsewhere(path: Path, grid: Grid, what: str, layer: str = "") -> str:
    """Return the message that a file lies elsewhere, with both extents."""
    found = _total_bounds(path, layer)
    return (
        f"No polygon of the {what} {path} touches the scene: {found}; the scene's extent is {_numbers(grid.bounds)} in "
        f"{grid.crs or 'pixels'}. Check that both show the same place."
    )


def _read_frame(path: Path, grid: Grid, what: str, error: type[GeosegError], layer: str) -> Any:
    import geopandas

    try:
        if path.suffix.lower() == ".parquet":
            frame = geopandas.read_parquet(path)
        else:
            frame = geopandas.read_file(path, layer=_layer(path, layer), bbox=_box_in_file(path, grid, layer))
    except Exception as err:  # pyogrio and pyarrow raise several types without a common root
        raise error(f"The {what} {path} cannot be read ({err}). Give a vector file with polygons.") from err
    if "geometry" not in frame:
        raise error(f"The {what} {path} have no geometry. Give a vector file with polygons.")
    frame = frame[frame.geometry.notna()]
    return frame[frame.geom_type.isin(["Polygon", "MultiPolygon", "GeometryCollection"])]


def _layer(path: Path, layer: str) -> str:
    """Return the layer that is named, or the only one with geometry."""
    from pyogrio import list_layers

    names = [str(name) for name, kind in list_layers(path) if kind is not None]
    if layer and layer not in names:
        raise ValueError(f"it has the layers {', '.join(names)}, not {layer}")
    if not layer and len(names) != 1:
        raise ValueError(f"it has the layers {', '.join(names)}; name one of them with --layer")
    return layer or names[0]


def _box_in_file(path: Path, grid: Grid, layer: str) -> tuple[float, float, float, float] | None:
    """Return the grid's extent, a little larger, in the file's CRS: what lies elsewhere need not be read."""
    from pyogrio import read_info
    from rasterio.crs import CRS
    from rasterio.warp import transform_bounds

    crs = read_info(path, layer=_layer(path, layer))["crs"]
    if grid.crs is None or crs is None:
        return None
    left, bottom, right, top = transform_bounds(grid.crs, CRS.from_user_input(crs), *grid.bounds, densify_pts=21)
    if not np.isfinite([left, bottom, right, top]).all() or left > right:  # beyond the file's CRS, or its date line
        return None
    dx, dy = (right - left) / 10, (top - bottom) / 10
    return left - dx, bottom - dy, right + dx, top + dy


def _confidence_column(path: Path, frame: Any, named: str | None, error: type[GeosegError]) -> str | None:
    if named is not None and named not in frame.columns:
        raise error(f"{path} has no column {named!r}. It has {', '.join(map(str, frame.columns))}.")
    found = [column for column in CONFIDENCE_COLUMNS if column in frame.columns]
    return named or (found[0] if found else None)


def _to_pixels(frame: Any, grid: Grid) -> PolygonArray:
    if grid.crs is not None:
        frame = frame.to_crs(grid.crs.to_wkt())
    inverse = ~grid.transform
    pixels = shapely.transform(
        shapely.force_2d(frame.geometry.to_numpy()), lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1]))
    )
    return np.asarray(pixels, object)


def _total_bounds(path: Path, layer: str) -> str:
    import geopandas

    parquet = path.suffix.lower() == ".parquet"
    frame = geopandas.read_parquet(path) if parquet else geopandas.read_file(path, layer=_layer(path, layer))
    return f"its extent is {_numbers(frame.total_bounds)} in {frame.crs}" if len(frame) else "it holds no polygon"


def _numbers(bounds: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.6g}" if abs(v) < 1000 else f"{v:.1f}" for v in bounds) + ")"
