"""What cannot be read is refused: found, expected, next step; and never read in silence."""

import struct
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError

from geoseg.errors import (
    BandMismatchError,
    GeosegError,
    MissingCRSError,
    MissingFileError,
    NotARasterError,
    ReadError,
    TruncatedFileError,
)
from geoseg.grid import Window
from geoseg.scene import open_scene
from geoseg.scene.tiff import has_mask_directory, promised_size
from geoseg.third_party import allow_no_georeference

LAYOUTS = {
    "strips": {"blockysize": 4},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "deflate": {"compress": "deflate", "blockysize": 4},
    "bands apart": {"interleave": "band", "compress": "lzw", "blockysize": 4},
    "BigTIFF": {"BIGTIFF": "YES", "compress": "deflate", "blockysize": 4},
    "big-endian": {"ENDIANNESS": "BIG", "blockysize": 4},
    "one strip": {"blockysize": 200},
    "BigTIFF of one strip": {"BIGTIFF": "YES", "blockysize": 200},
    "COG": {"driver": "COG", "compress": "deflate", "blocksize": 128},
}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no file .*gone\.tif.*working folder"):
        open_scene(tmp_path / "gone.tif")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    with pytest.raises(TruncatedFileError, match="is empty"):
        open_scene(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"hello, I am a text\n" * 20, b"II*\0garbage" * 40, b"\0" * 500])
def test_a_file_that_is_no_raster(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(NotARasterError, match=r"a\.tif cannot be opened .*gdalinfo"):
        open_scene(tmp_path / "a.tif")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_TIFF_whose_last_bytes_are_missing_is_refused_at_opening(write, noise, layout: str) -> None:
    path = write("a.tif", noise(3, 200, 200), **LAYOUTS[layout])
    assert open_scene(path).grid.shape == (200, 200)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises((TruncatedFileError, NotARasterError), match=r"a\.tif"):
        open_scene(path)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "COG"])
def test_a_TIFF_whose_last_byte_is_missing_is_refused(write, noise, layout: str) -> None:
    """Of a COG it is none of a pixel: GDAL repeats the end of each tile behind it."""
    path = write("a.tif", noise(3, 40, 40), **LAYOUTS[layout])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(TruncatedFileError, match=r"a\.tif is cut short"):
        open_scene(path)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "COG"])
def test_a_TIFF_that_ends_with_its_pixels_is_whole(write, noise, layout: str) -> None:
    path = write("a.tif", pixels := noise(3, 40, 40), **LAYOUTS[layout])
    assert promised_size(path) == path.stat().st_size
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(scene.grid.window).values, pixels)


