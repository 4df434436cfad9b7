from collections import Counter

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS

from geoseg.grid import Grid, Window
from geoseg.outputs import mask_file, probability_file, write_raster
from geoseg.outputs.overviews import halve_average, halve_majority

NODATA = 255


def naive_mean(cell):
    counted = [value for value in cell if value != NODATA]
    return (2 * sum(counted) + len(counted)) // (2 * len(counted)) if counted else NODATA


def naive_majority(cell):
    """Count in reading order; the first value that reaches the highest count wins."""
    counts, winner, most = Counter(), NODATA, 0
    for value in cell:
        counts[value] += value != NODATA
        if counts[value] > most:
            winner, most = value, counts[value]
    return winner


def naive(rule, pixels):
    rows, cols = (side // 2 for side in pixels.shape)
    cells = [[pixels[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].ravel().tolist() for c in range(cols)] for r in range(rows)]
    return np.array([[rule(cell) for cell in row] for row in cells], np.uint8)


def even_pixels(values):
    shapes = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda shape: (2 * shape[0], 2 * shape[1]))
    return shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=values))


@given(even_pixels(st.integers(0, 255) | st.just(NODATA)))
def test_averages_are_those_counted_one_by_one(pixels):
    np.testing.assert_array_equal(halve_average(pixels), naive(naive_mean, pixels))


@given(even_pixels(st.sampled_from([0, 1, 2, 3, NODATA])))
def test_majorities_are_those_counted_one_by_one(pixels):
    np.testing.assert_array_equal(halve_majority(pixels), naive(naive_majority, pixels))


@pytest.mark.parametrize(
    ("cell", "winner"),
    [([0, 1, 1, 0], 1), ([1, 0, 0, 1], 0), ([0, 1, 0, 1], 0), ([3, 2, 1, 0], 3), ([255, 2, 1, 255], 2)],
)
def test_of_equally_common_values_the_one_complete_first_wins(cell, winner):
    assert halve_majority(np.array(cell, np.uint8).reshape(2, 2)).item() == winner


@pytest.mark.parametrize("holes", [0, 0.3])
@pytest.mark.parametrize(("describe", "rule", "top"), [(probability_file, "AVERAGE", 255), (mask_file, "MODE", 2)])
def test_overviews_of_even_rasters_are_GDALs_own(tmp_path, describe, rule, top, holes):
    rng = np.random.default_rng(7)
    values = rng.integers(0, top, (1200, 1600), dtype=np.uint8)
    values[rng.random(values.shape) < holes] = NODATA
    ours = write_raster(
        describe(tmp_path / "ours.tif"),
        [(Window(0, 0, *values.shape), values)],
        Grid(CRS.from_epsg(32630), Affine(1, 0, 0, 0, -1, 0), values.shape),
    )
    theirs = tmp_path / "theirs.tif"
    rasterio.shutil.copy(ours, theirs, driver="COG", OVERVIEWS="IGNORE_EXISTING", OVERVIEW_RESAMPLING=rule)
    for level in range(2):
        with rasterio.open(ours, overview_level=level) as a, rasterio.open(theirs, overview_level=level) as b:
            np.testing.assert_array_equal(a.read(), b.read())
