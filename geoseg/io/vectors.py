"""Files of polygons: areas, labels and footprints in any format that GDAL reads, and GeoParquet."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import GeosegError
from geoseg.gdal import check_proj, placed_crs, transforming
from geoseg.grid import Grid
from geoseg.io.suffixes import ONE_LAYER_SUFFIXES
from geoseg.io.tables import name_some, plural

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

log = logging.getLogger(__name__)

POLYGONS = ("Polygon", "MultiPolygon", "GeometryCollection")


def read_polygons(
    path: str | Path,
    *,
    what: str,
    error: type[GeosegError],
    layer: str = "",
    where: str | None = None,
    near: Grid | None = None,
    any_layer: bool = False,
) -> "GeoDataFrame":
    """Read the rows of a vector file that have polygons; other geometries are left out.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, GeoParquet or whatever else GDAL reads.
        what: What the file holds, for messages: "labels".
        error: The kind of error to raise.
        layer: Layer of a file that has several with geometry.
        where: OGR attribute filter, such as `split = 'test'`; not for GeoParquet. Messages call it `aoi_where`.
        near: Leave rows unread that lie far from this grid, where the file allows it.
        any_layer: Read the first of several layers, with a warning, where none is named.

    Raises:
        GeosegError: `error`, if the file is not there or cannot be read, or has several layers and none is named; or
            if the filter does not fit its columns or matches nothing.
    """
    import geopandas

    check_proj()
    name = str(path)
    if not name.startswith("/vsi") and "://" not in name and not Path(name).exists():
        raise error(f"There is no {what} file {name}. Check the path; the working folder is {Path.cwd()}.")
    try:
        if name.lower().endswith(".parquet"):
            if where:
                raise ValueError("an attribute filter is not supported for GeoParquet; convert it to a GeoPackage")
            frame = geopandas.read_parquet(path)
        else:
            layer = _choose_layer(name, layer, any_layer=any_layer)
            box = _box_in_file(path, near, layer) if near is not None else None
            if where:
                return _with_polygons(_filter_file(name, where, layer, what=what, error=error))
            frame = geopandas.read_file(path, bbox=box, **({"layer": layer} if layer else {}))
    except error:
        raise
    except Exception as err:  # pyogrio and pyarrow raise several types without a common root
        raise error(f"The {what} {name} cannot be read ({err}). Give a vector file with polygons.") from err
    return _with_polygons(frame)


def _filter_file(name: str, where: str, layer: str, *, what: str, error: type[GeosegError]) -> "GeoDataFrame":
    """Read the rows of a vector file that a filter matches; `error` if there are none."""
    import geopandas
    from pyogrio import read_info

    in_layer = {"layer": layer} if layer else {}
    info = read_info(name, force_feature_count=True, **in_layer)
    columns = name_some(list(info["fields"]), most=10) or "none"
    given = f'`aoi_where` is "{where}", which'
    try:
        frame = geopandas.read_file(name, where=where, **in_layer)
    except Exception as err:
        raise error(
            f"{given} is not a filter on the {what} {name}. Its columns are: {columns}. Compare one of them with a "
            "value, such as \"split = 'test'\"."
        ) from err
    if frame.empty and info["features"]:
        raise error(
            f"{given} matches none of the {plural(info['features'], 'feature')} of the {what} {name}. Its columns are: "
            f"{columns}. Check the value, or leave the filter out."
        )
    return frame


def keep_placed_crs(frame: "GeoDataFrame") -> "GeoDataFrame":
    """Return a frame, without its CRS if that is no place on Earth, as the one that stands for none in GeoPackage."""
    return frame if placed_crs(frame.crs) is not None else frame.set_crs(None, allow_override=True)


def _with_polygons(frame: "GeoDataFrame") -> "GeoDataFrame":
    """Return the rows that have polygons; a CRS that is no place on Earth counts as none."""
    import geopandas

    if "geometry" not in frame:
        return geopandas.GeoDataFrame(frame.iloc[:0], geometry=[])
    there = ~(frame.geometry.isna() | frame.geometry.is_empty)
    return keep_placed_crs(frame[there & frame.geom_type.isin(POLYGONS)])


def in_crs_of(frame: "GeoDataFrame", grid: Grid) -> "GeoDataFrame":
    """Return rows in a grid's CRS; unchanged where either has none."""
    if grid.crs is None or frame.crs is None:
        return frame
    with transforming(frame.crs, grid.crs):
        return frame.to_crs(grid.crs.to_wkt())


def to_pixels(geometry: Any, grid: Grid) -> Any:
    """Return geometries, one or an array, in a grid's pixels: x = column, y = row; z is left out."""
    inverse = ~grid.transform
    return shapely.transform(shapely.force_2d(geometry), lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])))


def format_bounds(bounds: Sequence[float] | NDArray[np.float64]) -> str:
    """Return bounds for a message: degrees with six digits, meters with one decimal."""
    return "(" + ", ".join(f"{v:.6g}" if abs(v) < 1000 else f"{v:.1f}" for v in bounds) + ")"


def _choose_layer(path: str, layer: str, *, any_layer: bool) -> str:
    """Return the layer that is named, or the only one with geometry."""
    from pyogrio import list_layers

    if not layer and Path(path).suffix.lower() in ONE_LAYER_SUFFIXES:
        return ""
    names = [str(name) for name, kind in list_layers(path) if kind is not None]
    if layer and layer not in names:
        raise ValueError(f"it has the layers {', '.join(names)}, not {layer}")
    if layer or len(names) < 2:
        return layer or "".join(names)
    if not any_layer:
        raise ValueError(f"it has the layers {', '.join(names)}; name one of them with `layer`")
    log.warning("%s has the layers %s: the first one is read", path, ", ".join(names))
    return names[0]


def _box_in_file(path: str | Path, grid: Grid, layer: str) -> tuple[float, float, float, float] | None:
    """Return the grid's extent, a little larger, in the file's CRS: what lies elsewhere need not be read."""
    from pyogrio import read_info
    from rasterio.crs import CRS
    from rasterio.warp import transform_bounds

    crs = read_info(path, **({"layer": layer} if layer else {}))["crs"]
    if grid.crs is None or crs is None:
        return None
    left, bottom, right, top = transform_bounds(grid.crs, CRS.from_user_input(crs), *grid.bounds, densify_pts=21)
    if not np.isfinite([left, bottom, right, top]).all() or left > right:  # beyond the file's CRS, or its date line
        return None
    dx, dy = (right - left) / 10, (top - bottom) / 10
    return left - dx, bottom - dy, right + dx, top + dy