def test_a_TIFF_whose_directories_run_in_a_circle_is_looked_at_once(write, noise) -> None:
    path = write("a.tif", noise(1, 40, 40))
    content = bytearray(path.read_bytes())
    size = len(content)
    first = int.from_bytes(content[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[link : link + 4] = content[4:8]
    path.write_bytes(content)
    assert promised_size(path) == size
    with path.open("rb") as file:
        assert not has_mask_directory(file)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("masked", [True, False])
def test_a_TIFF_cut_anywhere_is_never_read_as_if_it_were_whole(write, noise, layout: str, masked: bool) -> None:
    pixels = noise(3, 150, 150)
    mask = np.random.default_rng(2).random((150, 150)) < 0.8
    options = LAYOUTS[layout]
    path = (
        write("a.tif", pixels, **options)
        if not masked or layout == "COG"
        else write("a.tif", pixels, mask=mask, **options)
    )
    whole = path.read_bytes()
    truth = open_scene(path)
    right = truth.read(truth.grid.window)
    refused = 0
    for end in range(16, len(whole), len(whole) // 20):
        path.write_bytes(whole[:end])
        try:
            scene = open_scene(path)
            found = scene.read(scene.grid.window)
        except GeosegError:
            refused += 1
            continue
        np.testing.assert_array_equal(found.values, right.values)
        np.testing.assert_array_equal(found.valid, right.valid)
    assert refused > 10


def test_a_damaged_block_inside_is_an_error_where_it_is_read_and_only_there(write, noise) -> None:
    from geoseg.grid import Window

    pixels = noise(1, 128, 128)
    path = write("a.tif", pixels, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path) as src:
        offset = int(src.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 600] = b"\xff" * 600
    path.write_bytes(content)
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(Window(0, 0, 64, 128)).values, pixels[:, :64])
    with pytest.raises(ReadError, match=r"rows 64-128 and columns 64-128 cannot be read .*download it again"):
        scene.read(Window(64, 64, 64, 64))
    with pytest.raises(ReadError):
        scene.at_shape((60, 60)).read(Window(0, 0, 60, 60))


def test_a_VRT_whose_file_is_missing_is_an_error_and_no_black_scene(write, noise, tmp_path: Path) -> None:
    write("a.tif", noise(1, 20, 20))
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>EPSG:32630</SRS><GeoTransform>500000,0.3,0,600000,0,-0.3'
        '</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    scene = open_scene(tmp_path / "a.vrt")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(ReadError):
        scene.read(scene.grid.window)


@pytest.mark.parametrize("bands", [None, (1,), (1, 1, 1)])
def test_palette_indices_are_no_colors_whatever_bands_are_asked_for(write, noise, bands: tuple | None) -> None:
    path = write("a.tif", noise(1, 20, 20), photometric="palette")
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, {i: (i, 255 - i, 0, 255) for i in range(256)})
    with pytest.raises(BandMismatchError, match=r"palette.*expand rgb"):
        open_scene(path, bands=bands)


def test_complex_pixels(write) -> None:
    with pytest.raises(NotARasterError, match="complex64"):
        open_scene(write("a.tif", np.ones((1, 20, 20), "complex64")))


def test_a_container_of_subdatasets_names_them(write, noise, tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    for table in ("one", "two"):
        pixels = noise(3, 64, 64)
        options = {"RASTER_TABLE": table, "APPEND_SUBDATASET": "YES" if table == "two" else "NO"}
        write("a.gpkg", pixels, driver="GPKG", **options)
    with pytest.raises(NotARasterError, match=r"subdatasets.*GPKG:.*one"):
        open_scene(path)


def test_a_scene_placed_by_ground_control_points_only(write, noise) -> None:
    points = [GroundControlPoint(r, c, 500_000 + c, 600_000 - r) for r, c in ((0, 0), (0, 20), (20, 0), (20, 20))]
    path = write("a.tif", noise(1, 20, 20), transform=None, gcps=points, crs="EPSG:32630")
    with pytest.raises(MissingCRSError, match=r"4 ground control points.*gdalwarp"):
        open_scene(path)


def test_an_unknown_CRS(write, noise) -> None:
    with pytest.raises(MissingCRSError, match=r"`crs=EPSG:999999` is not a coordinate reference system .*EPSG:32630"):
        open_scene(write("a.tif", noise(1, 20, 20), crs=None), crs="EPSG:999999")
    with pytest.raises(MissingCRSError, match="`crs` is empty"):
        open_scene(write("b.tif", noise(1, 20, 20)), crs="")


def test_a_CRS_alone_does_not_place_a_plain_picture(write, noise) -> None:
    path = write("a.png", noise(3, 20, 20), driver="PNG", transform=None)
    with pytest.raises(MissingCRSError, match="no transform"):
        open_scene(path, crs="EPSG:32630")


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32630", Affine(3e-6, 0, -0.18, 0, -3e-6, 5.6)),  # degrees taken for meters: pixels of 3 micrometers
        ("EPSG:4326", Affine(0.3, 0, 500_000, 0, -0.3, 600_000)),  # meters taken for degrees
    ],
)
def test_coordinates_that_do_not_lie_in_the_given_CRS(write, noise, crs: str, transform: Affine) -> None:
    path = write("a.tif", noise(1, 20, 20), crs=None, transform=transform)
    with pytest.raises(MissingCRSError, match=r"does not fit its CRS .*`crs`"):
        open_scene(path, crs=crs)


def test_a_TIFF_with_fewer_sizes_than_tiles_is_refused_as_damaged(write, noise) -> None:
    path = write("a.tif", noise(1, 64, 64), tiled=True, blockxsize=16, blockysize=16)
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HHI", 325, 3, 16))
    content[entry + 4 : entry + 8] = struct.pack("<I", 5)
    path.write_bytes(content)
    with pytest.raises(NotARasterError, match=r"a damaged directory \(.*16 strips or tiles .*of 5\).*again"):
        open_scene(path)


