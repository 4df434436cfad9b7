"""Labels on a grid: label rasters and building polygons, and the areas that divide a scene.

Labels are (y, x) uint8: a class index (0 background and 1 building if there is one class), `UNSURE` for background of
incomplete labels, `IGNORED` for no label.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.datasets.auxiliary import outline_instances
from geoseg.datasets.coding import BINARY, IGNORED, UNSURE, Coding
from geoseg.errors import LabelError, UnknownLabelError
from geoseg.gdal import GDAL_ERRORS, transforming
from geoseg.grid import Grid, Window
from geoseg.io.datum import check_shift, warn_once
from geoseg.io.reproject import reproject
from geoseg.io.suffixes import is_raster
from geoseg.io.tables import name_some, plural
from geoseg.io.vectors import describe_bounds, format_bounds, hint_mirrored, in_crs_of, read_polygons, to_pixels
from geoseg.scene import gdal_env, open_raster, read_grid
from geoseg.third_party import allow_no_georeference

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["IGNORED", "Labels", "UNSURE", "count_outside", "rasterize_areas", "read_labels", "read_outlines"]

Labels = NDArray[np.uint8]

_MARGIN_PX = 2
"""Pixels of a label raster that are read beyond the grid, for resampling."""

_BESIDE_PX = 0.25
"""Pixels of the same size that lie further beside each other than this get a warning."""

_FLAT = "EPSG:3857"
"""Any projected CRS, for two grids that have none."""

_AWAY = Affine.translation(1, 1)
"""Moves two such grids alike: GDAL takes the transform of a picture, x = column and y = -row, for none."""


def read_labels(
    path: Path,
    grid: Grid,
    *,
    coding: Coding = BINARY,
    native: Grid | None = None,
    layer: str = "",
    column: str = "",
    empty_ok: bool = True,
    counts: NDArray[np.int64] | None = None,
) -> Labels:
    """Read a label raster or polygons onto `grid`.

    A pixel has the class of the polygon that contains its center: of several it is `unknown`, else that of the
    smallest. A raster finer than `grid` is resampled by area: in two classes a pixel is the second from one half on, in
    several the most frequent. A coarser one is resampled to the nearest pixel. A raster without georeference is matched
    to the image pixel for pixel.

    Args:
        path: Label raster, or a file of polygons.
        grid: The grid of the result.
        coding: What a raster's numbers or colors mean.
        native: The grid of the whole image in its own pixels; `grid` by default.
        layer: Layer of a file of polygons that has several.
        column: Attribute of the polygons that names their class; without it all are the coding's target.
        empty_ok: Accept a file without any polygon on the image.
        counts: The pixels of a raster, by class index and `IGNORED`, are added to these, (256,).

    Returns:
        (y, x) uint8 class indices, and `IGNORED`.

    Raises:
        LabelError: The file cannot be read, does not fit the image, or has no coordinate reference system.
        UnknownLabelError: A raster has numbers or colors without a class.
    """
    if not path.exists():
        raise LabelError(f"no labels at {path}; expected a raster of class indices and 255, or a file of polygons")
    if is_raster(path):
        return _read_raster(path, grid, coding, native or grid, counts)
    return _burn(path, grid, coding, native or grid, layer=layer, column=column, empty_ok=empty_ok)


def read_outlines(
    path: Path,
    grid: Grid,
    *,
    coding: Coding = BINARY,
    native: Grid | None = None,
    layer: str = "",
    column: str = "",
) -> NDArray[Any] | None:
    """Return the outlines of single buildings in pixels of `grid`; None for a mask, which does not tell them apart.

    Each part of a multipolygon is a building. Outlines of a raster of `coding.instances` follow its own pixels, and end
    `_MARGIN_PX` of them beyond the grid.

    Args:
        path: Label raster, or a file of polygons.
        grid: The grid.
        coding: The indices of classes.
        native: As of `read_labels`.
        layer: Layer of a file of polygons that has several.
        column: Attribute of the polygons that names their class; those of the coding's target are buildings.

    Raises:
        LabelError: as `read_labels`.
    """
    import shapely

    if is_raster(path):
        return _read_instances(path, grid, coding, native or grid) if coding.instances else None
    frame = _read_polygons(path, grid, layer)
    if column:
        frame = frame[frame[column].map(coding.indices) == coding.target[0]]
    return np.asarray(shapely.get_parts(to_pixels(frame.geometry[~frame.is_empty].to_numpy(), grid)), object)


def count_outside(path: Path, grids: Iterable[Grid], *, layer: str = "") -> tuple[int, int] | None:
    """Count the polygons of a file, and those that touch none of some images; None for a raster.

    Raises:
        LabelError: as `read_labels`.
    """
    if is_raster(path):
        return None
    import shapely

    touched: NDArray[np.bool_] | None = None
    for grid in grids:
        here = np.asarray(_read_polygons(path, grid, layer).geometry.intersects(shapely.Polygon(grid.corners)), bool)
        touched = here if touched is None else touched | here
    return (0, 0) if touched is None else (touched.size, int((~touched).sum()))


def rasterize_areas(path: Path, names: Sequence[str], grid: Grid) -> NDArray[np.bool_]:
    """Return a (y, x) mask of a file's polygons whose attribute `split` is one of `names`.

    Raises:
        LabelError: The file has no such column or no such area.
    """
    areas = _read_polygons(path, grid)
    if "split" not in areas.columns:
        raise LabelError(f"{path} has no column 'split'; expected one that names the areas")
    missing = sorted(set(names) - set(areas["split"]))
    if missing:
        raise LabelError(f"{path} has no area {missing[0]!r}; it has {', '.join(sorted(set(areas['split'])))}")
    return _rasterize([(shape, 1) for shape in areas[areas["split"].isin(names)].geometry], grid, 0).astype(bool)


def _burn(path: Path, grid: Grid, coding: Coding, native: Grid, *, layer: str, column: str, empty_ok: bool) -> Labels:
    """Rasterize polygons; those of another place would train the network on an image without buildings."""
    import shapely

    frame = _read_polygons(path, grid, layer)
    if not empty_ok and not frame.geometry.intersects(shapely.Polygon(native.corners)).any():
        own = read_polygons(path, what="labels", error=LabelError, layer=layer)
        where = f"their extent is {describe_bounds(own, native)}" if len(own) else "the file holds none"
        raise LabelError(
            f"no polygon of {path} touches the image: {where}. "
            "Check that both are of the same place; empty_ok = true accepts an image without any."
            f"{hint_mirrored(frame.total_bounds, native)}"
        )
    target, other = coding.target
    if not column:
        if not coding.is_binary:
            raise LabelError(f"{path} has polygons of one class; expected a column that names the class of each")
        return _rasterize([(shape, target) for shape in frame.geometry], grid, other)
    if column not in frame.columns:
        raise LabelError(f"{path} has no column {column!r}; it has {', '.join(map(str, frame.columns))}")
    counts = frame[column].fillna("no class").value_counts()
    unknown = [f"{name} ({plural(n, 'polygon')})" for name, n in counts.items() if name not in coding.indices]
    if unknown:
        raise UnknownLabelError(
            f"{path} has values in its column {column} that are not classes: {name_some(unknown)}; expected "
            f"{', '.join(coding.indices)}. "
            "Name the column with these classes, or rename the classes in the file"
        )
    classes = [coding.indices[name] for name in frame[column]]
    around = coding.indices.get("background", other if coding.is_binary else IGNORED)
    # Unknown areas win over buildings, and smaller polygons over larger ones, whatever their order in the file.
    ranks = zip((index == IGNORED for index in classes), -frame.geometry.area, classes, strict=True)
    order = [n for n, _ in sorted(enumerate(ranks), key=lambda ranked: ranked[1])]
    return _rasterize([(frame.geometry.iloc[n], classes[n]) for n in order], grid, around)


def _rasterize(shapes: list[tuple[Any, int]], grid: Grid, around: int) -> Labels:
    from rasterio.features import rasterize

    shapes = [(shape, value) for shape, value in shapes if not shape.is_empty]  # those far from the grid are
    if not shapes:
        return np.full(grid.shape, around, np.uint8)
    with allow_no_georeference():
        burnt: Labels = rasterize(shapes, grid.shape, fill=around, transform=grid.transform, dtype="uint8")
    return burnt


def _read_polygons(path: Path, grid: Grid, layer: str = "") -> "GeoDataFrame":
    """Read a file of polygons in the grid's coordinate reference system."""
    frame = read_polygons(path, what="labels", error=LabelError, layer=layer)
    if frame.crs is None and grid.crs is not None:
        raise LabelError(f"{path} has no coordinate reference system; its polygons cannot be placed on the scene")
    return in_crs_of(frame, grid, f"labels {path}")


