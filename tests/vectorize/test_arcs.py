"""Outlines cut into arcs: what is put together again is what was cut, and shared walls are one arc."""

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg.vectorize.arcs import UNIT, cut_arcs, join_arcs


def labels(max_side=12, most=3):
    return array_shapes(min_dims=2, max_dims=2, max_side=max_side).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(0, most)).filter(np.any)
    )


def raw(arcs):
    """Return the points of arcs that were not changed."""
    points, start = [], [0]
    for arc in range(len(arcs.left)):
        mine = arcs.corner[arcs.start[arc] : arcs.start[arc + 1]].tolist()
        if arcs.end[arc] >= 0:
            mine.append(arcs.junction[arcs.end[arc]].tolist())
        points += mine
        start.append(len(points))
    return np.array(points, float).reshape(-1, 2), np.array(start)


@given(labels())
def test_arcs_put_together_are_the_polygons_that_were_cut(polygons_of, values):
    polygons = polygons_of(values)
    arcs = cut_arcs(polygons)
    again, made = join_arcs(arcs, *raw(arcs))
    assert made.all()
    assert shapely.equals(shapely.normalize(again), shapely.normalize(polygons)).all()
    assert shapely.area(again).tolist() == shapely.area(polygons).tolist()


@given(labels())
def test_every_edge_between_two_pixels_is_in_one_arc_and_an_arc_has_one_polygon_to_each_side(polygons_of, values):
    polygons = polygons_of(values)
    arcs = cut_arcs(polygons)
    middles = arcs.middle.tolist()
    assert len(set(map(tuple, middles))) == len(middles)
    edges = shapely.length(polygons).sum()
    shared = arcs.size[arcs.right >= 0].sum()
    assert edges == len(middles) + shared
    for arc in range(len(arcs.left)):
        points = shapely.points(arcs.middle[arcs.start[arc] : arcs.start[arc + 1]] / UNIT)
        for side in {arcs.left[arc], arcs.right[arc]} - {-1}:
            assert shapely.intersects(shapely.boundary(polygons[side]), points).all()


def test_two_houses_that_share_a_wall_have_three_arcs(polygons_of):
    arcs = cut_arcs(polygons_of(np.array([[1, 1, 2, 2], [1, 1, 2, 2]])))
    assert sorted(arcs.size.tolist()) == [2, 6, 6]
    assert arcs.right[arcs.size == 2].tolist() == [1]
    assert sorted(arcs.junction.tolist()) == [[2, 0], [2, 2]]


def test_house_in_a_courtyard_that_it_fills_shares_a_closed_arc(polygons_of):
    values = np.ones((5, 5), int)
    values[1:4, 1:4] = 2
    arcs = cut_arcs(polygons_of(values))
    assert arcs.is_closed.tolist() == [True, True]
    assert sorted(zip(arcs.size.tolist(), arcs.right.tolist(), strict=True)) == [(12, 1), (20, -1)]


def test_shift_moves_the_middle_of_an_edge_away_from_its_polygon(polygons_of):
    polygons = polygons_of(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    arcs = cut_arcs(polygons, np.array([10, 20, 30, 40]))
    assert sorted((arcs.middle / UNIT * 256).astype(int).tolist()) == sorted(
        [[384, 246], [532, 384], [384, 542], [216, 384]]
    )
