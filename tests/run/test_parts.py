"""Parts: what a block leaves behind comes back as it was, and a damaged part is found out."""

import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import DamagedPartError, MissingFileError
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, BlockPixels, Stopwatch
from geoseg.io.store import LocalStore
from geoseg.run.parts import is_sound, part_name, read_finished, read_pending, read_raster, read_watch, write_part
from geoseg.vectorize import BlockOutlines, Footprints, Simplify, finish_block, polygonize_block

BLOCK = Block(range(1), range(1), Window(0, 100, 80, 120))
GRID = Grid(CRS.from_epsg(32630), Affine(0.3, 0, 500_000, 0, -0.3, 600_000), (80, 400))


def block_pixels(*, classes: bool = False, seed: int = 0) -> BlockPixels:
    coarse = np.random.default_rng(seed).integers(0, 255, (20, 30))
    probability = np.kron(coarse, np.ones((4, 4))).astype(np.uint8)
    valid = np.ones((82, 122), bool)
    valid[[0, -1]] = False
    watch = Stopwatch({"read": 0.25, "network": 1.5}, chips=7)
    return BlockPixels(probability, valid, watch, (probability // 90) if classes else None)


def outlines_of(pixels: BlockPixels) -> BlockOutlines:
    ring = np.pad(pixels.probability, ((0, 0), (1, 1)))
    arrays = ring >= 127, ring, pixels.valid[1:-1]
    polygons = polygonize_block(*arrays, BLOCK.window, scene_shape=GRID.shape)
    return finish_block(polygons, BLOCK.window, GRID, min_area_m2=0, generalizer=Simplify(1))


NOTHING = BlockOutlines.empty()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "run")


def test_everything_comes_back_as_it_was(store: LocalStore) -> None:
    pixels = block_pixels(classes=True)
    outlines = outlines_of(pixels)
    write_part(store, BLOCK, pixels, outlines)
    np.testing.assert_array_equal(read_raster(store, BLOCK, "probability"), pixels.probability)
    np.testing.assert_array_equal(read_raster(store, BLOCK, "classes"), pixels.classes)
    finished, pending = read_finished(store, BLOCK), read_pending(store, BLOCK)
    assert len(finished) > 3
    for field in fields(Footprints):
        np.testing.assert_array_equal(getattr(finished, field.name), getattr(outlines.finished, field.name))
        assert getattr(finished, field.name).dtype == getattr(outlines.finished, field.name).dtype
    assert len(pending) > 10
    np.testing.assert_array_equal(pending.clashing, outlines.pending.clashing)
    assert shapely.to_wkb(pending.polygons.polygons).tolist() == [
        polygon.wkb for polygon in outlines.pending.polygons.polygons
    ]
    for name in ("pixel_count", "probability_sum", "edge", "open"):
        np.testing.assert_array_equal(getattr(pending.polygons, name), getattr(outlines.pending.polygons, name))
    assert read_watch(store, BLOCK) == pixels.watch


def test_a_block_of_nodata_takes_no_room(store: LocalStore) -> None:
    empty = np.full((80, 120), NODATA, np.uint8)
    write_part(store, BLOCK, BlockPixels(empty, np.zeros((82, 122), bool), Stopwatch(), empty), NOTHING)
    assert read_raster(store, BLOCK, "probability") is None
    assert read_raster(store, BLOCK, "classes") is None
    assert len(read_finished(store, BLOCK)) == len(read_pending(store, BLOCK)) == 0
    assert len(store.read(part_name(BLOCK))) < 500


def test_a_part_is_one_object_named_for_its_block(store: LocalStore) -> None:
    write_part(store, BLOCK, block_pixels(), NOTHING)
    assert store.names("parts") == ["parts/r0_c100.npz"]
    assert is_sound(store, BLOCK)


def test_a_missing_part_is_not_sound_and_reading_says_so(store: LocalStore) -> None:
    assert not is_sound(store, BLOCK)
    for read in (read_finished, read_pending, read_watch):
        with pytest.raises(MissingFileError):
            read(store, BLOCK)


def read_everything(store: LocalStore) -> None:
    read_raster(store, BLOCK, "probability")
    read_finished(store, BLOCK)
    read_pending(store, BLOCK)
    read_watch(store, BLOCK)


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, 0.99, -1])
def test_a_part_that_was_cut_short_is_found_out(store: LocalStore, kept: float) -> None:
    pixels = block_pixels()
    write_part(store, BLOCK, pixels, outlines_of(pixels))
    whole = store.read(part_name(BLOCK))
    cut = whole[: int(kept * len(whole))] if isinstance(kept, float) else whole[:kept]
    for rest in (b"", bytes(len(whole) - len(cut))):  # file systems fill with zeros what was not written in time
        store.write(part_name(BLOCK), cut + rest)
        if cut + rest == whole:
            continue
        assert not is_sound(store, BLOCK)
        with pytest.raises(DamagedPartError, match=r"parts/r0_c100.npz is damaged .*again to compute the block again"):
            read_everything(store)


def test_any_changed_byte_is_found_out_or_does_no_harm(store: LocalStore) -> None:
    pixels = block_pixels()
    outlines = outlines_of(pixels)
    write_part(store, BLOCK, pixels, outlines)
    whole = store.read(part_name(BLOCK))
    damaged = 0
    for place in np.random.default_rng(3).integers(0, len(whole), 300).tolist():
        changed = bytearray(whole)
        changed[place] ^= 0x5A
        store.write(part_name(BLOCK), bytes(changed))
        try:
            read_everything(store)
            np.testing.assert_array_equal(read_raster(store, BLOCK, "probability"), pixels.probability)
            np.testing.assert_array_equal(read_finished(store, BLOCK).wkb, outlines.finished.wkb)
        except DamagedPartError:
            damaged += 1
            assert not is_sound(store, BLOCK)
    assert damaged > 250


def test_threads_write_and_read_parts_at_once(store: LocalStore) -> None:
    blocks = [Block(range(1), range(1), Window(80 * i, 100, 80, 120)) for i in range(8)]
    pixels = [block_pixels(seed=i) for i in range(8)]
    work = [
        threading.Thread(target=write_part, args=(store, b, p, outlines_of(p)))
        for b, p in zip(blocks, pixels, strict=True)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    for block, own in zip(blocks, pixels, strict=True):
        np.testing.assert_array_equal(read_raster(store, block, "probability"), own.probability)
