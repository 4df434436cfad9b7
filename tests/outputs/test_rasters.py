import os
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rio_cogeo import cog_validate

from geoseg.errors import BundleError, OutputError
from geoseg.grid import Grid, Window
from geoseg.outputs import class_file, mask_file, probability_file, write_raster
from geoseg.outputs.rasters import overview_count

NORTH_UP = Affine(0.3, 0, 809267.11, 0, -0.3, 618981.3)
PLACES = {
    "utm": (CRS.from_epsg(32630), NORTH_UP),
    "degrees": (
        CRS.from_epsg(4326),
        Affine(1.341104507446289e-06, 0, 85.51895141601562, 0, -1.18812312164e-06, 27.6),
    ),
    "rotated": (CRS.from_epsg(32630), Affine(0.26, 0.11, 809267, 0.15, -0.24, 618981)),
    "own CRS": (CRS.from_string("+proj=tmerc +lat_0=1 +lon_0=3 +ellps=bessel +units=m"), NORTH_UP),
    "picture": (None, Affine.identity()),
    "world file": (None, NORTH_UP),
}
KINDS = {"probability": probability_file, "mask": mask_file}

# A picture without georeference is a case of its own here; rasterio warns whenever such a file is opened.
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def pixels(shape, top=255):
    """Every pixel differs from its neighbors, so that a misplaced block cannot pass."""
    rows, cols = np.indices(shape)
    return ((rows * 7 + cols * 13 + rows * cols % 5) % top).astype(np.uint8)


def blocks(values, block_px=200):
    """Blocks of odd sizes, the last first."""
    found = []
    for row in range(0, values.shape[0], block_px):
        for col in range(0, values.shape[1], block_px):
            part = values[row : row + block_px, col : col + block_px]
            found.append((Window(row, col, *part.shape), part))
    return found[::-1]


@pytest.fixture(params=PLACES.values(), ids=PLACES.keys())
def place(request):
    return request.param


@pytest.fixture(params=KINDS.items(), ids=KINDS.keys())
def kind(request):
    return request.param


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (30, 40), (256, 257), (513, 300), (700, 1100)])
def test_raster_is_a_valid_COG_with_the_pixels_of_its_blocks_and_the_exact_grid(tmp_path, kind, place, shape):
    name, describe = kind
    values = pixels(shape, 255 if name == "probability" else 2)
    path = write_raster(describe(tmp_path / "a.tif"), iter(blocks(values)), Grid(*place, shape))
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(1), values)
        assert (raster.crs, raster.transform, raster.shape) == (*place, shape)
        assert (raster.count, raster.dtypes, raster.nodata) == (1, ("uint8",), 255)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert len(raster.overviews(1)) == overview_count(shape)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.qml", "a.tif"]


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 1), 0), ((2, 1), 1), ((256, 256), 1), ((300, 20), 1), ((513, 9), 2), ((14848, 17408), 7)]
)
def test_every_raster_of_more_than_a_pixel_has_overviews_down_to_256_pixels(shape, count):
    assert overview_count(shape) == count


def test_scale_offset_description_and_tags_are_said_in_the_file(tmp_path):
    values = pixels((50, 60))
    grid = Grid(*PLACES["utm"], values.shape)
    file = replace(probability_file(tmp_path / "a.tif", description="roofs"), tags={"MODEL": "m-1"})
    path = write_raster(file, blocks(values), grid)
    with rasterio.open(path) as raster:
        assert raster.scales == (1 / 254,)
        assert raster.offsets == (0,)
        assert raster.descriptions == ("roofs",)
        assert raster.tags()["MODEL"] == "m-1"


def test_mask_has_a_color_table_in_which_buildings_stand_out(tmp_path):
    values = pixels((700, 60), 2)
    path = write_raster(mask_file(tmp_path / "a.tif"), blocks(values), Grid(*PLACES["utm"], values.shape))
    for level in ({}, {"overview_level": 0}):
        with rasterio.open(path, **level) as raster:
            colors = raster.colormap(1)
            assert raster.colorinterp == (ColorInterp.palette,)
        assert max(colors[0][:3]) < 64 < 200 < max(colors[1][:3])


CLASSES = {"names": ("land & sea", "building", "<road>"), "colors": ("#00ff10", "#FF7A1A", "#0102fe")}


@pytest.mark.parametrize("shape", [(1, 1), (513, 300), (700, 1100)])
def test_class_raster_is_a_valid_COG_with_the_colors_and_names_of_its_classes(tmp_path, place, shape):
    values = pixels(shape, 3)
    grid = Grid(*place, shape)
    file = replace(class_file(tmp_path / "a.tif", **CLASSES), tags={"MODEL": "m-1"})
    path = write_raster(file, iter(blocks(values)), grid)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(1), values)
        assert (raster.crs, raster.transform, raster.nodata) == (*place, 255)
        assert raster.descriptions == ("classes: 0 land & sea, 1 building, 2 <road>",)
        assert [raster.colormap(1)[i] for i in range(3)] == [(0, 255, 16, 255), (255, 122, 26, 255), (1, 2, 254, 255)]
        assert raster.tags()["MODEL"] == "m-1"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.qml", "a.tif", "a.tif.aux.xml"]


