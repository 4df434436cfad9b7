"""Measures of one set of polygons, computed by hand."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon, box

from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.evaluate.buildings import compare_buildings
from geoseg.evaluate.polygons import Clipped, clip_to_area
from geoseg.evaluate.shapes import Shapes, count_corners, gap_area, measure_shapes, overlap_area, shared_walls

Boxes = list[tuple[float, float, float, float]]


def array(*polygons: Polygon) -> np.ndarray:
    return np.array(polygons, object)


def walls(*polygons: Polygon) -> tuple[float, float]:
    return shared_walls(array(*polygons), np.ones(len(polygons), bool))


def test_corners_of_exteriors_and_holes_count_and_only_right_or_straight_ones_are_right() -> None:
    yard = Polygon(box(0, 0, 10, 10).exterior, [[(4, 4), (6, 4), (5, 6)]])  # a hole of 63, 63 and 53 degrees
    straight = Polygon([(20, 0), (25, 0), (25, 0), (30, 0), (30, 10), (20, 10)])  # one point twice
    assert count_corners(array(yard, straight)) == (12, 9)
    assert count_corners(array()) == (0, 0)


def test_the_first_corner_of_a_ring_lies_between_its_own_walls() -> None:
    turned = shapely.affinity.rotate(box(0, 0, 10, 10), 30)
    assert count_corners(array(box(20, 0, 30, 10), turned, box(40, 0, 50, 10))) == (12, 12)


@pytest.mark.parametrize(("degrees", "right"), [(4.9, 4), (5.1, 0)])
def test_a_corner_is_right_within_five_degrees(degrees: float, right: int) -> None:
    lean = 10 * np.tan(np.radians(degrees))
    assert count_corners(array(Polygon([(0, 0), (10, 0), (10 + lean, 10), (lean, 10)]))) == (4, right)


def test_a_wall_drawn_once_is_shared_by_both_buildings() -> None:
    assert walls(box(0, 0, 10, 10), box(10, 0, 20, 10)) == pytest.approx((20, 20))
    assert walls(box(0, 0, 10, 10), box(10, 2, 14, 6)) == pytest.approx((8, 8)), "half a wall, between its corners"
    yard = Polygon(box(0, 0, 10, 10).exterior, [box(4, 4, 6, 6).exterior.coords])
    assert walls(yard, box(4, 4, 6, 6)) == pytest.approx((16, 16)), "a building that fills a courtyard"


def test_a_wall_drawn_twice_is_shared_by_none() -> None:
    assert walls(box(0, 0, 10, 10), box(10.3, 0, 20, 10)) == pytest.approx((20, 0))
    assert walls(box(0, 0, 10, 10), box(9.8, 0, 20, 10)) == pytest.approx((20, 0))


def test_walls_far_apart_behind_or_beside_each_other_do_not_face() -> None:
    assert walls(box(0, 0, 10, 10), box(10.6, 0, 20, 10)) == (0, 0)
    assert walls(box(0, 0, 10, 10), box(0, 0, 10, 10)) == (0, 0), "both on the same side"
    assert walls(box(0, 0, 10, 10), box(10, 10, 20, 20)) == (0, 0), "they touch at a corner"
    assert walls(box(0, 0, 10, 10)) == walls() == (0, 0)


def test_walls_of_one_building_do_not_face_each_other() -> None:
    slot = box(0, 0, 10, 10) - box(4, 5, 4.4, 10)
    assert walls(slot, box(0, 10, 10, 20)) == pytest.approx((9.6 + 9.6, 9.6 + 9.6), abs=0.11)


def test_only_walls_of_measured_buildings_count_but_face_any() -> None:
    pair = array(box(0, 0, 10, 10), box(10, 0, 20, 10))
    assert shared_walls(pair, np.array([True, False])) == pytest.approx((10, 10))


def test_gaps_lie_between_buildings_and_are_narrow() -> None:
    pair = array(box(0, 0, 10, 10), box(10.3, 0, 20, 10))
    assert gap_area(pair) == pytest.approx(0.3 * 10)
    assert gap_area(array(*pair, box(40, 0, 50, 10), box(50.2, 0, 60, 10))) == pytest.approx((0.3 + 0.2) * 10)
    assert gap_area(array(box(0, 0, 10, 10), box(10.6, 0, 20, 10))) == 0
    slot = box(0, 0, 10, 10) - box(4, 5, 4.4, 10)
    assert gap_area(array(slot, box(40, 0, 50, 10))) == 0, "a slot in one building"
    assert gap_area(array(slot, box(10, 0, 20, 7))) == 0, "a shared wall, and the slot"


def test_overlaps_are_summed_over_pairs() -> None:
    assert overlap_area(array(box(0, 0, 10, 10), box(9.8, 0, 20, 10))) == pytest.approx(2)
    assert overlap_area(array(box(0, 0, 2, 2), box(0, 0, 2, 2), box(1, 0, 3, 2))) == pytest.approx(4 + 2 + 2)
    assert overlap_area(array(box(0, 0, 1, 1), box(1, 0, 2, 1))) == 0


def test_parts_thinner_than_half_a_meter_are_slivers() -> None:
    thin, two = box(0, 0, 10, 0.4), shapely.MultiPolygon([box(20, 0, 30, 0.6), box(20, 5, 20.3, 6)])
    assert measure_shapes(Clipped.of(array(thin, two))).slivers == 2


def test_a_cut_by_the_border_makes_no_corners_walls_or_slivers() -> None:
    whole, cut = box(10, 10, 20, 20), Polygon([(0, 30), (10, 40), (0, 50), (-10, 40)])
    inside = clip_to_area(array(whole, cut), array(box(9.7, 0, 50, 50)))
    assert shapely.area(inside.polygons)[1] == pytest.approx(0.3**2)
    assert measure_shapes(inside) == Shapes(area=pytest.approx(100 + 0.3**2), corners=4, right=4)


def test_holes_are_matched_like_buildings() -> None:
    def house(*holes: tuple[float, float, float, float]) -> Polygon:
        return Polygon(box(0, 0, 20, 20).exterior, [box(*hole).exterior.coords for hole in holes])

    truth = array(house((2, 2, 6, 6), (10, 10, 14, 14)), Polygon(box(40, 0, 60, 20).exterior))
    found = array(house((2, 2, 6, 5), (16, 16, 17, 17), (13, 13, 15, 15)))
    metrics = compare_buildings(Clipped.of(truth), Clipped.of(found)).metrics()
    assert (metrics["true_holes"], metrics["holes"]) == (2, 3)
    assert metrics["hole_f1"] == pytest.approx(2 * 1 / (3 + 2))
    cut = Clipped(truth, np.array([0.8, 1.0]))
    metrics = compare_buildings(cut, Clipped.of(found)).metrics()
    assert (metrics["true_holes"], metrics["holes"]) == (0, 2), "the hole found in a building that is cut is ignored"


@st.composite
def towns(draw: st.DrawFn) -> Boxes:
    sides = st.integers(1, 12)
    corners = st.tuples(st.integers(0, 30), st.integers(0, 30))
    found = []
    for (x, y), width, height in draw(st.lists(st.tuples(corners, sides, sides), max_size=6)):
        found.append((x / 4, y / 4, (x + width) / 4, (y + height) / 4))
    return found


@settings(max_examples=40, deadline=None)
@given(left=towns(), right=towns())
def test_measures_of_distant_towns_add_up_whatever_the_order(left: Boxes, right: Boxes) -> None:
    boxes = [box(*sides) for sides in left], [box(100 + x0, y0, 100 + x1, y1) for x0, y0, x1, y1 in right]
    a, b = (measure_shapes(Clipped.of(array(*town))) for town in boxes)
    together = measure_shapes(Clipped.of(array(*boxes[1], *reversed(boxes[0]))))
    assert together.metrics() == pytest.approx((a + b).metrics(), nan_ok=True, abs=1e-5)
    assert 0 <= together.shared <= together.facing + 1e-9


def test_figures_of_scenes_are_those_of_all_their_buildings_together() -> None:
    yard = Polygon(box(0, 0, 10, 10).exterior, [box(4, 4, 6, 6).exterior.coords])
    truth = array(yard, box(10, 0, 20, 10)), array(box(100.2, 0, 110, 10), yard)
    found = array(yard, box(10.3, 0, 20, 10)), array(box(100, 0, 110, 9), box(109, 0, 115, 10))
    apart = [
        compare_buildings(Clipped.of(a), Clipped.of(b), px=px, repaired=(2, 1))
        for a, b, px in zip(truth, found, (0.3, 1.0), strict=True)
    ]
    metrics = (apart[0] + apart[1]).metrics()
    moved = np.asarray(shapely.transform(np.concatenate((truth[1], found[1])), lambda xy: xy + 1000), object)
    together = compare_buildings(
        Clipped.of(np.concatenate((truth[0], moved[:2]))),
        Clipped.of(np.concatenate((found[0], moved[2:]))),
        repaired=(4, 2),
    ).metrics()
    polis = [part.outlines.polis for part in apart]
    assert metrics.pop("polis_px") == pytest.approx((polis[0] / 0.3 + polis[1]) / 3)
    del together["polis_px"]
    assert metrics == pytest.approx(together, nan_ok=True)
    assert metrics["hole_f1"] == pytest.approx(2 / 3)


def test_polygons_that_were_repaired_are_counted(tmp_path: Path, write) -> None:
    scene = write(tmp_path / "scene.tif", np.full((60, 80), 9))
    x, y = 500_000, 600_000
    crossed = Polygon([(x + 3, y - 3), (x + 9, y - 9), (x + 9, y - 3), (x + 3, y - 9)])
    good = box(x + 12, y - 12, x + 18, y - 3)
    geopandas.GeoDataFrame(geometry=[crossed, good], crs="EPSG:32630").to_file(tmp_path / "tool.gpkg")
    geopandas.GeoDataFrame(geometry=[good], crs="EPSG:32630").to_file(tmp_path / "truth.gpkg")
    settings = EvaluateSettings(labels=tmp_path / "truth.gpkg", footprints=tmp_path / "tool.gpkg")
    found = evaluate_scenes(scene, settings)
    metrics = found.total.metrics()["buildings"]
    assert (metrics["invalid"], metrics["true_invalid"]) == (1, 0)
    assert metrics["true_orthogonality"] == 1
    assert "| shapes | right corners |" in found.table()
