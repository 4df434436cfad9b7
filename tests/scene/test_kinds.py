"""Every kind of raster that people have, read as rasterio reads it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.drivers import raster_driver_extensions

from geoseg.grid import Window
from geoseg.scene import Scene, data_windows, open_scene

HOLE = (slice(10, 30), slice(20, 25))


def read_all(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Read a whole scene."""
    pixels = scene.read(scene.grid.window)
    return pixels.values, pixels.valid


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_pixels_of_every_type_come_as_they_are(write, noise, dtype: str) -> None:
    pixels = noise(3, 40, 50, dtype)
    scene = open_scene(write("a.tif", pixels))
    values, valid = read_all(scene)
    np.testing.assert_array_equal(values, pixels)
    assert values.dtype == scene.dtype == dtype
    assert valid.all()
    assert not scene.has_mask


@pytest.mark.parametrize(
    "options",
    [
        {"blockysize": 3},
        {"tiled": True, "blockxsize": 16, "blockysize": 32},
        {"compress": "deflate", "predictor": 2},
        {"compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "zstd", "interleave": "band"},
        {"interleave": "band", "blockysize": 7},
        {"BIGTIFF": "YES", "sparse_ok": True},
        {"driver": "COG", "compress": "deflate", "blocksize": 128},
    ],
    ids=str,
)
def test_however_a_TIFF_is_laid_out_its_windows_are_the_same(write, noise, options: dict) -> None:
    pixels = noise(3, 61, 83)
    pixels[:, :16] = 0
    scene = open_scene(write("a.tif", pixels, **options))
    window = Window(11, 40, 29, 43)
    np.testing.assert_array_equal(scene.read(window).values, pixels[:, *window.slices])


@pytest.mark.parametrize(
    ("count", "colors", "bands"),
    [
        (1, ("gray",), (1,)),
        (2, ("gray", "alpha"), (1,)),
        (3, ("red", "green", "blue"), (1, 2, 3)),
        (3, ("blue", "green", "red"), (3, 2, 1)),
        (4, ("red", "green", "blue", "alpha"), (1, 2, 3)),
        (4, ("alpha", "red", "green", "blue"), (2, 3, 4)),
        (4, ("blue", "green", "red", "undefined"), (3, 2, 1)),
        (5, ("gray", "undefined", "undefined", "undefined", "undefined"), (1, 2, 3)),
    ],
)
def test_colors_are_found_where_the_file_marks_them(write, noise, count: int, colors: tuple, bands: tuple) -> None:
    pixels = noise(count, 20, 20)
    scene = open_scene(write("a.tif", pixels, colors=colors), alpha=True)
    assert (scene.bands, scene.band_count) == (bands, count)
    np.testing.assert_array_equal(read_all(scene)[0], pixels[[b - 1 for b in bands]])


def test_asked_for_bands_come_in_the_order_asked_for(write, noise) -> None:
    pixels = noise(4, 20, 20)
    values, _ = read_all(open_scene(write("a.tif", pixels), bands=(4, 1, 1)))
    np.testing.assert_array_equal(values, pixels[[3, 0, 0]])


def test_an_alpha_band_is_the_mask_and_no_color(write, noise) -> None:
    pixels = noise(4, 40, 40)
    pixels[3] = 255
    pixels[3][HOLE] = 0
    scene = open_scene(write("a.tif", pixels, colors=("red", "green", "blue", "alpha")))
    values, valid = read_all(scene)
    assert values.shape[0] == 3
    np.testing.assert_array_equal(valid, pixels[3] > 0)
    assert scene.has_mask


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("uint8", 255), ("int16", -9999), ("float32", -1e30)])
def test_pixels_of_the_nodata_value_are_invalid(write, noise, dtype: str, nodata: float) -> None:
    pixels = np.clip(noise(3, 40, 40, dtype), 1, 254)
    pixels[:, *HOLE] = nodata
    scene = open_scene(write("a.tif", pixels, nodata=nodata))
    expected = np.ones((40, 40), bool)
    expected[HOLE] = False
    np.testing.assert_array_equal(read_all(scene)[1], expected)
    assert scene.nodata == pytest.approx(nodata)


def test_one_dark_band_is_no_nodata(write) -> None:
    pixels = np.full((3, 20, 20), 90, np.uint8)
    pixels[0] = 0
    assert read_all(open_scene(write("a.tif", pixels, nodata=0)))[1].all()


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_band_is_honored_inside_the_file_and_beside_it(write, noise, inside: bool) -> None:
    mask = np.ones((40, 40), bool)
    mask[HOLE] = False
    path = write("a.tif", noise(3, 40, 40), mask=mask if inside else None)
    if not inside:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dst:
            dst.write_mask(mask)
        assert path.with_name("a.tif.msk").exists()
    np.testing.assert_array_equal(read_all(open_scene(path))[1], mask)


