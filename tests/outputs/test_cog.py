import itertools
import struct
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from geoseg.errors import BundleError, OutputError
from geoseg.grid import Grid, Window
from geoseg.outputs import class_file, cog, mask_file, open_rasters, probability_file, pyramid, write_raster
from geoseg.outputs.overviews import halve_average, halve_majority
from geoseg.outputs.rasters import overview_count
from geoseg.scene.tiff import promised_size

NODATA = 255
CLASSES = {"names": ("land", "water"), "colors": ("#00ff10", "#0102fe")}


def grid(shape):
    return Grid(CRS.from_epsg(32630), Affine(0.3, 0, 809267.11, 0, -0.3, 618981.3), shape)


def scene(shape, *, top=255, seed=0):
    """Noise, with one TIFF tile's worth of a single value and a strip without data."""
    values = np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint8)
    values[:700, :600] = 0
    values[shape[0] // 2 : shape[0] // 2 + 90] = NODATA
    return values


def whole(values):
    return [(Window(0, 0, *values.shape), values)]


def cut(values, row_cuts, col_cuts):
    """Blocks between the cuts, in the order of reading."""
    rows, cols = (
        [0, *sorted({c for c in cuts if 0 < c < n}), n]
        for cuts, n in zip((row_cuts, col_cuts), values.shape, strict=True)
    )
    windows = [
        Window(r, c, below - r, right - c)
        for (r, below), (c, right) in itertools.product(itertools.pairwise(rows), itertools.pairwise(cols))
    ]
    return [(window, values[window.slices]) for window in windows]


def read(path, level=None):
    with rasterio.open(path, **({} if level is None else {"overview_level": level})) as raster:
        return raster.read(1)


def halved(values, rule):
    padded = np.pad(values, [(0, side % 2) for side in values.shape], constant_values=NODATA)
    return rule(padded)


shapes = st.tuples(st.integers(1, 1300), st.integers(1, 1300))
cuts = st.lists(st.integers(1, 1299), max_size=5)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(shape=shapes, rows=cuts, cols=cuts, order=st.randoms(use_true_random=False), threads=st.integers(1, 3))
def test_file_does_not_depend_on_blocks_their_order_or_threads(tmp_path, shape, rows, cols, order, threads):
    values = scene(shape)
    one = write_raster(probability_file(tmp_path / "one.tif"), whole(values), grid(shape))
    blocks = cut(values, rows, cols)
    order.shuffle(blocks)
    with open_rasters([probability_file(tmp_path / "many.tif")], grid(shape), threads=threads) as writer:
        for window, pixels in blocks:
            writer.put(window, pixels[np.newaxis])
    assert (tmp_path / "many.tif").read_bytes() == one.read_bytes()
    np.testing.assert_array_equal(read(one), values)


@pytest.mark.parametrize("memory", [1, 2 * 512 * 512])
def test_file_does_not_depend_on_the_memory_for_unfinished_tiles(tmp_path, monkeypatch, memory):
    values = scene((1700, 1500))
    one = write_raster(probability_file(tmp_path / "one.tif"), whole(values), grid(values.shape)).read_bytes()
    monkeypatch.setattr(pyramid, "PENDING_BYTES", memory)
    blocks = cut(values, range(100, 1700, 100), range(333, 1500, 333))
    assert write_raster(probability_file(tmp_path / "a.tif"), blocks, grid(values.shape)).read_bytes() == one
    assert write_raster(probability_file(tmp_path / "a.tif"), blocks[::-1], grid(values.shape)).read_bytes() == one


def test_rows_said_to_be_finished_change_nothing(tmp_path):
    values = scene((2100, 700))
    values[600:1300, 200:] = NODATA
    one = write_raster(probability_file(tmp_path / "one.tif"), whole(values), grid(values.shape)).read_bytes()
    with open_rasters([probability_file(tmp_path / "a.tif")], grid(values.shape)) as writer:
        for window, pixels in cut(values, (600, 1300), (200,)):
            writer.finish_above(window.row)
            if (pixels != NODATA).any():
                writer.put(window, pixels[np.newaxis])
    assert (tmp_path / "a.tif").read_bytes() == one


def test_pixels_above_finished_rows_are_refused(tmp_path):
    values = scene((700, 700))
    with open_rasters([probability_file(tmp_path / "a.tif")], grid(values.shape)) as writer:
        writer.put(Window(0, 0, 700, 100), values[np.newaxis, :, :100])
        writer.finish_above(600)
        with pytest.raises(ValueError, match="must not overlap"):
            writer.put(Window(0, 100, 700, 600), values[np.newaxis, :, 100:])


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 3000), (700, 1301), (1025, 513)])
@pytest.mark.parametrize(
    ("describe", "rule", "top"), [(probability_file, halve_average, 255), (mask_file, halve_majority, 2)]
)
def test_every_overview_is_the_level_below_halved(tmp_path, shape, describe, rule, top):
    values = scene(shape, top=top)
    path = write_raster(describe(tmp_path / "a.tif"), cut(values, (200, 300), (77, 1200)), grid(shape))
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    expected = values
    for level in range(overview_count(shape)):
        expected = halved(expected, rule)
        np.testing.assert_array_equal(read(path, level), expected)


