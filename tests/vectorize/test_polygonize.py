"""Arrays in memory become footprints: what counts as a building, as data, and where it lies."""

import geopandas
import numpy as np
import pytest
import shapely
import xarray
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import UsageError
from geoseg.vectorize import Simplify, polygonize

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 600_000)


def box(top: int, left: int, bottom: int, right: int) -> shapely.Polygon:
    """Return the ground of some pixels."""
    return shapely.box(*(PLACE @ (left, bottom)), *(PLACE @ (right, top)))


@pytest.fixture
def probability() -> np.ndarray:
    """Two houses: one sure, one at the border; and one that nobody is sure of."""
    values = np.full((40, 60), 0.1, np.float32)
    values[5:15, 10:30], values[20:30, 50:60], values[30:36, 5:15] = 0.9, 0.7, 0.4
    return values


def test_probabilities_become_footprints_on_the_ground(probability: np.ndarray) -> None:
    found = polygonize(probability, transform=PLACE, crs="EPSG:32630")
    assert list(found.columns) == ["area_m2", "perimeter_m", "confidence", "edge", "geometry"]
    assert found.crs.to_epsg() == 32630
    assert found.geometry.geom_equals(geopandas.GeoSeries([box(5, 10, 15, 30), box(20, 50, 30, 60)], crs=32630)).all()
    np.testing.assert_allclose(found["confidence"], [0.9, 0.7], atol=0.5 / 254)
    np.testing.assert_allclose(found["area_m2"], [50, 25], rtol=2e-3)
    assert found["edge"].tolist() == [False, True]


def test_threshold_and_smallest_area_choose_the_buildings(probability: np.ndarray) -> None:
    assert len(polygonize(probability, threshold=0.3)) == 3
    assert len(polygonize(probability, threshold=0.8)) == 1
    assert len(polygonize(probability, threshold=0.3, transform=PLACE, crs=32630, min_area_m2=20)) == 2
    assert len(polygonize(probability, threshold=0.3, min_area_m2=70)) == 2  # pixels without a CRS


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_mask_becomes_footprints_without_a_confidence(probability: np.ndarray, dtype: type) -> None:
    found = polygonize((probability > 0.5).astype(dtype), threshold=0.9)
    assert list(found.columns) == ["area_m2", "perimeter_m", "edge", "geometry"]
    assert found["area_m2"].tolist() == [200, 100]


def test_no_data_is_never_a_building_and_cuts_those_beside_it(probability: np.ndarray) -> None:
    holes = np.zeros(probability.shape, bool)
    holes[:, 20:22] = True
    mask = (probability > 0.5).astype(np.uint8)
    for found in (
        polygonize(np.where(holes, np.nan, probability)),
        polygonize(probability, valid=~holes),
        polygonize(np.where(holes, 255, mask)),
        polygonize(mask, valid=~holes),
    ):
        assert found["area_m2"].tolist() == [100, 80, 100]
        assert found["edge"].tolist() == [True, True, True]


def test_an_array_that_knows_where_it_lies_says_so(probability: np.ndarray) -> None:
    expected = polygonize(probability, transform=PLACE, crs="EPSG:32630")
    ours = {"crs": CRS.from_epsg(32630).to_wkt(), "transform": tuple(PLACE)[:6]}
    mapping = {"crs_wkt": CRS.from_epsg(32630).to_wkt(), "GeoTransform": "500000 0.5 0 600000 0 -0.5"}
    for array in (
        xarray.DataArray(probability, dims=("y", "x"), attrs=ours),
        xarray.DataArray(probability, dims=("y", "x"), coords={"spatial_ref": ((), 0, mapping)}),
    ):
        found = polygonize(array)
        assert found.crs == expected.crs
        assert found.geometry.geom_equals_exact(expected.geometry, 0).all()


def test_the_generalizer_is_the_callers(probability: np.ndarray) -> None:
    rows, cols = np.indices((40, 40))
    stairs = rows + cols < 40
    corners = [len(polygonize(stairs, generalizer=Simplify(px)).geometry[0].exterior.coords) for px in (0, 2)]
    assert corners[0] > 70
    assert corners[1] < 8


@pytest.mark.parametrize(
    ("array", "options", "said"),
    [
        (np.full((4, 4), 200.0), {}, "Values from 200 to 200 were given. Give probabilities from 0 to 1"),
        (np.full((4, 4), 3, np.uint8), {}, "A mask with the value 3"),
        (np.zeros((3, 4, 4)), {}, r"shape \(3, 4, 4\).*one band"),
        (np.zeros((3, 4, 4), bool), {}, r"shape \(3, 4, 4\).*one band"),
        (np.zeros((4, 4)), {"valid": np.ones((4, 5), bool)}, r"`valid` has shape \(4, 5\), the array \(4, 4\)"),
        (np.zeros((4, 4)), {"threshold": 60}, "`threshold=60` is not a probability"),
    ],
)
def test_what_is_no_probability_and_no_mask_is_refused(array: np.ndarray, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        polygonize(array, **options)


def test_nothing_found_is_an_empty_frame() -> None:
    found = polygonize(np.zeros((5, 5)), transform=PLACE, crs=32630)
    assert found.empty
    assert found.crs.to_epsg() == 32630
