"""Truth on a grid: label rasters and building polygons, and the areas that split a scene.

A label raster here is (y, x) uint8: 0 background, 1 building (or a class index), `UNSURE` background that incomplete
labels cannot vouch for, `IGNORED` no truth at all.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import LabelError
from geoseg.grid import Grid

__all__ = ["IGNORED", "UNSURE", "Labels", "rasterize_areas", "read_labels"]

IGNORED = 255
"""No truth: outside the labelled area, nodata, or a label's own unknown value."""

UNSURE = 254
"""Background of labels that are known to leave buildings out: maybe one of those."""

Labels = NDArray[np.uint8]

_RASTERS = {".tif", ".tiff", ".vrt", ".png", ".jp2"}


def read_labels(path: Path, grid: Grid) -> Labels:
    """Read a label raster or polygons onto `grid`.

    Polygons burn 1 where they hold a pixel's centre. A binary raster finer than `grid` is averaged over the pixel's
    area and is a building from one half on; a coarser one is taken pixel by pixel.

    Args:
        path: label raster with values 0, 1 and nodata (or 255), or a file of polygons.
        grid: where the labels are wanted.

    Returns:
        (y, x) uint8 of 0, 1 and `IGNORED`.

    Raises:
        LabelError: the file cannot be read, holds other values, or has no coordinate reference system.
    """
    if not path.exists():
        raise LabelError(f"no labels at {path}; expected a raster of 0, 1 and 255, or a file of polygons")
    return _warp(path, grid) if path.suffix.lower() in _RASTERS else _burn(path, grid)


def rasterize_areas(path: Path, names: Sequence[str], grid: Grid, *, column: str = "split") -> NDArray[np.bool_]:
    """Burn the areas whose `column` is one of `names`.

    Args:
        path: a file of polygons.
        names: the areas that are wanted.
        grid: where they are wanted.
        column: the attribute that names an area.

    Returns:
        (y, x) bool, True inside the areas.

    Raises:
        LabelError: the file has no such column or no such area.
    """
    areas = _read_polygons(path, grid)
    if column not in areas.columns:
        raise LabelError(f"{path} has no column {column!r}; expected one that names the areas")
    missing = sorted(set(names) - set(areas[column]))
    if missing:
        raise LabelError(f"{path} has no area {missing[0]!r}; it has {', '.join(sorted(set(areas[column])))}")
    return _rasterize(list(areas[areas[column].isin(names)].geometry), grid).astype(bool)


def _burn(path: Path, grid: Grid) -> Labels:
    return _rasterize(list(_read_polygons(path, grid).geometry), grid)


def _rasterize(shapes: list, grid: Grid) -> Labels:  # type: ignore[type-arg]
    from rasterio.features import rasterize

    if not shapes:
        return np.zeros(grid.shape, np.uint8)
    burnt: Labels = rasterize(shapes, out_shape=grid.shape, transform=grid.transform, dtype="uint8")
    return burnt


def _read_polygons(path: Path, grid: Grid):  # type: ignore[no-untyped-def]
    """Read a file of polygons in the grid's coordinate reference system."""
    import geopandas

    try:
        frame = geopandas.read_file(path)
    except Exception as err:  # pyogrio and fiona raise their own
        raise LabelError(f"cannot read polygons from {path}: {err}") from err
    if frame.crs is None and grid.crs is not None:
        raise LabelError(f"{path} has no coordinate reference system; its polygons cannot be laid on the scene")
    return frame if grid.crs is None else frame.to_crs(grid.crs)


def _warp(path: Path, grid: Grid) -> Labels:
    """Bring a label raster onto the grid: by area when shrinking, by the nearest pixel when enlarging."""
    import rasterio
    from rasterio.warp import Resampling, reproject

    with rasterio.open(path) as source:
        own = Grid(source.crs, source.transform, source.shape)
        values = source.read(1)
        known = (source.read_masks(1) > 0) & (values != IGNORED)
    _check_values(path, values[known])
    if own.shape == grid.shape and own.transform.almost_equals(grid.transform):
        return np.where(known, values, IGNORED).astype(np.uint8)
    fine = abs(own.transform.determinant) < abs(grid.transform.determinant) if own.crs == grid.crs else True
    out = np.full(grid.shape, np.nan, np.float32)
    reproject(
        np.where(known, values, np.nan).astype(np.float32),
        out,
        src_transform=own.transform,
        src_crs=own.crs or grid.crs,
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs=grid.crs or own.crs,
        dst_nodata=np.nan,
        resampling=Resampling.average if fine else Resampling.nearest,
    )
    return np.where(np.isnan(out), IGNORED, out >= 0.5).astype(np.uint8)


def _check_values(path: Path, known: NDArray[np.generic]) -> None:
    found, counts = np.unique(known, return_counts=True)
    other = [(int(v), int(n)) for v, n in zip(found, counts, strict=True) if v not in (0, 1)]
    if other:
        listed = ", ".join(f"{value} ({count} px)" for value, count in other[:5])
        raise LabelError(f"{path} holds the label values {listed}; expected 0, 1 and {IGNORED} (unknown)")
