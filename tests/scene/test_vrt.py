"""Several files as one scene."""

import logging
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.errors import (
    MissingFileError,
    NotARasterError,
    ReadError,
    SceneMismatchError,
    TruncatedFileError,
    UsageError,
)
from geoseg.grid import Window
from geoseg.scene import close_readers, open_scene
from geoseg.scene.vrt import mosaic_vrt


def at(col: float, row: float, gsd: float = 0.3) -> Affine:
    """The transform of a file whose first pixel lies at this column and row of the common grid."""
    return Affine(gsd, 0, 500_000 + col * 0.3, 0, -gsd, 600_000 - row * 0.3)


def test_neighboring_files_are_the_picture_that_they_were_cut_from(write, noise) -> None:
    pixels = noise(3, 100, 140)
    pieces = {(0, 0): Window(0, 0, 40, 60), (0, 1): Window(0, 60, 40, 80), (1, 0): Window(40, 0, 60, 60)}
    pieces[1, 1] = Window(40, 60, 60, 80)
    # in an order in which neither the first nor the last is the first of the grid
    files = [write(f"{k[0]}{k[1]}.tif", pixels[:, *w.slices], transform=at(w.col, w.row)) for k, w in pieces.items()]
    scene = open_scene([files[2], files[0], files[3], files[1]])
    assert scene.grid.shape == (100, 140)
    assert scene.grid.transform.almost_equals(at(0, 0))
    read = scene.read(scene.grid.window)
    np.testing.assert_array_equal(read.values, pixels)
    assert read.valid.all()
    whole = open_scene(write("whole.tif", pixels)).at_shape((71, 93))
    np.testing.assert_array_equal(
        scene.at_shape((71, 93)).read(whole.grid.window).values, whole.read(whole.grid.window).values
    )


@pytest.mark.parametrize("how", ["plain", "nodata", "alpha"])
def test_the_gap_between_files_is_nodata(write, noise, how: str) -> None:
    extra: dict = {"nodata": 0} if how == "nodata" else {}
    pixels = noise(4 if how == "alpha" else 3, 30, 30)
    if how == "alpha":
        pixels[3] = 255
        extra = {"colors": ("red", "green", "blue", "alpha")}
    files = [write("a.tif", pixels, transform=at(0, 0), **extra), write("b.tif", pixels, transform=at(50, 10), **extra)]
    scene = open_scene(files)
    expected = np.zeros((40, 80), bool)
    expected[:30, :30] = expected[10:, 50:] = True
    read = scene.read(scene.grid.window)
    np.testing.assert_array_equal(read.valid, expected)
    np.testing.assert_array_equal(read.values[:, 10:40, 50:], pixels[:3])


@pytest.mark.parametrize("how", ["nodata", "mask", "alpha"])
def test_nodata_of_a_later_file_does_not_hide_data_of_an_earlier_one(write, how: str) -> None:
    hole = np.ones((20, 20), bool)
    hole[:, :12] = False
    first, second = (np.full((4 if how == "alpha" else 3, 20, 20), v, np.uint8) for v in (50, 90))
    if how == "alpha":
        first[3], second[3] = 255, np.where(hole, 255, 0)
        extra: list[dict] = [{"colors": ("red", "green", "blue", "alpha")}] * 2
    elif how == "nodata":
        second[:, ~hole] = 0
        extra = [{"nodata": 0}] * 2
    else:
        extra = [{}, {"mask": hole}]
    files = [
        write(f"{n}.tif", p, transform=at(10 * n, 0), **e)
        for n, (p, e) in enumerate(zip((first, second), extra, strict=True))
    ]
    read = open_scene(files).read(Window(0, 0, 20, 30))
    assert (read.values[:, :, :20] == 50).all()  # columns 10-20 of the scene: the second file has no data there
    assert (read.values[:, :, 22:] == 90).all()
    expected = np.ones((20, 30), bool)
    expected[:, 20:22] = False
    np.testing.assert_array_equal(read.valid, expected)


def test_a_later_file_lies_over_an_earlier_one(write) -> None:
    files = [write(f"{v}.tif", np.full((1, 20, 20), v, np.uint8), transform=at(v, 0)) for v in (3, 9)]
    values = open_scene(files).read(Window(0, 0, 20, 26)).values
    assert set(values[0, :, :6].flat) == {3}
    assert set(values[0, :, 6:].flat) == {9}


