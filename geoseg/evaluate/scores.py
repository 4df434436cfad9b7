"""Scores of a scene, counted window by window; they do not depend on the windows."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import LabelError
from geoseg.evaluate.buildings import BuildingCounts, compare_buildings, vertex_likeness
from geoseg.evaluate.calibration import measure_confidence
from geoseg.evaluate.pixels import BOUNDARY_M, BOUNDARY_PX, BoundaryCounts, Confusion, Levels, count_boundary, mean
from geoseg.evaluate.polygons import BuildingPolygons, PolygonArray, clip_to_area, outline_area
from geoseg.evaluate.prediction import Prediction
from geoseg.evaluate.rasters import BLOCK_PX, Bytes
from geoseg.evaluate.reliability import calibration_error
from geoseg.grid import Grid, Window
from geoseg.inference import AOI, NODATA
from geoseg.scene import Raster
from geoseg.vectorize import cut_grid

log = logging.getLogger(__name__)

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stack:
    """A prediction and its reference labels on one grid.

    Attributes:
        name: Name of the scene.
        prediction: The prediction.
        truth: True class indices; 254 or 255 where unknown.
        area: The area to score; None for the whole scene.
    """

    name: str
    prediction: Prediction
    truth: Raster
    area: AOI | None = None

    def read(self, window: Window) -> tuple[Bytes, Bytes, NDArray[np.bool_]]:
        """Read a window inside the grid.

        Returns:
            Predicted and true class indices, and True for the pixels that are scored, where both have a class; each
            `(y, x)`. Outside the area to score, the true class is unknown.
        """
        predicted, truth = self.prediction.predicted.read(window), self.truth.read(window)
        if self.area is not None:
            truth = np.where(self.area.mask(window), truth, np.uint8(NODATA))
        classes = len(self.prediction.classes)
        return predicted, truth, (predicted < classes) & (truth < classes)

    def windows(self, block_px: int = BLOCK_PX) -> list[Window]:
        """Return disjoint windows that cover the area to score."""
        windows = cut_grid(self.prediction.grid.shape, block_px)
        return [window for window in windows if self.area is None or self.area.touches(window)]


@dataclass(frozen=True, slots=True, eq=False)
class SceneScores:
    """Scores of a scene, or of several scenes together.

    Attributes:
        confusion: Pixels by true and predicted class.
        boundary: Pixels near outlines.
        target: Name of the class whose figures come first.
        unscored: Classes left out of means.
        levels: Pixels by probability of the target, or None.
        buildings: Buildings, or None where they are not scored.
        unlabeled: Number of pixels with a prediction, in the area to score, that have no label.
        unpredicted: Number of pixels with a label that have no prediction.
        label_counts: Pixels of the label rasters by class index and 255, `(256,)`; None of polygons.
        mask_counts: The same of the masks that are scored; None otherwise.
    """

    confusion: Confusion
    boundary: BoundaryCounts
    target: str
    unscored: tuple[str, ...] = ()
    levels: Levels | None = None
    buildings: BuildingCounts | None = None
    unlabeled: int = 0
    unpredicted: int = 0
    label_counts: Counts | None = None
    mask_counts: Counts | None = None

    def __add__(self, other: "SceneScores") -> "SceneScores":
        """Pool two areas; what one of them lacks is lost."""
        return SceneScores(
            self.confusion + other.confusion,
            self.boundary + other.boundary,
            self.target,
            self.unscored,
            self.levels + other.levels if self.levels is not None and other.levels is not None else None,
            self.buildings + other.buildings if self.buildings is not None and other.buildings is not None else None,
            self.unlabeled + other.unlabeled,
            self.unpredicted + other.unpredicted,
            _added(self.label_counts, other.label_counts),
            _added(self.mask_counts, other.mask_counts),
        )

    def metrics(self) -> dict[str, Any]:
        """Return all metrics; NaN for those that are not defined."""
        found = self.confusion.metrics(target=self.target, unscored=self.unscored)
        rims = dict(zip(self.confusion.classes, self.boundary.iou(), strict=True))
        for name, value in rims.items():
            found["classes"][name]["boundary_iou"] = value
        found["boundary_iou"] = rims[self.target]
        found["unlabeled"], found["unpredicted"] = self.unlabeled, self.unpredicted
        found["mean_boundary_iou"] = mean([value for name, value in rims.items() if name not in self.unscored])
        if self.levels is not None:
            found["calibration_error"] = self.levels.calibration_error()
            found["reliability"] = [row.to_dict("pixels") for row in self.levels.bins()]
        counts = self.buildings
        if counts is not None:
            # C-IoU as in the code of PolyWorld: from the pixels and vertices of the whole picture.
            c_iou = float("nan")
            if counts.true_vertices + counts.found_vertices > 0:
                c_iou = float(found["iou"] * vertex_likeness(counts.true_vertices, counts.found_vertices))
            bins = measure_confidence(counts)
            error = {"calibration_error": calibration_error(bins)}
            found["buildings"] = counts.metrics() | {"c_iou_scene": c_iou} | error
            found["building_reliability"] = [row.to_dict("buildings") for row in bins]
        return found


def _added(own: Counts | None, other: Counts | None) -> Counts | None:
    return own + other if own is not None and other is not None else None


def pool(scores: Sequence[SceneScores]) -> SceneScores:
    """Return the scores of several scenes together."""
    return sum(scores[1:], start=scores[0])


def boundary_width(grid: Grid, width_m: float | None, width_px: int | None) -> int:
    """Return the boundary width in pixels: as given, or else `BOUNDARY_M`, or `BOUNDARY_PX` without a CRS."""
    if width_px is not None:
        return width_px
    if grid.gsd_m is None:
        return BOUNDARY_PX
    return max(1, round((BOUNDARY_M if width_m is None else width_m) / math.sqrt(grid.gsd_m[0] * grid.gsd_m[1])))


def score_scene(
    stack: Stack,
    buildings: tuple[BuildingPolygons, BuildingPolygons] | None,
    *,
    width_px: int,
    unscored: tuple[str, ...] = (),
    threads: int = 1,
    labels: str = "the labels",
    label_counts: Counts | None = None,
) -> SceneScores:
    """Score pixels and buildings of a scene.

    Args:
        stack: Prediction and truth.
        buildings: True and predicted buildings in pixels of the grid; None to score only pixels.
        width_px: Boundary width in pixels.
        unscored: Classes excluded from means.
        threads: CPU threads.
        labels: Name of the labels, for messages.
        label_counts: See `SceneScores`.

    Raises:
        LabelError: If no pixel can be scored.
    """
    pixels = score_pixels(stack, width_px=width_px, threads=threads)
    if pixels.confusion.pixels == 0:
        raise LabelError(
            f"No pixel of {stack.name} has data, has a label of {labels} and lies in the AOI. "
            "Check that labels and scene show the same place."
        )
    prediction = stack.prediction
    target = prediction.classes[prediction.target]
    if pixels.confusion.counts[prediction.target].sum() == 0:
        log.warning(
            "%s: %s has no %s in the scored area. Check that it shows this place.%s",
            *(stack.name, labels, target),
            "" if label_counts is None else f" If 255 means {target} in this raster, give 255={target} in `codes`.",
        )
    true, found = (pixels.confusion.counts.sum(axis=axis)[prediction.target] for axis in (1, 0))
    log.info(
        "%s: %s is on %.1f %% of the labels and on %.1f %% of the prediction; %.1f %% of the pixels have no label, "
        "%.1f %% no prediction",
        *(stack.name, target),
        *(100 * n / pixels.confusion.pixels for n in (true, found)),
        *(100 * n / (pixels.confusion.pixels + n) for n in (pixels.unlabeled, pixels.unpredicted)),
    )
    counts = score_buildings(*buildings, pixels.area, prediction.grid) if buildings else None
    return SceneScores(
        pixels.confusion,
        pixels.boundary,
        target,
        unscored,
        pixels.levels,
        counts,
        pixels.unlabeled,
        pixels.unpredicted,
        label_counts,
        prediction.mask_counts,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PixelScores:
    """Counts of the pixels of an area, and the scored pixels as polygons in pixels of the grid, `(polygon,)`.

    `unlabeled` and `unpredicted` are those of `SceneScores`.
    """

    confusion: Confusion
    boundary: BoundaryCounts
    levels: Levels | None
    area: PolygonArray
    unlabeled: int
    unpredicted: int


def score_pixels(stack: Stack, *, width_px: int, block_px: int = BLOCK_PX, threads: int = 1) -> PixelScores:
    """Count the pixels of a scene.

    Args:
        stack: Prediction and truth.
        width_px: Boundary width in pixels.
        block_px: Height and width of the windows.
        threads: Number of windows that are counted at the same time.
    """
    from dask.base import compute
    from dask.delayed import delayed

    tasks = [delayed(_score_window)(stack, window, width_px) for window in stack.windows(block_px)]
    found: tuple[PixelScores, ...] = compute(*tasks, scheduler="threads", num_workers=threads)  # type: ignore[no-untyped-call]
    classes = stack.prediction.classes
    return PixelScores(
        sum((part.confusion for part in found), Confusion.zeros(classes)),
        sum((part.boundary for part in found), BoundaryCounts.zeros(len(classes))),
        sum((part.levels for part in found if part.levels), Levels.zeros()) if stack.prediction.probability else None,
        np.concatenate([np.zeros(0, object), *(part.area for part in found)]),
        sum(part.unlabeled for part in found),
        sum(part.unpredicted for part in found),
    )


def _score_window(stack: Stack, window: Window, width_px: int) -> PixelScores:
    prediction = stack.prediction
    around = window.expand(width_px).intersect(prediction.grid.window)
    assert around is not None
    predicted, truth, known = stack.read(around)
    inner = window.relative_to(around).slices
    levels = None
    if prediction.probability is not None:
        probability = prediction.probability.read(window)
        is_counted = known[inner] & (probability != NODATA)
        levels = Levels.count(probability, truth[inner] == prediction.target, is_counted)
    is_class = [values[inner] < len(prediction.classes) for values in (predicted, truth)]
    here = True if stack.area is None else stack.area.mask(window)
    return PixelScores(
        Confusion.count(predicted[inner], truth[inner], prediction.classes),
        count_boundary(predicted, truth, inner, classes=len(prediction.classes), width_px=width_px),
        levels,
        outline_area(known, around, window, prediction.grid.shape),
        unlabeled=int(np.count_nonzero(is_class[0] & ~is_class[1] & here)),
        unpredicted=int(np.count_nonzero(is_class[1] & ~is_class[0])),
    )


def score_buildings(
    truth: BuildingPolygons, predicted: BuildingPolygons, area: PolygonArray, grid: Grid
) -> BuildingCounts:
    """Compare buildings in the scored area, in meters at the center of the grid, or in pixels without a CRS."""
    scale = np.array(grid.gsd_m or (1.0, 1.0))
    true, found, scored = (
        np.asarray(shapely.transform(polygons, lambda xy: xy * scale), object)
        for polygons in (truth.polygons, predicted.polygons, area)
    )
    return compare_buildings(
        clip_to_area(true, scored),
        clip_to_area(found, scored, predicted.confidence, predicted.evidence),
        px=float(np.sqrt(scale[0] * scale[1])),
        repaired=(truth.repaired, predicted.repaired),
    )
