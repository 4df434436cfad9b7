"""Regular outlines: right angles, shared walls, no overlaps, and nothing that depends on distant polygons."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg.vectorize import Regularize, Simplify
from geoseg.vectorize.generalize import RAW, REGULAR


def turned(degrees, boxes, shape=(120, 120)):
    """Return labels of boxes `(left, top, right, bottom)` about the middle, all turned by an angle."""
    rows, cols = np.indices(shape) + 0.5
    x, y = cols - shape[1] / 2, rows - shape[0] / 2
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    u, v = x * cos + y * sin, y * cos - x * sin
    values = np.zeros(shape, int)
    for number, (left, top, right, bottom) in enumerate(boxes, 1):
        values[(u >= left) & (u < right) & (v >= top) & (v < bottom)] = number
    return values


def place(degrees, box, shape=(120, 120)):
    """Return a box of `turned` as a polygon."""
    turn = shapely.affinity.rotate(shapely.box(*box), degrees, origin=(0, 0))
    return shapely.affinity.translate(turn, shape[1] / 2, shape[0] / 2)


def corners(polygon):
    """Return the angles between the edges of an exterior, degrees, sorted."""
    edge = np.diff(np.asarray(polygon.exterior.coords), axis=0)
    following = np.roll(edge, -1, axis=0)
    cross = edge[:, 0] * following[:, 1] - edge[:, 1] * following[:, 0]
    return np.sort(np.degrees(np.arctan2(np.abs(cross), (edge * following).sum(axis=1))))


def towns(max_side=40):
    """Labels of turned terraces with noise, or of anything."""

    @st.composite
    def terraces(draw):
        rows, cols = np.indices((draw(st.integers(8, max_side)), draw(st.integers(8, max_side))))
        slope, step, width = draw(st.sampled_from([0, 0.2, 0.5, 1, -0.3])), draw(st.integers(4, 12)), 5
        street, house = np.floor((rows - slope * cols) / step), np.floor((cols + slope * rows) / width)
        values = 1 + ((street * 7 + house * 3) % 5).astype(int)
        values[(rows - slope * cols) % step < draw(st.integers(0, 3))] = 0
        seed = draw(st.integers(0, 99))
        values[np.random.default_rng(seed).random(values.shape) < draw(st.sampled_from([0, 0.03, 0.2]))] = 0
        values[0, 0] = 1
        return values

    anything = array_shapes(min_dims=2, max_dims=2, max_side=16).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(0, 3)).filter(np.any)
    )
    return st.one_of(terraces(), anything)


@st.composite
def streets(draw):
    """Labels of two long rows of houses back to back, each of another width and depth, turned a little, with noise."""
    rng, (rows, cols) = np.random.default_rng(draw(st.integers(0, 9999))), np.indices((44, 170))
    slope = draw(st.sampled_from([0, 0.04, 0.1, 0.16]))
    y, x = rows - slope * cols - 2, cols + slope * rows
    values = np.zeros(rows.shape, int)
    for number, (top, sign) in enumerate(((16, -1), (16, 1)), 1):
        walls = np.cumsum(rng.integers(9, 15, 24))
        house = np.searchsorted(walls, x, side="right")
        depth = rng.integers(9, 14, 25)[house]
        inside = (sign * (y - top) >= (sign < 0)) & (sign * (y - top) < depth)
        values[inside] = (100 * number + house)[inside]
    values[rng.random(values.shape) < draw(st.sampled_from([0, 0.03, 0.1]))] = 0
    values[0, 0] = 1
    return values


GENERALIZERS = st.sampled_from([make(px) for make in (Regularize, Simplify) for px in (0.5, 1.0, 2.0)])


@pytest.mark.parametrize("degrees", [0, 7, 18, 30, 44, 61])
def test_a_turned_house_has_four_right_angles_and_its_direction(polygons_of, degrees):
    house = (-35, -20, 35, 20)
    found = Regularize().outlines(polygons_of(turned(degrees, [house])))
    (polygon,), (cos, sin) = found.polygons, found.direction[0]
    assert found.kind.tolist() == [REGULAR]
    assert corners(polygon) == pytest.approx([90] * 4, abs=0.2)
    assert (np.degrees(np.arctan2(sin, cos)) - degrees + 45) % 90 - 45 == pytest.approx(0, abs=0.5)
    truth = place(degrees, house)
    assert polygon.intersection(truth).area / polygon.union(truth).area > 0.98


@pytest.mark.parametrize("degrees", [0, 13, 33])
def test_an_L_keeps_its_six_corners_and_a_courtyard_its_four(polygons_of, degrees):
    values = turned(degrees, [(-40, -40, 40, 40)])
    values[turned(degrees, [(0, 0, 50, 50)]) > 0] = 0
    values[turned(degrees, [(-28, -28, -12, -12)]) > 0] = 0
    (polygon,) = Regularize().outlines(polygons_of(values)).polygons
    assert len(polygon.exterior.coords) == 7
    assert corners(polygon) == pytest.approx([90] * 6, abs=0.2)
    assert [len(ring.coords) for ring in polygon.interiors] == [5]


@pytest.mark.parametrize("degrees", [0, 9, 24, 40])
def test_terraced_houses_share_walls_and_a_straight_facade(polygons_of, degrees):
    found = Regularize().outlines(polygons_of(turned(degrees, [(x, -14, x + 25, 14) for x in (-50, -25, 0, 25)])))
    assert found.kind.tolist() == [REGULAR] * 4
    assert shapely.coverage_is_valid(found.polygons)
    whole = shapely.union_all(found.polygons)
    assert whole.geom_type == "Polygon"
    assert shapely.area(found.polygons).sum() == pytest.approx(whole.area)
    assert len(whole.interiors) == 0
    assert len(whole.simplify(0.4).exterior.coords) == 5
    assert shapely.get_num_coordinates(found.polygons).max() <= 6


def test_a_round_house_is_simple_and_one_of_few_pixels_keeps_its_outline(polygons_of):
    rows, cols = np.indices((100, 100)) - 49.5
    values = (np.hypot(rows, cols) < 20).astype(int)
    values[0, 0] = 1
    found = Regularize().outlines(polygons_of(values))
    assert found.kind[0] == RAW
    assert found.kind[1] < REGULAR
    assert len(found.polygons[1].exterior.coords) > 8


@settings(max_examples=200, deadline=None)
@given(towns(), GENERALIZERS)
def test_outlines_are_valid_and_never_overlap(polygons_of, values, generalizer):
    polygons = polygons_of(values)
    found = generalizer.outlines(polygons).polygons
    assert shapely.is_valid(found).all()
    assert shapely.is_valid(shapely.transform(found, lambda xy: xy * [0.3, -0.3] + [500_000.1, 600_000.7])).all()
    assert (shapely.get_type_id(found) == shapely.GeometryType.POLYGON).all()
    assert (shapely.area(found) > 0).all()
    assert shapely.area(found).sum() - shapely.union_all(found).area < 1e-6


@settings(max_examples=200, deadline=None)
@given(st.one_of(towns(), streets()), GENERALIZERS, st.data())
def test_an_outline_depends_on_neighbors_within_its_steps_and_on_no_order(polygons_of, values, generalizer, data):
    polygons = polygons_of(values)
    found = generalizer.outlines(polygons)
    one = data.draw(st.integers(0, len(polygons) - 1))
    near = np.arange(len(polygons)) == one
    for distance in generalizer.steps:
        near[shapely.STRtree(polygons).query(polygons[near], "dwithin", distance)[1]] = True
    chosen = np.flatnonzero(near)
    chosen = np.array(data.draw(st.permutations(chosen.tolist())))
    alone = generalizer.outlines(polygons[chosen])
    at = int(np.flatnonzero(chosen == one)[0])
    assert alone.polygons[at].wkb == found.polygons[one].wkb
    assert alone.kind[at] == found.kind[one]
    assert alone.direction[at].tolist() == found.direction[one].tolist()
