"""Buildings matched one by one, and PoLiS: by hand, as pycocotools does it, and by brute force."""

import contextlib
import io
import math

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geoseg.evaluate.buildings import (
    FP,
    IGNORED,
    IOU_THRESHOLDS,
    TP,
    BuildingCounts,
    average_precision,
    compare_buildings,
    overlapping_pairs,
    polis,
    vertex_likeness,
)
from geoseg.evaluate.polygons import Shapes


def row(*spans: tuple[float, float]) -> np.ndarray:
    """Return boxes of height 1 along a line."""
    return np.array([shapely.box(a, 0, b, 1) for a, b in spans], object)


def outcome(counts: BuildingCounts) -> list[int]:
    """Return what became of each prediction at IoU 0.5."""
    return counts.outcome[0].tolist()


def test_by_hand_pairs_and_their_iou() -> None:
    pairs = overlapping_pairs(row((0, 4), (10, 12)), row((1, 5), (4, 8), (10, 12)))
    assert list(zip(pairs.predicted, pairs.truth, strict=True)) == [(0, 0), (2, 1)]
    assert pairs.iou == pytest.approx([3 / 5, 1])


def test_by_hand_right_wrong_and_missed() -> None:
    truth = Shapes.of(row((0, 4), (10, 14), (20, 24)))
    predicted = Shapes.of(row((0, 4), (11, 15), (30, 34), (22, 26)), np.array([0.9, 0.8, 0.7, 0.6]))
    metrics = compare_buildings(truth, predicted).metrics()
    assert (metrics["right"], metrics["wrong"], metrics["missed"]) == (2, 2, 1)
    assert (metrics["precision"], metrics["recall"]) == (2 / 4, 2 / 3)
    assert metrics["f1"] == pytest.approx(4 / 7)
    assert metrics["count_error"] == pytest.approx(1 / 3)
    assert metrics["matched_iou"] == pytest.approx((1 + 3 / 5) / 2)


def test_each_true_building_is_taken_once_by_the_surest() -> None:
    truth = Shapes.of(row((0, 10)))
    predicted = row((0, 10), (0, 8))
    assert outcome(compare_buildings(truth, Shapes.of(predicted, np.array([0.5, 0.9])))) == [FP, TP]
    assert outcome(compare_buildings(truth, Shapes.of(predicted, np.array([0.9, 0.5])))) == [TP, FP]


def test_without_confidence_the_best_overlap_goes_first_and_there_is_no_average_precision() -> None:
    counts = compare_buildings(Shapes.of(row((0, 10))), Shapes.of(row((0, 8), (0, 10))))
    assert outcome(counts) == [FP, TP]
    assert counts.metrics()["f1"] == pytest.approx(2 / 3)
    assert all(math.isnan(counts.metrics()[key]) for key in ("ap", "ap50", "ap75"))


def test_two_houses_in_one_outline_are_one_wrong_and_two_missed() -> None:
    metrics = compare_buildings(Shapes.of(row((0, 5), (5, 10))), Shapes.of(row((-1, 11)), np.ones(1))).metrics()
    assert (metrics["right"], metrics["wrong"], metrics["missed"]) == (0, 1, 2)


def test_buildings_mostly_outside_the_area_are_neither_right_nor_wrong() -> None:
    truth = Shapes(row((0, 4), (10, 14), (20, 24)), np.array([0.3, 1.0, 1.0]))
    spans = row((0, 4), (10, 14), (20, 24), (30, 34), (40, 44))
    predicted = Shapes(spans, np.array([1.0, 1.0, 0.4, 0.4, 1.0]), np.linspace(0.9, 0.5, 5))
    counts = compare_buildings(truth, predicted)
    # takes a house that does not count; right; right, though mostly outside itself; neither; wrong
    assert outcome(counts) == [IGNORED, TP, TP, IGNORED, FP]
    assert (counts.truths, counts.predictions) == (2, 3)


def test_a_house_that_counts_is_taken_before_one_that_does_not() -> None:
    truth = Shapes(row((0, 10), (0.2, 10)), np.array([1.0, 0.2]))
    assert outcome(compare_buildings(truth, Shapes.of(row((0.2, 10)), np.ones(1)))) == [TP]