def test_side_files_of_a_class_raster_are_XML_with_every_name(tmp_path):
    write_raster(class_file(tmp_path / "a.tif", **CLASSES), [], Grid(*PLACES["utm"], (4, 5)))
    gdal = ElementTree.parse(tmp_path / "a.tif.aux.xml")
    assert [element.text for element in gdal.iter("Category")] == list(CLASSES["names"])
    entries = list(ElementTree.parse(tmp_path / "a.qml").iter("paletteEntry"))
    assert [(e.get("value"), e.get("label")) for e in entries] == [(str(i), n) for i, n in enumerate(CLASSES["names"])]
    assert [e.get("color") for e in entries] == [color.lower() for color in CLASSES["colors"]]


def test_overviews_of_classes_are_classes_by_majority(tmp_path):
    values = np.zeros((600, 600), np.uint8)
    values[:, 300:] = 2
    values[::2, ::2] = 2 - values[::2, ::2]
    path = write_raster(class_file(tmp_path / "a.tif", **CLASSES), blocks(values), Grid(*PLACES["utm"], values.shape))
    with rasterio.open(path, overview_level=0) as overview:
        assert np.unique(overview.read(1)).tolist() == [0, 2]


def test_pixels_that_no_block_covers_are_nodata(tmp_path):
    values = pixels((600, 600))
    first = blocks(values)[-1]
    path = write_raster(probability_file(tmp_path / "a.tif"), [first], Grid(*PLACES["utm"], values.shape))
    with rasterio.open(path) as raster:
        found = raster.read(1)
    np.testing.assert_array_equal(found[:200, :200], values[:200, :200])
    assert (found == 255).sum() == 600 * 600 - 200 * 200


def test_no_blocks_give_a_raster_of_nodata(tmp_path):
    path = write_raster(mask_file(tmp_path / "a.tif"), [], Grid(*PLACES["utm"], (40, 50)))
    with rasterio.open(path) as raster:
        assert (raster.read(1) == 255).all()


@pytest.mark.parametrize("limit", [1000, 200_000, 500_000])
def test_full_disk_is_an_error_and_leaves_nothing(tmp_path, full_disk, limit, kind, capfd):
    values = np.random.default_rng(0).integers(0, 254, (900, 900), dtype=np.uint8)
    grid = Grid(*PLACES["utm"], values.shape)
    with full_disk(limit), pytest.raises(OutputError, match=r"a\.tif cannot be written \(.*Make room"):
        write_raster(kind[1](tmp_path / "a.tif"), blocks(values), grid)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="there is no folder"):
        write_raster(mask_file(tmp_path / "file" / "a.tif"), [], Grid(*PLACES["utm"], (40, 50)))


def failing_blocks():
    yield from blocks(pixels((600, 600)))[:2]
    raise BundleError("the weights went away")


def test_failure_of_the_blocks_themselves_keeps_its_name_and_the_older_result(tmp_path):
    (tmp_path / "a.tif").write_text("older")
    with pytest.raises(BundleError, match="went away"):
        write_raster(probability_file(tmp_path / "a.tif"), failing_blocks(), Grid(*PLACES["utm"], (600, 600)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    assert (tmp_path / "a.tif").read_text() == "older"


@pytest.mark.parametrize(
    ("window", "values", "message"),
    [
        (Window(0, 0, 4, 4), np.zeros((4, 5), np.uint8), "expected uint8 of its shape"),
        (Window(0, 0, 4, 4), np.zeros((4, 4), np.float32), "float32"),
        (Window(8, 8, 4, 4), np.zeros((4, 4), np.uint8), "does not lie inside the grid of 10 x 10"),
    ],
)
def test_block_that_does_not_fit_is_refused(tmp_path, window, values, message):
    with pytest.raises(ValueError, match=message):
        write_raster(mask_file(tmp_path / "a.tif"), [(window, values)], Grid(*PLACES["utm"], (10, 10)))


def test_blocks_that_overlap_are_refused(tmp_path):
    block = (Window(0, 0, 10, 10), np.zeros((10, 10), np.uint8))
    with pytest.raises(ValueError, match="must not overlap"):
        write_raster(mask_file(tmp_path / "a.tif"), [block, block], Grid(*PLACES["utm"], (10, 10)))


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from affine import Affine
from rasterio.crs import CRS
from geoseg.grid import Grid, Window
from geoseg.outputs import probability_file, write_raster
side = int(sys.argv[1])
part = np.add.outer(np.arange(1024) // 9, np.arange(1024) // 9).astype(np.uint8)
blocks = ((Window(r, c, 1024, 1024), part) for r in range(0, side, 1024) for c in range(0, side, 1024))
grid = Grid(CRS.from_epsg(32630), Affine(1, 0, 0, 0, -1, 0), (side, side))
write_raster(probability_file(Path(sys.argv[2])), blocks, grid)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path):
    def peak_mb(side):
        command = [sys.executable, "-c", MEMORY_SCRIPT, str(side), str(tmp_path / "a.tif")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak_mb(16384) - peak_mb(8192) < 15  # of 201 MB more pixels


def test_a_raster_is_on_the_disk_in_full_before_it_takes_its_place(tmp_path, monkeypatch):
    path, synced, sync = tmp_path / "mask.tif", [], os.fsync

    def watch(descriptor):
        synced.append((os.fstat(descriptor).st_size, path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    grid = Grid(*PLACES["utm"], (8, 9))
    write_raster(mask_file(path), [(grid.window, np.zeros(grid.shape, np.uint8))], grid)
    assert (path.stat().st_size, False) in synced