def test_a_folder_is_one_scene(write, noise, tmp_path: Path) -> None:
    pixels = noise(1, 30, 60)
    write("scene/b.tif", pixels[:, :, 30:], transform=at(30, 0))
    write("scene/a.TIF", pixels[:, :, :30], transform=at(0, 0))
    (tmp_path / "scene" / "notes.txt").write_text("not a raster")
    scene = open_scene(tmp_path / "scene")
    assert len(scene.paths) == 2
    assert scene.name == "a"
    np.testing.assert_array_equal(scene.read(scene.grid.window).values, pixels)


def test_files_with_odd_names_are_found(write, noise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(1, 20, 20)
    write("a & <b> 'c'.tif", pixels, transform=at(0, 0))
    write("d.tif", pixels, transform=at(20, 0))
    monkeypatch.chdir(tmp_path)
    scene = open_scene(["a & <b> 'c'.tif", "d.tif"])
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(scene.read(Window(0, 0, 20, 20)).values, pixels)


def test_overviews_of_several_files_show_the_same_ground(write) -> None:
    rows, cols = np.mgrid[:512, :512].astype("uint16")
    pieces = [np.stack([rows, cols + 512 * n]) for n in (0, 1)]
    files = [write(f"{n}.tif", p, transform=at(512 * n, 0), overviews=(2, 4)) for n, p in enumerate(pieces)]
    scene = open_scene(files).at_shape((100, 200))
    read = scene.read(scene.grid.window)
    assert read.valid.all()
    np.testing.assert_allclose(read.values[1, 50], (np.arange(200) + 0.5) * 5.12 - 0.5, atol=1.5)


def test_rotated_files_are_joined_on_their_own_grid(write, noise) -> None:
    pixels = noise(1, 40, 60)
    turned = Affine.translation(500_000, 600_000) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3)
    left = write("a.tif", pixels[:, :, :25], transform=turned)
    right = write("b.tif", pixels[:, :, 25:], transform=turned @ Affine.translation(25, 0))
    scene = open_scene([left, right])
    np.testing.assert_array_equal(scene.read(scene.grid.window).values, pixels)


MISFITS = {
    "CRS EPSG:32631": {"crs": "EPSG:32631"},
    "pixels": {"transform": at(20, 0, 0.5)},
    "bands 1": {"pixels": (1, "uint8")},
    "pixel type uint16": {"pixels": (3, "uint16")},
    "nodata value 0": {"nodata": 0},
    "pixels off the grid": {"transform": at(20.4, 0)},
}


@pytest.mark.parametrize("fact", MISFITS)
def test_files_that_do_not_fit_together_are_refused_by_name_and_fact(write, noise, fact: str) -> None:
    change = dict(MISFITS[fact])
    bands, dtype = change.pop("pixels", (3, "uint8"))
    first = write("first.tif", noise(3, 20, 20), transform=at(0, 0))
    second = write("second.tif", noise(bands, 20, 20, dtype), **({"transform": at(20, 0)} | change))
    with pytest.raises(SceneMismatchError, match=f"second.tif .*{fact}.*first.tif") as caught:
        open_scene([first, second])
    assert "gdalwarp" in str(caught.value)


def test_pixels_that_drift_apart_over_the_width_of_a_sheet_are_refused(write, noise) -> None:
    """A twentieth of a pixel over all of it is rounding; a tenth is another grid."""
    first = write("first.tif", noise(1, 20, 200), transform=at(0, 0))
    near = write("near.tif", noise(1, 20, 200), transform=at(200, 0, 0.3 * (1 + 0.0001)))
    assert open_scene([first, near]).grid.shape == (20, 400)
    far = write("far.tif", noise(1, 20, 200), transform=at(200, 0, 0.3 * (1 + 0.0005)))
    with pytest.raises(SceneMismatchError, match=r"far\.tif has pixels"):
        open_scene([first, far])


def test_alpha_in_one_file_and_infrared_in_the_other_is_refused(write, noise) -> None:
    first = write("first.tif", noise(4, 20, 20), colors=("red", "green", "blue", "undefined"))
    pixels = noise(4, 20, 20)
    pixels[3] = 255
    second = write("second.tif", pixels, transform=at(20, 0), colors=("red", "green", "blue", "alpha"))
    with pytest.raises(SceneMismatchError, match="alpha bands 1"):
        open_scene([first, second])


