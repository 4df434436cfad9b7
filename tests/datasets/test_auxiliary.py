"""What auxiliary channels learn: widths by hand, distances against shapely, and pixels that nobody knows."""

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.datasets.auxiliary import FULL, Widths, draw_auxiliary, outline_components, outline_instances
from geoseg.datasets.coding import IGNORED, UNSURE

WIDTHS = Widths(edge_px=3.0, contact_px=4.0, distance_px=8.0, single_px=500.0)
SHAPE = (40, 60)

Plane = NDArray[np.uint8]


def outlines(*polygons: Any) -> NDArray[Any]:
    return np.array(polygons, dtype=object)


def burn(polygons: NDArray[Any], other: int = 0) -> Plane:
    """Return 1 where a pixel's center is in a polygon, else `other`."""
    rows, cols = np.indices(SHAPE)
    inside = [shapely.contains_xy(polygon, cols + 0.5, rows + 0.5) for polygon in polygons]
    return np.where(np.any(inside, axis=0) if inside else np.zeros(SHAPE, bool), 1, other).astype(np.uint8)


def draw(channel: str, polygons: NDArray[Any], truth: Plane | None = None, **options: bool) -> Plane:
    truth = burn(polygons) if truth is None else truth
    drawn = draw_auxiliary([channel], polygons, truth, 1, WIDTHS, **{"single": True, "clipped": False} | options)
    assert drawn.shape == (1, *SHAPE)
    return np.asarray(drawn[0], np.uint8)


def box(rows: slice, cols: slice) -> shapely.Polygon:
    return shapely.box(cols.start, rows.start, cols.stop, rows.stop)


def marked(*places: tuple[slice, slice]) -> Plane:
    plane = np.zeros(SHAPE, np.uint8)
    for place in places:
        plane[place] = 1
    return plane


HOUSE = box(slice(10, 30), slice(10, 30))


def test_an_edge_is_a_band_of_its_width_inside_the_outline() -> None:
    expected = marked((slice(10, 30), slice(10, 30)))
    expected[13:27, 13:27] = 0
    np.testing.assert_array_equal(draw("edge", outlines(HOUSE)), expected)


def test_both_sides_of_a_shared_wall_and_the_walls_of_a_courtyard_are_edges() -> None:
    row = outlines(box(slice(10, 30), slice(10, 20)), box(slice(10, 30), slice(20, 30)))
    expected = marked((slice(10, 30), slice(10, 30)))
    expected[13:27, 13:17] = expected[13:27, 23:27] = 0
    np.testing.assert_array_equal(draw("edge", row), expected)
    yard = HOUSE.difference(box(slice(19, 22), slice(19, 22)))
    edge = draw("edge", outlines(yard))
    assert edge[20, 10:30].tolist() == [1] * 3 + [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [0] * 2 + [1] * 3


@pytest.mark.parametrize(
    ("gap", "columns"),
    [
        (0, range(18, 22)),  # half of the width in each building
        (1, range(19, 22)),  # the gap and its banks
        (2, range(20, 22)),
        (3, range(20, 23)),  # a gap wider than half of the width, but not wider than it
        (4, range(20, 24)),
        (5, range(0)),
    ],
)
def test_a_contact_is_as_wide_as_it_says_or_fills_the_gap(gap: int, columns: range) -> None:
    pair = outlines(box(slice(5, 35), slice(10, 20)), box(slice(5, 35), slice(20 + gap, 40)))
    contact = draw("contact", pair)
    expected = np.zeros(SHAPE[1], np.uint8)
    expected[list(columns)] = 1
    np.testing.assert_array_equal(contact[8:32], np.tile(expected, (24, 1)))
    assert not contact[:, :15].any()
    assert not contact[:, 30:].any()


def test_a_building_drawn_twice_or_in_two_parts_does_not_touch_itself() -> None:
    assert not draw("contact", outlines(HOUSE, HOUSE.buffer(-0.5))).any()
    parts = shapely.MultiPolygon([box(slice(10, 30), slice(10, 20)), box(slice(10, 30), slice(21, 30))])
    assert not draw("contact", outlines(parts)).any()


def test_a_distance_grows_from_the_outline_to_full() -> None:
    distance = draw("distance", outlines(HOUSE))
    depths = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8, 8]
    expected = np.round(FULL * np.array(depths) / 8)
    np.testing.assert_array_equal(distance[20, 10:20], expected)
    np.testing.assert_array_equal(distance[20, 20:30], expected[::-1])
    assert distance[20, 30:].max() == 0


coordinates = st.integers(0, 44)
buildings = st.lists(
    st.builds(lambda x, y, w, h: shapely.box(x, y, x + w, y + h), coordinates, coordinates, *[st.integers(2, 20)] * 2),
    min_size=1,
    max_size=5,
)


@given(buildings)
def test_pixels_of_each_channel_are_those_that_shapely_measures(shapes: list[shapely.Polygon]) -> None:
    polygons = outlines(*shapes)
    rows, cols = np.indices(SHAPE)
    points = shapely.points(cols + 0.5, rows + 0.5)
    inside = [shapely.contains(shape, points) for shape in shapes]
    depth = [
        np.where(i, shapely.distance(shape.boundary, points), np.inf) for i, shape in zip(inside, shapes, strict=True)
    ]
    shallow = np.min(depth, axis=0)
    np.testing.assert_array_equal(draw("edge", polygons), shallow < WIDTHS.edge_px)

    away = [shapely.distance(shape, points) for shape in shapes]
    least, most = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for n, one in enumerate(shapes):
        for m, other in enumerate(shapes[:n]):
            shared = one.intersection(other).area
            gap = one.distance(other)
            if gap <= WIDTHS.contact_px and shared <= min(one.area, other.area) / 2:
                farther, reach = np.maximum(away[n], away[m]), max(WIDTHS.contact_px / 2, gap)
                most |= farther <= reach
                least |= farther < 0.98 * reach  # corners of a buffer are cut
    contact = draw("contact", polygons).astype(bool)
    assert not (contact & ~most).any()
    assert not (least & ~contact).any()


