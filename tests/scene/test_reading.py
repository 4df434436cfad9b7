"""What reading promises: the same pixels through any window, thread, process and stretch."""

import logging
import pickle  # what dask does between our own processes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.errors import BandMismatchError
from geoseg.grid import Window
from geoseg.scene import open_scene
from geoseg.testing import decode_positions, write_position_scene


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data(), shape=st.tuples(st.integers(1, 90), st.integers(1, 120)))
def test_any_window_is_the_crop_of_the_whole(write, noise, data: st.DataObject, shape: tuple) -> None:
    mask = np.random.default_rng(5).random((61, 83)) < 0.7
    scene = open_scene(write("a.tif", noise(2, 61, 83), mask=mask)).at_shape(shape)
    whole = scene.read(scene.grid.window)
    top, left = (data.draw(st.integers(0, n - 1)) for n in shape)
    window = Window(top, left, data.draw(st.integers(1, shape[0] - top)), data.draw(st.integers(1, shape[1] - left)))
    part = scene.read(window)
    np.testing.assert_array_equal(part.values, whole.values[:, *window.slices])
    np.testing.assert_array_equal(part.valid, whole.valid[window.slices])


def test_a_window_shows_the_pixels_at_its_place(tmp_path: Path) -> None:
    scene = open_scene(write_position_scene(tmp_path / "a.tif", (600, 700), tiled=True, blockxsize=64, blockysize=64))
    window = Window(301, 447, 67, 89)
    rows, cols = decode_positions(scene.read(window).values)
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(301, 368)[:, None], (67, 89)))
    np.testing.assert_array_equal(cols, np.broadcast_to(np.arange(447, 536), (67, 89)))


@pytest.mark.parametrize(
    "window", [Window(-1, 0, 5, 5), Window(0, 0, 21, 5), Window(0, 18, 5, 5), Window(50, 50, 1, 1)]
)
def test_a_window_beyond_the_scene_is_refused(write, noise, window: Window) -> None:
    scene = open_scene(write("a.tif", noise(1, 20, 20)))
    with pytest.raises(ValueError, match="leaves the grid"):
        scene.read(window)


def test_a_scene_pickles_as_its_recipe(write, noise) -> None:
    scene = open_scene(write("a.tif", noise(3, 200, 300, "uint16"))).with_levels().at_gsd(0.5)
    before = scene.read(scene.grid.window)
    data = pickle.dumps(scene)
    assert len(data) < 5000
    again = pickle.loads(data)
    assert again == scene
    np.testing.assert_array_equal(again.read(scene.grid.window).values, before.values)


def test_threads_read_the_same_pixels(write, noise) -> None:
    scene = open_scene(write("a.tif", noise(3, 200, 200), tiled=True, blockxsize=16, blockysize=16)).at_shape(
        (140, 150)
    )
    whole = scene.read(scene.grid.window).values
    windows = [Window(r, c, 20, 30) for r in range(0, 120, 7) for c in range(0, 120, 11)]
    with ThreadPoolExecutor(4) as pool:
        for window, pixels in zip(windows, pool.map(scene.read, windows), strict=True):
            np.testing.assert_array_equal(pixels.values, whole[:, *window.slices])


@pytest.mark.parametrize("several", [False, True])
def test_a_file_that_was_replaced_is_read_anew(write, several: bool) -> None:
    paths = [write("a.tif", np.full((1, 20, 20), 1, np.uint8))]
    if several:
        from affine import Affine

        paths.append(
            write("b.tif", np.full((1, 20, 20), 1, np.uint8), transform=Affine(0.3, 0, 500_006, 0, -0.3, 600_000))
        )
    scene = open_scene(paths)
    assert (scene.read(scene.grid.window).values == 1).all()
    write("new.tif", np.full((1, 20, 20), 2, np.uint8), compress="deflate").replace(paths[0])
    assert (scene.read(Window(0, 0, 20, 20)).values == 2).all()


def test_16_bit_levels_are_those_of_the_whole_scene_and_not_of_a_window(write) -> None:
    ramp = np.broadcast_to(np.arange(3000, dtype="uint16")[None, None, :], (1, 100, 3000)).copy()
    scene = open_scene(write("a.tif", ramp)).with_levels()
    low, high = scene.levels[0]
    assert (low, high) == pytest.approx((60, 2939), abs=6)
    dark, bright = scene.read(Window(0, 0, 10, 50)).values, scene.read(Window(0, 2950, 10, 50)).values
    assert (dark.dtype, dark.max(), bright.min()) == (np.uint8, 0, 255)
    whole = scene.read(scene.grid.window).values
    expected = np.clip(np.round((np.arange(3000) - low) * 255 / (high - low)), 0, 255)
    assert (whole[0, 0] == expected).mean() > 0.99  # a half may fall to either side in single precision
    assert np.abs(whole[0, 0] - expected).max() <= 1
    window = Window(20, 1000, 30, 700)
    np.testing.assert_array_equal(scene.read(window).values, whole[:, *window.slices])


def test_levels_leave_nodata_out(write) -> None:
    pixels = np.random.default_rng(0).integers(1000, 2000, (1, 100, 100), "uint16")
    pixels[:, :60] = 65535
    (low, high), *_ = open_scene(write("a.tif", pixels, nodata=65535)).with_levels().levels
    assert 1000 <= low < 1060
    assert 1940 < high <= 2000


def test_levels_are_per_band_and_8_bit_pixels_need_none(write) -> None:
    pixels = np.stack([np.full((50, 50), v) + np.arange(50) for v in (100, 5000)]).astype("uint16")
    levels = open_scene(write("a.tif", pixels)).with_levels().levels
    assert levels[0][1] < 200 < 4000 < levels[1][0]
    eight = open_scene(write("b.tif", pixels.astype(np.uint8)))
    assert eight.with_levels() is eight


def test_other_bands_of_a_stretched_scene_get_levels_of_their_own(write) -> None:
    path = write("a.tif", np.stack([np.full((50, 50), v) + np.arange(50) for v in (100, 5000)]).astype("uint16"))
    scene = open_scene(path, bands=(1,)).with_levels().with_bands((2,))
    assert scene.read(scene.grid.window).values.dtype == np.uint16
    assert scene.with_levels() == open_scene(path, bands=(2,)).with_levels()
    assert len(np.unique(scene.with_levels().read(scene.grid.window).values)) > 40


@pytest.mark.parametrize("constant", [True, False])
def test_a_scene_without_contrast_or_data_has_levels_too(write, constant: bool) -> None:
    pixels = np.full((1, 30, 30), 700, "uint16")
    scene = open_scene(write("a.tif", pixels, nodata=None if constant else 700)).with_levels()
    assert scene.read(scene.grid.window).values.dtype == np.uint8


def test_bands_that_are_not_there_are_refused(write, noise) -> None:
    path = write("a.tif", noise(3, 20, 20))
    with pytest.raises(BandMismatchError, match=r"bands 1 to 3.*4,1,1.*`bands`"):
        open_scene(path, bands=(4, 1, 1))
    with pytest.raises(BandMismatchError, match="bands 0"):
        open_scene(path, bands=(0,))


def test_opening_says_nothing_about_a_scene_that_has_all(write, noise, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="geoseg"):
        open_scene(write("a.tif", noise(3, 20, 20)))
    assert not caplog.records
