"""The grid of a mosaic: predictable, and the same pixels whatever is added or cut."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import MissingCRSError, UsageError
from geoseg.grid import Grid, Window
from geoseg.mosaic import check_size, choose_grid, crop_grid, overlap, shares_lattice, utm_zone
from geoseg.scene import Scene

WriteScene = Callable[..., Scene]
GRAY = np.full((1, 50, 60), 100, np.uint8)
UTM = CRS.from_epsg(32630)


def is_whole(value: float) -> bool:
    return value == round(value)


def moved(scene: Scene, crs: str | None, transform: Affine, shape: tuple[int, int] = (50, 60)) -> Scene:
    """A scene somewhere else."""
    grid = Grid(CRS.from_user_input(crs) if crs else None, transform, shape)
    return replace(scene, native=grid, grid=grid)


@pytest.mark.parametrize("crs", ["EPSG:32630", "EPSG:3857", "EPSG:4326", "EPSG:2136"])
def test_the_corner_is_whole_pixels_from_the_zero_of_the_CRS(write_scene: WriteScene, crs: str) -> None:
    t = choose_grid([write_scene(GRAY, shift=(0.3, 0.7))], crs=CRS.from_user_input(crs), gsd_m=0.5).transform
    assert is_whole(t.c / t.a)
    assert is_whole(t.f / t.e)
    assert t.a > 0 > t.e
    assert t.b == t.d == 0


@pytest.mark.parametrize("crs", ["EPSG:32630", "EPSG:32631", "EPSG:3857", "EPSG:4326", "EPSG:2136"])
def test_a_pixel_has_the_GSD_on_the_ground(write_scene: WriteScene, crs: str) -> None:
    gsd_m = choose_grid([write_scene(GRAY)], crs=CRS.from_user_input(crs), gsd_m=0.5).gsd_m
    assert gsd_m == pytest.approx((0.5, 0.5), rel=0.02)  # as near as a scene keeps its own pixels


def test_far_north_a_pixel_in_degrees_is_twice_as_wide_as_high(write_scene: WriteScene) -> None:
    north = moved(write_scene(GRAY), "EPSG:32633", Affine(0.3, 0, 500_000, 0, -0.3, 6_651_412))  # 60 degrees
    grid = choose_grid([north], crs=CRS.from_epsg(4326), gsd_m=0.5)
    assert grid.gsd_m == pytest.approx((0.5, 0.5), rel=0.01)
    assert grid.transform.a / -grid.transform.e == pytest.approx(2, rel=0.01)


def test_a_UTM_pixel_is_a_round_number(write_scene: WriteScene) -> None:
    t = choose_grid([write_scene(GRAY, "EPSG:4326")], crs=UTM, gsd_m=0.3).transform
    assert (t.a, t.e) == (0.3, -0.3)


@pytest.mark.parametrize(
    ("first", "expected"),
    [("EPSG:32630", "EPSG:32630"), ("EPSG:2136", "EPSG:2136"), ("EPSG:4326", "EPSG:32630")],
)
def test_the_CRS_is_that_of_the_first_scene_or_its_UTM_zone(write_scene: WriteScene, first: str, expected: str) -> None:
    scenes = [write_scene(GRAY, first), write_scene(GRAY, "EPSG:32631")]
    assert choose_grid(scenes, crs=None, gsd_m=0.3).crs == CRS.from_user_input(expected)


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [(-0.2, 5.6, 32630), (0.0, 5.6, 32631), (180, -10, 32701), (179.9, 10, 32660), (20, 85, 32661), (20, -81, 32761)],
)
def test_UTM_zones_and_polar_caps(lon: float, lat: float, epsg: int) -> None:
    assert utm_zone(lon, lat) == CRS.from_epsg(epsg)


def test_one_more_scene_and_a_crop_move_no_pixel(write_scene: WriteScene) -> None:
    scenes = [write_scene(GRAY, "EPSG:4326"), write_scene(GRAY, "EPSG:32631", shift=(91.7, -33.1))]
    one, two = choose_grid(scenes[:1], crs=None, gsd_m=0.3), choose_grid(scenes, crs=None, gsd_m=0.3)
    assert two.height > one.height
    assert (one.transform.a, one.transform.e) == (two.transform.a, two.transform.e)
    col, row = ~two.transform @ (one.transform.c, one.transform.f)
    cut = Window(round(row), round(col), *one.shape)
    assert crop_grid(two, cut) == one


def test_it_reaches_as_far_as_the_scenes_and_no_further(write_scene: WriteScene) -> None:
    scene = write_scene(GRAY, shift=(0.4, 0.4), turn=30)
    grid = choose_grid([scene], crs=UTM, gsd_m=0.3)
    for mine, theirs in zip(grid.bounds, scene.native.bounds, strict=True):
        assert abs(mine - theirs) < 0.3


def test_without_a_GSD_it_has_the_finest_scenes_pixel(write_scene: WriteScene) -> None:
    scenes = [write_scene(GRAY), write_scene(GRAY, px=0.2), write_scene(GRAY, "EPSG:4326")]
    assert choose_grid(scenes, crs=None, gsd_m=None).transform.a == 0.2
    turned = choose_grid([scenes[0], write_scene(GRAY, px=0.2, turn=10)], crs=None, gsd_m=None)
    assert turned.gsd_m == pytest.approx((0.2, 0.2), rel=0.002)


def test_scenes_without_a_CRS_are_named(write_scene: WriteScene) -> None:
    scene = write_scene(GRAY)
    lost = replace(moved(scene, None, Affine.scale(1, -1)), name="lost")
    with pytest.raises(MissingCRSError, match=r"without a CRS: 1 of 2 \(lost\)\. .*Give it with `crs`"):
        choose_grid([scene, lost], crs=None, gsd_m=0.3)


def test_continents_apart_is_refused_with_the_numbers_and_the_farthest_scene(write_scene: WriteScene) -> None:
    near = write_scene(GRAY)
    far = replace(moved(near, "EPSG:4326", Affine(3e-6, 0, 8.5, 0, -3e-6, 47.4)), name="zurich")
    grid = choose_grid([near, near, far], crs=None, gsd_m=0.3)
    with pytest.raises(UsageError, match=r"\d,\d{3},\d{3} x .* pixels .* scene and zurich lie far apart.*`aoi`"):
        check_size(grid, [near, near, far])
    cut = crop_grid(grid, Window(0, 0, 100, 100))
    assert check_size(cut, [near, far]) is cut


def test_sheets_share_a_lattice_and_touch_without_overlap(write_scene: WriteScene) -> None:
    a, b, c = (write_scene(GRAY, shift=s).native for s in ((0, 0), (60, 0), (59, 0)))
    other = write_scene(GRAY, px=0.31).native
    assert shares_lattice([a, b, c])
    assert not shares_lattice([a, other])
    assert not shares_lattice([a, write_scene(GRAY, "EPSG:32631").native])
    assert not overlap([a, b])
    assert overlap([a, c])
