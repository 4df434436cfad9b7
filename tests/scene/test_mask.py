"""Where nothing is valid, told by the mask alone."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.errors import ReadError
from geoseg.grid import Window
from geoseg.scene import close_readers, data_windows, open_scene

TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True}
SHAPE = (160, 192)
PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def patchy(pixels: np.ndarray, *, row: int = 64, col: int = 96, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that are 0 but in one square, and the mask of it."""
    mask = np.zeros(pixels.shape[1:], bool)
    mask[row : row + size, col : col + size] = True
    return np.where(mask, pixels, 0).astype(pixels.dtype), mask


def write_patches(write, noise, kind: str, name: str = "a.tif") -> tuple[Path, np.ndarray]:
    """A scene with one valid square, told by a nodata value, a mask band or an alpha band; and its mask."""
    pixels, mask = patchy(noise(3, *SHAPE))
    return write_kind(write, pixels, mask, kind, name), mask


def write_kind(write, pixels: np.ndarray, mask: np.ndarray, kind: str, name: str) -> Path:
    if kind == "nodata":
        return write(name, pixels, nodata=0, **TILED)
    if kind == "nodata, band by band":
        return write(name, pixels, nodata=0, interleave="band", **TILED)
    if kind == "nodata, written":
        return write(name, pixels, nodata=0, compress="deflate", **(TILED | {"sparse_ok": False}))
    if kind == "nodata, in strips":
        return write(name, pixels, nodata=0, compress="lzw", interleave="band", blockysize=16)
    if kind in ("vrt, nodata", "vrt, mask", "vrt, alpha"):
        return write_vrt(write, pixels, mask, kind, name)
    if kind == "mask":
        return write(name, pixels, mask=mask, **TILED)
    alpha = np.concatenate([pixels, 255 * mask[None].astype(np.uint8)])
    return write(name, alpha, colors=("red", "green", "blue", "alpha"), **TILED)


