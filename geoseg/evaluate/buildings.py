"""Scores of individual buildings: detection, average precision, and the quality of outlines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.evaluate.bootstrap import Intervals, bootstrap
from geoseg.evaluate.pixels import ratio
from geoseg.evaluate.polygons import Clipped, PolygonArray, count_vertices
from geoseg.evaluate.shapes import Shapes, holes, measure_shapes
from geoseg.vectorize.calibration import Evidence

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The thresholds of COCO: 0.50, 0.55 ... 0.95 (https://cocodataset.org/#detection-eval)."""

RECALLS = 101
"""Number of recalls at which COCO samples the precision: 0, 0.01 ... 1."""

TP, FP, IGNORED = 1, 0, -1
"""Outcomes of a predicted building: true positive, false positive, or neither."""


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Sums over the pairs of true and predicted buildings, matched at IoU 0.5, that lie inside the scored area.

    Attributes:
        pairs: Number of pairs.
        iou: Sum of IoU.
        c_iou: Sum of C-IoU.
        polis: Sum of PoLiS in meters.
        polis_px: Sum of PoLiS in pixels of the scored grid.
        true_vertices: Vertices of the true polygons.
        found_vertices: Vertices of the predicted polygons.
    """

    pairs: int = 0
    iou: float = 0.0
    c_iou: float = 0.0
    polis: float = 0.0
    polis_px: float = 0.0
    true_vertices: int = 0
    found_vertices: int = 0

    def __add__(self, other: "Outlines") -> "Outlines":
        """Add the pairs of two areas."""
        return Outlines(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class BuildingCounts:
    """Counts of true and predicted buildings in an area; counts of areas can be added.

    Attributes:
        truths: True buildings that count.
        predictions: Predicted buildings that count.
        true_vertices: Vertices of the true buildings that count.
        found_vertices: Vertices of the predicted buildings that count.
        confidence: Confidence of every predicted building, `(building,)`; None if unknown.
        outcome: `TP`, `FP` or `IGNORED` at each IoU threshold, `(threshold, building)`.
        outlines: Quality of the outlines of matched buildings.
        true_holes: Holes of the true buildings.
        hole_outcome: What became of every hole of a predicted building at IoU 0.5, `(hole,)`.
        true_shapes: Shapes of the true buildings.
        shapes: Shapes of the predicted buildings.
        evidence: What a confidence of every predicted building can be made of; None if unknown.
    """

    truths: int = 0
    predictions: int = 0
    true_vertices: int = 0
    found_vertices: int = 0
    confidence: NDArray[np.float64] | None = field(default_factory=lambda: np.zeros(0))
    outcome: NDArray[np.int8] = field(default_factory=lambda: np.zeros((len(IOU_THRESHOLDS), 0), np.int8))
    outlines: Outlines = field(default_factory=Outlines)
    true_holes: int = 0
    hole_outcome: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    true_shapes: Shapes = field(default_factory=Shapes)
    shapes: Shapes = field(default_factory=Shapes)
    evidence: Evidence | None = None

    def __add__(self, other: "BuildingCounts") -> "BuildingCounts":
        """Add the buildings of two areas; the confidence is lost if one of them has none."""
        both = self.confidence is not None and other.confidence is not None
        return BuildingCounts(
            self.truths + other.truths,
            self.predictions + other.predictions,
            self.true_vertices + other.true_vertices,
            self.found_vertices + other.found_vertices,
            np.concatenate((self.confidence, other.confidence)) if both else None,  # type: ignore[arg-type]
            np.concatenate((self.outcome, other.outcome), axis=1),
            self.outlines + other.outlines,
            self.true_holes + other.true_holes,
            np.concatenate((self.hole_outcome, other.hole_outcome)),
            self.true_shapes + other.true_shapes,
            self.shapes + other.shapes,
            evidence=self.evidence + other.evidence
            if self.evidence is not None and other.evidence is not None
            else None,
        )

    def metrics(self) -> dict[str, Any]:
        """Return counts, precision, recall and F1 at IoU 0.5, average precision, intervals, and shapes."""
        tp, fp = _count(self.outcome[0])
        hole_tp, hole_fp = _count(self.hole_outcome)
        ap = dict.fromkeys(("ap", "ap50", "ap75"), float("nan"))
        if self.confidence is not None:
            each = [average_precision(self.confidence, row, self.truths) for row in self.outcome]
            ap = {"ap": float(np.mean(each)), "ap50": each[0], "ap75": each[IOU_THRESHOLDS.index(0.75)]}
        o = self.outlines
        return {
            "truth": self.truths,
            "predicted": self.predictions,
            "right": tp,
            "wrong": fp,
            "missed": self.truths - tp,
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, self.truths),
            "f1": ratio(2 * tp, tp + fp + self.truths),
            "count_error": ratio(self.predictions - self.truths, self.truths),
            **ap,
            **self.intervals().metrics(),
            "matched_iou": ratio(o.iou, o.pairs),
            "c_iou": ratio(o.c_iou, o.pairs),
            "polis": ratio(o.polis, o.pairs),
            "polis_px": ratio(o.polis_px, o.pairs),
            "vertex_ratio": ratio(o.found_vertices, o.true_vertices),
            "matched_whole": o.pairs,
            "true_holes": self.true_holes,
            "holes": hole_tp + hole_fp,
            "hole_f1": ratio(2 * hole_tp, hole_tp + hole_fp + self.true_holes),
            **self.shapes.metrics(),
            **self.true_shapes.metrics("true_"),
        }

    def intervals(self) -> Intervals:
        """Return bootstrap intervals of precision, recall, F1 and AP50."""
        tp, fp = _count(self.outcome[0])
        ranked = None
        if self.confidence is not None:
            order = np.argsort(-self.confidence, kind="stable")
            ranked = self.outcome[0][order][self.outcome[0][order] != IGNORED] == TP
        return bootstrap(tp, fp, self.truths - tp, ranked, np.linspace(0, 1, RECALLS))


def _count(outcome: NDArray[np.int8]) -> tuple[int, int]:
    """Return the numbers of true and false positives."""
    return int(np.count_nonzero(outcome == TP)), int(np.count_nonzero(outcome == FP))


def compare_buildings(
    truth: Clipped, predicted: Clipped, *, px: float = 1.0, repaired: tuple[int, int] = (0, 0)
) -> BuildingCounts:
    """Compare predicted buildings with true buildings.

    Args:
        truth: True buildings.
        predicted: Predicted buildings.
        px: Size of a pixel of the scored grid in the unit of the coordinates.
        repaired: Number of true and of predicted buildings that were invalid as read.
    """
    pairs = overlapping_pairs(truth.polygons, predicted.polygons, at_least=IOU_THRESHOLDS[0])
    chosen, outcome = _match(truth, predicted, pairs, IOU_THRESHOLDS)
    true_holes, found_holes = holes(truth), holes(predicted)
    hole_pairs = overlapping_pairs(true_holes.polygons, found_holes.polygons, at_least=IOU_THRESHOLDS[0])
    return BuildingCounts(
        truths=int(truth.counts.sum()),
        predictions=int(predicted.counts.sum()),
        true_vertices=int(truth.vertices[truth.counts].sum()),
        found_vertices=int(predicted.vertices[predicted.counts].sum()),
        confidence=predicted.confidence,
        outcome=outcome,
        outlines=_measure_outlines(truth, predicted, pairs, chosen[0], px),
        true_holes=int(true_holes.counts.sum()),
        hole_outcome=_match(true_holes, found_holes, hole_pairs, IOU_THRESHOLDS[:1])[1][0],
        true_shapes=measure_shapes(truth, repaired=repaired[0]),
        shapes=measure_shapes(predicted, repaired=repaired[1]),
        evidence=predicted.evidence,
    )


def _match(
    truth: Clipped, predicted: Clipped, pairs: "Pairs", thresholds: Sequence[float]
) -> tuple[list[NDArray[np.int64]], NDArray[np.int8]]:
    """Match predicted with true polygons at each threshold.

    As in COCO's own code (pycocotools, `COCOeval.evaluateImg`), predictions are matched in order of decreasing
    confidence, each with the free true building of the largest IoU of at least the threshold; true buildings that
    count come first. A prediction that is matched with a true building that does not count, or is not matched and does
    not count itself, is ignored. Without confidence, predictions are matched in order of decreasing IoU.

    Returns:
        Index in `pairs` of the match of every prediction, -1 for none, `(prediction,)` for each threshold; and
        `TP`, `FP` or `IGNORED`, `(threshold, prediction)`.
    """
    rank = predicted.confidence
    if rank is None:
        rank = np.zeros(len(predicted))
        np.maximum.at(rank, pairs.predicted, pairs.iou)
    order = np.argsort(-rank, kind="stable")
    chosen = [match_greedily(pairs, order, truth.counts, at) for at in thresholds]
    outcome = np.empty((len(chosen), len(predicted)), np.int8)
    for row, choice in zip(outcome, chosen, strict=True):
        is_matched = choice >= 0
        row[:] = np.where(predicted.counts & ~is_matched, FP, IGNORED)
        row[is_matched] = np.where(truth.counts[pairs.truth[choice[is_matched]]], TP, IGNORED)
    return chosen, outcome


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Overlapping predicted and true buildings: indices of both and IoU, `(pair,)`."""

    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def overlapping_pairs(truth: PolygonArray, predicted: PolygonArray, *, at_least: float = 0.0) -> Pairs:
    """Return the pairs of polygons with an IoU above 0 and of at least `at_least`.

    The IoU is rounded to six decimals, so that the rounded coordinates of a file do not decide about an IoU of 0.5.
    """
    i, j = shapely.STRtree(truth).query(predicted, predicate="intersects")
    own, other = shapely.area(predicted)[i], shapely.area(truth)[j]
    possible = np.minimum(own, other) >= (at_least - 1e-6) * np.maximum(own, other)  # IoU is at most this ratio
    i, j, own, other = i[possible], j[possible], own[possible], other[possible]
    common = shapely.area(shapely.intersection(predicted[i], truth[j]))
    iou = np.round(common / (own + other - common), 6)
    kept = (common > 0) & (iou >= at_least)
    return Pairs(i[kept], j[kept], iou[kept])