def test_a_TIFF_of_absurdly_many_directories_is_refused_at_once(tmp_path: Path) -> None:
    """Twenty thousand directories that share one table of strips took minutes."""
    strips, count = 5000, 20_000
    table = struct.pack(f"<{strips}I", *[8] * strips) + struct.pack(f"<{strips}I", *[64] * strips)
    size = 2 + 9 * 12 + 4
    pieces = [b"II*\0" + struct.pack("<I", 8 + len(table)), table]
    for number in range(count):
        tags = {254: 1 if number else 0, 256: 64, 257: strips, 258: 8, 259: 1, 262: 1, 278: 1}
        entries = [(tag, 4, 1, value) for tag, value in tags.items()]
        entries += [(273, 4, strips, 8), (279, 4, strips, 8 + 4 * strips)]
        after = 8 + len(table) + (number + 1) * size if number + 1 < count else 0
        pieces += [struct.pack("<H", 9), *(struct.pack("<HHII", *entry) for entry in sorted(entries))]
        pieces.append(struct.pack("<I", after))
    (tmp_path / "many.tif").write_bytes(b"".join(pieces))
    began = time.process_time()
    with pytest.raises(NotARasterError, match="more than 1,000 directories"):
        open_scene(tmp_path / "many.tif")
    assert time.process_time() - began < 2


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_TIFF_whose_last_strip_is_said_to_be_as_long_as_the_others_is_whole(write, noise, interleave: str) -> None:
    pixels = noise(3, 50, 20)
    path = write("a.tif", pixels, blockysize=16, interleave=interleave)  # the last strip has 2 rows
    strips = 4 if interleave == "pixel" else 12
    row = 20 * (3 if interleave == "pixel" else 1)
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HH", 279, 3))
    assert struct.unpack_from("<I", content, entry + 4)[0] == strips
    place = struct.unpack_from("<I", content, entry + 8)[0] if strips > 2 else entry + 8
    struct.pack_into(f"<{strips}H", content, place, *[16 * row] * strips)
    path.write_bytes(content)
    np.testing.assert_array_equal(open_scene(path).read(Window(0, 0, 50, 20)).values, pixels)
    path.write_bytes(content[:-1])
    with pytest.raises(TruncatedFileError, match="is cut short"):
        open_scene(path)


def signed_tables(write, pixels: np.ndarray, kind: int, rows: int) -> Path:
    """Write a TIFF whose strips have places and sizes of another type of four bytes: 9 is signed, 13 is a directory."""
    path = write("a.tif", pixels, blockysize=rows)
    content = bytearray(path.read_bytes())
    for tag in (273, 279):
        entry = next(at for usual in (3, 4) if (at := content.find(struct.pack("<HH", tag, usual))) >= 0)
        usual, count = struct.unpack_from("<HI", content, entry + 2)
        size = 2 if usual == 3 else 4
        at = entry + 8 if count * size <= 4 else struct.unpack_from("<I", content, entry + 8)[0]
        numbers = struct.unpack_from(f"<{count}{'H' if usual == 3 else 'I'}", content, at)
        struct.pack_into("<H", content, entry + 2, kind)
        if count == 1:
            struct.pack_into("<I", content, entry + 8, numbers[0])
        else:
            struct.pack_into("<I", content, entry + 8, len(content))
            content += struct.pack(f"<{count}I", *numbers)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("kind", "rows"), [(9, 20), (9, 2), (13, 20), (13, 2)])
def test_a_TIFF_whose_tables_GDAL_does_not_read_is_refused_and_read_if_it_does(
    write, noise, kind: int, rows: int
) -> None:
    pixels = noise(1, 20, 20)
    path = signed_tables(write, pixels, kind, rows)
    try:
        with rasterio.Env(), rasterio.open(path) as src:
            is_read = bool((src.read() == pixels).all())
    except RasterioError:
        is_read = False
    assert is_read == (kind == 9 and rows == 20)
    if is_read:
        np.testing.assert_array_equal(open_scene(path).read(Window(0, 0, 20, 20)).values, pixels)
    else:
        with pytest.raises(NotARasterError, match="says where its pixels lie in numbers of a type that GDAL does not"):
            open_scene(path)


def test_a_picture_placed_by_RPCs_alone_is_named_as_such(write, noise) -> None:
    numbers = " ".join(["1"] + ["0"] * 19)
    names = [f"{axis}_{part}_COEFF" for axis in ("LINE", "SAMP") for part in ("NUM", "DEN")]
    scales = [f"{axis}_{kind}" for axis in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT") for kind in ("OFF", "SCALE")]
    path = write("a.tif", noise(3, 20, 20), crs=None, transform=None)
    with allow_no_georeference(), rasterio.open(path, "r+") as dst:
        dst.update_tags(ns="RPC", **dict.fromkeys(names, numbers), **dict.fromkeys(scales, "1"))
    for crs in (None, "EPSG:4326"):
        with pytest.raises(MissingCRSError, match=r"a is placed by rational polynomial coefficients .*gdalwarp -rpc"):
            open_scene(path, crs=crs)