def _read_raster(path: Path, grid: Grid, coding: Coding, native: Grid, counts: NDArray[np.int64] | None) -> Labels:
    """Read the part of a label raster that the grid covers, and resample it to the grid."""
    read = _read_part(path, grid, coding, native)
    if read is not None and counts is not None:
        counts += np.bincount(read[0].ravel(), minlength=len(counts))
    if read is None:
        return np.full(grid.shape, IGNORED, np.uint8)
    _check_lattice(path, read[2], grid)
    return _resample(read[0], read[2], grid, coding)


def _read_instances(path: Path, grid: Grid, coding: Coding, native: Grid) -> NDArray[Any]:
    """Outline the buildings of a raster of their numbers, in pixels of the grid."""
    from pyproj import CRS
    from shapely import is_empty, transform

    read = _read_part(path, grid, coding, native)
    if read is None:
        return np.empty(0, object)
    classes, numbers, own = read
    outlines = outline_instances(np.where(classes == coding.target[0], numbers, 0))
    placed = transform(outlines, lambda xy: np.column_stack(own.transform @ (xy[:, 0], xy[:, 1])))
    if own.crs is not None and grid.crs is not None and own.crs != grid.crs:
        placed = reproject(placed, CRS.from_wkt(own.crs.to_wkt()), grid)
    return np.asarray(to_pixels(placed[~is_empty(placed)], grid), object)


