"""Polygons made comparable: valid, counted, cut to the scored area."""

import numpy as np
import pytest
import shapely

from geoseg.evaluate.polygons import Shapes, count_vertices, cut_to_area, tidy_polygons


def as_array(*polygons: object) -> np.ndarray:
    return np.array(polygons, object)


AREA = as_array(shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10))  # two blocks side by side


def test_corners_are_counted_once_with_those_of_holes_and_parts() -> None:
    holed = shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4))
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.Polygon([(5, 5), (6, 5), (6, 6)])])
    assert count_vertices(as_array(shapely.box(0, 0, 1, 1), holed, parts)).tolist() == [4, 8, 7]
    assert count_vertices(as_array()).tolist() == []


def test_a_polygon_across_the_border_of_two_blocks_is_whole() -> None:
    shapes = cut_to_area(as_array(shapely.box(8, 2, 13, 5)), AREA)
    assert shapes.share.tolist() == [1]
    assert shapes.is_whole.all()
    assert shapes.polygons[0].equals(shapely.box(8, 2, 13, 5))


def test_polygons_across_the_border_of_the_area_are_cut_and_count_from_one_half_on() -> None:
    sixty, forty, outside = shapely.box(-4, 1, 6, 3), shapely.box(14, 1, 29, 3), shapely.box(30, 0, 40, 5)
    shapes = cut_to_area(as_array(sixty, forty, outside), AREA, np.array([0.1, 0.2, 0.3]))
    assert shapes.share == pytest.approx([0.6, 0.4])
    assert shapes.counts.tolist() == [True, False]
    assert not shapes.is_whole.any()
    assert shapes.polygons[0].equals(shapely.box(0, 1, 6, 3))
    assert shapes.confidence.tolist() == [0.1, 0.2]


def test_a_polygon_that_only_touches_the_area_is_left_out() -> None:
    assert len(cut_to_area(as_array(shapely.box(20, 0, 25, 5)), AREA)) == 0
    assert len(cut_to_area(as_array(), AREA)) == 0


def test_what_is_no_valid_polygon_is_mended_or_left_out() -> None:
    bow = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    flat = shapely.Polygon([(0, 0), (4, 0), (2, 0)])
    spiked = shapely.Polygon([(0, 0), (4, 0), (4, 4), (2, 4), (2, 9), (2, 4), (0, 4)])
    polygons, kept = tidy_polygons(as_array(bow, None, flat, shapely.Polygon(), spiked, shapely.box(0, 0, 1, 1)))
    assert kept.tolist() == [0, 4, 5]
    assert shapely.area(polygons).tolist() == [8, 16, 1]
    assert set(shapely.get_type_id(polygons)) <= {shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON}


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        Shapes(as_array(shapely.box(0, 0, 1, 1)), np.ones(2))
