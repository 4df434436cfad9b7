"""Building footprints of an array that is in memory, by the same steps as a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import UsageError
from geoseg.gdal import placed_crs
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA, PROBABILITY_ONE, stored_threshold
from geoseg.scene import check_transform, parse_crs
from geoseg.vectorize.footprints import name_places
from geoseg.vectorize.generalize import KINDS, Generalizer
from geoseg.vectorize.scene import (
    CountedWindow,
    Outline,
    OutlineOptions,
    Split,
    StoredPixels,
    choose_depth,
    choose_generalizer,
    choose_limits,
    outline_window,
)

if TYPE_CHECKING:
    import xarray
    from geopandas import GeoDataFrame


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """One byte per pixel, `(y, x)`, in memory."""

    pixels: NDArray[np.uint8]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the `(y, x)` pixels of a window."""
        return self.pixels[window.slices]


ATTRIBUTES = ("area_m2", "perimeter_m", "confidence", "confidence_min", "edge", "orientation_deg", "vertices")


def polygonize(
    probability: "NDArray[Any] | xarray.DataArray",
    *,
    interior: "NDArray[Any] | xarray.DataArray | None" = None,
    transform: Affine | None = None,
    crs: Any = None,
    valid: NDArray[np.bool_] | None = None,
    threshold: float = 0.5,
    min_area_m2: float = 0.0,
    fill_holes_m2: float | None = None,
    outline: Outline = "regular",
    tolerance_m: float | None = None,
    generalizer: Generalizer | None = None,
    split_depth: float | None = None,
) -> "GeoDataFrame":
    """Turn probabilities, or a mask, into building footprints.

    The footprints are those that `geoseg run` writes for the same pixels, vertex for vertex and with the same
    attributes. The whole array is held in memory; `run_scene` has no such limit.

    Args:
        probability: `(y, x)` float probabilities in [0, 1], NaN where there is no data; or a mask, either bool or
            integers of 0, 1 and 255 (no data). A DataArray, such as `predict_scene` or rioxarray give, brings its own
            `transform` and `crs`.
        interior: `(y, x)` float probability that a pixel lies inside a building, away from its edge and from others, as
            `predict_scene(layer="interior")` gives it: it tells buildings that touch apart.
        transform: From pixel corners to world coordinates, as rasterio has it. By default x = column and y = row, as
            `imshow` draws an array. The results of a picture without georeference have y = -row instead, as GIS
            programs show it: `Affine.scale(1, -1)`.
        crs: CRS of the world coordinates, in any form that rasterio takes; None for a plain picture.
        valid: `(y, x)` bool, True where there is data; NaN, and 255 in a mask, are never valid.
        threshold: A building has this probability or more. Probabilities are rounded to 1/254 first, as they are
            stored; not used for a mask.
        min_area_m2: Smallest footprint kept, square meters; square units of the coordinates without a CRS.
        fill_holes_m2: Smallest hole kept, at most `min_area_m2`, which is the default.
        outline: `regular` for straight walls and right angles, `simple` for fewer corners, `raw` for those of the
            pixels.
        tolerance_m: Smallest step in a wall that is kept, meters; pixels without a CRS. By default 0.5, and
            at least a pixel.
        generalizer: Another one that makes the outlines, in place of those of `outline`.
        split_depth: How much the smoothed probability must fall to divide a building that stands alone, and less where
            many touch; 1 leaves them together. By default as in a run for probabilities, and 1 for a mask.

    Returns:
        Footprints in reading order: `area_m2` and `perimeter_m` on the ellipsoid, `confidence` (mean probability
        inside, not of a mask), `edge` (cut by the border or by pixels without data), `orientation_deg`, `vertices`,
        `outline` (how it was made: regular, simple or raw) and `geometry`; see docs/usage.md.

    Raises:
        UsageError: If the array has another shape or other values, the threshold lies outside (0, 1), the outline
            is unknown or the tolerance negative.
        MissingCRSError: If `crs` cannot be understood.
        GeoreferenceError: If `transform` gives the pixels no place or no area.
    """
    import geopandas

    if not 0 < threshold < 1:
        raise UsageError(f"`threshold={threshold}` is not a probability. Give one above 0 and below 1.")
    if outline not in KINDS:
        raise UsageError(f"`outline={outline!r}` is unknown. Choose regular, simple or raw.")
    if tolerance_m is not None and tolerance_m < 0:
        raise UsageError(f"`tolerance_m={tolerance_m}` is negative. Give meters, such as 0.5.")
    own_transform, own_crs = _georeference(probability)
    values = np.asarray(probability)
    stored = _as_stored(values)
    has_data = stored != NODATA
    if valid is not None:
        if np.shape(valid) != stored.shape:
            raise UsageError(
                f"`valid` has shape {np.shape(valid)}, the array {stored.shape}. Give one of the same shape."
            )
        has_data &= valid
    place = transform or own_transform or Affine.identity()
    check_transform(place, stored.shape, "The array")
    found_crs = parse_crs(crs) if crs is not None else placed_crs(own_crs)
    grid = Grid(found_crs and parse_crs(found_crs), place, stored.shape)
    is_mask, has_interior = values.dtype.kind in "biu", interior is not None
    depth = 1.0 if is_mask and not has_interior and split_depth is None else None
    surface = InMemory(_as_stored(np.asarray(interior))) if has_interior else None
    if surface is not None and surface.pixels.shape != stored.shape:
        raise UsageError(
            f"`interior` has shape {surface.pixels.shape}, the array {stored.shape}. Give one of the same shape."
        )
    options = OutlineOptions(
        threshold=stored_threshold(threshold),
        limits=choose_limits(min_area_m2, fill_holes_m2),
        generalizer=generalizer or choose_generalizer(outline, tolerance_m, grid),
        split=Split.on(grid, choose_depth(depth or split_depth, has_interior=has_interior), has_interior=has_interior),
    )
    stored[~has_data] = NODATA
    pixels = StoredPixels(grid, InMemory(stored), surface=surface)
    outlines = outline_window(pixels, CountedWindow(grid.window), options)
    footprints = outlines.finished.in_reading_order()
    columns = {
        name: getattr(footprints, name) for name in ATTRIBUTES if not (is_mask and name.startswith("confidence"))
    }
    columns = {"id": name_places(footprints.place), **columns}
    columns["outline"] = np.array(KINDS)[footprints.kind]
    wkt = grid.crs.to_wkt() if grid.crs is not None else None
    return geopandas.GeoDataFrame(columns, geometry=footprints.geometry, crs=wkt)


