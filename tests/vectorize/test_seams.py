import time

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg.vectorize import join_seams


@st.composite
def scenes(draw):
    """A mask with its probabilities, valid pixels and any cut into blocks."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=14))
    mask = draw(arrays(bool, shape, elements=st.booleans(), fill=st.booleans()))
    probability, hole = draw(arrays(np.uint8, shape)), draw(arrays(bool, shape, fill=st.just(False)))
    rows, cols = (sorted(draw(st.sets(st.integers(1, max(1, n - 1))))) if n > 1 else [] for n in shape)
    return mask, probability, ~hole, rows, cols


def nested_rings(size=15):
    """Rings in rings, bridged at one place so that a hole touches the outside through a corner."""
    distance = np.minimum.outer(np.minimum(np.arange(size), np.arange(size)[::-1]), np.full(size, size))
    mask = np.minimum(distance, distance.T) % 2 == 0
    mask[0, 0] = mask[2, 2] = False
    mask[1, 7] = True
    return mask


RINGS = nested_rings()
EVERY_PIXEL = list(range(1, 15))
ALL_VALID = np.ones((15, 15), bool)


@settings(max_examples=300)
@given(scenes())
@example((RINGS, RINGS.astype(np.uint8), ALL_VALID, EVERY_PIXEL, EVERY_PIXEL))
@example((RINGS, RINGS.astype(np.uint8), ALL_VALID, [7], []))
@example((~RINGS, RINGS.astype(np.uint8), ALL_VALID, EVERY_PIXEL, [3]))
@example((np.indices((15, 15)).sum(0) % 2 == 0, RINGS.astype(np.uint8), ALL_VALID, [5, 10], [5, 10]))
def test_joined_blocks_equal_the_whole_scene_for_any_cut(cut, assert_equal, scene):
    mask, probability, valid, rows, cols = scene
    (whole,) = cut(mask, probability, valid)
    assert_equal(join_seams(cut(mask, probability, valid, rows=rows, cols=cols)), whole)


@settings(max_examples=30)
@given(scenes(), st.randoms(use_true_random=False))
def test_order_of_the_blocks_does_not_matter(cut, assert_equal, scene, random):
    mask, probability, valid, rows, cols = scene
    blocks = cut(mask, probability, valid, rows=rows, cols=cols)
    shuffled = random.sample(blocks, len(blocks))
    assert_equal(join_seams(shuffled), join_seams(blocks))


def test_no_blocks_give_no_polygons():
    assert len(join_seams([])) == 0


def test_joined_polygon_has_no_vertex_on_the_seam(cut):
    joined = join_seams(cut(np.ones((6, 6), bool), rows=(2, 4), cols=(3,)))
    assert joined.polygons[0].wkt == "POLYGON ((0 0, 6 0, 6 6, 0 6, 0 0))"


def test_ring_cut_into_four_gets_its_courtyard_back(cut, picture):
    joined = join_seams(cut(picture("#### #..# #..# ####"), rows=(2,), cols=(2,)))
    assert joined.polygons[0].wkt == "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 1 3, 3 3, 3 1, 1 1))"
    assert joined.pixel_count.tolist() == [12]


def test_buildings_that_meet_in_a_corner_across_a_seam_stay_apart(cut, picture):
    joined = join_seams(cut(picture("#. .#"), rows=(1,), cols=(1,)))
    assert joined.pixel_count.tolist() == [1, 1]


def test_wall_along_a_seam_does_not_join_its_neighbors(cut, picture):
    joined = join_seams(cut(picture("##.## ##.##"), cols=(2, 3)))
    assert joined.pixel_count.tolist() == [4, 4]


def test_edge_of_one_part_is_edge_of_the_whole(cut, picture):
    blocks = cut(picture(".... ...# .### ...."), cols=(2,))
    assert [block.edge.tolist() for block in blocks] == [[False], [True]]
    assert join_seams(blocks).edge.tolist() == [True]


def test_blocks_that_overlap_are_refused(cut):
    blocks = cut(np.ones((4, 4), bool), cols=(2,))
    with pytest.raises(ValueError, match="overlap"):
        join_seams([*blocks, blocks[0]])


@pytest.mark.slow
def test_a_hundred_thousand_open_polygons_join_in_seconds(cut):
    mask = np.random.default_rng(0).random((1200, 1200)) < 0.4
    blocks = cut(mask, cols=range(2, 1200, 2))
    assert sum(block.open.sum() for block in blocks) > 100_000
    begin = time.process_time()
    joined = join_seams(blocks)
    assert time.process_time() - begin < 30
    assert joined.pixel_count.sum() == mask.sum()


@pytest.mark.realdata
@pytest.mark.parametrize("block_px", [256, 512])
def test_real_buildings_are_neither_split_nor_doubled_and_nodata_is_no_building(realdata, cut, assert_equal, block_px):
    files = sorted((realdata / "massachusetts" / "labels_without_image").glob("*.tif"))
    for path in files[::12]:
        with rasterio.open(path) as label:
            values = label.read(1)
        probability, valid = np.where(values == 1, 200, 30).astype(np.uint8), values != 255
        lines = range(block_px, 1500, block_px)
        (whole,) = cut(values == 1, probability, valid)
        # Nodata counted as building, as some programs do: it must be cut out of the polygons.
        blocks = cut(values >= 1, probability, valid, rows=lines, cols=lines)
        assert sum(map(len, blocks)) > len(whole)
        joined = join_seams(blocks)
        assert_equal(joined, whole)
        assert len(whole) > 10
        assert joined.pixel_count.sum() == (values == 1).sum()


@pytest.mark.realdata
def test_real_nodata_hole_is_no_building(realdata, cut):
    path = realdata / "massachusetts" / "labels"
    holes = 0
    for file in sorted(path.glob("*.tif")):
        with rasterio.open(file) as label:
            values = label.read(1)
        joined = join_seams(cut(values >= 1, valid=values != 255, rows=(700,), cols=(700,)))
        holes += int((values == 255).sum())
        assert shapely.area(joined.polygons).sum() == (values == 1).sum()
    assert holes > 10_000
