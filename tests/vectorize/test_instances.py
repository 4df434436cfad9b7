"""The watershed: a summit for each building, and the same buildings however the scene is cut into blocks."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from geoseg.grid import Window
from geoseg.vectorize import join_seams, polygonize_block
from geoseg.vectorize.instances import Depth


def buildings_of(polygons, shape):
    """Return the number of the building of every pixel, 0 outside."""
    from rasterio.features import rasterize

    numbered = [(polygon, number) for number, polygon in enumerate(polygons, 1)]
    return rasterize(numbered, shape, dtype="int32") if numbered else np.zeros(shape, np.int32)


def reference(surface, mask, depth):
    """Return the summit of every pixel's building, -1 outside: counted at the full depth, divided at that of many."""
    component, count = ndimage.label(mask)
    surely, out = forest(surface, mask, np.full(surface.shape, depth.alone)), np.full(surface.shape, -1)
    for number in range(1, count + 1):
        here = component == number
        buildings = len(np.unique(surely[here]))
        steps = max(depth.least, round(depth.alone / buildings**0.375))
        out[here] = forest(surface, here, np.full(surface.shape, steps))[here]
    return out


def forest(surface, mask, depth):
    """Return the summit of every pixel's building, -1 outside, by Kruskal's rule on single pixels."""
    width = surface.shape[1]
    from_above = sorted(np.argwhere(mask).tolist(), key=lambda place: (-surface[tuple(place)], *place))
    rank = {(r, c): number for number, (r, c) in enumerate(from_above)}
    paths = []
    for r, c in rank:
        for other in ((r + 1, c), (r, c + 1)):
            if other in rank:
                pair = sorted([(r, c), other], key=rank.__getitem__)
                paths.append((rank[pair[1]], rank[pair[0]], *pair))
    parent = {pixel: pixel for pixel in rank}

    def find(pixel):
        while parent[pixel] != pixel:
            pixel = parent[pixel]
        return pixel

    for _, _, upper, lower in sorted(paths):
        a, b = sorted({find(upper), find(lower)}, key=rank.__getitem__) if find(upper) != find(lower) else (None, None)
        if a is not None and surface[b] - surface[lower] < depth[lower]:  # b has the lower summit
            parent[b] = a
    out = np.full(surface.shape, -1)
    for r, c in rank:
        summit = find((r, c))
        out[r, c] = summit[0] * width + summit[1]
    return out


def touching(number):
    """Return whether each building, numbered from 1, has a pixel beside one of another."""
    touches = np.zeros(number.max(initial=0) + 1, bool)
    for one, other in ((number[1:], number[:-1]), (number[:, 1:], number[:, :-1])):
        apart = (one != other) & (one > 0) & (other > 0)
        touches[one[apart]] = touches[other[apart]] = True
    return touches[1:]


@st.composite
def fields(draw):
    """A surface full of ties, a mask, a depth and any cut into blocks."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=10))
    surface = draw(arrays(np.int64, shape, elements=st.integers(0, draw(st.sampled_from([0, 1, 2, 4, 9])))))
    mask = draw(arrays(bool, shape, fill=st.just(True)))
    rows, cols = (sorted(draw(st.sets(st.integers(1, max(1, n - 1))))) if n > 1 else [] for n in shape)
    alone = draw(st.integers(1, 6))
    return surface, mask, Depth(alone, draw(st.integers(1, alone))), rows, cols


@settings(max_examples=300)
@given(fields())
def test_buildings_are_those_of_the_definition_for_any_cut(cut, assert_equal, field):
    surface, mask, depth, rows, cols = field
    (whole,) = cut(mask, None, None, surface, depth=depth)
    expected = reference(surface, mask, depth)
    found = buildings_of(whole.polygons, mask.shape)
    pairs = np.unique(np.column_stack((found[mask], expected[mask])), axis=0)
    assert len(pairs) == len(np.unique(found[mask])) == len(np.unique(expected[mask]))
    np.testing.assert_array_equal(whole.touches, touching(found))
    assert_equal(join_seams(cut(mask, None, None, surface, rows=rows, cols=cols, depth=depth)), whole)


def ridge(*heights):
    return np.array([heights, heights])


@pytest.mark.parametrize(
    ("heights", "depth", "count"),
    [
        ((5, 9, 5, 9, 5), 4, 2),
        ((5, 9, 5, 9, 5), 5, 1),
        ((5, 9, 5, 7, 5), 3, 1),  # the lower summit decides
        ((5, 9, 5, 7, 5), 2, 2),
        ((0, 9, 8, 9, 0, 9, 8, 9, 0), 2, 2),  # dips of a roof do not split it
    ],
)
def test_two_summits_are_two_buildings_where_the_surface_falls_by_the_depth(cut, heights, depth, count):
    surface = ridge(*heights)
    (block,) = cut(np.ones(surface.shape, bool), None, None, surface, depth=depth)
    assert len(block) == count


def test_where_many_buildings_touch_a_shallower_wall_divides_them(cut):
    """Four buildings are sure, so 9 / 4 ** 0.375, 5 steps, are enough: six are found. Alone, a roof keeps its dip."""
    row = [9, 0, 9, 0, 9, 4, 9, 5, 9, 0, 9, 4, 9]
    surface, depth = ridge(*row), Depth(9, 2)
    (block,) = cut(np.ones(surface.shape, bool), None, None, surface, depth=depth)
    assert len(block) == 6
    alone = ridge(9, 4, 9)
    (block,) = cut(np.ones(alone.shape, bool), None, None, alone, depth=depth)
    assert len(block) == 1


@pytest.mark.parametrize("cols", [(), (6,), (3,), (2, 4, 7)])
def test_whole_buildings_of_other_blocks_count_too(cut, cols):
    surface = ridge(9, 0, 9, 0, 9, 0, 9, 4, 9)
    blocks = cut(np.ones(surface.shape, bool), None, None, surface, cols=cols, depth=Depth(9, 2))
    assert len(join_seams(blocks)) == 5


def test_buildings_that_go_on_in_another_block_must_be_counted(cut):
    surface = ridge(9, 0, 9, 5, 9)
    options = {"scene_shape": surface.shape, "surface": surface[:, :4], "depth": Depth(8, 2)}
    ones = np.ones((2, 4), bool)
    with pytest.raises(ValueError, match="count the buildings of all blocks first"):
        polygonize_block(ones, np.full((2, 4), 254, np.uint8), ones, Window(0, 0, 2, 3), **options)


def test_buildings_that_touch_share_their_wall_and_cover_the_mask(cut):
    rows, cols = np.indices((40, 60))
    surface = np.maximum(20 - np.hypot(rows - 20, cols - 15), 20 - np.hypot(rows - 20, cols - 42)).astype(int).clip(0)
    mask = surface > 0
    (block,) = cut(mask, None, None, surface, depth=3)
    assert len(block) == 2
    assert shapely.area(block.polygons).sum() == mask.sum()
    assert shapely.intersection(*block.polygons).length > 5
    assert shapely.intersection(*block.polygons).area == 0


def test_a_missing_block_is_refused(cut):
    blocks = cut(np.ones((6, 6), bool), rows=(3,))
    with pytest.raises(ValueError, match="no counterpart"):
        join_seams(blocks[:1])