def write_vrt(write, pixels: np.ndarray, mask: np.ndarray, kind: str, name: str) -> Path:
    """A VRT whose one source is the valid square alone."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    square = pixels[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    if kind == "vrt, alpha":
        square = np.concatenate([square, np.full_like(square[:1], 255)])
    path = write(f"{name}-square.tif", square)
    height, width = square.shape[1:]
    size = f'xSize="{width}" ySize="{height}"'
    source = (
        f'<SimpleSource><SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>%s</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{cols[0]}" yOff="{rows[0]}" {size}/></SimpleSource>'
    )
    about = "<NoDataValue>0</NoDataValue>" if kind == "vrt, nodata" else ""
    colors = ("Red", "Green", "Blue", "Alpha")[: len(square)]
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">{about}<ColorInterp>{color}</ColorInterp>{source % band}'
        "</VRTRasterBand>"
        for band, color in enumerate(colors, 1)
    )
    if kind == "vrt, mask":
        bands += f'<MaskBand><VRTRasterBand dataType="Byte">{source % "mask,1"}</VRTRasterBand></MaskBand>'
    return write_text(path.with_name(f"{name}.vrt"), bands)


def write_text(path: Path, bands: str) -> Path:
    place = ", ".join(map(repr, PLACE.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="{SHAPE[1]}" rasterYSize="{SHAPE[0]}"><SRS>EPSG:32630</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


KINDS = ["nodata", "nodata, band by band", "nodata, written", "nodata, in strips", "mask", "alpha"]
KINDS = [*KINDS, "vrt, nodata", "vrt, mask", "vrt, alpha"]


@pytest.mark.parametrize("kind", KINDS)
def test_where_there_is_data_and_where_there_is_none(write, noise, kind: str) -> None:
    path, _ = write_patches(write, noise, kind)
    scene = open_scene(path)
    assert scene.may_hold_data(Window(60, 90, 5, 7))
    assert scene.may_hold_data(Window(0, 0, *SHAPE))
    assert not scene.may_hold_data(Window(0, 0, 64, 192))
    assert not scene.may_hold_data(Window(100, 128, 60, 64))
    assert not scene.may_hold_data(Window(40, 10, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [(1, 1), (0.4, 0.7), (1.7, 1)])
def test_no_valid_pixel_is_ever_missed(write, noise, kind: str, scale: tuple[float, float]) -> None:
    """Asked one by one for the corners of what is valid, where a place off by one shows."""
    path, _ = write_patches(write, noise, kind)
    scene = open_scene(path).at_shape((round(SHAPE[0] * scale[0]), round(SHAPE[1] * scale[1])))
    rows, cols = np.nonzero(scene.read(scene.grid.window).valid)
    for row in (rows.min(), rows.max()):
        for col in (cols.min(), cols.max()):
            assert scene.may_hold_data(Window(int(row), int(col), 1, 1))


def test_large_tiles_that_are_all_nodata_are_left_to_the_reading(write) -> None:
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    scene = open_scene(write("a.tif", np.zeros((1, 256, 256), np.uint8), nodata=0, **layout))
    assert scene.may_hold_data(Window(0, 0, 64, 64))
    assert not scene.read(Window(0, 0, 64, 64)).valid.any()


def test_small_tiles_of_one_valid_value_hold_data(write) -> None:
    pixels = np.zeros((1, *SHAPE), np.uint8)
    pixels[:, :, 64:] = 9
    scene = open_scene(write("a.tif", pixels, nodata=0, compress="deflate", **(TILED | {"sparse_ok": False})))
    for _ in range(2):
        assert not scene.may_hold_data(Window(0, 0, 160, 64))
        assert scene.may_hold_data(Window(0, 64, 32, 32))
        assert scene.may_hold_data(Window(0, 63, 32, 2))


def test_a_tile_that_repeats_another_is_not_decoded_again(write, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, _ = patchy(np.full((1, *SHAPE), 9, np.uint8))
    scene = open_scene(write("a.tif", pixels, nodata=0, compress="deflate", **(TILED | {"sparse_ok": False})))
    assert not scene.may_hold_data(Window(0, 0, 32, 32))
    decoded = []
    monkeypatch.setattr("geoseg.scene.mask.read_valid", lambda *args: decoded.append(args))
    assert not scene.may_hold_data(Window(0, 0, 64, 192))
    assert not decoded


def test_a_mask_beside_a_vrt_is_asked(write, noise) -> None:
    """GDAL takes the mask from the file beside it, wherever the sources lie."""
    pixels, mask = patchy(noise(1, *SHAPE))
    path = write_vrt(write, pixels, mask, "vrt, plain", "a")
    beside = np.zeros((1, *SHAPE), np.uint8)
    beside[0, 7:32, 5:32] = 255
    options = {"INTERNAL_MASK_FLAGS_1": "2"}
    msk = write("a.msk.tif", beside, tiled=True, blockxsize=32, blockysize=32)
    with rasterio.open(msk, "r+") as dst:
        dst.update_tags(**options)
    msk.rename(path.with_name(f"{path.name}.msk"))
    scene = open_scene(path)
    assert scene.has_mask
    np.testing.assert_array_equal(scene.read(scene.grid.window).valid, beside[0] > 0)
    assert scene.may_hold_data(Window(0, 0, 32, 32))
    assert not scene.may_hold_data(Window(64, 96, 32, 32))
    assert data_windows(scene) == ()


def test_bands_that_disagree_about_nodata_leave_nothing_out(write, noise) -> None:
    """A band without nodata value is valid everywhere, between the sources of a VRT too."""
    pixels, mask = patchy(noise(3, *SHAPE))
    path = write_vrt(write, pixels, mask, "vrt, nodata", "a")
    path.write_text(path.read_text().replace("<NoDataValue>0</NoDataValue>", "", 1))
    assert_nothing_is_missed(path)
    tiled = write("b.tif", pixels, **TILED)
    tiled.with_name("b.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="2"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert_nothing_is_missed(tiled)


def assert_nothing_is_missed(path: Path, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Every valid pixel lies in a block that is planned and looked at; return which are valid."""
    scene = open_scene(path).at_shape(shape)
    valid = scene.read(scene.grid.window).valid
    assert valid.any()
    for row, col in np.argwhere(valid)[:: max(1, valid.sum() // 50)].tolist():
        assert scene.may_hold_data(Window(row, col, 1, 1))
        assert scene.may_hold_data(Window(max(0, row - 2), max(0, col - 2), 3, 3)), "its first pixel decides nothing"
    outside = valid.copy()
    for window in data_windows(scene) or (scene.grid.window,):
        outside[window.slices] = False
    assert not outside.any()
    return valid


@pytest.mark.parametrize("kind", ["vrt, nodata", "vrt, mask", "vrt, alpha"])
def test_a_source_that_lies_between_the_pixels_is_data_to_its_last_one(write, noise, kind: str) -> None:
    pixels, mask = patchy(noise(3, *SHAPE))
    path = write_vrt(write, pixels, mask, kind, "a")
    place = 'xOff="96.6" yOff="64.6" xSize="31.8" ySize="31.8"'
    path.write_text(path.read_text().replace('xOff="96" yOff="64" xSize="32" ySize="32"', place))
    assert assert_nothing_is_missed(path).sum() >= 31 * 31


@pytest.mark.parametrize("kind", ["vrt, nodata", "vrt, alpha"])
def test_an_overview_of_a_vrt_is_not_asked_at_places_of_the_full_resolution(write, noise, kind: str) -> None:
    path, mask = write_patches(write, noise, kind)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2, 4], rasterio.enums.Resampling.average)
    assert open_scene(path).at_shape((20, 24)).reads_overview
    assert assert_nothing_is_missed(path, (20, 24)).sum() == mask.sum() / 64


