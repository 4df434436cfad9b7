"""Chips and blocks: who owns a pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.grid import Lattice, fit_lattice

STRIDE = 32

shapes = st.tuples(st.integers(1, 700), st.integers(1, 700))
sizes = st.tuples(st.integers(2, 10), st.integers(0, 31))


def lattice_of(shape: tuple[int, int], size: tuple[int, int]) -> Lattice:
    """The lattice for chips of `size[0]` strides and a halo of `size[1]` pixels."""
    return fit_lattice(shape, chip_px=size[0] * STRIDE, halo_px=size[1], multiple_px=STRIDE)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, size=sizes)
def test_every_pixel_is_owned_by_exactly_one_chip(shape: tuple[int, int], size: tuple[int, int]) -> None:
    lattice = lattice_of(shape, size)
    owners = np.zeros(shape, int)
    for i in range(lattice.counts[0]):
        for j in range(lattice.counts[1]):
            owners[lattice.core_window(i, j).slices] += 1
    assert (owners == 1).all()


@settings(max_examples=30, deadline=None)
@given(shape=shapes, size=sizes)
def test_chips_are_multiples_of_the_stride_and_no_larger_than_asked(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    chip_shape = lattice_of(shape, size).chip_shape
    assert all(side % STRIDE == 0 and side <= size[0] * STRIDE for side in chip_shape)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, size=sizes)
def test_no_more_chips_than_the_largest_chip_needs(shape: tuple[int, int], size: tuple[int, int]) -> None:
    core = size[0] * STRIDE - 2 * size[1]
    assert lattice_of(shape, size).counts == tuple(-(-n // core) for n in shape)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, size=sizes)
def test_a_chip_sees_its_core_and_the_halo_around(shape: tuple[int, int], size: tuple[int, int]) -> None:
    lattice = lattice_of(shape, size)
    last = (lattice.counts[0] - 1, lattice.counts[1] - 1)
    seen, owned = lattice.chip_window(*last), lattice.core_window(*last)
    assert seen.shape == lattice.chip_shape
    assert (owned.row - seen.row, owned.col - seen.col) == (size[1], size[1])
    assert owned.intersect(seen.expand(-size[1])) == owned


@settings(max_examples=30, deadline=None)
@given(shape=shapes, size=sizes, block_px=st.integers(1, 900))
def test_blocks_of_any_size_are_whole_chips_and_partition_the_scene(
    shape: tuple[int, int], size: tuple[int, int], block_px: int
) -> None:
    lattice = lattice_of(shape, size)
    blocks = lattice.plan_blocks(block_px)
    owners, chips = np.zeros(shape, int), []
    for block in blocks:
        owners[block.window.slices] += 1
        inside = np.zeros(shape, int)
        for chip in lattice.chips_of(block):
            inside[lattice.core_window(*chip).slices] += 1
            chips.append(chip)
        assert inside.sum() == inside[block.window.slices].sum() == block.window.height * block.window.width
    assert (owners == 1).all()
    assert sorted(chips) == [(i, j) for i in range(lattice.counts[0]) for j in range(lattice.counts[1])]
    assert len({block.name for block in blocks}) == len(blocks)


def test_a_block_is_no_larger_than_asked_unless_a_chip_is() -> None:
    lattice = fit_lattice((5000, 5000), chip_px=512, halo_px=32)
    assert max(max(b.window.shape) for b in lattice.plan_blocks(2048)) <= 2048
    assert {b.window.shape for b in lattice.plan_blocks(1)} >= {lattice.core}


def test_a_chip_outside_the_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the lattice"):
        fit_lattice((100, 100), chip_px=64, halo_px=8).core_window(3, 0)


def test_a_chip_that_is_all_halo_is_refused() -> None:
    with pytest.raises(ValueError, match="owns no pixel"):
        fit_lattice((100, 100), chip_px=64, halo_px=32)


def test_a_chip_off_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        fit_lattice((100, 100), chip_px=100, halo_px=8)
