"""Overviews are read where they show what the pixels show, and nowhere else."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geoseg.errors import ReadError
from geoseg.scene import Scene, close_readers, open_scene

SIDE = 768
COARSE = (96, 96)


def town(dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Houses of 24 px on noise, `(band, y, x)`."""
    random = np.random.default_rng(seed)
    houses = np.kron(random.random((3, 32, 32)) < 0.2, np.ones((24, 24)))
    return (1 + random.integers(0, 60, (3, SIDE, SIDE)) + 120 * houses).astype(dtype)


def stale(write, name: str, before: NDArray[Any], pixels: NDArray[Any], **profile: Any) -> Path:
    """Write a file whose overviews are those of other pixels."""
    path = write(name, before, overviews=(2, 4), **profile)
    with rasterio.open(path, "r+") as file:
        file.write(pixels)
    close_readers()
    return path


def read(scene: Scene) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    pixels = scene.read(scene.grid.window)
    return pixels.values, pixels.valid


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("before", ["nothing", "other", "a ninth"])
def test_an_overview_that_shows_something_else_is_not_read_and_that_is_said_once(
    write, caplog: pytest.LogCaptureFixture, dtype: str, nodata: int | None, before: str
) -> None:
    pixels = town(dtype)
    old = {"nothing": pixels * 0, "other": town(dtype, seed=1), "a ninth": pixels.copy()}[before]
    old[:, -SIDE // 3 :, -SIDE // 3 :] = 0
    scene = open_scene(stale(write, "a.tif", old, pixels, nodata=nodata))
    right = open_scene(write("b.tif", pixels, nodata=nodata)).at_shape(COARSE)
    found = scene.at_shape(COARSE)
    assert not found.reads_overview
    np.testing.assert_array_equal(read(found)[0], read(right)[0])
    np.testing.assert_array_equal(read(found)[1], read(right)[1])
    assert scene.at_gsd(0.3 * 8) == found
    assert caplog.text.count("shows something else than its pixels") == 2  # of two overviews
    assert "a: its overview of 192 x 192 px" in caplog.text


def test_levels_are_not_those_of_a_stale_overview(write) -> None:
    pixels = np.kron(town("uint16"), np.ones((3, 3), "uint16"))
    path = stale(write, "a.tif", pixels * 7, pixels)
    assert open_scene(path).with_levels().levels == open_scene(write("b.tif", pixels)).with_levels().levels


@pytest.mark.parametrize(
    "how", [Resampling.nearest, Resampling.average, Resampling.cubic, Resampling.lanczos, Resampling.mode]
)
@pytest.mark.parametrize("what", ["town", "noise", "flat", "corner"])
def test_overviews_of_any_filter_are_read(write, caplog: pytest.LogCaptureFixture, how: Resampling, what: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
    corner = town()
    corner[:, 100:], corner[:, :, 100:] = 0, 0
    pixels = {"town": town(), "noise": noise, "flat": noise // 128 + 90, "corner": corner}[what]
    path = write("a.tif", pixels, nodata=0 if what == "corner" else None)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], how)
    assert open_scene(path).at_shape(COARSE).reads_overview
    assert caplog.text == ""


def test_overviews_of_lossy_compression_are_read(write) -> None:
    path = write("a.tif", town(), compress="jpeg", jpeg_quality=30, photometric="ycbcr", tiled=True, overviews=(2, 4))
    assert open_scene(path).at_shape(COARSE).reads_overview


def test_a_file_that_is_replaced_is_compared_again(write) -> None:
    pixels = town()
    path = stale(write, "a.tif", pixels * 0, pixels)
    assert not open_scene(path).at_shape(COARSE).reads_overview
    close_readers()
    path.unlink()
    write("a.tif", pixels, overviews=(2, 4), compress="deflate")
    assert open_scene(path).at_shape(COARSE).reads_overview


@pytest.mark.parametrize("how", ["mask", "alpha"])
def test_overviews_without_the_mask_of_the_pixels_are_not_read(
    write, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """What QGIS calls external pyramids, and `gdaladdo -ro`: the mask has none."""
    mask = np.ones((SIDE, SIDE), bool)
    mask[:200, :300] = False
    if how == "mask":
        path, plain = write("a.tif", town(), mask=mask), write("b.tif", town(), mask=mask)
        with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
        assert path.with_name("a.tif.ovr").exists()
    else:
        bands, colors = np.concatenate((town(), mask[None] * np.uint8(255))), ("red", "green", "blue", "alpha")
        path, plain = write("a.tif", bands, colors=colors, overviews=(2, 4)), write("b.tif", bands, colors=colors)
    with caplog.at_level(logging.INFO):
        found = open_scene(path).at_shape(COARSE)
    assert found.reads_overview == (how == "alpha")
    assert ("overviews have no mask" in caplog.text) == (how == "mask")
    np.testing.assert_array_equal(read(found)[1], read(open_scene(plain).at_shape(COARSE))[1])


def test_a_damaged_place_in_a_sample_is_reported_by_reading_alone(write) -> None:
    path = write("a.tif", town(), compress="deflate", tiled=True, blockxsize=64, blockysize=64, overviews=(2, 4))
    with rasterio.open(path) as src:
        offset = int(src.get_tag_item("BLOCK_OFFSET_6_6", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 600] = b"\xff" * 600
    path.write_bytes(content)
    close_readers()
    scene = open_scene(path)
    assert read(scene.at_shape(COARSE))[1].all()
    with pytest.raises(ReadError):
        read(scene)