def test_a_file_of_many_small_tiles_is_all_looked_at(write, noise) -> None:
    """More of them than are remembered, all of them with data but two."""
    pixels = noise(1, 17 * 16, 17 * 16)
    pixels[:, 48:64, 48:64] = pixels[:, 256:, 256:] = 0
    scene = open_scene(write("a.tif", pixels, nodata=0, tiled=True, blockxsize=16, blockysize=16))
    windows, expected = data_windows(scene), pixels[0] > 0
    assert windows
    for window in windows:
        expected[window.slices] = False
    assert not expected.any()
    assert scene.may_hold_data(Window(256, 240, 16, 16))
    assert not scene.may_hold_data(Window(48, 48, 16, 16))


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_data_of_the_last_band_alone_is_data(write, noise, interleave: str) -> None:
    """Where bands lie apart, the tiles of the first are all alike."""
    pixels, mask = patchy(noise(3, *SHAPE))
    pixels[:2] = 0
    layout = TILED | {"sparse_ok": False, "compress": "deflate", "interleave": interleave}
    path = write("a.tif", pixels, nodata=0, **layout)
    np.testing.assert_array_equal(assert_nothing_is_missed(path), mask)
    assert data_windows(open_scene(path)) == (Window(64, 96, 32, 32),)


def test_what_a_computed_vrt_shows_is_not_told_by_its_sources(write, noise) -> None:
    """A function of pixels may make data where no source lies."""
    pixels, mask = patchy(noise(1, *SHAPE))
    path = write_vrt(write, pixels, mask, "vrt, nodata", "a")
    text = path.read_text().replace(
        '<VRTRasterBand dataType="Byte" band="1">',
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        '<PixelFunctionType>sum</PixelFunctionType><PixelFunctionArguments k="5"/>',
    )
    path.write_text(text)
    scene = open_scene(path)
    assert scene.may_hold_data(Window(0, 0, 32, 32))


def test_a_nodata_value_beside_the_file_counts_as_it_does_in_reading(write, noise) -> None:
    pixels, _ = patchy(noise(1, *SHAPE))
    path = write("a.tif", pixels, **TILED)
    band = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    path.with_name("a.tif.aux.xml").write_text(band)
    scene = open_scene(path)
    assert scene.nodata == 7
    for window in (Window(0, 0, 32, 32), Window(64, 96, 32, 32)):
        assert scene.may_hold_data(window) == scene.read(window).valid.any()


def test_a_scene_without_mask_may_hold_data_everywhere(write, noise) -> None:
    scene = open_scene(write("a.tif", patchy(noise(1, *SHAPE))[0], **TILED))
    assert scene.may_hold_data(Window(0, 0, 32, 32))