def test_by_hand_the_average_precision() -> None:
    # By confidence: right, wrong, right; 4 true. Recall 1/4 at precision 1, 2/4 at 2/3. Recalls 0 to 0.25 (26 of 101)
    # read 1, those to 0.50 (25) read 2/3, the other 50 read 0.
    found = average_precision(np.array([0.7, 0.9, 0.8]), np.array([TP, TP, FP]), 4)
    assert found == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert average_precision(np.array([0.9]), np.array([TP]), 1) == 1
    assert average_precision(np.zeros(0), np.zeros(0, np.int8), 3) == 0
    assert math.isnan(average_precision(np.zeros(0), np.zeros(0, np.int8), 0))


def test_what_does_not_count_does_not_touch_the_average_precision() -> None:
    sure, kinds = np.array([0.9, 0.8, 0.7]), np.array([TP, IGNORED, TP])
    assert average_precision(sure, kinds, 2) == 1


def coco_precision(truth: np.ndarray, counts: np.ndarray, found: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return pycocotools' `(IoU threshold, recall)` precision of `(x, y, width, height)` boxes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = COCO()
    base = {"image_id": 1, "category_id": 1}
    marks = [base | {"id": i + 1, "bbox": b, "iscrowd": 0} for i, b in enumerate(truth.tolist())]
    for mark, is_in in zip(marks, counts, strict=True):
        mark["area"] = 1.0 if is_in else 1e9  # beyond the range of areas is how pycocotools ignores
    image = {"id": 1, "width": 300, "height": 300}
    coco.dataset = {"images": [image], "categories": [{"id": 1, "name": "building"}], "annotations": marks}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = [base | {"bbox": b, "score": s} for b, s in zip(found.tolist(), confidence.tolist(), strict=True)]
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.params.maxDets, judge.params.areaRng, judge.params.areaRngLbl = [1000], [[0, 1e6]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, 0, 0, 0]


@settings(max_examples=12)
@given(seed=st.integers(0, 999))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy, size = rng.uniform(0, 60, (25, 2)), rng.uniform(4, 20, (25, 2))
    counts = rng.random(25) < 0.8
    counts[0] = True
    moved = np.concatenate((xy + rng.normal(0, 1, xy.shape), rng.uniform(0, 60, (8, 2))))
    grown = np.concatenate((size * rng.uniform(0.8, 1.2, size.shape), rng.uniform(4, 20, (8, 2))))
    confidence = np.round(rng.random(33), 1)  # with ties
    truth = Shapes(shapely.box(*xy.T, *(xy + size).T), np.where(counts, 1.0, 0.2))
    predicted = Shapes.of(shapely.box(*moved.T, *(moved + grown).T), confidence)
    ious = overlapping_pairs(truth.polygons, predicted.polygons).iou
    assume(np.abs(ious[:, None] - IOU_THRESHOLDS).min() > 1e-5)  # geoseg rounds an IoU to the millionth, on purpose
    found = compare_buildings(truth, predicted).metrics()
    expected = coco_precision(np.hstack((xy, size)), counts, np.hstack((moved, grown)), confidence).mean(axis=1)
    assert found["ap"] == pytest.approx(expected.mean(), abs=1e-9)
    assert (found["ap50"], found["ap75"]) == pytest.approx((expected[0], expected[5]), abs=1e-9)


def test_by_hand_c_iou_and_vertices() -> None:
    assert vertex_likeness(4, 4) == 1
    assert vertex_likeness(4, 12) == vertex_likeness(12, 4) == 0.5
    plain = shapely.box(0, 0, 4, 4)
    fussy = shapely.Polygon([(0, 0), (1, 0), (2, 0), (4, 0), (4, 4), (2, 4), (1, 4), (0, 4)])
    truth = Shapes.of(np.array([plain], object))
    metrics = compare_buildings(truth, Shapes.of(np.array([fussy], object), np.ones(1))).metrics()
    assert metrics["matched_iou"] == 1
    assert metrics["c_iou"] == pytest.approx(1 - 4 / 12)
    assert metrics["vertex_ratio"] == 2
    assert metrics["polis"] == 0


def test_buildings_that_the_border_cuts_do_not_say_how_well_houses_are_drawn() -> None:
    truth = Shapes(row((0, 4), (10, 14)), np.array([1.0, 0.7]))
    counts = compare_buildings(truth, Shapes(row((0, 4), (10, 14)), np.array([1.0, 0.7]), np.ones(2)))
    assert counts.metrics()["right"] == 2
    assert counts.outlines.pairs == 1


def test_areas_pool_as_if_they_were_one() -> None:
    sides = [(row((0, 4), (10, 14)), row((1, 5), (30, 34))), (row((50, 54)), row((50, 54), (60, 64), (51, 54)))]
    sure = [np.array([0.3, 0.9]), np.array([0.5, 0.7, 0.6])]
    parts = [compare_buildings(Shapes.of(t), Shapes.of(p, s)) for (t, p), s in zip(sides, sure, strict=True)]
    truth, found = (np.concatenate([side[k] for side in sides]) for k in (0, 1))
    whole = compare_buildings(Shapes.of(truth), Shapes.of(found, np.concatenate(sure)))
    assert (parts[0] + parts[1]).metrics() == pytest.approx(whole.metrics(), nan_ok=True)
    lost = parts[0] + compare_buildings(Shapes.of(truth), Shapes.of(found))
    assert math.isnan(lost.metrics()["ap"])


def test_nothing_there_and_nothing_found_are_no_figures() -> None:
    nothing = Shapes.of(np.zeros(0, object), np.zeros(0))
    metrics = compare_buildings(nothing, nothing).metrics()
    assert math.isnan(metrics["f1"])
    some = Shapes.of(row((0, 4)), np.ones(1))
    assert compare_buildings(some, nothing).metrics()["recall"] == 0
    assert compare_buildings(nothing, some).metrics()["precision"] == 0


def as_array(*polygons: shapely.Geometry) -> np.ndarray:
    return np.array(polygons, object)


def test_equal_outlines_are_at_no_distance() -> None:
    one = as_array(shapely.box(0, 0, 4, 3))
    assert polis(one, one) == [0]


def test_by_hand_a_square_inside_another() -> None:
    inner, outer = shapely.box(1, 1, 3, 3), shapely.box(0, 0, 4, 4)
    # The inner corners are 1 from the outer edges; the outer corners are sqrt(2) from the inner corners.
    assert polis(as_array(inner), as_array(outer)) == pytest.approx((1 + np.sqrt(2)) / 2)


def test_by_hand_a_needless_corner_far_out_counts_by_its_distance() -> None:
    plain = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)])
    spike = shapely.Polygon([(0, 0), (5, -3), (10, 0), (10, 10), (0, 10)])
    # Of the spike's 5 corners one is 3 from the plain outline. The plain corners lie on the spike's outline.
    assert polis(as_array(plain), as_array(spike)) == pytest.approx(3 / 5 / 2)