def _read_part(path: Path, grid: Grid, coding: Coding, native: Grid) -> tuple[Labels, NDArray[Any], Grid] | None:
    """Read the part of a label raster that the grid covers.

    Returns:
        Class indices (y, x), the numbers of the first band (y, x), and their grid; None if the raster covers only other
        parts of the image.
    """
    try:
        with allow_no_georeference():
            opened = open_raster(str(path))
    except GDAL_ERRORS as err:
        raise LabelError(f"the labels {path} cannot be opened ({err}); copy or download them again") from err
    with gdal_env([str(path)]), opened as source:
        own = _own_grid(path, source, grid, native)
        window = _part(own, grid)
        if window is None and _part(own, native) is not None:
            return None
        if window is None:
            raise LabelError(
                f"the labels {path} lie elsewhere: their extent is {format_bounds(own.bounds)} in their CRS, "
                f"the image's {format_bounds(native.bounds)} in its own. Check that both are of the same place"
            )
        try:
            classes, numbers = _read_coded(path, source, coding, window)
        except GDAL_ERRORS as err:
            raise LabelError(f"the labels {path} cannot be read ({err}); copy or download them again") from err
    return classes, numbers, own.crop(window)


def _own_grid(path: Path, source: Any, grid: Grid, native: Grid) -> Grid:
    """Return the grid of a label raster; the image's if one of them has no georeference."""
    own = read_grid(source, f"the label raster {path}")
    crs = own.crs or grid.crs
    is_placed = own.crs is not None or not source.transform.is_identity
    if is_placed and crs is not None and grid.crs is not None:
        check_shift(f"labels {path}", crs.to_wkt(), grid)
        return Grid(crs, source.transform, source.shape)
    if source.shape != native.shape:
        raise LabelError(
            f"the labels {path} have {source.shape[1]} x {source.shape[0]} px, their image {native.width} x "
            f"{native.height}; expected the same, as they are not both georeferenced"
        )
    return Grid(grid.crs, native.transform, source.shape)


def _part(own: Grid, grid: Grid) -> Window | None:
    """Return the window of the labels under the grid, with a margin; all of them in another CRS."""
    from rasterio.warp import transform_bounds

    if own.crs == grid.crs:
        window = own.window_of_bounds(grid.bounds).intersect(own.window)
        return window and window.expand(_MARGIN_PX).intersect(own.window)
    with transforming(grid.crs, own.crs):
        left, bottom, right, top = transform_bounds(grid.crs, own.crs, *grid.bounds)
    here = own.bounds
    return own.window if left < here[2] and right > here[0] and bottom < here[3] and top > here[1] else None


def _read_coded(path: Path, source: Any, coding: Coding, window: Window) -> tuple[Labels, NDArray[Any]]:
    """Read class indices, and the first band; a nodata value to which the recipe gives a class is known.

    Of single buildings 0 is the background, also where it is the nodata value.

    Raises:
        UnknownLabelError: Some values have no class, or the nodata value has one that nobody gave it.
    """
    from rasterio.enums import ColorInterp
    from rasterio.windows import Window as Part

    part = Part(window.col, window.row, window.width, window.height)
    values = source.read(window=part)
    known = source.dataset_mask(window=part) > 0
    has_palette = source.colorinterp[0] == ColorInterp.palette
    first = values[0]
    try:
        if coding.colors and not (coding.explicit or coding.instances) and (has_palette or source.count >= 3):
            if has_palette:
                table = np.zeros((256, 3), np.uint8)
                for index, color in source.colormap(1).items():
                    table[index] = color[:3]
                values = table[first].transpose(2, 0, 1)
            return coding.of_colors(values[:3], known), first
        if len(values) >= 3 and any((band != first).any() for band in values[1:3]):
            raise LabelError(
                f"the mask {path} is in colors; expected one band of class indices, or say what the colors mean: "
                'colors = {building = "#RRGGBB", ...}'
            )
        if (coding.explicit or coding.instances) and source.nodata in coding.values:
            known |= first == source.nodata
        else:
            _check_nodata(first, source.nodata, coding)
        return coding.of_values(first, known & np.isfinite(first)), first
    except UnknownLabelError as err:
        raise UnknownLabelError(f"the mask {path} {err}") from err