def test_a_look_at_the_mask_decodes_no_pixel(write, noise) -> None:
    pixels, mask = patchy(noise(1, *SHAPE))
    path = write("a.tif", pixels, mask=mask, compress="deflate", **TILED)
    with rasterio.open(path) as src:
        offset, size = (int(src.get_tag_item(f"BLOCK_{fact}_3_2", "TIFF", bidx=1)) for fact in ("OFFSET", "SIZE"))
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    scene = open_scene(path)
    assert scene.may_hold_data(Window(64, 96, 8, 8))
    with pytest.raises(ReadError):
        scene.read(Window(64, 96, 8, 8))


def test_an_overview_is_no_witness(write, noise) -> None:
    """One valid pixel is lost in the overviews of the mask, and found in the mask itself."""
    pixels, mask = patchy(noise(1, *SHAPE), row=77, col=101, size=1)
    scene = open_scene(write("a.tif", pixels, mask=mask, overviews=(2, 4, 8), **TILED))
    assert scene.overviews
    assert scene.may_hold_data(Window(70, 90, 20, 20))


@pytest.mark.parametrize("kind", ["mask", "alpha", "nodata"])
def test_what_an_overview_shows_beyond_the_mask_is_not_missed(write, noise, kind: str) -> None:
    """An overview that is read says itself where it is valid."""
    path, _ = write_patches(write, noise, kind)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2, 4], rasterio.enums.Resampling.gauss)
    scene = open_scene(path).at_shape((20, 24))
    assert scene.overviews
    for row in range(20):
        for col in range(24):
            window = Window(row, col, 1, 1)
            assert scene.may_hold_data(window) or not scene.read(window).valid.any()


def test_a_mask_that_cannot_be_read_is_an_error(write, noise) -> None:
    path, _ = write_patches(write, noise, "nodata")
    scene = open_scene(path)
    path.unlink()
    close_readers()
    with pytest.raises(ReadError, match=r"cannot be read from .*a\.tif"):
        scene.may_hold_data(Window(0, 0, 8, 8))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    kind=st.sampled_from(KINDS),
    scale=st.sampled_from([1, 0.37, 1.7, 3]),
    place=st.integers(0, 100),
    size=st.integers(1, 90),
)
def test_outside_the_windows_of_data_nothing_is_valid(
    write, noise, kind: str, scale: float, place: int, size: int
) -> None:
    pixels, mask = patchy(noise(3, *SHAPE), row=place, col=place, size=size)
    close_readers()
    path = write_kind(write, pixels, mask, kind, f"{kind}.tif")
    scene = open_scene(path).at_shape((round(SHAPE[0] * scale), round(SHAPE[1] * scale)))
    valid, windows = scene.read(scene.grid.window).valid, data_windows(scene)
    assert bool(windows) == (kind != "mask")
    whole = scene.grid.height * scene.grid.width
    assert sum(window.height * window.width for window in windows) < whole or size > 30, "they leave nothing out"
    for window in windows:
        valid[window.slices] = False
    assert not (windows and valid.any())


def test_windows_of_data_reach_as_far_as_resampling_does(write) -> None:
    """Two pixels of the file on every side, whatever its scale along either axis."""
    pixels = np.zeros((1, *SHAPE), np.uint8)
    pixels[:, 64:96, 96:128] = 9
    scene = open_scene(write("a.tif", pixels, nodata=0, **TILED)).at_shape((SHAPE[0] * 2, SHAPE[1] * 5))
    (window,) = data_windows(scene)
    assert window == Window(124, 470, 72, 180)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mask"])
def test_blocks_without_data_are_not_planned(write, noise, kind: str) -> None:
    """They are told by the file's directory: of tiles, sources and what lies between them nothing is decoded twice."""
    path, mask = write_patches(write, noise, kind)
    windows = data_windows(open_scene(path))
    assert 0 < sum(window.height * window.width for window in windows) <= mask[64:96].size


def test_where_data_lies_is_not_known_of_files_whose_overview_is_read_or_that_are_damaged(write, noise) -> None:
    pixels, _ = patchy(noise(1, *SHAPE))
    path = write("a.tif", pixels, nodata=0, compress="deflate", overviews=(2, 4), **TILED)
    assert data_windows(open_scene(path))
    assert not data_windows(open_scene(path).at_shape((20, 24)))
    scene = open_scene(path)
    path.write_bytes(path.read_bytes()[:200])
    close_readers()
    assert not data_windows(scene)
