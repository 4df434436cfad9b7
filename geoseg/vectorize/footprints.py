"""Joined polygons into building footprints: filtered, simplified, placed in the world, measured."""

from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.grid import Grid
from geoseg.vectorize.blocks import BlockPolygons
from geoseg.vectorize.ground import Ground, measure_polygons, official_crs, pixel_area_m2, to_world
from geoseg.vectorize.rings import PolygonArray
from geoseg.vectorize.simplify import simplify_polygons

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

COLUMNS = ("area_m2", "perimeter_m", "confidence", "edge")
"""Attributes of a footprint, in this order, before its geometry."""


def finish_footprints(
    joined: BlockPolygons,
    grid: Grid,
    *,
    min_area_m2: float,
    simplify_px: float,
    probability_scale: float = 1 / 254,
) -> "GeoDataFrame":
    """Turn pixel polygons into footprints with attributes.

    Args:
        joined: What `join_seams` gave.
        grid: Grid of the whole scene's pixels.
        min_area_m2: Drop buildings whose pixels cover less ground than this, before any simplification.
        simplify_px: Tolerance of the simplification in pixels; 0 keeps the pixels' outline.
        probability_scale: Probability of one unit of `probability_sum`.

    Returns:
        Footprints in the order of `joined`, in `grid.crs`; where that is None, in the coordinates of `grid.transform`,
        which are pixels for a plain picture. Exteriors run counter-clockwise. Columns: `area_m2` and `perimeter_m` of
        the geometry on the ellipsoid (in units of the coordinates without a CRS), `confidence` (mean probability inside
        the unsimplified outline, 0 to 1), `edge` (touches the scene's border or a pixel without data).
    """
    from geopandas import GeoDataFrame

    ground = Ground.of(grid.crs)
    is_small = pixel_areas(joined, grid, ground) < min_area_m2  # False where a place is off the map and has no area
    kept = joined.take(~is_small)
    geometry = place_polygons(simplify_polygons(kept.polygons, simplify_px), grid.transform)
    area, perimeter = measure_polygons(geometry, ground)
    confidence = kept.probability_sum / kept.pixel_count * probability_scale
    columns = dict(zip(COLUMNS, (area, perimeter, confidence, kept.edge), strict=True))
    return GeoDataFrame(columns, geometry=geometry, crs=None if grid.crs is None else official_crs(grid.crs))


def pixel_areas(polygons: BlockPolygons, grid: Grid, ground: Ground) -> NDArray[np.float64]:
    """Return the ground that the pixels of each polygon cover, in square metres, `(polygon,)`."""
    left, top, right, bottom = shapely.bounds(polygons.polygons).reshape(-1, 4).T
    return polygons.pixel_count * pixel_area_m2(grid, (left + right) / 2, (top + bottom) / 2, ground)


def place_polygons(polygons: PolygonArray, transform: Affine) -> PolygonArray:
    """Move polygons from pixel to world coordinates; exteriors counter-clockwise there (OGC 06-103r4, GeoParquet)."""
    if not len(polygons):
        return polygons
    kind, xy, offsets = shapely.to_ragged_array(polygons)
    world = np.column_stack(to_world(transform, xy[:, 0], xy[:, 1]))
    placed: PolygonArray = shapely.orient_polygons(shapely.from_ragged_array(kind, world, offsets), exterior_cw=False)
    return placed