def test_a_mask_knows_walls_around_its_components_and_nothing_of_their_insides() -> None:
    large, small = (slice(2, 28), slice(2, 28)), (slice(2, 22), slice(40, 60))
    truth = marked(large, small)
    parts = outline_components(truth == 1)
    edge = draw("edge", parts, truth, single=False)
    inner = (slice(5, 25), slice(5, 25))
    assert (edge[inner] == IGNORED).all()  # 676 px may be several buildings
    assert (edge[5:19, 43:57] == 0).all()  # 400 px are one
    assert ((edge == 1) == (draw("edge", parts, truth) == 1)).all()
    contact = draw("contact", parts, truth, single=False)
    assert (contact[large] == IGNORED).all()
    assert (contact[small] == 0).all()
    assert (contact[truth == 0] == 0).all()
    distance = draw("distance", parts, truth, single=False)
    assert (distance[large] == IGNORED).all()
    assert distance[12, 50] == FULL


def test_components_of_a_mask_that_lie_near_each_other_touch_and_specks_touch_nothing() -> None:
    near, other = (slice(5, 25), slice(5, 20)), (slice(5, 25), slice(22, 37))
    truth = marked(near, other, (slice(27, 29), slice(10, 12)))
    contact = draw("contact", outline_components(truth == 1), truth, single=False)
    assert (contact[8:22, 20:22] == 1).all()
    assert not contact[26:].any()


def test_background_of_incomplete_labels_is_unknown_and_so_are_walls_that_a_missing_house_may_touch() -> None:
    pair = outlines(box(slice(10, 30), slice(10, 20)), box(slice(10, 30), slice(22, 40)))
    truth = burn(pair, UNSURE)
    contact = draw("contact", pair, truth)
    assert (contact[10:30, 20:22] == 1).all()  # two known houses touch
    assert (contact[:8] == IGNORED).all()
    assert (contact[15:25, 10:12] == IGNORED).all()
    assert (contact[15:25, 13:18] == 0).all()
    edge = draw("edge", pair, truth)
    assert (edge[truth == UNSURE] == IGNORED).all()
    np.testing.assert_array_equal(edge[truth == 1], draw("edge", pair)[truth == 1])


def test_where_outlines_were_cut_their_walls_are_unknown() -> None:
    house = outlines(box(slice(0, 20), slice(10, 40)))
    truth = burn(house)
    truth[:, 38:] = IGNORED
    for channel, reach in (("edge", 3), ("contact", 2), ("distance", 8)):
        cut = draw(channel, house, truth, clipped=True)
        assert (cut[:reach, 10:38] == IGNORED).all()
        assert (cut[:, 38 - reach : 38][truth[:, 38 - reach : 38] == 1] == IGNORED).all()
        whole = draw(channel, house, burn(house))
        kept = (slice(reach, 40), slice(0, 38 - reach))
        np.testing.assert_array_equal(cut[kept], whole[kept])
        assert (cut[:, 38:] == IGNORED).all()


def test_other_classes_have_neither_walls_nor_contacts() -> None:
    truth = np.where(burn(outlines(HOUSE)) == 1, 3, 2).astype(np.uint8)  # building is 3
    truth[0, 0] = IGNORED
    drawn = draw_auxiliary(["edge", "contact"], outlines(HOUSE), truth, 3, WIDTHS, single=True, clipped=False)
    assert (drawn[:, 0, 0] == IGNORED).all()
    truth[0, 0] = 2
    assert (drawn[:, 1:, 1:].max(axis=0)[truth[1:, 1:] == 2] == 0).all()
    assert drawn[0].max() == IGNORED
    assert (drawn[0][12] == 1).sum() == 20


def test_nothing_is_drawn_of_no_channel_no_building_or_an_outline_without_an_area() -> None:
    nothing = outlines()
    for polygons in (nothing, outlines(shapely.Polygon([(5, 5), (30, 30), (5, 5)]))):
        for channel in ("edge", "contact", "distance"):
            assert not draw(channel, polygons, np.zeros(SHAPE, np.uint8)).any()
    truth = np.zeros(SHAPE, np.uint8)
    assert draw_auxiliary([], nothing, truth, 1, WIDTHS, single=True, clipped=False).shape == (0, *SHAPE)


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint16, np.uint32, np.int64, np.float32]))
def test_each_number_of_a_raster_is_one_outline_of_its_pixels(seed: int, kind: type) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.array([-1, 0, 0, 3, 255, 60_000]).astype(kind)
    ids = numbers[rng.integers(0, len(numbers), SHAPE)]
    ids = np.where(ids == numbers[0], 0, ids) if kind in (np.uint16, np.uint32) else ids
    found = outline_instances(ids)
    present = [number for number in (3, 255, 60_000) if (ids == number).any()]
    assert len(found) == len(present)
    rows, cols = np.indices(SHAPE)
    for outline, number in zip(found, present, strict=True):
        assert outline.is_valid
        np.testing.assert_array_equal(shapely.contains_xy(outline, cols + 0.5, rows + 0.5), ids == number)