@pytest.mark.parametrize("nodata", [None, float("nan"), 0.0])
def test_pixels_that_are_no_numbers_are_invalid_and_harmless(write, noise, nodata: float | None) -> None:
    pixels = noise(2, 40, 40, "float32")
    pixels[:, *HOLE] = np.nan
    pixels[1, 0, 0] = np.inf
    scene = open_scene(write("a.tif", pixels, nodata=nodata))
    values, valid = read_all(scene)
    expected = np.isfinite(pixels).all(0)
    np.testing.assert_array_equal(valid, expected)
    assert np.isfinite(values).all()
    coarse = scene.at_shape((13, 13)).read(Window(0, 0, 13, 13))
    assert np.isfinite(coarse.values).all()
    assert not coarse.valid.all()


def test_the_mask_of_a_file_counts_beside_pixels_that_are_no_numbers(write, noise) -> None:
    pixels, mask = noise(2, 40, 40, "float32"), np.ones((40, 40), bool)
    pixels[0, 5, 5:9] = np.nan
    mask[20:30, 7:11] = False
    scene = open_scene(write("a.tif", pixels, mask=mask))
    np.testing.assert_array_equal(read_all(scene)[1], mask & np.isfinite(pixels).all(0))


@pytest.mark.parametrize(("shape", "oversampling"), [((50, 60), 2), ((60, 100), 1), ((30, 100), 1), ((100, 30), 1)])
def test_an_overview_is_read_only_where_it_is_finer_along_both_axes(write, shape: tuple, oversampling: int) -> None:
    """Overviews of 100 x 120 and 50 x 60 pixels, one gray level off, as rounding may be: read at twice the detail."""
    path = write("a.tif", np.full((1, 200, 240), 10, "uint8"), overviews=(2, 4))
    for level, value in enumerate((11, 9)):
        with rasterio.open(path, "r+", overview_level=level) as dst:
            dst.write(np.full((1, *dst.shape), value, "uint8"))
    values = open_scene(path).at_shape(shape).read(Window(0, 0, *shape)).values
    assert np.unique(values).tolist() == [11 if oversampling == 2 else 10]


