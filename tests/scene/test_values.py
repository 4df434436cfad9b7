"""Values that mean nodata without saying so, and values that overflow."""

from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import GeosegError, UsageError
from geoseg.grid import Window
from geoseg.scene import open_scene

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
COLLARS = [("uint16", 65535), ("uint16", 0), ("int16", -9999), ("float32", -3.4e38), ("float32", -32768.0)]


def ground(dtype: str, side: int = 100) -> NDArray[Any]:
    """Three bands of values from 1000 to 3000 that are never equal in all bands."""
    values = np.random.default_rng(0).integers(1000, 3000, (3, side, side))
    return (values + np.arange(3)[:, None, None] * (values == values[0]).all(axis=0)).astype(dtype)


@pytest.mark.parametrize(("dtype", "value"), COLLARS)
@pytest.mark.parametrize("where", [np.s_[:, :, :15], np.s_[:, :30, :30], np.s_[:, -4:]], ids=str)
def test_a_collar_that_nobody_declared_is_named_and_nodata_takes_it_out(
    write, caplog: pytest.LogCaptureFixture, dtype: str, value: float, where: Any
) -> None:
    pixels = ground(dtype)
    pixels[where] = value
    undeclared, declared = write("a.tif", pixels), write("b.tif", pixels, nodata=float(pixels.dtype.type(value)))
    open_scene(undeclared).with_levels()
    shown = str(pixels.dtype.type(value))
    assert f"a: the value {shown} fills" in caplog.text
    assert f"`nodata={shown}`" in caplog.text
    caplog.clear()
    told, right = open_scene(undeclared, nodata=float(shown)).with_levels(), open_scene(declared).with_levels()
    assert caplog.text == ""
    assert told.levels == right.levels
    for shape in (told.grid.shape, (47, 53)):
        window = Window(0, 0, *shape)
        found, expected = told.at_shape(shape).read(window), right.at_shape(shape).read(window)
        np.testing.assert_array_equal(found.valid, expected.valid)
        np.testing.assert_array_equal(found.values[:, found.valid], expected.values[:, expected.valid])


@pytest.mark.parametrize("value", [0, 255, 254])
def test_a_collar_of_8_bit_pixels_is_named_and_nodata_takes_it_out(
    write, caplog: pytest.LogCaptureFixture, value: int
) -> None:
    pixels = (ground("uint16", 520) % 250).astype(np.uint8)
    pixels[:, :, :70] = value
    undeclared, declared = write("a.tif", pixels), write("b.tif", pixels, nodata=value)
    open_scene(undeclared).warn_of_collar()
    assert f"a: the value {value} fills much of its border in all bands" in caplog.text
    assert f"`nodata={value}`" in caplog.text
    caplog.clear()
    open_scene(undeclared, nodata=value).warn_of_collar()
    open_scene(declared).warn_of_collar()
    pixels[:, :, 20:70], pixels[0, :, :20] = 100, 101  # a value of the border in two bands alone; one inside in all
    open_scene(write("c.tif", pixels)).warn_of_collar()
    open_scene(write("small.tif", pixels[:, :300, :300] * 0)).warn_of_collar()
    assert caplog.text == ""


def test_what_only_looks_like_a_collar_is_left_alone(write, caplog: pytest.LogCaptureFixture) -> None:
    inside, saturated, tall = ground("uint16"), ground("uint16"), ground("uint16")
    inside[:, 40:60, 40:60] = 0  # touches no border
    saturated[:, :30] = 3000  # no further than the other values
    tall[0, :, :15] = 0  # one band alone: a dark place
    for name, pixels in {"inside": inside, "saturated": saturated, "tall": tall, "empty": inside * 0}.items():
        open_scene(write(f"{name}.tif", pixels)).with_levels()
    assert caplog.text == ""


def test_a_nodata_value_that_is_given_counts_instead_of_the_files(write, caplog: pytest.LogCaptureFixture) -> None:
    pixels = ground("uint16")
    pixels[:, :15], pixels[:, 50:60] = 65535, 7
    wrong = write("a.tif", pixels, nodata=7)
    scene = open_scene(wrong, nodata=65535)
    valid = scene.read(scene.grid.window).valid
    assert (valid[:15].any(), valid[15:].all()) == (False, True)
    assert scene.may_hold_data(Window(0, 0, 10, 100))


def test_a_mask_counts_beside_a_nodata_value_that_is_given(write) -> None:
    pixels, mask = ground("uint16"), np.ones((100, 100), bool)
    pixels[:, :15], mask[:, :20] = 65535, False
    for path in (
        write("mask.tif", pixels, mask=mask),
        write(
            "alpha.tif",
            np.concatenate((pixels, mask[None] * np.uint16(65535))),
            colors=("red", "green", "blue", "alpha"),
        ),
    ):
        scene = open_scene(path, nodata=65535)
        valid = scene.read(scene.grid.window).valid
        assert (valid[:15].any(), valid[:, :20].any(), valid[15:, 20:].all()) == (False, False, True), path.name


def test_a_pixel_is_nodata_where_all_bands_are_also_those_that_are_not_read(write) -> None:
    pixels = np.concatenate((ground("uint16"), np.full((1, 100, 100), 500, np.uint16)))
    pixels[:3, :10] = 0
    pixels[:, 10:20] = 0
    scene = open_scene(write("a.tif", pixels), nodata=0)
    valid = scene.read(scene.grid.window).valid
    assert (valid[:10].all(), valid[10:20].any(), valid[20:].all()) == (True, False, True)


def test_sheets_have_the_nodata_value_that_is_given(write) -> None:
    """The later sheet lies over the earlier one, but its collar does not."""
    one, other = ground("int16", 40), ground("int16", 40)
    other[:, :, :20] = -9999
    paths = [write("a.tif", one), write("b.tif", other, transform=PLACE @ Affine.translation(20, 0))]
    scene = open_scene(paths, nodata=-9999)
    pixels = scene.read(scene.grid.window)
    assert scene.grid.shape == (40, 60)
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.values[:, :, 20:40], one[:, :, 20:])
    masked = [write("c.tif", one, mask=np.ones((40, 40), bool)), paths[1]]
    with pytest.raises(GeosegError, match=r"c\.tif has a mask band.*`nodata=-9999`"):
        open_scene(masked, nodata=-9999)


@pytest.mark.parametrize(("dtype", "value"), [("uint8", -9999), ("uint8", 256), ("uint16", 0.5), ("int16", np.nan)])
def test_a_nodata_value_that_no_pixel_can_have_is_refused(write, dtype: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"pixels of type {dtype}, .*`nodata={value:.15g}`"):
        open_scene(write("a.tif", np.ones((1, 20, 20), dtype)), nodata=value)


@pytest.mark.parametrize("nodata", [None, float(np.finfo("float32").min)])
def test_the_largest_floats_are_stretched_without_a_warning(write, nodata: float | None) -> None:
    """Warnings are errors here."""
    pixels = ground("float32")
    pixels[:, :40, :40] = np.finfo("float32").min
    if nodata is None:
        pixels[:, 60:, 60:] = np.finfo("float32").max
    scene = open_scene(write("a.tif", pixels, nodata=nodata)).with_levels()
    for shape in ((100, 100), (47, 53)):
        assert scene.at_shape(shape).read(Window(0, 0, *shape)).values.dtype == np.uint8
