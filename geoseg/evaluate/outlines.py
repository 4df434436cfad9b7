"""Buildings of a class raster as polygons, by the same steps as a run: blocks, seams, simplification."""

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.evaluate.layers import BLOCK_PX, Layer, cut_grid
from geoseg.evaluate.shapes import PolygonArray
from geoseg.evaluate.vectors import Footprints
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA, PROBABILITY_ONE
from geoseg.vectorize import BlockPolygons, join_seams, polygonize_block
from geoseg.vectorize.footprints import pixel_areas
from geoseg.vectorize.generalise import Simplify, generalise
from geoseg.vectorize.ground import Ground

SIMPLIFY_PX = 1.0
"""Tolerance for outlines of rasters, as in a run; pixel corners would count as vertices otherwise."""


def outline_buildings(
    layer: Layer,
    grid: Grid,
    target: int,
    *,
    probability: Layer | None = None,
    min_area_m2: float = 0.0,
    simplify_px: float = SIMPLIFY_PX,
    block_px: int = BLOCK_PX,
) -> Footprints:
    """Outline the connected pixels of a class.

    Args:
        layer: Class indices.
        grid: Its grid.
        target: Index of the class.
        probability: Stored probabilities, for the confidence; there is none without them.
        min_area_m2: Smallest building.
        simplify_px: Tolerance of the simplification, pixels; 0 keeps every pixel corner.
        block_px: Height and width of what is outlined at once; the result does not depend on it.
    """
    windows = cut_grid(grid.shape, block_px)
    joined = join_seams([_outline_block(layer, probability, grid, target, window) for window in windows])
    kept = joined.take(~(pixel_areas(joined, grid, Ground.of(grid.crs)) < min_area_m2))
    confidence = kept.probability_sum / np.maximum(kept.pixel_count, 1) / PROBABILITY_ONE
    outlines, clashing = generalise(kept.polygons, Simplify(simplify_px))
    outlines = np.where(clashing, kept.polygons, outlines)
    return Footprints(outlines, confidence if probability is not None else None)


def _outline_block(layer: Layer, probability: Layer | None, grid: Grid, target: int, window: Window) -> BlockPolygons:
    around = window.expand(1).intersect(grid.window)
    assert around is not None
    values = layer.read(around)
    weights = probability.read(around) if probability is not None else np.zeros(around.shape, np.uint8)
    return polygonize_block(values == target, weights, values != NODATA, window, scene_shape=grid.shape)


def outline_area(known: NDArray[np.bool_], around: Window, window: Window, shape: tuple[int, int]) -> PolygonArray:
    """Return the known pixels of a window as polygons, in pixels of the grid.

    Args:
        known: `(y, x)` pixels of `around`.
        around: The window, or more.
        window: The window to outline.
        shape: Height and width of the grid.
    """
    own = known[window.relative_to(around).slices]
    if own.all():
        return np.array([shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop)], object)
    ring = window.expand(1).intersect(Window(0, 0, *shape))
    assert ring is not None
    padded = np.zeros(ring.shape, bool)
    padded[window.relative_to(ring).slices] = own
    nothing = np.zeros(ring.shape, np.uint8)
    found = polygonize_block(padded, nothing, np.ones(ring.shape, bool), window, scene_shape=shape)
    return np.asarray(found.polygons, object)
