import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rasterio.features import rasterize, shapes

from geoseg.grid import Window
from geoseg.vectorize import BlockPolygons, polygonize_block

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


def signed_area(ring):
    x, y = shapely.get_coordinates(ring).T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


@given(masks)
def test_outlines_equal_those_of_GDAL(cut, mask):
    (block,) = cut(mask)
    found = {polygon.normalize().wkt for polygon in block.polygons}
    # GDAL hands out self-touching rings at diagonals; buffering by nothing gives the valid form of the same pixels.
    authority = {
        shapely.simplify(shapely.make_valid(shapely.geometry.shape(outline), method="structure"), 0).normalize().wkt
        for outline, _ in shapes(mask.astype(np.uint8), mask=mask, connectivity=4)
    }
    assert found == authority


@given(masks)
def test_rasterized_polygons_are_the_mask(cut, mask):
    (block,) = cut(mask)
    burned = np.zeros(mask.shape, np.uint8)
    for number, polygon in enumerate(block.polygons):
        rasterize([(polygon, 1)], out=burned)
        assert rasterize([polygon], mask.shape).sum() == block.pixel_count[number]
    np.testing.assert_array_equal(burned.astype(bool), mask)


@given(masks)
def test_polygons_are_valid_and_their_area_is_their_pixel_count(cut, mask):
    (block,) = cut(mask)
    assert shapely.is_valid(block.polygons).all()
    np.testing.assert_array_equal(shapely.area(block.polygons), block.pixel_count)
    assert block.pixel_count.sum() == mask.sum()


@given(masks)
def test_rings_start_at_their_smallest_row_and_column_and_turn_the_right_way(cut, mask):
    (block,) = cut(mask)
    starts = []
    for polygon in block.polygons:
        assert signed_area(polygon.exterior) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.interiors)
        for ring in (polygon.exterior, *polygon.interiors):
            assert ring.coords[0] == min(ring.coords, key=lambda xy: (xy[1], xy[0]))
        starts.append(polygon.exterior.coords[0][::-1])
    assert starts == sorted(starts)


@given(masks, st.data())
def test_probabilities_are_summed_exactly(cut, mask, data):
    probability = data.draw(arrays(np.uint8, mask.shape))
    (block,) = cut(mask, probability)
    inside = [probability[rasterize([polygon], mask.shape) == 1].sum(dtype=int) for polygon in block.polygons]
    assert block.probability_sum.tolist() == inside


def test_pixels_that_meet_in_a_corner_are_two_buildings(cut, picture):
    (block,) = cut(picture("#. .#"))
    assert [polygon.wkt for polygon in block.polygons] == [
        "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))",
        "POLYGON ((1 1, 2 1, 2 2, 1 2, 1 1))",
    ]


def test_courtyard_open_at_a_corner_is_a_hole_that_touches_the_outside(cut, picture):
    (block,) = cut(picture("#### #..# #.#. ###."))
    (polygon,) = block.polygons
    assert polygon.is_valid
    assert len(polygon.interiors) == 1
    assert polygon.area == 11


def test_building_in_a_courtyard_is_a_polygon_of_its_own(cut, picture):
    (block,) = cut(picture("##### #...# #.#.# #...# #####"))
    assert block.pixel_count.tolist() == [16, 1]
    assert not block.polygons[0].intersects(block.polygons[1])


def test_nodata_is_never_inside_a_polygon_whatever_the_mask_says(cut):
    valid = np.ones((9, 9), bool)
    valid[3:6, 3:6] = False
    (block,) = cut(np.ones((9, 9), bool), valid=valid)
    assert block.pixel_count.tolist() == [72]
    assert not block.polygons[0].contains(shapely.Point(4.5, 4.5))


def test_scene_without_data_has_no_polygons(cut):
    (block,) = cut(np.ones((4, 4), bool), valid=np.zeros((4, 4), bool))
    assert len(block) == 0


@pytest.mark.parametrize("place", [(0, 2), (4, 2), (2, 0), (2, 4)])
def test_building_at_the_border_of_the_scene_is_at_the_edge(cut, place):
    mask = np.zeros((5, 5), bool)
    mask[place] = True
    (block,) = cut(mask)
    assert block.edge.tolist() == [True]
    assert block.open.tolist() == [False]


@pytest.mark.parametrize(
    ("nodata", "expected"),
    [((row, col), abs(row - 2) + abs(col - 2) == 1) for row in range(5) for col in range(5) if (row, col) != (2, 2)],
)
def test_building_is_at_the_edge_where_a_4_neighbor_has_no_data(cut, nodata, expected):
    mask, valid = np.zeros((5, 5), bool), np.ones((5, 5), bool)
    mask[2, 2], valid[nodata] = True, False
    (block,) = cut(mask, valid=valid)
    assert block.edge.tolist() == [expected]


def test_nodata_just_beyond_the_block_is_seen(cut):
    mask, valid = np.zeros((6, 6), bool), np.ones((6, 6), bool)
    mask[2, 2], valid[2, 3] = True, False
    edges = [block.edge.tolist() for block in cut(mask, valid=valid, rows=(3,), cols=(3,))]
    assert edges == [[True], [], [], []]


def test_building_with_pixels_in_two_blocks_is_open_in_both(cut):
    mask = np.zeros((8, 8), bool)
    mask[3:5, 1] = mask[1, 1] = mask[6, 4] = True
    blocks = cut(mask, rows=(4,), cols=(4,))
    assert [block.open.tolist() for block in blocks] == [[False, True], [], [True], [False]]


def test_coordinates_are_those_of_the_whole_scene():
    full = np.ones((12, 12), dtype=bool)
    block = polygonize_block(full, full.astype(np.uint8), full, Window(100, 200, 10, 10), scene_shape=(1000, 1000))
    assert block.polygons[0].bounds == (200, 100, 210, 110)


def test_arrays_without_the_extra_pixel_are_refused():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(ValueError, match=r"expected \(6, 6\)"):
        polygonize_block(mask, mask.astype(np.uint8), mask, Window(4, 4, 4, 4), scene_shape=(20, 20))


def test_window_outside_the_scene_is_refused():
    mask = np.zeros((5, 5), bool)
    with pytest.raises(ValueError, match="does not lie inside the scene of 8 x 8"):
        polygonize_block(mask, mask.astype(np.uint8), mask, Window(4, 4, 5, 5), scene_shape=(8, 8))


def test_columns_of_different_length_are_refused():
    none = np.zeros(0, bool)
    with pytest.raises(ValueError, match="same length"):
        BlockPolygons(np.array([shapely.box(0, 0, 1, 1)]), *[none] * 7)
