"""Files of polygons: areas, labels and footprints in any format that GDAL reads, and GeoParquet."""

from collections.abc import Sequence
from datetime import datetime
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import GeosegError
from geoseg.gdal import check_proj, name_crs, placed_crs
from geoseg.grid import Grid
from geoseg.io.datum import check_shift, warn_once
from geoseg.io.remote import is_there
from geoseg.io.reproject import areal_parts, bounds_in, repaired, reproject, turns_of
from geoseg.io.suffixes import ONE_LAYER_SUFFIXES, PARQUET_SUFFIXES
from geoseg.io.tables import name_some, plural

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

NEAR = 0.1
"""Share of a grid's longer side within which a polygon is near it."""

ROW = "row of the frame"
"""Column of a table that is only made to be filtered."""

SCALARS = (str, Real, datetime, np.bool_)
"""Values that a filter can compare; lists and boxes are left out."""

PARQUET = b"PAR1"
"""The first bytes of a Parquet file, whatever it is called."""


def read_polygons(
    path: str | Path,
    *,
    what: str,
    error: type[GeosegError],
    layer: str = "",
    where: str | None = None,
    near: Grid | None = None,
) -> "GeoDataFrame":
    """Read the rows of a vector file that have polygons; the others are left out, with a warning.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, GeoParquet or whatever else GDAL reads.
        what: What the file holds, for messages: "labels".
        error: The kind of error to raise.
        layer: Layer of a file that has several with geometry.
        where: OGR attribute filter, such as `split = 'test'`. Messages call it `aoi_where`.
        near: Leave rows unread that lie far from this grid, where the file allows it.

    Returns:
        Rows with polygons and multipolygons, those of collections among them; none where the file is empty.

    Raises:
        GeosegError: `error`, if the file is not there or cannot be read, has several layers and none is named, or has
            rows but no polygon; or if the filter does not fit its columns or matches nothing.
    """
    import geopandas

    check_proj()
    name = str(path)
    is_local = not name.startswith("/vsi") and "://" not in name
    if is_local and not is_there(name):
        raise error(f"There is no {what} file {name}. Check the path; the working folder is {Path.cwd()}.")
    try:
        if is_parquet(path) if is_local else name.lower().endswith(PARQUET_SUFFIXES):
            frame = geopandas.read_parquet(path)
            if where:
                frame = _filter_frame(frame, where, f"{what} {name}", error)
            return only_polygons(frame, f"{what} {name}", error)
        layer = _choose_layer(name, layer)
        if where:
            frame = _filter_file(name, where, layer, f"{what} {name}", error)
            return only_polygons(frame, f"{what} {name}", error)
        box = _box_in_file(path, near, layer) if near is not None else None
        frame = geopandas.read_file(path, bbox=box, **({"layer": layer} if layer else {}))
        if box is not None and not (
            isinstance(frame, geopandas.GeoDataFrame) and _areas(frame).any()
        ):  # far away, or are there none at all?
            everything = geopandas.read_file(path, **({"layer": layer} if layer else {}))
            return only_polygons(everything, f"{what} {name}", error).iloc[:0]
    except GeosegError:
        raise
    except Exception as err:  # pyogrio and pyarrow raise several types without a common root
        raise error(f"The {what} {name} cannot be read ({err}). Give a vector file with polygons.") from err
    return only_polygons(frame, f"{what} {name}", error)


