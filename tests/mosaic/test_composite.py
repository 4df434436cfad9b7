"""Several scenes as one image: who lies over whom, and what is read for it."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg.errors import BandMismatchError, SceneMismatchError
from geoseg.grid import Grid, Window
from geoseg.mosaic import Composite, CountedMask, choose_grid, compose, find_meeting, sheet_windows
from geoseg.scene import Scene, close_readers

WriteScene = Callable[..., Scene]
UTM = CRS.from_epsg(32630)
ONE, TWO = 50, 200
LEFT, RIGHT, BOTH = 20, 60, 30


def gray(value: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((1, height, width), value, np.uint8)


def mosaic_of(scenes: list[Scene], **options: bool) -> Composite:
    return compose(scenes, choose_grid(scenes, crs=UTM, gsd_m=0.3), **options)


@pytest.fixture
def pair(write_scene: WriteScene) -> list[Scene]:
    """Two scenes of 40 x 60 pixels that share their columns 30 to 60."""
    return [write_scene(gray(ONE), name="one"), write_scene(gray(TWO), shift=(BOTH, 0), name="two")]


def test_the_first_lies_over_the_others(pair: list[Scene]) -> None:
    for scenes, expected in ((pair, ONE), (pair[::-1], TWO)):
        mosaic = mosaic_of(scenes)
        pixels = mosaic.read(mosaic.grid.window)
        assert pixels.valid.all()
        assert pixels.values.shape == (1, 40, 90)
        assert (pixels.values[0, :, :BOTH] == ONE).all()
        assert (pixels.values[0, :, BOTH:60] == expected).all()
        assert (pixels.values[0, :, 60:] == TWO).all()


def test_narrow_and_flat_windows_show_every_scene_that_they_reach(write_scene: WriteScene) -> None:
    scenes = [write_scene(gray(value), shift=shift) for value, shift in ((1, (0, 0)), (2, (0, 150)), (3, (200, 0)))]
    mosaic = mosaic_of(scenes)
    column = mosaic.read(Window(0, 20, mosaic.grid.height, 3)).values[0, :, 0]
    assert (set(column[:40]), set(column[150:])) == ({1}, {2})
    row = mosaic.read(Window(20, 0, 3, mosaic.grid.width)).values[0, 0]
    assert (set(row[:60]), set(row[200:])) == ({1}, {3})


def test_where_one_has_no_data_the_next_shows(write_scene: WriteScene) -> None:
    hole = np.ones((40, 60), bool)
    hole[10:20, 15:45] = False
    one = write_scene(gray(ONE), valid=hole)
    two = write_scene(gray(TWO, 40, 30))
    mosaic = mosaic_of([one, two])
    pixels = mosaic.read(mosaic.grid.window)
    assert (pixels.values[0, 10:20, 15:30] == TWO).all()
    assert not pixels.valid[10:20, 30:45].any()
    assert (pixels.values[0][hole] == ONE).all()
    assert pixels.valid.sum() == hole.sum() + 150
    np.testing.assert_array_equal(mosaic.read_valid(mosaic.grid.window), pixels.valid)


def test_nan_is_no_data_though_the_file_does_not_say_so(write_scene: WriteScene) -> None:
    hole = np.zeros((1, 40, 60), bool)
    hole[:, 10:20, 15:45] = True
    mosaic = mosaic_of([write_scene(np.where(hole, np.nan, 0.5).astype(np.float32))])
    np.testing.assert_array_equal(mosaic.read(mosaic.grid.window).valid, ~hole[0])
    np.testing.assert_array_equal(mosaic.read_valid(mosaic.grid.window), ~hole[0])


def test_a_pass_per_scene_where_the_mean_is_wanted_and_one_elsewhere(pair: list[Scene]) -> None:
    image, mean = mosaic_of(pair), mosaic_of(pair, mean=True)
    left, middle, right = (Window(0, col, 40, 10) for col in (0, 40, 75))
    assert image.passes(middle) == (image,)
    assert [p.top for p in mean.passes(left)] == [0]
    assert [p.top for p in mean.passes(middle)] == [0, 1]
    assert [p.top for p in mean.passes(right)] == [1]


def test_the_scene_of_a_pass_lies_over_all_and_the_others_are_its_surroundings(pair: list[Scene]) -> None:
    mean = mosaic_of(pair, mean=True)
    _, second = mean.passes(mean.grid.window)
    pixels = second.read(mean.grid.window)
    assert (pixels.values[0, :, :BOTH] == ONE).all()
    assert (pixels.values[0, :, BOTH:] == TWO).all()
    assert pixels.valid.all()
    assert second.counted is not None
    mask = CountedMask(second.counted, Window(-5, -5, 50, 100))
    assert mask.read_valid(Window(-5, -5, 50, 100)).sum() == 40 * 60
    assert mask.read_valid(Window(0, BOTH, 40, 60)).all()
    assert not mask.read_valid(Window(-3, 0, 3, 90)).any()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data(), top=st.sampled_from([None, 0, 1, 2]))
def test_a_window_of_a_mosaic_is_a_part_of_the_whole(trio: Composite, data: st.DataObject, top: int | None) -> None:
    mosaic = replace(trio, top=top)
    height, width = mosaic.grid.shape
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col)))
    whole, pixels = mosaic.read(mosaic.grid.window), mosaic.read(window)
    np.testing.assert_array_equal(pixels.values, whole.values[:, *window.slices])
    np.testing.assert_array_equal(pixels.valid, whole.valid[window.slices])
    np.testing.assert_array_equal(mosaic.read_valid(window), pixels.valid)


@pytest.fixture(scope="module")
def trio(write_scene: WriteScene) -> Composite:
    """Three noisy scenes of three CRSs with holes."""
    rng = np.random.default_rng(0)
    holes = [np.kron(rng.random((9, 7)) < 0.7, np.ones((9, 11), bool)).astype(bool) for _ in range(3)]
    noise = rng.integers(1, 256, (3, 3, 81, 77), np.uint8)
    crss = ("EPSG:32631", "EPSG:4326", "EPSG:32630")
    scenes = [
        write_scene(n, crs, valid=v, shift=(20 * i, 9 * i))
        for i, (n, crs, v) in enumerate(zip(noise, crss, holes, strict=True))
    ]
    return mosaic_of(scenes, mean=True)


def test_windows_beside_every_scene_meet_none_and_neighbors_do_not_count(write_scene: WriteScene) -> None:
    covered = [Window(0, 0, 40, 60), Window(100, 200, 40, 60)]
    windows = [Window(0, 0, 10, 10), Window(0, 60, 40, 100), Window(40, 0, 40, 60), Window(90, 190, 11, 11)]
    assert list(find_meeting(windows, covered)) == [True, False, False, True]
    sheets = [write_scene(gray(1)), write_scene(gray(2), shift=(60, 0)), write_scene(gray(2), shift=(120, 100))]
    half = sheets[0].native.reshaped((20, 30))
    expected = (Window(-1, -1, 22, 32), Window(-1, 29, 22, 32), Window(49, 59, 22, 32))
    assert sheet_windows([s.native for s in sheets], half) == expected


def test_only_scenes_that_meet_a_window_are_opened(write_scene: WriteScene) -> None:
    scenes = [write_scene(gray(ONE)), write_scene(gray(TWO), shift=(200, 0), name="gone")]
    mosaic = mosaic_of(scenes)
    Path(scenes[1].paths[0]).unlink()
    close_readers()
    assert (mosaic.read(Window(0, 0, 40, 150)).values[0, :, :60] == ONE).all()


def test_a_scene_under_another_is_not_read_where_it_does_not_show(write_scene: WriteScene) -> None:
    over, under = write_scene(gray(ONE)), write_scene(gray(TWO), name="gone")
    mosaic = mosaic_of([over, under])
    Path(under.paths[0]).unlink()
    close_readers()
    assert (mosaic.read(mosaic.grid.window).values == ONE).all()


def test_a_thousand_scenes_travel_in_a_megabyte(write_scene: WriteScene) -> None:
    scene = write_scene(gray(ONE), "EPSG:32631")
    t = scene.native.transform
    scenes = []
    for i in range(1_000):
        there = Affine(t.a, 0, t.c + 18 * (i % 40), 0, t.e, t.f - 12 * (i // 40))
        grid = Grid(CRS.from_wkt(scene.native.crs.to_wkt()), there, scene.native.shape)
        scenes.append(replace(scene, native=grid, grid=grid, paths=(f"/somewhere/on/a/disk/scene_{i}.tif",)))
    packed = pickle.dumps(compose(scenes, choose_grid(scenes, crs=UTM, gsd_m=0.3)))
    assert len(packed) < 1e6
    assert len(pickle.loads(packed).parts) == 1_000


def test_a_mosaic_survives_the_journey(trio: Composite) -> None:
    there = pickle.loads(pickle.dumps(trio))
    assert there == trio
    np.testing.assert_array_equal(there.read(Window(0, 0, 50, 50)).values, trio.read(Window(0, 0, 50, 50)).values)


def test_at_another_shape_it_is_the_same_picture(pair: list[Scene]) -> None:
    mosaic = mosaic_of(pair)
    small = mosaic.at_shape((20, 45))
    assert small.grid.bounds == pytest.approx(mosaic.grid.bounds)
    pixels = small.read(small.grid.window)
    assert pixels.valid.all()
    assert (pixels.values[0, :, :28] == ONE).all()
    assert (pixels.values[0, :, 31:] == TWO).all()
    assert small.at_shape(mosaic.grid.shape).grid == mosaic.grid
    assert mosaic.at_gsd(0.6).grid.shape == (20, 45)


def test_a_look_at_the_masks_tells_where_nothing_is(write_scene: WriteScene) -> None:
    hole = np.ones((40, 60), bool)
    hole[:, 20:50] = False
    masked = write_scene(gray(ONE), valid=hole)
    turned = write_scene(gray(TWO, 10, 10), shift=(80, 10), turn=30)
    mosaic = mosaic_of([masked, turned])
    assert mosaic.may_hold_data(Window(0, 10, 40, 20))
    assert not mosaic.may_hold_data(Window(0, 25, 40, 20))
    assert mosaic.may_hold_data(Window(10, 70, 20, 20))
    assert not mosaic.may_hold_data(Window(30, 65, 10, 10))
    assert not mosaic.parts[0].read_valid(Window(0, 25, 40, 20)).any()


def test_bands_are_chosen_before_and_levels_measured_before(pair: list[Scene]) -> None:
    mosaic = mosaic_of(pair)
    assert mosaic.with_levels() is mosaic
    assert mosaic.with_bands((1,)) is mosaic
    with pytest.raises(BandMismatchError, match=r"A mosaic has bands \(1,\)"):
        mosaic.with_bands((2,))


def test_scenes_of_different_types_need_levels(write_scene: WriteScene) -> None:
    scenes = [write_scene(gray(ONE)), write_scene(gray(TWO).astype(np.uint16), shift=(BOTH, 0), name="words")]
    with pytest.raises(SceneMismatchError, match=r"types uint16 \(words\), uint8 \(scene\)"):
        mosaic_of(scenes)
    stretched = mosaic_of([scenes[0], replace(scenes[1], levels=((100, 300),))])
    pixels = stretched.read(stretched.grid.window)
    assert pixels.values.dtype == np.uint8
    assert (pixels.values[0, :, 60:] == 128).all()
