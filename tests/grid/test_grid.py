"""Georeferenced pixels: meters on the ground, and grids of one extent."""

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.windows import Window as RasterioWindow
from rasterio.windows import bounds as rasterio_bounds

from geoseg.grid import Grid, Window

UTM = CRS.from_epsg(32630)
DEGREES = CRS.from_epsg(4326)
WEB_MERCATOR = CRS.from_epsg(3857)


def utm_grid(gsd: float = 0.3, shape: tuple[int, int] = (200, 300)) -> Grid:
    """A grid on the central meridian of its zone."""
    return Grid(UTM, Affine(gsd, 0, 500_000, 0, -gsd, 600_000), shape)


def test_gsd_on_the_central_meridian_of_UTM_is_the_pixel_size_by_its_scale() -> None:
    across, along = utm_grid().gsd_m
    assert across == pytest.approx(0.3 / 0.9996, rel=1e-5)
    assert along == pytest.approx(0.3 / 0.9996, rel=1e-5)


@pytest.mark.parametrize("latitude", [0.0, 27.7, 60.0])
def test_gsd_of_degrees_is_meters_on_the_ellipsoid_per_axis(latitude: float) -> None:
    step = 1e-5
    grid = Grid(DEGREES, Affine(step, 0, 85.0, 0, -step, latitude + 50 * step), (100, 100))
    geod = Geod(ellps="WGS84")
    across = geod.inv(85, latitude, 85 + step, latitude)[2]
    along = geod.inv(85, latitude - step / 2, 85, latitude + step / 2)[2]
    assert grid.gsd_m == pytest.approx((across, along), rel=1e-5)


def test_gsd_of_web_mercator_shrinks_with_latitude() -> None:
    y = 8_399_737.89  # 60 degrees north
    grid = Grid(WEB_MERCATOR, Affine(0.6, 0, 1_000_000, 0, -0.6, y), (100, 100))
    assert grid.gsd_m == pytest.approx((0.3, 0.3), rel=0.01)


def test_gsd_does_not_change_with_rotation() -> None:
    turned = Grid(UTM, Affine.translation(500_000, 600_000) @ Affine.rotation(33) @ Affine.scale(0.3, -0.3), (200, 300))
    assert turned.is_rotated
    assert turned.gsd_m == pytest.approx(utm_grid().gsd_m, rel=1e-4)


@pytest.mark.parametrize(("shear", "is_rotated"), [((0.0, 0.0), False), ((0.1, 0.0), True), ((0.0, 0.1), True)])
def test_a_grid_whose_rows_or_columns_run_askew_counts_as_rotated(shear: tuple[float, float], is_rotated: bool) -> None:
    grid = Grid(UTM, Affine(0.3, shear[0], 500_000, shear[1], -0.3, 600_000), (100, 100))
    assert grid.is_rotated is is_rotated


def test_gsd_of_oblong_pixels_is_given_per_axis() -> None:
    grid = Grid(UTM, Affine(0.2, 0, 500_000, 0, -0.5, 600_000), (100, 100))
    assert grid.gsd_m[1] / grid.gsd_m[0] == pytest.approx(2.5, rel=1e-5)


def test_a_grid_without_CRS_has_no_gsd_and_is_never_resampled() -> None:
    picture = Grid(None, Affine.identity(), (10, 20))
    assert picture.gsd_m is None
    assert picture.resampled(0.3) is picture


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    gsd=st.floats(0.05, 2),
    wanted=st.floats(0.05, 2),
    angle=st.sampled_from([0.0, 17.0, 90.0]),
)
def test_resampled_grid_has_exactly_the_extent_of_the_scene(
    height: int, width: int, gsd: float, wanted: float, angle: float
) -> None:
    transform = Affine.translation(500_000, 600_000) @ Affine.rotation(angle) @ Affine.scale(gsd, -gsd)
    grid = Grid(UTM, transform, (height, width))
    out = grid.resampled(wanted)
    np.testing.assert_allclose(out.corners, grid.corners, rtol=0, atol=1e-6)
    for n, own, axis in zip(out.shape, grid.shape, grid.gsd_m[::-1], strict=True):
        assert n == own or n == max(1, round(own * axis / wanted))


@pytest.mark.parametrize(
    ("factor", "is_kept"), [(1.0, True), (1.019, True), (0.981, True), (1.03, False), (0.97, False)]
)
def test_a_scene_within_two_percent_of_the_model_keeps_its_pixels(factor: float, is_kept: bool) -> None:
    grid = utm_grid()
    assert (grid.resampled(grid.gsd_m[0] * factor) is grid) == is_kept


def test_one_axis_off_is_enough_to_resample() -> None:
    grid = Grid(UTM, Affine(0.3, 0, 500_000, 0, -0.4, 600_000), (300, 300))
    out = grid.resampled(0.3)
    assert out.shape == (400, 300)


# rasterio 1.4 multiplies with `*`: https://github.com/rasterio/affine/blob/main/CHANGES.txt (3.1)
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@given(row=st.integers(0, 50), col=st.integers(0, 50), height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=25)
def test_crop_bounds_equal_those_of_rasterio(row: int, col: int, height: int, width: int) -> None:
    grid = utm_grid()
    expected = rasterio_bounds(RasterioWindow(col, row, width, height), grid.transform)
    assert grid.crop(Window(row, col, height, width)).bounds == pytest.approx(expected, abs=1e-6)


@given(row=st.integers(-20, 50), col=st.integers(-20, 50), height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=25)
def test_window_of_the_bounds_of_a_window_is_that_window(row: int, col: int, height: int, width: int) -> None:
    window = Window(row, col, height, width)
    assert utm_grid().window_of_bounds(utm_grid().crop(window).bounds) == window


def test_window_of_bounds_holds_every_pixel_that_is_touched() -> None:
    grid = Grid(None, Affine.identity(), (10, 10))
    assert grid.window_of_bounds((2.4, 3.6, 4.1, 5.2)) == Window(3, 2, 3, 3)
    assert grid.window_of_bounds((2.5, 3.5, 2.5, 3.5)).shape == (1, 1)


def test_bounds_of_a_rotated_grid_hold_its_corners() -> None:
    grid = Grid(UTM, Affine.translation(100, 200) @ Affine.rotation(45) @ Affine.scale(1, -1), (10, 10))
    assert grid.bounds == pytest.approx((100, 200 - 5 * math.sqrt(2), 100 + 10 * math.sqrt(2), 200 + 5 * math.sqrt(2)))


def test_a_grid_refuses_to_have_no_pixels_or_no_area() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        Grid(None, Affine.identity(), (0, 5))
    with pytest.raises(ValueError, match="no area"):
        Grid(None, Affine(0, 0, 0, 0, 1, 0), (5, 5))
