"""Windows are sets of pixels: their arithmetic is that of sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.grid import Window, reflect_indices

windows = st.builds(Window, st.integers(-15, 15), st.integers(-15, 15), st.integers(1, 20), st.integers(1, 20))


def pixels(window: Window | None) -> set[tuple[int, int]]:
    """The pixels of a window."""
    if window is None:
        return set()
    return {
        (r, c)
        for r in range(window.row, window.row + window.height)
        for c in range(window.col, window.col + window.width)
    }


@settings(max_examples=30)
@given(a=windows, b=windows)
def test_intersection_holds_the_pixels_of_both(a: Window, b: Window) -> None:
    assert pixels(a.intersect(b)) == pixels(a) & pixels(b)


@settings(max_examples=15)
@given(window=windows, px=st.integers(0, 5))
def test_expanding_and_shrinking_back_gives_the_window(window: Window, px: int) -> None:
    assert window.expand(px).shape == (window.height + 2 * px, window.width + 2 * px)
    assert window.expand(px).expand(-px) == window
    assert pixels(window) <= pixels(window.expand(px))


def test_slices_index_the_array_of_the_scene() -> None:
    array = np.arange(100).reshape(10, 10)
    window = Window(2, 3, 4, 5)
    assert array[window.slices].shape == window.shape == (4, 5)
    assert array[window.slices][0, 0] == 23


def test_relative_window_picks_the_same_pixels_from_a_crop() -> None:
    array = np.arange(400).reshape(20, 20)
    outer, inner = Window(3, 4, 12, 10), Window(5, 6, 4, 3)
    np.testing.assert_array_equal(array[outer.slices][inner.relative_to(outer).slices], array[inner.slices])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (-1, 2)])
def test_a_window_has_at_least_one_pixel(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Window(0, 0, *shape)


@settings(max_examples=30)
@given(size=st.integers(1, 12), before=st.integers(0, 40), after=st.integers(0, 40))
def test_reflection_is_that_of_numpy_however_often_it_bounces(size: int, before: int, after: int) -> None:
    mode = "reflect" if size > 1 else "edge"  # numpy cannot reflect a single pixel
    expected = np.pad(np.arange(size), (before, after), mode=mode)
    np.testing.assert_array_equal(reflect_indices(-before, size + after, size), expected)


def test_reflection_of_a_part_far_outside_equals_that_of_the_whole() -> None:
    whole = np.pad(np.arange(5), (30, 30), mode="reflect")
    np.testing.assert_array_equal(reflect_indices(-28, -11, 5), whole[2:19])