def test_several_rasters_of_one_pass_are_those_written_alone(tmp_path):
    values = scene((900, 1100))
    masked = np.where(values == NODATA, NODATA, values >= 127).astype(np.uint8)
    alone = [
        write_raster(probability_file(tmp_path / "p1.tif"), whole(values), grid(values.shape)),
        write_raster(mask_file(tmp_path / "m1.tif"), whole(masked), grid(values.shape)),
    ]

    def derive(pixels, row, col):
        return np.concatenate([pixels, np.where(pixels == NODATA, NODATA, pixels >= 127)]).astype(np.uint8)

    files = [probability_file(tmp_path / "p.tif"), mask_file(tmp_path / "m.tif")]
    with open_rasters(files, grid(values.shape), derive=derive, inputs=1) as writer:
        for window, pixels in cut(values, (100, 640), (600, 601)):
            writer.put(window, pixels[np.newaxis])
    for file, other in zip(files, alone, strict=True):
        assert file.path.read_bytes() == other.read_bytes()
    assert not list(tmp_path.glob(".tmp*"))


# Layout


def tile_places(path):
    """Per level, smallest overview first, the `(offset, size)` of the stored TIFF tiles in the order of reading."""
    places = []
    with rasterio.open(path) as raster:
        shapes = [(raster.height, raster.width)]
        shapes += [(-(-raster.height // n), -(-raster.width // n)) for n in raster.overviews(1)]
        for level, shape in reversed(list(enumerate(shapes))):
            rows, cols = (range(-(-side // 512)) for side in shape)
            found = []
            for row, col in itertools.product(rows, cols):
                options = {} if level == 0 else {"ovr": level - 1}
                keys = (f"BLOCK_{name}_{col}_{row}" for name in ("OFFSET", "SIZE"))
                found.append(tuple(raster.get_tag_item(key, "TIFF", bidx=1, **options) for key in keys))
            places.append([(int(offset), int(size)) for offset, size in found if offset is not None])
    return places


@pytest.fixture(params=[2**32, 0], ids=["classic", "BigTIFF"])
def is_big(request, monkeypatch):
    monkeypatch.setattr(cog, "CLASSIC_LIMIT", request.param)
    return not request.param


def test_tiles_lie_as_the_ghost_area_promises(tmp_path, is_big):
    values = scene((1300, 1700))
    values[:512, 512:1024] = NODATA
    path = write_raster(probability_file(tmp_path / "a.tif"), whole(values), grid(values.shape))
    data = path.read_bytes()
    assert data[:4] == (b"II+\0" if is_big else b"II*\0")
    places = tile_places(path)
    assert [len(level) for level in places] == [1, 1, 4, 11]
    end = None
    for offset, size in itertools.chain.from_iterable(places):
        assert data[offset - 4 : offset] == struct.pack("<I", size)
        assert data[offset + size : offset + size + 4] == data[offset + size - 4 : offset + size]
        assert end in (None, offset - 4)
        end = offset + size + 4
    assert end == len(data)
    assert promised_size(path) == end - 4
    np.testing.assert_array_equal(read(path), values)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


def test_ghost_area_is_GDALs_own(tmp_path):
    ours = write_raster(probability_file(tmp_path / "a.tif"), whole(scene((600, 600))), grid((600, 600)))
    rasterio.shutil.copy(ours, tmp_path / "theirs.tif", driver="COG", COMPRESS="DEFLATE")
    assert ours.read_bytes()[:192] == (tmp_path / "theirs.tif").read_bytes()[:192]


@pytest.mark.parametrize(("describe", "more"), [(probability_file, {}), (mask_file, {}), (class_file, CLASSES)])
def test_big_and_classic_files_say_the_same(tmp_path, monkeypatch, describe, more):
    values = scene((1300, 700), top=2)
    classic = write_raster(describe(tmp_path / "classic.tif", **more), whole(values), grid(values.shape))
    monkeypatch.setattr(cog, "CLASSIC_LIMIT", 0)
    big = write_raster(describe(tmp_path / "big.tif", **more), whole(values), grid(values.shape))
    for level in (None, 0, 1):
        np.testing.assert_array_equal(read(classic, level), read(big, level))
    with rasterio.open(classic) as a, rasterio.open(big) as b:
        assert a.profile == b.profile
        assert (a.descriptions, a.scales, a.tags(), a.colorinterp) == (
            b.descriptions,
            b.scales,
            b.tags(),
            b.colorinterp,
        )


def test_size_decides_about_BigTIFF(tmp_path, monkeypatch):
    values = scene((600, 600))
    size = write_raster(probability_file(tmp_path / "a.tif"), whole(values), grid(values.shape)).stat().st_size
    for limit, magic in ((size, b"II+\0"), (size + 1, b"II*\0")):
        monkeypatch.setattr(cog, "CLASSIC_LIMIT", limit)
        path = write_raster(probability_file(tmp_path / "a.tif"), whole(values), grid(values.shape))
        assert path.read_bytes()[:4] == magic


@pytest.mark.parametrize("describe", [probability_file, mask_file])
def test_empty_ground_costs_nothing(tmp_path, describe):
    shape, block = (200_000, 200_000), np.ones((600, 600), np.uint8)
    start = time.process_time()
    path = write_raster(describe(tmp_path / "a.tif"), [(Window(100_000, 50_000, 600, 600), block)], grid(shape))
    assert time.process_time() - start < 5
    assert path.stat().st_size < 4_000_000  # 12 bytes for each of 203,500 tiles, and few that are stored
    with rasterio.open(path) as raster:
        assert (raster.read(1, window=((100_000, 100_600), (50_000, 50_600))) == 1).all()
        assert (raster.read(1, window=((0, 600), (0, 600))) == NODATA).all()
    assert (read(path, 9) != NODATA).sum() == 4  # 1,024 px each; the block lies across two borders


# Failures


def put_and_fail(files):
    with open_rasters(files, grid((600, 600))) as writer:
        writer.put(Window(0, 0, 600, 500), np.ones((2, 600, 500), np.uint8))
        raise BundleError("the weights went away")


def test_failure_midway_leaves_neither_raster_and_the_older_ones_as_they_were(tmp_path):
    (tmp_path / "m.tif").write_text("older")
    files = [probability_file(tmp_path / "p.tif"), mask_file(tmp_path / "m.tif")]
    with pytest.raises(BundleError):
        put_and_fail(files)
    assert [file.name for file in tmp_path.iterdir()] == ["m.tif"]
    assert (tmp_path / "m.tif").read_text() == "older"


def test_failure_in_a_thread_is_told(tmp_path):
    def derive(pixels, row, col):
        raise BundleError(f"tile {row}, {col}")

    with (
        pytest.raises(BundleError, match="tile 0, 0"),
        open_rasters([probability_file(tmp_path / "p.tif")], grid((60, 60)), derive=derive) as writer,
    ):
        writer.put(Window(0, 0, 60, 60), np.ones((1, 60, 60), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_tiles_wait_is_an_error(tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr(pyramid, "PENDING_BYTES", 1)
    values = scene((600, 3000))
    blocks = cut(values, (100,), range(100, 3000, 100))
    with full_disk(600_000), pytest.raises(OutputError, match=r"a\.tif cannot be written \(.*Make room"):
        write_raster(probability_file(tmp_path / "a.tif"), blocks, grid(values.shape))
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_not_written_in_full_is_an_error(tmp_path, monkeypatch):
    lost = pyramid.Spool.read
    monkeypatch.setattr(pyramid.Spool, "read", lambda spool, offset, size: lost(spool, offset, size)[:-1])
    with pytest.raises(OutputError, match=r"\d+ bytes instead of \d+"):
        write_raster(mask_file(tmp_path / "a.tif"), whole(scene((600, 600), top=2)), grid((600, 600)))
    assert list(tmp_path.iterdir()) == []


def test_pixels_for_other_rasters_are_refused(tmp_path):
    file = replace(probability_file(tmp_path / "a.tif"), description="two")
    with (
        pytest.raises(ValueError, match="for 2 rasters"),
        open_rasters([file, mask_file(tmp_path / "m.tif")], grid((9, 9))) as writer,
    ):
        writer.put(Window(0, 0, 9, 9), np.zeros((1, 9, 9), np.uint8))


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from affine import Affine
from rasterio.crs import CRS
from geoseg.grid import Grid, Window
from geoseg.outputs import probability_file, write_raster
height, width = int(sys.argv[1]), int(sys.argv[2])
part = np.add.outer(np.arange(500) // 9, np.arange(500) // 9).astype(np.uint8)
blocks = ((Window(r, c, 500, 500), part) for r in range(0, height - 500, 500) for c in range(0, width, 500))
grid = Grid(CRS.from_epsg(32630), Affine(1, 0, 0, 0, -1, 0), (height, width))
write_raster(probability_file(Path(sys.argv[3])), blocks, grid)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_width(tmp_path):
    """The last row of blocks is missing, so that a whole row of TIFF tiles waits until the end."""

    def peak_mb(height, width):
        command = [sys.executable, "-c", MEMORY_SCRIPT, str(height), str(width), str(tmp_path / "a.tif")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak_mb(1500, 100_000) - peak_mb(3000, 3000) < 25  # rows of tiles that wait take 51 MB, and their overviews