def _check_nodata(values: NDArray[Any], nodata: float | None, coding: Coding) -> None:
    """Refuse a nodata value that is a class too: without its background, a mask of 0 and 1 has no false positives."""
    names = {index: name for name, index in coding.indices.items()}
    meant = {value: names[index] for value, index in coding.values.items() if index != IGNORED}
    count = int((values == nodata).sum()) if nodata in meant else 0
    if count:
        given = ", ".join(f"{value}={name}" for value, name in list(meant.items())[:3])
        raise UnknownLabelError(
            f"has the nodata value {nodata:g}, which also stands for {meant[int(nodata or 0)]}: {count} px would be "
            f"unknown. Say in `codes` (in a recipe: values) what its values mean: {given} if the nodata value "
            f"is a class like the others, {nodata:g}=unknown if these pixels really have no label"
        )


def _check_lattice(path: Path, own: Grid, grid: Grid) -> None:
    """Warn of pixels as large as the grid's that lie beside them: all outlines are moved alike."""
    if own.crs != grid.crs:
        return
    corners = np.array([(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)], float)
    placed = np.column_stack(~own.transform @ grid.transform @ (corners[:, 0], corners[:, 1]))
    offsets = placed - corners
    beside = float(np.abs(offsets[0] - np.round(offsets[0])).max())
    if beside > _BESIDE_PX and np.ptp(offsets, axis=0).max() < _BESIDE_PX:
        warn_once(
            f"labels {path}: their pixels are as large as the scene's but lie {beside:.1f} px beside them, and so will "
            "all outlines. Give labels on the scene's grid, or polygons."
        )


def _resample(values: Labels, own: Grid, grid: Grid, coding: Coding) -> Labels:
    """Resample labels to the grid: by area to larger pixels, by the nearest pixel to smaller ones."""
    offset = _offset(own, grid)
    if offset is not None:
        out = np.full(grid.shape, IGNORED, np.uint8)
        here = offset.intersect(Window(0, 0, *values.shape))
        if here is not None:
            out[here.relative_to(offset).slices] = values[here.slices]
        return out
    fine = abs(own.transform.determinant) < abs(grid.transform.determinant) if own.crs == grid.crs else True
    if coding.is_binary and fine:
        shares = np.where(values == IGNORED, np.float32(np.nan), values.astype(np.float32))
        mean = _warp(shares, own, grid, "average", np.nan)
        return np.where(np.isnan(mean), IGNORED, mean >= 0.5).astype(np.uint8)
    return _warp(values, own, grid, "mode" if fine else "nearest", IGNORED)


def _offset(own: Grid, grid: Grid) -> Window | None:
    """Return the window of the grid in the label raster if both have the same pixels, else None."""
    if own.crs != grid.crs:
        return None
    col, row = ~own.transform @ (grid.transform.c, grid.transform.f)
    shifted = own.transform @ Affine.translation(round(col), round(row))
    step = abs(own.transform.determinant) ** 0.5
    corners = zip(Grid(None, shifted, grid.shape).corners, grid.corners, strict=True)
    same = all(abs(a - b) < 1e-3 * step for one, other in corners for a, b in zip(one, other, strict=True))
    return Window(round(row), round(col), *grid.shape) if same else None


def _warp(values: NDArray[Any], own: Grid, grid: Grid, method: str, nodata: float) -> NDArray[Any]:
    from rasterio.warp import Resampling, reproject

    out = np.full(grid.shape, nodata, values.dtype)
    move = Affine.identity() if own.crs else _AWAY
    reproject(
        values,
        out,
        src_transform=move @ own.transform,
        src_crs=own.crs or _FLAT,
        src_nodata=nodata,
        dst_transform=move @ grid.transform,
        dst_crs=grid.crs or _FLAT,
        dst_nodata=nodata,
        resampling=Resampling[method],
    )
    return out