def is_parquet(path: str | Path) -> bool:
    """Return True for a Parquet file, by its first bytes."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET


def only_polygons(frame: Any, name: str, error: type[GeosegError]) -> "GeoDataFrame":
    """Return the rows with polygons, those of collections among them; how many rows have none is logged once.

    A CRS that is no place on Earth counts as none.

    Args:
        frame: A GeoDataFrame, or a table without geometry.
        name: What the rows are, for messages: "labels a.gpkg".
        error: The kind of error to raise.

    Raises:
        GeosegError: `error`, if there are rows, but none has a polygon.
    """
    import geopandas

    if not isinstance(frame, geopandas.GeoDataFrame):
        if len(frame):
            raise error(
                f"There is no polygon in the {name}, only {plural(len(frame), 'row')} without geometry. Give a vector "
                "file with polygons."
            )
        return geopandas.GeoDataFrame(frame, geometry=[])
    has_area = _areas(frame)
    left_out = frame.geometry[~(has_area | frame.geometry.isna() | frame.geometry.is_empty)]
    kinds_left_out = left_out.geom_type + np.where(shapely.get_dimensions(left_out) == 2, " without a finite area", "")
    others = kinds_left_out.value_counts()
    if len(others):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.items())
        if not has_area.any():
            raise error(
                f"There is no polygon in the {name}, only {kinds}. Polygons are expected: convert closed lines to "
                "polygons, for example in QGIS (Lines to polygons)."
            )
        warn_once(
            f"The {name}: {others.sum():,} of {plural(len(frame), 'feature')} have no area and are left out: {kinds}."
        )
    frame = frame[has_area]
    mixed = (frame.geom_type == "GeometryCollection").to_numpy()
    if mixed.any():
        shapes = frame.geometry.to_numpy().copy()
        shapes[mixed] = [shapely.union_all(areal_parts(shape)) for shape in shapes[mixed]]
        frame = frame.set_geometry(shapes, crs=frame.crs)
    return keep_placed_crs(frame)


def _areas(frame: Any) -> NDArray[np.bool_]:
    """Return which rows have polygons, and not collapsed ones or such with endless coordinates."""
    shapes = frame.geometry.to_numpy()
    with np.errstate(all="ignore"):
        area = shapely.area(shapes)
        crossed = (area == 0) & (shapely.get_dimensions(shapes) == 2)  # a bow tie's two halves may add up to nothing
        area[crossed] = shapely.area(repaired(shapes[crossed]))
    return np.asarray((area > 0) & np.isfinite(area))


def _filter_frame(frame: Any, where: str, what: str, error: type[GeosegError]) -> Any:
    """Return the rows of a frame that a filter matches, by GDAL as in files; `error` if there are none."""
    import pandas
    from pyogrio import write_dataframe

    table = pandas.DataFrame(frame.drop(columns=frame.geometry.name))
    plain = [name for name in table if all(isinstance(value, SCALARS) for value in table[name].dropna())]
    with TemporaryDirectory(prefix="geoseg-filter-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "table.gpkg"
        write_dataframe(table[plain].assign(**{ROW: range(len(table))}), path, layer="table")
        return frame.iloc[_filter_file(str(path), where, "", what, error)[ROW].to_numpy()]


def _filter_file(name: str, where: str, layer: str, what: str, error: type[GeosegError]) -> "GeoDataFrame":
    """Read the rows of a vector file that a filter matches; `error` if there are none, with `what` the file is."""
    import geopandas
    from pyogrio import read_info

    in_layer = {"layer": layer} if layer else {}
    info = read_info(name, force_feature_count=True, **in_layer)
    columns = name_some([field for field in info["fields"] if field != ROW], most=10) or "none"
    given = f'`aoi_where` is "{where}", which'
    try:
        frame = geopandas.read_file(name, where=where, **in_layer)
    except Exception as err:
        raise error(
            f"{given} is not a filter on the {what}. Its columns are: {columns}. Compare one of them with a "
            "value, such as \"split = 'test'\"."
        ) from err
    if frame.empty and info["features"]:
        raise error(
            f"{given} matches none of the {plural(info['features'], 'feature')} of the {what}. Its columns are: "
            f"{columns}. Check the value, or leave the filter out."
        )
    return frame


def keep_placed_crs(frame: "GeoDataFrame") -> "GeoDataFrame":
    """Return a frame, without its CRS if that is no place on Earth, as the one that stands for none in GeoPackage."""
    return frame if placed_crs(frame.crs) is not None else frame.set_crs(None, allow_override=True)


def in_crs_of(frame: "GeoDataFrame", grid: Grid, what: str) -> "GeoDataFrame":
    """Return rows in a grid's CRS, those far from the grid without a geometry; unchanged where either has no CRS.

    A warning says where the datum shift between the two is a rough one; `what` names the rows in it.

    Raises:
        MissingCRSError: See `reproject`.
    """
    if grid.crs is None or frame.crs is None:
        return frame
    check_shift(what, frame.crs, grid)
    return frame.set_geometry(reproject(frame.geometry.to_numpy(), frame.crs, grid), crs=grid.crs.to_wkt())


def to_pixels(geometry: Any, grid: Grid) -> Any:
    """Return geometries, one or an array, in a grid's pixels: x = column, y = row; z is left out."""
    inverse = ~grid.transform
    return shapely.transform(shapely.force_2d(geometry), lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])))