def _georeference(array: Any) -> tuple[Affine | None, Any]:
    """Return transform and CRS of a DataArray: those that geoseg wrote down, or the grid mapping of rioxarray."""
    attrs, coords = getattr(array, "attrs", {}), getattr(array, "coords", {})
    mapping = coords["spatial_ref"].attrs if "spatial_ref" in coords else {}
    transform = attrs.get("transform")
    if transform is not None:
        place = Affine(*tuple(transform)[:6])
    elif "GeoTransform" in mapping:
        place = Affine.from_gdal(*map(float, mapping["GeoTransform"].split()))
    else:
        place = None
    return place, attrs.get("crs") or mapping.get("crs_wkt") or mapping.get("spatial_ref")


def _as_stored(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return probabilities, or those of a mask, as they are stored: 0 to 254, 255 without data."""
    if values.ndim != 2:
        raise UsageError(f"An array of shape {values.shape} was given. Give one band: (y, x).")
    if values.dtype.kind in "biu":
        others = np.setdiff1d(values, (0, 1, NODATA))
        if len(others):
            raise UsageError(
                f"A mask with the value {others[0]} was given. Give 0, 1 and 255 (no data), such as `classes == 2` of "
                "a class raster, or probabilities as floats."
            )
        return np.where(values == NODATA, NODATA, np.where(values, PROBABILITY_ONE, 0)).astype(np.uint8)
    is_number = np.isfinite(values)
    known = values[is_number]
    if known.size and (known.min() < 0 or known.max() > 1):
        raise UsageError(
            f"Values from {known.min():g} to {known.max():g} were given. Give probabilities from 0 to 1, and "
            "NaN where there is no data."
        )
    stored = np.full(values.shape, NODATA, np.uint8)
    stored[is_number] = np.rint(known * PROBABILITY_ONE)
    return stored
