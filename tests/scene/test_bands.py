"""What a file says of its bands: names of colors, and alpha that is no mask."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import SceneMismatchError
from geoseg.scene import open_scene

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
RGB = ("red", "green", "blue")
ALPHA = (*RGB, "alpha")


def infrared(noise) -> NDArray[np.uint8]:
    """Four bands, of which the last is 0 over water."""
    pixels = noise(4, 60, 60)
    pixels[3] = np.maximum(pixels[3], 1)
    pixels[3, :20] = 0
    return pixels


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("blue", "green", "red", "nir"), (3, 2, 1)),
        (("nir", "red", "green", "blue"), (2, 3, 4)),
        (("Blue", "GREEN", "Band 3 (Red)", ""), (3, 2, 1)),
        (("B", "G", "R", "N"), (3, 2, 1)),
        (("B02 - blue", "B03 - green", "B04 - red", "B05 - red edge"), (3, 2, 1)),
        (("coastal blue", "blue", "green", "red"), (4, 3, 2)),
        (("sr_red_edge", "sr_blue", "sr_green", "sr_red"), (4, 3, 2)),
        (("red", "red", "green", "blue"), (1, 2, 3)),  # two reds: the names do not tell
        (("near infrared", "red edge", "green", "blue"), (1, 2, 3)),
        (("Band_1", "Band_2", "Band_3", "Band_4"), (1, 2, 3)),
    ],
)
@pytest.mark.parametrize("colors", [("gray", "undefined", "undefined", "undefined"), ALPHA], ids=["none", "GDAL's"])
def test_names_tell_colors_whatever_the_marks_say(write, noise, names: tuple, bands: tuple, colors: tuple) -> None:
    path = write("a.tif", noise(4, 60, 60), colors=colors)
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    scene = open_scene(path)
    assert scene.bands == bands
    assert sorted(scene.data_bands) == [1, 2, 3, 4]
    assert scene.read(scene.grid.window).valid.all()


def test_sheets_are_one_scene_by_their_names(write, noise) -> None:
    pixels = noise(3, 40, 40)
    paths = [
        write("a.tif", pixels, photometric="rgb"),
        write("b.tif", pixels, transform=PLACE @ Affine.translation(40, 0)),
    ]
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.descriptions = RGB[::-1]
    scene = open_scene(paths)
    assert scene.bands == (3, 2, 1)
    np.testing.assert_array_equal(scene.read(scene.grid.window).values[:, :, 40:], pixels[::-1])
    with rasterio.open(paths[1], "r+") as file:
        file.descriptions = RGB
    with pytest.raises(SceneMismatchError, match=r"bands in the order \(1, 2, 3\); a\.tif has .*\(3, 2, 1\)"):
        open_scene(paths)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_an_image_marked_alpha_is_a_band_like_the_others_and_that_is_said(
    write, noise, caplog: pytest.LogCaptureFixture, dtype: str, nodata: int | None
) -> None:
    pixels = infrared(noise).astype(dtype) * (257 if dtype == "uint16" else 1)
    pixels[:3] = np.maximum(pixels[:3], 1)
    path = write("naip.tif", pixels, colors=ALPHA, nodata=nodata)
    scene = open_scene(path)
    assert "naip: band 4 is marked as alpha, but holds an image" in caplog.text
    assert "`alpha=False`" in caplog.text
    caplog.clear()
    assert open_scene(path, alpha=False) == scene
    assert (scene.bands, scene.data_bands) == ((1, 2, 3), (1, 2, 3, 4))
    assert scene.read(scene.grid.window).valid.all()
    assert scene.may_hold_data(scene.grid.window)
    masked = open_scene(path, alpha=True)
    assert masked.data_bands == (1, 2, 3)
    np.testing.assert_array_equal(masked.read(masked.grid.window).valid, pixels[3] > 0)
    assert caplog.text == ""


def soft(noise) -> NDArray[np.uint8]:
    """An alpha band with soft edges."""
    alpha = np.zeros((60, 60), np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = noise(1, 60, 10)[0], 255
    return alpha


@pytest.mark.parametrize("kind", ["soft", "half", "tiny", "empty"])
def test_alpha_that_is_a_mask_is_one_without_a_word(write, noise, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    pixels = noise(4, 60, 60)
    masks = {"soft": soft(noise), "half": pixels[3] // 128 * 127, "tiny": pixels[3] % 2, "empty": pixels[3] * 0}
    pixels[3] = masks[kind]
    scene = open_scene(write("a.tif", pixels, colors=ALPHA))
    assert scene.data_bands == (1, 2, 3)
    np.testing.assert_array_equal(scene.read(scene.grid.window).valid, pixels[3] > 0)
    assert caplog.text == ""


def test_sheets_with_an_image_marked_alpha_have_data_everywhere(write, noise, caplog: pytest.LogCaptureFixture) -> None:
    """Also where a sheet's own infrared has few values; between the sheets there is none."""
    first, second = infrared(noise)[:, :40, :40], noise(4, 40, 40)
    second[3] = 0
    paths = [
        write("a.tif", first, colors=ALPHA),
        write("b.tif", second, colors=ALPHA, transform=PLACE @ Affine.translation(50, 0)),
    ]
    for given in (None, False):
        scene = open_scene(paths, alpha=given)
        pixels = scene.read(scene.grid.window)
        np.testing.assert_array_equal(pixels.valid, np.tile(np.r_[np.ones(40), np.zeros(10), np.ones(40)] > 0, (40, 1)))
        np.testing.assert_array_equal(pixels.values[:, :, 50:], second[:3])
        assert scene.data_bands == (1, 2, 3, 4)
    assert caplog.text.count("holds an image") == 1
