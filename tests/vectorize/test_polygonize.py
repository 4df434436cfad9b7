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

OUTLINE = ("orientation_deg", "vertices", "outline", "geometry")

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
    assert list(found.columns) == ["id", "area_m2", "perimeter_m", "confidence", "confidence_min", "edge", *OUTLINE]
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


def test_an_array_lies_where_it_is_drawn_and_a_picture_where_QGIS_shows_it(probability: np.ndarray) -> None:
    drawn, shown = polygonize(probability), polygonize(probability, transform=Affine.scale(1, -1))
    assert drawn.geometry.geom_equals(
        geopandas.GeoSeries([shapely.box(10, 5, 30, 15), shapely.box(50, 20, 60, 30)])
    ).all()
    flipped = drawn.geometry.affine_transform([1, 0, 0, -1, 0, 0])
    assert shown.geometry.geom_equals(flipped).all()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_mask_becomes_footprints_without_a_confidence(probability: np.ndarray, dtype: type) -> None:
    found = polygonize((probability > 0.5).astype(dtype), threshold=0.9)
    assert list(found.columns) == ["id", "area_m2", "perimeter_m", "edge", *OUTLINE]
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


def test_outline_and_tolerance_are_the_callers() -> None:
    rows, cols = np.indices((60, 60))
    house = (np.abs(rows - 0.3 * cols - 20) < 10) & (np.abs(cols + 0.3 * rows - 35) < 20)
    house[18:20, 30:32] |= True
    options = {"transform": PLACE, "crs": "EPSG:32630"}
    raw, simple, regular, coarse = (
        polygonize(house, outline=outline, tolerance_m=tolerance_m, **options).iloc[0]
        for outline, tolerance_m in (("raw", None), ("simple", None), ("regular", None), ("simple", 4.0))
    )
    assert [part.outline for part in (raw, simple, regular)] == ["raw", "simple", "regular"]
    assert regular.vertices == 4
    assert raw.vertices > simple.vertices > coarse.vertices
    assert polygonize(house, **options).geometry[0] == regular.geometry


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
        (np.zeros((4, 4)), {"outline": "round"}, "`outline='round'` is unknown"),
        (np.zeros((4, 4)), {"tolerance_m": -1}, "`tolerance_m=-1` is negative"),
    ],
)
def test_what_is_no_probability_and_no_mask_is_refused(array: np.ndarray, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        polygonize(array, **options)


def test_nothing_found_is_an_empty_frame() -> None:
    found = polygonize(np.zeros((5, 5)), transform=PLACE, crs=32630)
    assert found.empty
    assert found.crs.to_epsg() == 32630


@pytest.mark.parametrize(("outline", "seed"), [("simple", 0), ("simple", 1), ("regular", 3), ("raw", 0)])
def test_outlines_full_of_holes_stay_valid_on_the_map(outline: str, seed: int) -> None:
    """World coordinates are rounded: a hole that touches a wall between two corners would cross it."""
    mask = np.random.default_rng(seed).random((200, 200)) < 0.62
    found = polygonize(mask, transform=Affine(0.3, 0, 500_000, 0, -0.3, 600_000), crs=32630, outline=outline)
    assert shapely.get_num_interior_rings(found.geometry.to_numpy()).sum() > 100
    assert found.geometry.is_valid.all()


def test_holes_below_the_smallest_building_are_filled() -> None:
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    mask[10:12, 10:12] = mask[20:25, 20:25] = False  # 4 and 25 px
    holes = {}
    for name, settings in {
        "usual": {"min_area_m2": 10.0},
        "none": {"min_area_m2": 10.0, "fill_holes_m2": 0.0},
        "all": {"min_area_m2": 26.0},
        "exactly": {"min_area_m2": 25.0},
        "no limit": {},
    }.items():
        (polygon,) = polygonize(mask, outline="raw", **settings).geometry
        holes[name] = sorted(shapely.Polygon(ring).area for ring in polygon.interiors)
    assert holes == {"usual": [25], "none": [4, 25], "all": [], "exactly": [25], "no limit": [4, 25]}
    with pytest.raises(UsageError, match=r"`fill_holes_m2=12` is above `min_area_m2=10`"):
        polygonize(mask, min_area_m2=10, fill_holes_m2=12)


def test_a_building_keeps_its_id_where_its_outline_changes() -> None:
    rows, cols = np.indices((80, 120))
    hill = np.maximum(30 - np.hypot(rows - 40, cols - 32), 30 - np.hypot(rows - 40, cols - 90)).clip(0) / 30
    place = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
    low, high = (polygonize(hill, transform=place, crs=32630, threshold=value) for value in (0.3, 0.7))
    assert low["id"].tolist() == high["id"].tolist()
    assert low["id"].is_unique
    assert low["area_m2"].min() > high["area_m2"].max()
    lat, lon = map(float, low["id"].iloc[0].split(","))
    here = low.to_crs(4326).geometry.iloc[0]
    assert here.contains(shapely.Point(lon, lat))
    assert polygonize(hill, threshold=0.5)["id"].str.fullmatch(r"pixel \d+").all()


def test_the_smallest_probability_inside_is_a_column() -> None:
    probability = np.zeros((20, 20))
    probability[5:10, 5:10], probability[7, 7] = 200 / 254, 150 / 254
    (least,) = polygonize(probability)["confidence_min"]
    assert least == pytest.approx(150 / 254)


def test_an_interior_tells_buildings_apart() -> None:
    probability = np.zeros((40, 90))
    probability[5:35, 5:85] = 0.9
    interior = probability.copy()
    interior[:, 44:47] = 0
    assert [len(polygonize(probability)), len(polygonize(probability, interior=interior))] == [1, 2]
    assert len(polygonize(probability > 0.5, interior=interior)) == 2
    assert len(polygonize(probability, interior=interior, split_depth=1)) == 1
    with pytest.raises(UsageError, match=r"`interior` has shape \(40, 89\), the array \(40, 90\)"):
        polygonize(probability, interior=interior[:, 1:])