def match_greedily(
    pairs: Pairs, order: NDArray[np.int64], counts: NDArray[np.bool_], at_least: float
) -> NDArray[np.int64]:
    """Match each prediction, in order, with the free true building of the largest IoU.

    Args:
        pairs: Overlapping buildings.
        order: Indices of the predictions in the order of matching, `(prediction,)`.
        counts: True buildings that count, which come before the others, `(truth,)`.
        at_least: Minimum IoU.

    Returns:
        Index in `pairs` of the match of every prediction, -1 for none, `(prediction,)`.
    """
    found = np.full(len(order), -1, np.int64)
    taken = np.zeros(len(counts), bool)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    kept = np.flatnonzero(pairs.iou >= at_least)
    i, j, iou = pairs.predicted[kept], pairs.truth[kept], pairs.iou[kept]
    # Best first; the last of equal ones, as in pycocotools.
    for k in np.lexsort((-j, -iou, ~counts[j], rank[i])).tolist():
        if found[i[k]] < 0 and not taken[j[k]]:
            found[i[k]], taken[j[k]] = kept[k], True
    return found


def average_precision(confidence: NDArray[np.float64], outcome: NDArray[np.int8], truths: int) -> float:
    """Return the average precision as defined by COCO; NaN without true buildings.

    Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and pycocotools, `COCOeval.accumulate`: the
    mean, over the recalls 0, 0.01 ... 1, of the largest precision at this recall or a higher one; 0 beyond the last
    recall.

    Args:
        confidence: Confidence of each predicted building, `(building,)`.
        outcome: `TP`, `FP` or `IGNORED`, `(building,)`.
        truths: Number of true buildings that count.
    """
    if truths == 0:
        return float("nan")
    order = np.argsort(-confidence, kind="stable")
    ranked = outcome[order][outcome[order] != IGNORED]
    tp = np.cumsum(ranked == TP)
    recall, precision = tp / truths, tp / np.arange(1, len(ranked) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, RECALLS), side="left")
    return float(np.append(best_from_here, 0.0)[at].sum() / RECALLS)