def test_it_is_the_same_both_ways_and_grows_with_the_unit() -> None:
    a, b = as_array(shapely.box(0, 0, 5, 2)), as_array(shapely.box(1, 0.5, 5.5, 3))
    assert polis(a, b) == pytest.approx(polis(b, a))
    tenfold = [np.array(shapely.transform(side, lambda xy: xy * 10), object) for side in (a, b)]
    assert polis(*tenfold) == pytest.approx(10 * polis(a, b))


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_many_pairs_are_as_one_by_one_and_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def star(corners: int) -> shapely.Polygon:
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        radius = rng.uniform(2, 6, corners)
        return shapely.Polygon(np.column_stack((radius * np.cos(angle), radius * np.sin(angle))))

    a, b = (as_array(*(star(int(rng.integers(3, 9))) for _ in range(3))) for _ in range(2))
    found = polis(a, b)
    for k in range(3):
        means = [
            np.mean([outline.exterior.distance(shapely.Point(xy)) for xy in other.exterior.coords[:-1]])
            for outline, other in ((b[k], a[k]), (a[k], b[k]))
        ]
        assert found[k] == pytest.approx(np.mean(means))


def test_corners_of_holes_count() -> None:
    solid = shapely.box(0, 0, 10, 10)
    holed = shapely.Polygon(solid.exterior, [shapely.box(4, 4, 6, 6).exterior])
    # Of the 8 corners of the holed one 4 are 4 from the solid outline.
    assert polis(as_array(holed), as_array(solid)) == pytest.approx((4 * 4 / 8) / 2)