@pytest.mark.parametrize("options", [{"driver": "COG", "blocksize": 128}, {}])
@pytest.mark.parametrize("shape", [(1001, 777), (1025, 513)])
def test_overviews_are_read_for_coarse_grids_and_show_the_same_place(write, shape: tuple, options: dict) -> None:
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([rows, cols]).astype("uint16")
    keep = {} if options else {"overviews": (2, 4, 8)}
    scene = open_scene(write("a.tif", pixels, **options, **keep))
    assert len(scene.overviews) >= 1
    coarse = scene.at_shape((shape[0] // 6, shape[1] // 6))
    assert coarse.reads_overview
    exact = Scene.read(open_scene(write("b.tif", pixels)).at_shape(coarse.grid.shape), coarse.grid.window).values
    values, valid = read_all(coarse)
    np.testing.assert_allclose(values.astype(float), exact, atol=2.0)  # pixels; a sixth of one is a third of 6
    assert valid.all()
    part = Window(30, 20, 50, 60)
    np.testing.assert_array_equal(coarse.read(part).values, values[:, *part.slices])


@pytest.mark.parametrize("how", ["nodata", "mask", "alpha"])
def test_overviews_keep_nodata(write, noise, how: str) -> None:
    hole = np.ones((512, 512), bool)
    hole[128:256, 64:192] = False
    pixels = noise(4 if how == "alpha" else 3, 512, 512)
    if how == "alpha":
        pixels[3] = np.where(hole, 255, 0)
        path = write("a.tif", pixels, colors=("red", "green", "blue", "alpha"), overviews=(2, 4))
    elif how == "mask":
        path = write("a.tif", pixels, mask=hole, overviews=(2, 4))
    else:
        path = write("a.tif", np.where(hole, pixels, 0), nodata=0, overviews=(2, 4))
    coarse = open_scene(path).at_shape((128, 128))
    assert coarse.reads_overview
    valid = read_all(coarse)[1]
    np.testing.assert_array_equal(valid, hole.reshape(128, 4, 128, 4).mean((1, 3)) >= 0.5)


def test_a_VRT_is_a_raster_like_any_other(write, noise, tmp_path: Path) -> None:
    pixels = noise(3, 40, 50)
    write("a.tif", pixels)
    band = (
        '<VRTRasterBand dataType="Byte" band="{0}"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        '<SourceBand>{0}</SourceBand><SrcRect xOff="10" yOff="5" xSize="30" ySize="20"/>'
        '<DstRect xOff="0" yOff="0" xSize="30" ySize="20"/></SimpleSource></VRTRasterBand>'
    )
    text = (
        '<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>EPSG:32630</SRS><GeoTransform>500003,0.3,0,599998.5,0,-0.3'
    )
    (tmp_path / "a.vrt").write_text(f"{text}</GeoTransform>{''.join(band.format(i) for i in (1, 2, 3))}</VRTDataset>")
    scene = open_scene(tmp_path / "a.vrt")
    np.testing.assert_array_equal(read_all(scene)[0], pixels[:, 5:25, 10:40])
    assert scene.grid.transform.c == 500_003


@pytest.mark.parametrize(("suffix", "driver"), [("png", "PNG"), ("jpg", "JPEG")])
def test_a_plain_picture_is_read_in_pixel_coordinates_and_that_is_said(
    write, noise, caplog: pytest.LogCaptureFixture, suffix: str, driver: str
) -> None:
    path = write(f"a.{suffix}", noise(3, 40, 50), driver=driver, transform=None)
    with caplog.at_level(logging.WARNING):
        scene = open_scene(path)
    assert "no CRS" in caplog.text
    assert "pixel coordinates" in caplog.text
    assert "y = -row" in caplog.text
    assert (scene.grid.crs, scene.grid.transform) == (None, Affine.scale(1, -1))
    assert scene.at_gsd(0.1).grid.shape == (40, 50)
    with rasterio.open(path) if driver == "" else pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        expected = rasterio.open(path).read()
    np.testing.assert_array_equal(read_all(scene)[0], expected)


@pytest.mark.skipif("jp2" not in raster_driver_extensions(), reason="this GDAL reads no JPEG 2000")
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_JPEG_2000_is_read_with_its_overviews(write, noise, dtype: str) -> None:
    pixels = np.kron(noise(3, 70, 90, dtype), np.ones((8, 8), dtype))[:, :551, :713]
    path = write("a.jp2", pixels, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    scene = open_scene(path)
    values, valid = read_all(scene)
    np.testing.assert_array_equal(values, pixels)
    assert valid.all()
    coarse = scene.at_shape((101, 133))
    exact = open_scene(write("a.tif", pixels)).at_shape((101, 133))
    error = np.abs(read_all(coarse)[0].astype(float) - read_all(exact)[0])
    assert error.mean() < 0.05 * np.iinfo(dtype).max  # the wavelet's average is another one


def test_a_rotated_scene_keeps_its_rotation(write, noise) -> None:
    turned = Affine.translation(500_000, 600_000) @ Affine.rotation(20) @ Affine.scale(0.3, -0.3)
    pixels = noise(1, 30, 40)
    scene = open_scene(write("a.tif", pixels, transform=turned))
    assert scene.grid.is_rotated
    assert scene.grid.transform.almost_equals(turned)
    np.testing.assert_array_equal(read_all(scene)[0], pixels)


def test_a_given_CRS_is_used_where_the_file_has_none(write, noise, caplog: pytest.LogCaptureFixture) -> None:
    path = write("a.tif", noise(1, 30, 40), crs=None)
    with caplog.at_level(logging.WARNING):
        assert open_scene(path).grid.crs is None
        assert "`crs`" in caplog.text
        caplog.clear()
        assert open_scene(path, crs="EPSG:32630").grid.crs == CRS.from_epsg(32630)
        assert not caplog.text


def test_a_given_CRS_overrules_the_file_and_that_is_said(write, noise, caplog: pytest.LogCaptureFixture) -> None:
    path = write("a.tif", noise(1, 30, 40))
    with caplog.at_level(logging.WARNING):
        assert open_scene(path, crs="EPSG:32631").grid.crs == CRS.from_epsg(32631)
    assert "`crs=EPSG:32631` is used instead" in caplog.text


def test_a_scene_resampled_to_a_model_covers_exactly_the_same_ground(write, noise) -> None:
    scene = open_scene(write("a.tif", noise(3, 333, 517)))
    coarse = scene.at_gsd(0.7)
    np.testing.assert_allclose(coarse.grid.corners, scene.grid.corners, atol=1e-6)
    assert read_all(coarse)[0].shape == (3, *coarse.grid.shape)
    assert coarse.at_gsd(0.3).grid == scene.grid


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 7), ("int16", -9999), ("uint16", 65535), ("uint8", 300), ("uint8", 0.5)]
)
def test_the_mask_of_a_nodata_value_is_GDALs(write, noise, dtype: str, nodata: float) -> None:
    """A pixel is valid where any band has another value; a value that the type cannot hold is nowhere."""
    pixels = noise(2, 40, 50, dtype)
    is_held = nodata not in (300, 0.5)
    pixels[:, 5:20, 8:30] = nodata if is_held else int(nodata) % 256
    pixels[0, 5:10] = 1
    path = write("a.tif", pixels, nodata=nodata if is_held else None)
    if not is_held:
        bands = "".join(
            f'<PAMRasterBand band="{b}"><NoDataValue>{nodata}</NoDataValue></PAMRasterBand>' for b in (1, 2)
        )
        path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    _, valid = read_all(open_scene(path))
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(valid, src.dataset_mask() > 0)