def _measure_outlines(
    truth: Clipped, predicted: Clipped, pairs: Pairs, choice: NDArray[np.int64], px: float
) -> Outlines:
    chosen = choice[choice >= 0]
    p, t, iou = pairs.predicted[chosen], pairs.truth[chosen], pairs.iou[chosen]
    whole = predicted.is_whole[p] & truth.is_whole[t]
    p, t, iou = p[whole], t[whole], iou[whole]
    if not len(p):
        return Outlines()
    true, found = truth.polygons[t], predicted.polygons[p]
    n, m = count_vertices(true), count_vertices(found)
    distance = float(polis(true, found).sum())
    return Outlines(
        pairs=len(p),
        iou=float(iou.sum()),
        c_iou=float((iou * vertex_likeness(n, m)).sum()),
        polis=distance,
        polis_px=distance / px,
        true_vertices=int(n.sum()),
        found_vertices=int(m.sum()),
    )


def vertex_likeness(a: Any, b: Any) -> Any:
    """Return `1 - |a - b| / (a + b)` for two numbers of vertices, the factor of C-IoU.

    Zorzi, Bazrafkan, Habenschuss and Fraundorfer, "PolyWorld: polygonal building extraction with graph neural networks
    in satellite images", CVPR 2022 (arXiv:2111.15491): 1 for equal numbers, close to 0 for very different ones.
    """
    return 1 - np.abs(a - b) / (a + b)


def polis(a: PolygonArray, b: PolygonArray) -> NDArray[np.float64]:
    """Return the PoLiS distance of every pair of polygons.

    Avbelj, Mueller and Bamler, "A metric for polygon comparison and building extraction evaluation", IEEE Geoscience
    and Remote Sensing Letters 12(1), 2015: the mean distance of the vertices of `a` from the outline of `b`, the
    same with `a` and `b` exchanged, and the mean of both. The vertices and outlines of holes count like all others.

    Args:
        a: Polygons, `(pair,)`.
        b: Polygons, `(pair,)`.

    Returns:
        Distances in the unit of the coordinates, `(pair,)`; 0 for equal outlines.
    """
    return (_mean_distance(a, b) + _mean_distance(b, a)) / 2


def _mean_distance(a: PolygonArray, b: PolygonArray) -> NDArray[np.float64]:
    """Return the mean distance of the vertices of `a` from the outline of `b`."""
    parts, owner = shapely.get_parts(a, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True)
    pair = owner[part[ring[~closing]]]
    outline = shapely.boundary(b)
    shapely.prepare(outline)
    distance = shapely.distance(shapely.points(xy[~closing]), outline[pair])
    return np.asarray(np.bincount(pair, weights=distance, minlength=len(a)) / np.bincount(pair, minlength=len(a)))
