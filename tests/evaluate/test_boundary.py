"""Boundary IoU: by hand, against erosion as its authors do it, and whatever the window."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from geoseg.evaluate.pixels import BoundaryCounts, count_boundary, rim_of

ALL = (slice(None), slice(None))
SQUARE = np.ones((3, 3), bool)


def square(size: int, row: int, col: int, side: int) -> np.ndarray:
    """Return `(y, x)` uint8 with one square building."""
    out = np.zeros((size, size), np.uint8)
    out[row : row + side, col : col + side] = 1
    return out


def test_by_hand_a_square_shifted_by_one_pixel() -> None:
    truth, predicted = square(20, 5, 5, 8), square(20, 5, 6, 8)
    counts = count_boundary(predicted, truth, ALL, classes=2, width_px=1)
    # Rings of one pixel have 28 pixels each; they share the upper and lower edge but for their ends (7 each), and at
    # the sides column 12 of the truth meets row 5 and 12 only, which the edges hold already.
    assert counts.common[1] == 14
    assert counts.iou()[1] == pytest.approx(14 / (28 + 28 - 14))


def test_a_wide_boundary_is_the_mask_itself() -> None:
    truth, predicted = square(20, 5, 5, 6), square(20, 6, 5, 6)
    counts = count_boundary(predicted, truth, ALL, classes=2, width_px=10)
    assert (counts.common[1], counts.either[1]) == (30, 42)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), width_px=st.integers(1, 5))
def test_inside_a_picture_it_is_erosion_as_the_authors_do_it(seed: int, width_px: int) -> None:
    mask = np.pad(np.random.default_rng(seed).random((20, 24)) < 0.85, 6)  # a known border of background
    expected = mask & ~binary_erosion(mask, SQUARE, iterations=width_px)
    assert np.array_equal(rim_of(mask, np.zeros_like(mask), width_px), expected)


@settings(max_examples=15)
@given(seed=st.integers(0, 999), block=st.integers(1, 17), width_px=st.integers(1, 4))
def test_windows_with_halos_count_as_the_whole(seed: int, block: int, width_px: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.choice(np.array([0, 1, 2, 255], np.uint8), (2, 23, 19), p=[0.2, 0.6, 0.1, 0.1])
    whole = count_boundary(predicted, truth, ALL, classes=3, width_px=width_px)
    parts = BoundaryCounts.zeros(3)
    for row in range(0, 23, block):
        for col in range(0, 19, block):
            top, left = max(0, row - width_px), max(0, col - width_px)
            seen = (slice(top, row + block + width_px), slice(left, col + block + width_px))
            inner = (slice(row - top, row - top + block), slice(col - left, col - left + block))
            parts += count_boundary(predicted[seen], truth[seen], inner, classes=3, width_px=width_px)
    assert np.array_equal(parts.common, whole.common)
    assert np.array_equal(parts.either, whole.either)


def test_the_border_of_what_is_known_is_no_outline() -> None:
    mask, unknown = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    assert not rim_of(mask, unknown, 2).any()
    unknown[:, 6:] = True
    assert not rim_of(mask, unknown, 2).any()
    mask[:, 6:] = False
    assert not rim_of(mask, unknown, 2).any()
    unknown[:, 6:] = False
    assert rim_of(mask, unknown, 2)[:, 4:6].all()


def test_a_class_that_is_nowhere_has_no_boundary_iou() -> None:
    truth = square(12, 3, 3, 5)
    found = count_boundary(truth, truth, ALL, classes=3, width_px=2).iou()
    assert found[:2] == [1, 1]
    assert math.isnan(found[2])