def test_pictures_without_georeference_cannot_be_one_scene(write, noise) -> None:
    files = [write(f"{n}.png", noise(3, 20, 20), driver="PNG", transform=None) for n in (0, 1)]
    with pytest.raises(SceneMismatchError, match="no georeference"):
        open_scene(files)


def test_every_file_of_a_scene_is_checked_before_any_work(write, noise, tmp_path: Path) -> None:
    good = write("good.tif", noise(1, 50, 50))
    cut = write("cut.tif", noise(1, 50, 50), transform=at(50, 0))
    cut.write_bytes(cut.read_bytes()[:-900])
    with pytest.raises(TruncatedFileError, match=r"cut\.tif"):
        open_scene([good, cut])
    with pytest.raises(MissingFileError, match=r"gone\.tif"):
        open_scene([good, tmp_path / "gone.tif"])
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(NotARasterError, match=r"text\.tif"):
        open_scene([good, tmp_path / "text.tif"])


def test_complex_pixels_in_several_files_are_refused(write) -> None:
    files = [write(f"{n}.tif", np.ones((1, 20, 20), "complex64"), transform=at(20 * n, 0)) for n in (0, 1)]
    with pytest.raises(NotARasterError, match="complex64"):
        open_scene(files)


def test_a_file_that_vanishes_under_a_scene_is_an_error_and_no_gap(write, noise) -> None:
    files = [write(f"{n}.tif", noise(1, 20, 20), transform=at(20 * n, 0)) for n in (0, 1)]
    scene = open_scene(files)
    files[1].unlink()
    with pytest.raises(ReadError, match="cannot be"):
        scene.read(scene.grid.window)


def test_a_folder_without_rasters_and_an_empty_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="holds no raster"):
        open_scene(tmp_path)
    with pytest.raises(UsageError, match="No scene"):
        open_scene([])


def test_files_without_CRS_take_the_given_one(write, noise, caplog: pytest.LogCaptureFixture) -> None:
    files = [write(f"{n}.tif", noise(1, 20, 20), crs=None, transform=at(20 * n, 0)) for n in (0, 1)]
    with caplog.at_level(logging.WARNING):
        scene = open_scene(files, crs="EPSG:32630")
    assert scene.grid.crs.to_epsg() == 32630
    assert not caplog.records


def test_a_thousand_sheets_are_not_asked_for_their_time_at_every_strip(write, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("geoseg.scene.reader.stamp_of", lambda path: asked.append(path))
    monkeypatch.setattr("geoseg.scene.reader.STAMPS_KEPT_S", 1_000)
    sheets = [write(f"{i}.tif", np.full((1, 8, 8), i, np.uint8), transform=at(8 * i, 0)) for i in range(20)]
    scene = open_scene(sheets)
    for _ in range(5):
        assert scene.read(Window(0, 0, 8, 160)).values[0, 0, 159] == 19
    assert len(asked) == 20
    close_readers()
    scene.read(Window(0, 0, 8, 160))
    assert len(asked) == 40


def write_vrt(path: Path, *sources: str, relative: int = 1, band: str = "", extra: str = "") -> Path:
    """Write a VRT of 20 x 20 pixels over sources."""
    read = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource>"
        for source in sources
    )
    path.write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>EPSG:32630</SRS>'
        "<GeoTransform>500000, 0.3, 0, 600000, 0, -0.3</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1" {band}>{extra}{read}</VRTRasterBand></VRTDataset>'
    )
    return path