def hint_mirrored(bounds: Sequence[float] | NDArray[np.float64], grid: Grid) -> str:
    """Return a hint for messages if polygons lie above a picture, as those do that count rows downward; else ""."""
    if grid.crs is not None or grid.bounds[3] != 0 or not bounds[1] >= 0:
        return ""
    return " In a picture without georeference y = -row, as QGIS shows it: if y of the polygons is the row, negate it."


def format_bounds(bounds: Sequence[float] | NDArray[np.float64]) -> str:
    """Return bounds for a message: degrees with six digits, meters with one decimal."""
    return "(" + ", ".join(f"{v:.6g}" if abs(v) < 1000 else f"{v:.1f}" for v in bounds) + ")"


def describe_bounds(frame: "GeoDataFrame", grid: Grid) -> str:
    """Return the bounds of polygons that are not on a scene, and the scene's, for a message: in the polygons' CRS."""
    found, crs = format_bounds(frame.total_bounds), frame.crs
    if crs is None or grid.crs is None:
        return f"{found}, the scene's {format_bounds(grid.bounds)}"
    there = bounds_in(grid, crs)
    if there is None:
        return f"{found} in {name_crs(crs)}, the scene's {format_bounds(grid.bounds)} in {name_crs(grid.crs)}"
    return f"{found} in {name_crs(crs)}, the scene's {format_bounds(there)} in the same"


def _choose_layer(path: str, layer: str) -> str:
    """Return the layer that is named, or the only one with geometry."""
    from pyogrio import list_layers

    if not layer and Path(path).suffix.lower() in ONE_LAYER_SUFFIXES:
        return ""
    names = [str(name) for name, kind in list_layers(path) if kind is not None]
    if layer and layer not in names:
        raise ValueError(f"it has the layers {', '.join(names)}, not {layer}")
    if not layer and len(names) > 1:
        raise ValueError(
            f"it has the layers {', '.join(names)}; name one of them with `layer` if they are labels, or make a file "
            f"of it alone: ogr2ogr one.gpkg {Path(path).name} {names[0]}"
        )
    return layer or "".join(names)


def _box_in_file(path: str | Path, grid: Grid, layer: str) -> tuple[float, float, float, float] | None:
    """Return the grid's extent, a little larger, in the file's CRS: what lies elsewhere need not be read.

    It is None, for the whole file, where the file counts longitudes so that there are several such boxes.
    """
    from pyogrio import read_info
    from pyproj import CRS

    info = read_info(path, force_total_bounds=True, **({"layer": layer} if layer else {}))
    crs = placed_crs(CRS.from_user_input(info["crs"])) if info["crs"] is not None else None
    if grid.crs is None or crs is None or info["total_bounds"] is None:
        return None
    box = bounds_in(grid, crs, margin=NEAR)
    if box is None:
        return None
    boxes = turns_of(box, crs, info["total_bounds"])
    return None if len(boxes) > 1 else (*boxes, box)[0]
