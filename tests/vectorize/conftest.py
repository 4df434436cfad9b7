"""Cut a mask into blocks as a run does, and compare what comes out."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import shapely
from scipy import ndimage

from geoseg.grid import Window
from geoseg.vectorize import BlockPolygons, polygonize_block
from geoseg.vectorize.blocks import tally_block
from geoseg.vectorize.instances import Depth, count_buildings
from geoseg.vectorize.rings import Corners, PolygonArray, outline, reading_order

Cut = Callable[..., list[BlockPolygons]]


def cut_windows(
    mask, probability=None, valid=None, surface=None, *, rows=(), cols=(), depth=1
) -> list[tuple[Window, BlockPolygons]]:
    """Polygonize a mask in the blocks between the given inner rows and columns; without any, as one block.

    `depth` is a number of steps, for any number of buildings, or a `Depth`.
    """
    depth = Depth(depth, depth) if isinstance(depth, int) else depth
    probability = np.full(mask.shape, 254, np.uint8) if probability is None else probability
    valid = np.ones(mask.shape, bool) if valid is None else valid
    heights = np.zeros(mask.shape, np.uint8) if surface is None else surface
    scene, windows = Window(0, 0, *mask.shape), []
    for top, bottom in pairwise((0, *rows, mask.shape[0])):
        for left, right in pairwise((0, *cols, mask.shape[1])):
            window = Window(top, left, bottom - top, right - left)
            windows.append((window, window.expand(1).intersect(scene).slices))
    counts, options = None, {"scene_shape": mask.shape, "depth": depth}
    if depth is not None and depth.varies:
        tallies = [tally_block(mask[seen], valid[seen], heights[seen], window, **options) for window, seen in windows]
        counts = count_buildings(tallies[::-1])
    options["counts"] = counts
    return [
        (window, polygonize_block(mask[seen], probability[seen], valid[seen], window, surface=heights[seen], **options))
        for window, seen in windows
    ]


def cut_blocks(*arrays, **lines) -> list[BlockPolygons]:
    """Polygonize a mask in blocks, without their windows."""
    return [polygons for _, polygons in cut_windows(*arrays, **lines)]


def check_equal(found: BlockPolygons, expected: BlockPolygons) -> None:
    """Hold that two results are equal vertex for vertex and attribute for attribute."""
    assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(expected.polygons).tolist()
    for name in ("summit", "pixel_count", "probability_sum", "probability_min", "touches", "edge", "open"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def outline_labels(labels: np.ndarray) -> PolygonArray:
    """Outline the 4-connected parts of equal labels; zero is nothing."""
    regions, count = np.zeros(labels.shape, int), 0
    for label in np.unique(labels[labels > 0]):
        parts, n = ndimage.label(labels == label)
        regions[parts > 0] = parts[parts > 0] + count
        count += n
    row, col = np.nonzero(regions)
    region, one = regions[row, col] - 1, np.ones(len(row), int)
    places = ((row, col, one), (row, col + 1, -one), (row + 1, col, -one), (row + 1, col + 1, one))
    row, col, weight = (np.concatenate(part) for part in zip(*places, strict=True))
    polygons = outline(Corners(np.tile(region, 4), row, col, weight))
    return polygons[reading_order(polygons)]


@pytest.fixture(scope="session")
def polygons_of() -> Callable[[np.ndarray], PolygonArray]:
    return outline_labels


@pytest.fixture(scope="session")
def cut() -> Cut:
    return cut_blocks


@pytest.fixture(scope="session")
def cut_with_windows() -> Callable[..., list[tuple[Window, BlockPolygons]]]:
    return cut_windows


@pytest.fixture(scope="session")
def assert_equal() -> Callable[[BlockPolygons, BlockPolygons], None]:
    return check_equal


@pytest.fixture(scope="session")
def picture() -> Callable[[str], np.ndarray]:
    """Read a mask from a picture in text: `#` is a building."""
    return lambda text: np.array([[letter == "#" for letter in line] for line in text.split()])