@pytest.mark.parametrize("values", [(9, 9, 9), (0, 0, 0), (7, 0, 255)])
def test_every_band_of_a_file_has_its_own_nodata_value_and_a_say_in_what_is_valid(write, values: tuple) -> None:
    """Black water is valid ground where infrared, which nobody reads, has a value; a band alone decides nothing."""
    nodata = np.array([*values, 9], np.uint8)
    pixels = np.broadcast_to(nodata[:, None, None], (4, 6, 4)).copy()
    for band in range(4):
        pixels[band, band, 1:3] = 100  # rows 4 and 5 have no value in any band
    path = write("a.tif", pixels, colors=("red", "green", "blue", "undefined"))
    bands = "".join(
        f'<PAMRasterBand band="{band}"><NoDataValue>{value}</NoDataValue></PAMRasterBand>'
        for band, value in enumerate(nodata, 1)
    )
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    expected = np.zeros((6, 4), bool)
    expected[:4, 1:3] = True
    for bands_read in (None, (1, 2, 3, 4), (1,)):
        np.testing.assert_array_equal(read_all(open_scene(path, bands=bands_read))[1], expected)


@pytest.mark.parametrize("how", ["nodata", "mask", "alpha"])
@pytest.mark.parametrize(
    "valid", [(slice(2, 9), slice(3, 13)), (slice(0, 12), slice(0, 1)), (slice(5, 6), slice(19, 20))]
)
def test_what_is_valid_has_the_values_of_the_file_to_the_last_column(write, noise, how: str, valid: tuple) -> None:
    pixels, mask = noise(3, 12, 20), np.zeros((12, 20), bool)
    mask[valid] = True
    if how == "nodata":
        path = write("a.tif", np.where(mask, pixels, 0), nodata=0)
    elif how == "mask":
        path = write("a.tif", pixels, mask=mask)
    else:
        alpha = np.concatenate([pixels, 255 * mask[None].astype("uint8")])
        path = write("a.tif", alpha, colors=("red", "green", "blue", "alpha"))
    values, found = read_all(open_scene(path))
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(values[:, mask], pixels[:, mask])


@pytest.mark.parametrize("nodata", [0, 255, 90])
@pytest.mark.parametrize(
    "colors", [("red", "green", "blue", "alpha"), ("gray", "alpha"), ("gray", "undefined", "alpha")]
)
def test_where_there_are_an_alpha_band_and_a_nodata_value_both_are_honored(write, nodata: int, colors: tuple) -> None:
    """GDAL alone would forget the one or the other: an opaque scene with nodata 255 had no valid pixel."""
    pixels = np.full((len(colors), 32, 32), 100, np.uint8)
    pixels[:, :, 16:] = nodata
    alpha = colors.index("alpha")
    pixels[alpha] = 255
    pixels[alpha, :16] = 0
    expected = np.zeros((32, 32), bool)
    expected[16:, :16] = True
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    scene = open_scene(write("a.tif", pixels, colors=colors, nodata=nodata, **tiles))
    np.testing.assert_array_equal(read_all(scene)[1], expected)
    np.testing.assert_array_equal(read_all(scene.with_bands(range(1, len(colors) + 1)))[1], expected)
    assert data_windows(scene) == (Window(16, 0, 16, 16),)
    assert [scene.may_hold_data(Window(row, col, 16, 16)) for row in (0, 16) for col in (0, 16)] == [0, 0, 1, 0]
