"""Pixels without data, filled by mirroring."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.datasets import fill_invalid

MARK = 255


def test_a_whole_chip_is_returned_as_it_is() -> None:
    values = np.ones((3, 5, 5), np.uint8)
    assert fill_invalid(values, np.ones((5, 5), bool)) is values


def test_a_chip_without_data_is_zeros() -> None:
    values = np.full((3, 5, 5), MARK, np.uint8)
    assert not fill_invalid(values, np.zeros((5, 5), bool)).any()


def test_a_missing_edge_mirrors_the_pixels_beside_it_as_numpy_does() -> None:
    values = np.random.default_rng(0).integers(0, 200, (2, 12, 20), "uint8")
    valid = np.ones((12, 20), bool)
    valid[:, :6] = False
    expected = np.pad(values[:, :, 6:], ((0, 0), (0, 0), (6, 0)), mode="reflect")
    np.testing.assert_array_equal(fill_invalid(values, valid), expected)


def test_where_the_mirror_leads_nowhere_the_nearest_pixel_serves() -> None:
    values = np.array([[[7, MARK, MARK, MARK]]], np.uint8)
    valid = np.array([[True, False, False, False]])
    assert (fill_invalid(values, valid) == 7).all()


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 25), st.integers(1, 25)), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_no_invalid_value_leaks_and_no_valid_one_changes(shape: tuple[int, int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) < share
    values = np.where(valid, rng.integers(1, 200, (3, *shape)), MARK).astype(np.uint8)
    before = values.copy()
    out = fill_invalid(values, valid)
    assert not (out == MARK).any()
    np.testing.assert_array_equal(out[:, valid], values[:, valid])
    np.testing.assert_array_equal(values, before)
    bands = {tuple(p) for p in values[:, valid].T}  # a filled pixel is a whole pixel, not a mix of bands
    assert not valid.any() or {tuple(p) for p in out.reshape(3, -1).T} <= bands
