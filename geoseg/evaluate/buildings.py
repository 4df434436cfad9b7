"""Building by building: which were found, how confidently, and how well their outlines are drawn."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.evaluate.pixels import ratio
from geoseg.evaluate.polygons import PolygonArray, Shapes, count_vertices

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's: 0.50, 0.55 ... 0.95 (https://cocodataset.org/#detection-eval)."""

RECALLS = 101
"""Recalls at which COCO reads the precision: 0, 0.01 ... 1."""

RIGHT, WRONG, IGNORED = 1, 0, -1


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Sums over the pairs of a building and its prediction at IoU 0.5 that the border of the scored area leaves whole.

    Attributes:
        pairs: How many.
        iou: Sum of IoU.
        c_iou: Sum of C-IoU.
        polis: Sum of PoLiS, meters.
        true_vertices: Corners of the true polygons.
        found_vertices: Corners of the predicted ones.
    """

    pairs: int = 0
    iou: float = 0.0
    c_iou: float = 0.0
    polis: float = 0.0
    true_vertices: int = 0
    found_vertices: int = 0

    def __add__(self, other: "Outlines") -> "Outlines":
        """Pool the pairs of two areas."""
        return Outlines(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class BuildingCounts:
    """What became of the buildings of an area; areas add up.

    Attributes:
        truths: True buildings that count.
        predictions: Predicted buildings that count.
        true_vertices: Corners of the true buildings that count.
        found_vertices: Corners of the predicted buildings that count.
        confidence: Of every predicted building that is not left out, `(building,)`; None where it is unknown.
        outcome: `RIGHT`, `WRONG` or `IGNORED` at each IoU threshold, `(threshold, building)`.
        outlines: How well matched buildings are drawn.
    """

    truths: int = 0
    predictions: int = 0
    true_vertices: int = 0
    found_vertices: int = 0
    confidence: NDArray[np.float64] | None = field(default_factory=lambda: np.zeros(0))
    outcome: NDArray[np.int8] = field(default_factory=lambda: np.zeros((len(IOU_THRESHOLDS), 0), np.int8))
    outlines: Outlines = field(default_factory=Outlines)

    def __add__(self, other: "BuildingCounts") -> "BuildingCounts":
        """Pool the buildings of two areas; confidence is lost where one side has none."""
        both = self.confidence is not None and other.confidence is not None
        return BuildingCounts(
            self.truths + other.truths,
            self.predictions + other.predictions,
            self.true_vertices + other.true_vertices,
            self.found_vertices + other.found_vertices,
            np.concatenate((self.confidence, other.confidence)) if both else None,  # type: ignore[arg-type]
            np.concatenate((self.outcome, other.outcome), axis=1),
            self.outlines + other.outlines,
        )

    def metrics(self) -> dict[str, Any]:
        """Return counts, precision, recall and F1 at IoU 0.5, average precision, and how well buildings are drawn."""
        right, wrong = (int(np.count_nonzero(self.outcome[0] == kind)) for kind in (RIGHT, WRONG))
        ap = dict.fromkeys(("ap", "ap50", "ap75"), float("nan"))
        if self.confidence is not None:
            each = [average_precision(self.confidence, row, self.truths) for row in self.outcome]
            ap = {"ap": float(np.mean(each)), "ap50": each[0], "ap75": each[IOU_THRESHOLDS.index(0.75)]}
        o = self.outlines
        return {
            "truth": self.truths,
            "predicted": self.predictions,
            "right": right,
            "wrong": wrong,
            "missed": self.truths - right,
            "precision": ratio(right, right + wrong),
            "recall": ratio(right, self.truths),
            "f1": ratio(2 * right, right + wrong + self.truths),
            "count_error": ratio(self.predictions - self.truths, self.truths),
            **ap,
            "matched_iou": ratio(o.iou, o.pairs),
            "c_iou": ratio(o.c_iou, o.pairs),
            "polis": ratio(o.polis, o.pairs),
            "vertex_ratio": ratio(o.found_vertices, o.true_vertices),
            "matched_whole": o.pairs,
        }


def compare_buildings(truth: Shapes, predicted: Shapes) -> BuildingCounts:
    """Match predicted buildings with true ones.

    As in COCO's own code (pycocotools, `COCOeval.evaluateImg`): predictions are taken by falling confidence, each takes
    the free true building with the largest IoU, if that reaches the threshold; one that counts goes before one that
    does not. A prediction that takes a true building that does not count, or takes none and does not count itself, is
    neither right nor wrong. Without confidence, predictions are taken by falling IoU.
    """
    pairs = overlapping_pairs(truth.polygons, predicted.polygons, at_least=IOU_THRESHOLDS[0])
    rank = predicted.confidence
    if rank is None:
        rank = np.zeros(len(predicted))
        np.maximum.at(rank, pairs.predicted, pairs.iou)
    order = np.argsort(-rank, kind="stable")
    chosen = [match_greedily(pairs, order, truth.counts, at) for at in IOU_THRESHOLDS]
    outcome = np.empty((len(chosen), len(predicted)), np.int8)
    for row, choice in zip(outcome, chosen, strict=True):
        takes_one = choice >= 0
        row[:] = np.where(predicted.counts & ~takes_one, WRONG, IGNORED)
        row[takes_one] = np.where(truth.counts[pairs.truth[choice[takes_one]]], RIGHT, IGNORED)
    return BuildingCounts(
        truths=int(truth.counts.sum()),
        predictions=int(predicted.counts.sum()),
        true_vertices=int(truth.vertices[truth.counts].sum()),
        found_vertices=int(predicted.vertices[predicted.counts].sum()),
        confidence=predicted.confidence,
        outcome=outcome,
        outlines=_measure_outlines(truth, predicted, pairs, chosen[0]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Predicted and true buildings that overlap: positions in both and IoU, `(pair,)`."""

    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def overlapping_pairs(truth: PolygonArray, predicted: PolygonArray, *, at_least: float = 0.0) -> Pairs:
    """Return the pairs of polygons whose IoU, to the millionth, is above 0 and reaches `at_least`.

    Coordinates of a file carry rounding of their own; an IoU of exactly one half must not hang on it.
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
    """Give each prediction, in order, the free true building with the largest IoU.

    Args:
        pairs: Overlaps.
        order: Predictions in the order of their choice, `(prediction,)`.
        counts: True buildings that count; they are chosen before the others, `(truth,)`.
        at_least: Smallest IoU.

    Returns:
        Position in `pairs` of every prediction's choice, -1 for none, `(prediction,)`.
    """
    found = np.full(len(order), -1, np.int64)
    taken = np.zeros(len(counts), bool)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    kept = np.flatnonzero(pairs.iou >= at_least)
    i, j, iou = pairs.predicted[kept], pairs.truth[kept], pairs.iou[kept]
    # Best first; of equal ones the last, as pycocotools does.
    for k in np.lexsort((-j, -iou, ~counts[j], rank[i])).tolist():
        if found[i[k]] < 0 and not taken[j[k]]:
            found[i[k]], taken[j[k]] = kept[k], True
    return found


def average_precision(confidence: NDArray[np.float64], outcome: NDArray[np.int8], truths: int) -> float:
    """Return the average precision as COCO defines it; NaN without true buildings.

    Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and pycocotools, `COCOeval.accumulate`: the
    mean, over the recalls 0, 0.01 ... 1, of the largest precision at this recall or a higher one; 0 beyond the last
    recall.

    Args:
        confidence: Of each predicted building, `(building,)`.
        outcome: `RIGHT`, `WRONG` or `IGNORED`, `(building,)`.
        truths: True buildings that count.
    """
    if truths == 0:
        return float("nan")
    order = np.argsort(-confidence, kind="stable")
    ranked = outcome[order][outcome[order] != IGNORED]
    right = np.cumsum(ranked == RIGHT)
    recall, precision = right / truths, right / np.arange(1, len(ranked) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, RECALLS), side="left")
    return float(np.append(best_from_here, 0.0)[at].sum() / RECALLS)


def _measure_outlines(truth: Shapes, predicted: Shapes, pairs: Pairs, choice: NDArray[np.int64]) -> Outlines:
    chosen = choice[choice >= 0]
    p, t, iou = pairs.predicted[chosen], pairs.truth[chosen], pairs.iou[chosen]
    whole = predicted.is_whole[p] & truth.is_whole[t]
    p, t, iou = p[whole], t[whole], iou[whole]
    if not len(p):
        return Outlines()
    true, found = truth.polygons[t], predicted.polygons[p]
    n, m = count_vertices(true), count_vertices(found)
    return Outlines(
        pairs=len(p),
        iou=float(iou.sum()),
        c_iou=float((iou * vertex_likeness(n, m)).sum()),
        polis=float(polis(true, found).sum()),
        true_vertices=int(n.sum()),
        found_vertices=int(m.sum()),
    )


def vertex_likeness(a: Any, b: Any) -> Any:
    """Return `1 - |a - b| / (a + b)` of two numbers of vertices, the factor of C-IoU.

    Zorzi, Bazrafkan, Habenschuss and Fraundorfer, "PolyWorld: polygonal building extraction with graph neural networks
    in satellite images", CVPR 2022 (arXiv:2111.15491): as many vertices as the truth give 1, far too many or too few
    tend to 0.
    """
    return 1 - np.abs(a - b) / (a + b)


def polis(a: PolygonArray, b: PolygonArray) -> NDArray[np.float64]:
    """Return the PoLiS distance of every pair of polygons.

    Avbelj, Mueller and Bamler, "A metric for polygon comparison and building extraction evaluation", IEEE Geoscience
    and Remote Sensing Letters 12(1), 2015: the mean distance of the vertices of `a` from the outline of `b`, and
    the other way round, and the mean of both. Holes have vertices and outlines like every ring.

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