def zipped(path: Path, file: Path) -> Path:
    """Write an archive of one file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(file, file.name)
    return path


def test_a_VRT_without_one_of_its_sources_is_refused_at_opening(write, noise, tmp_path: Path) -> None:
    write("a.tif", noise(1, 20, 20))
    assert open_scene(write_vrt(tmp_path / "whole.vrt", "a.tif")).read(Window(0, 0, 20, 20)).valid.all()
    write_vrt(tmp_path / "half.vrt", "a.tif", "gone.tif")
    write_vrt(tmp_path / "outer.vrt", "whole.vrt", str(tmp_path / "half.vrt"))
    for vrt in (tmp_path / "half.vrt", tmp_path / "outer.vrt"):
        with pytest.raises(MissingFileError, match=r"half\.vrt has the source .*gone\.tif, which does not exist"):
            open_scene(vrt)


def test_a_VRT_that_leads_back_to_itself_is_refused_at_opening(write, noise, tmp_path: Path) -> None:
    write("a.tif", noise(1, 20, 20))
    write_vrt(tmp_path / "one.vrt", "a.tif", "two.vrt")
    write_vrt(tmp_path / "two.vrt", str(tmp_path / "one.vrt"), relative=0)
    write_vrt(tmp_path / "self.vrt", "self.vrt")
    with pytest.raises(NotARasterError, match=r"source of itself \(one\.vrt -> two\.vrt -> one\.vrt\)"):
        open_scene(tmp_path / "one.vrt")
    with pytest.raises(NotARasterError, match=r"source of itself \(self\.vrt -> self\.vrt\)"):
        open_scene(tmp_path / "self.vrt")


def test_a_source_that_two_VRTs_share_is_no_circle(write, noise, tmp_path: Path) -> None:
    write("a.tif", noise(1, 20, 20))
    for name, sources in {"x": ["a.tif"], "y": ["x.vrt"], "z": ["x.vrt", "y.vrt"]}.items():
        write_vrt(tmp_path / f"{name}.vrt", *sources)
    assert open_scene(tmp_path / "z.vrt").read(Window(0, 0, 20, 20)).valid.all()


def test_a_VRT_neither_reads_raw_files_of_other_folders_nor_runs_Python(
    write, noise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 400)
    folder = tmp_path / "given"
    folder.mkdir()
    raw = folder / "raw.vrt"
    write_vrt(raw, band='subClass="VRTRawRasterBand"', extra=f"<SourceFilename>{secret}</SourceFilename>")
    disguised = folder / "disguised.tif"
    disguised.write_bytes(raw.read_bytes())
    write_vrt(folder / "outer.vrt", "raw.vrt")
    for path in (raw, disguised, folder / "outer.vrt", f"/vsizip/{zipped(folder / 'a.zip', raw)}/raw.vrt"):
        with pytest.raises(NotARasterError, match=r"reads the bytes of .*secret, which lies outside its folder"):
            open_scene(path)
    monkeypatch.setenv("GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE", "ALL")  # the user decides, as GDAL has it
    assert (open_scene(raw).read(Window(0, 0, 20, 20)).values == ord("s")).all()
    monkeypatch.delenv("GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE")
    secret.rename(folder / "own")
    write_vrt(raw, band='subClass="VRTRawRasterBand"', extra='<SourceFilename relativeToVRT="1">own</SourceFilename>')
    assert (open_scene(raw).read(Window(0, 0, 20, 20)).values == ord("s")).all()
    write("given/a.tif", noise(1, 20, 20))
    code = f"<![CDATA[\ndef f(*args, **kwargs):\n    open({str(tmp_path / 'ran')!r}, 'w')\n]]>"
    python = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode>{code}</PixelFunctionCode>"
    )
    write_vrt(folder / "python.vrt", "a.tif", band='subClass="VRTDerivedRasterBand"', extra=python)
    with pytest.raises(NotARasterError, match=r"python.vrt computes its pixels by a function that GDAL does not run"):
        open_scene(folder / "python.vrt")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def in_use(write, noise, tmp_path: Path) -> Iterator[None]:
    """Another VRT that is being read, as by another thread: GDAL keeps what it knows of sources."""
    write("in_use.tif", noise(1, 20, 20))
    with rasterio.Env(), rasterio.open(write_vrt(tmp_path / "in_use.vrt", "in_use.tif")) as reader:
        reader.read()
        yield


@pytest.mark.parametrize("how", ["named", "given as files", "within a VRT", "mask"])
def test_a_source_that_cannot_be_opened_is_an_error_at_every_read(
    write, noise, tmp_path: Path, in_use: None, how: str
) -> None:
    files = [write(f"{n}.tif", noise(1, 20, 20, seed=n), transform=at(20 * n, 0)) for n in (1, 2)]
    named = tmp_path / "named.vrt"
    named.write_text(mosaic_vrt([str(file) for file in files]))
    if how == "mask":
        mask = write("mask.tif", np.full((1, 20, 40), 255, np.uint8), transform=at(20, 0))
        text = named.read_text().partition("<MaskBand>")[0]
        source = f"<SimpleSource><SourceFilename>{mask}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        band = f'<MaskBand><VRTRasterBand dataType="Byte">{source}</VRTRasterBand></MaskBand></VRTDataset>'
        named.write_text(text + band)
    paths = {"given as files": files, "within a VRT": tmp_path / "outer.vrt"}.get(how, named)
    (tmp_path / "outer.vrt").write_text(mosaic_vrt([str(named)]))
    scene = open_scene(paths)
    expected = scene.read(scene.grid.window)
    close_readers()
    gone = mask if how == "mask" else files[0]
    away = gone.rename(tmp_path / "away")
    for again in (False, False, True, False, True):
        if again:
            close_readers()
        with pytest.raises(ReadError, match=rf"{gone.name}: No such file"):
            scene.read(Window(3, 3, 8, 30))
        if how != "mask":
            np.testing.assert_array_equal(scene.read(Window(0, 20, 20, 20)).values, expected.values[:, :, 20:])
    away.rename(gone)
    found = scene.read(scene.grid.window)
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.valid.all()


def test_a_source_that_is_there_again_is_read_from_its_overview(write, tmp_path: Path, in_use: None) -> None:
    pixels = np.tile(np.arange(128, dtype=np.uint8), (1, 512, 4))
    file = write("a.tif", pixels, overviews=(2, 4), tiled=True, blockxsize=128, blockysize=128)
    named = tmp_path / "named.vrt"
    named.write_text(mosaic_vrt([str(file)]).partition("<MaskBand>")[0] + "</VRTDataset>")
    scene = open_scene(named).at_shape((100, 100))
    assert scene.reads_overview
    expected = scene.read(scene.grid.window)
    close_readers()
    away = file.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(ReadError):
            scene.read(scene.grid.window)
    away.rename(file)
    np.testing.assert_array_equal(scene.read(scene.grid.window).values, expected.values)


def test_a_source_that_cannot_be_opened_is_an_error_in_a_large_window(write) -> None:
    files = [write(f"{n}.tif", np.full((1, 1100, 1000), 7, np.uint8), transform=at(1000 * n, 0)) for n in (0, 1)]
    scene = open_scene(files)  # a window of more than a million pixels: threads of GDAL read the sources
    files[1].unlink()
    for _ in range(2):
        with pytest.raises(ReadError, match=r"1\.tif: No such file"):
            scene.read(scene.grid.window)


@pytest.mark.parametrize("first", [False, True])
def test_a_source_that_is_cut_short_later_is_an_error(write, noise, in_use: None, first: bool) -> None:
    files = [write(f"{n}.tif", noise(1, 200, 100), transform=at(100 * n, 0)) for n in (0, 1)]
    scene = open_scene(files)
    if first:
        scene.read(Window(0, 0, 5, 200))
    with files[1].open("r+b") as file:
        file.truncate(5000)
    for _ in range(3):
        with pytest.raises(ReadError, match="cannot be read from"):
            scene.read(Window(150, 0, 40, 200))


def test_a_source_that_disappears_after_it_was_read_is_never_nodata(write, noise, tmp_path: Path, in_use: None) -> None:
    pixels = noise(1, 200, 200)
    files = [write(f"{n}.tif", pixels[:, :, 100 * n :][:, :, :100], transform=at(100 * n, 0)) for n in (0, 1)]
    named = tmp_path / "named.vrt"
    named.write_text(mosaic_vrt([str(file) for file in files]))
    scenes = [open_scene(named), open_scene(files)]
    for scene in scenes:
        scene.read(Window(0, 0, 5, 200))
    files[1].unlink()
    window = Window(150, 0, 40, 200)
    for scene in scenes * 2:
        with suppress(ReadError):  # while GDAL has it open, it is there
            np.testing.assert_array_equal(scene.read(window).values, pixels[:, *window.slices])
    close_readers()
    for scene in scenes * 2:
        with pytest.raises(ReadError, match=r"1\.tif: No such file"):
            scene.read(window)
