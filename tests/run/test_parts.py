"""Parts: what a block leaves behind comes back as it was, and a damaged part is found out."""

import threading
from pathlib import Path

import numpy as np
import pytest

from geoseg.errors import DamagedPartError, MissingFileError
from geoseg.grid import Block, Window
from geoseg.inference import NODATA, BlockPixels, Stopwatch
from geoseg.io.store import LocalStore
from geoseg.run.parts import RasterName, is_intact, part_name, read_raster, read_watch, write_part

BLOCK = Block(range(1), range(1), Window(0, 100, 80, 120))
RASTERS: tuple[RasterName, ...] = ("probability", "classes", "interior")


def block_pixels(*, seed: int = 0, others: bool = True) -> BlockPixels:
    coarse = np.random.default_rng(seed).integers(0, 255, (20, 30))
    probability = np.kron(coarse, np.ones((4, 4))).astype(np.uint8)
    valid = np.ones((82, 122), bool)
    valid[[0, -1]] = False
    watch = Stopwatch({"read": 0.25, "network": 1.5}, chips=7)
    classes, interior = (probability // 90, probability // 2) if others else (None, None)
    return BlockPixels(probability, valid, watch, classes, interior)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "run")


def test_everything_comes_back_as_it_was(store: LocalStore) -> None:
    pixels = block_pixels()
    write_part(store, BLOCK, pixels)
    for name in RASTERS:
        np.testing.assert_array_equal(read_raster(store, BLOCK, name), getattr(pixels, name))
    assert read_watch(store, BLOCK) == pixels.watch


def test_a_raster_that_a_model_does_not_have_is_none(store: LocalStore) -> None:
    write_part(store, BLOCK, block_pixels(others=False))
    assert [read_raster(store, BLOCK, name) is None for name in RASTERS] == [False, True, True]


def test_a_block_of_nodata_takes_no_room(store: LocalStore) -> None:
    empty = np.full((80, 120), NODATA, np.uint8)
    write_part(store, BLOCK, BlockPixels(empty, np.zeros((82, 122), bool), Stopwatch(), empty, empty))
    assert [read_raster(store, BLOCK, name) for name in RASTERS] == [None, None, None]
    assert len(store.read(part_name(BLOCK))) < 500


def test_a_part_is_one_object_named_for_its_block(store: LocalStore) -> None:
    write_part(store, BLOCK, block_pixels())
    assert store.names("parts") == ["parts/r0_c100.npz"]
    assert is_intact(store, BLOCK)


def test_a_missing_part_is_not_sound_and_reading_says_so(store: LocalStore) -> None:
    assert not is_intact(store, BLOCK)
    with pytest.raises(MissingFileError):
        read_watch(store, BLOCK)
    with pytest.raises(MissingFileError):
        read_raster(store, BLOCK, "probability")


def read_everything(store: LocalStore) -> None:
    for name in RASTERS:
        read_raster(store, BLOCK, name)
    read_watch(store, BLOCK)


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, 0.99, -1])
def test_a_part_that_was_cut_short_is_found_out(store: LocalStore, kept: float) -> None:
    write_part(store, BLOCK, block_pixels())
    whole = store.read(part_name(BLOCK))
    cut = whole[: int(kept * len(whole))] if isinstance(kept, float) else whole[:kept]
    for rest in (b"", bytes(len(whole) - len(cut))):  # file systems fill with zeros what was not written in time
        store.write(part_name(BLOCK), cut + rest)
        if cut + rest == whole:
            continue
        assert not is_intact(store, BLOCK)
        with pytest.raises(DamagedPartError, match=r"parts/r0_c100.npz is damaged .*again to compute the block again"):
            read_everything(store)


def test_any_changed_byte_is_found_out_or_does_no_harm(store: LocalStore) -> None:
    pixels = block_pixels()
    write_part(store, BLOCK, pixels)
    whole = store.read(part_name(BLOCK))
    damaged = 0
    for place in np.random.default_rng(3).integers(0, len(whole), 300).tolist():
        changed = bytearray(whole)
        changed[place] ^= 0x5A
        store.write(part_name(BLOCK), bytes(changed))
        try:
            read_everything(store)
            for name in RASTERS:
                np.testing.assert_array_equal(read_raster(store, BLOCK, name), getattr(pixels, name))
        except DamagedPartError:
            damaged += 1
            assert not is_intact(store, BLOCK)
    assert damaged > 250


def test_threads_write_and_read_parts_at_once(store: LocalStore) -> None:
    blocks = [Block(range(1), range(1), Window(80 * i, 100, 80, 120)) for i in range(8)]
    pixels = [block_pixels(seed=i) for i in range(8)]
    work = [threading.Thread(target=write_part, args=(store, b, p)) for b, p in zip(blocks, pixels, strict=True)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    for block, own in zip(blocks, pixels, strict=True):
        np.testing.assert_array_equal(read_raster(store, block, "probability"), own.probability)
