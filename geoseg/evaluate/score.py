"""Score one scene, window by window; figures do not depend on how it was cut."""

import logging
import math
from dataclasses import dataclass

import numpy as np
import shapely

from geoseg.errors import LabelError
from geoseg.evaluate.boundary import BOUNDARY_M, BOUNDARY_PX, BoundaryCounts, count_boundary
from geoseg.evaluate.buildings import BuildingCounts, compare_buildings
from geoseg.evaluate.confusion import Confusion
from geoseg.evaluate.layers import BLOCK_PX, Stack
from geoseg.evaluate.levels import Levels
from geoseg.evaluate.outlines import outline_area
from geoseg.evaluate.scores import SceneScores
from geoseg.evaluate.shapes import PolygonArray, cut_to_area
from geoseg.evaluate.vectors import Footprints
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class WindowScores:
    """Counts of one window, and its scored pixels as polygons in pixels of the grid, `(polygon,)`."""

    confusion: Confusion
    boundary: BoundaryCounts
    levels: Levels | None
    area: PolygonArray


def score_pixels(stack: Stack, *, width_px: int, block_px: int = BLOCK_PX, threads: int = 1) -> WindowScores:
    """Count the pixels of a scene.

    Args:
        stack: Truth and prediction.
        width_px: Width of the boundary, pixels.
        block_px: Height and width of what is counted at once.
        threads: How many windows are counted at a time.
    """
    from dask.base import compute
    from dask.delayed import delayed

    tasks = [delayed(_score_window)(stack, window, width_px) for window in stack.windows(block_px)]
    found: tuple[WindowScores, ...] = compute(*tasks, scheduler="threads", num_workers=threads)  # type: ignore[no-untyped-call]
    return WindowScores(
        sum((part.confusion for part in found), Confusion.zeros(stack.classes)),
        sum((part.boundary for part in found), BoundaryCounts.zeros(len(stack.classes))),
        sum((part.levels for part in found if part.levels), Levels.zeros()) if stack.probability else None,
        np.concatenate([np.zeros(0, object), *(part.area for part in found)]),
    )


def _score_window(stack: Stack, window: Window, width_px: int) -> WindowScores:
    around = window.expand(width_px).intersect(stack.grid.window)
    assert around is not None
    sheet, inner = stack.read(around), window.relative_to(around).slices
    count = len(stack.classes)
    predicted, truth, known = sheet.predicted[inner], sheet.truth[inner], sheet.known(count)
    levels = None
    if stack.probability is not None:
        probability = stack.probability.read(window)
        levels = Levels.count(probability, truth == stack.target, known[inner] & (probability != NODATA))
    return WindowScores(
        Confusion.count(predicted, truth, stack.classes),
        count_boundary(sheet.predicted, sheet.truth, inner, classes=count, width_px=width_px),
        levels,
        outline_area(known, around, window, stack.grid.shape),
    )


def score_scene(
    stack: Stack,
    buildings: tuple[Footprints, Footprints] | None,
    *,
    width_px: int,
    unscored: tuple[str, ...] = (),
    threads: int = 1,
    labels: str = "the labels",
) -> SceneScores:
    """Score pixels and buildings of a scene.

    Args:
        stack: Truth and prediction.
        buildings: True and predicted ones in pixels of the grid; None leaves them out.
        width_px: Width of the boundary, pixels.
        unscored: Classes that means leave out.
        threads: CPU threads.
        labels: Name of the labels, for messages.

    Raises:
        LabelError: If no pixel can be scored.
    """
    pixels = score_pixels(stack, width_px=width_px, threads=threads)
    _check_pixels(pixels.confusion, stack, labels)
    counts = score_buildings(*buildings, pixels.area, stack.grid) if buildings else None
    target = stack.classes[stack.target]
    return SceneScores(pixels.confusion, pixels.boundary, target, unscored, pixels.levels, counts)


def _check_pixels(confusion: Confusion, stack: Stack, labels: str) -> None:
    if confusion.pixels == 0:
        raise LabelError(
            f"No pixel of {stack.name} has data, a label of {labels} and lies in the area asked for. "
            "Check that labels and scene show the same place."
        )
    if confusion.counts[stack.target].sum() == 0:
        log.warning(
            "%s: %s has no %s in the area that is scored. Is it of this place? A raster in which 255 means %s is read "
            "with --code 255=%s.",
            stack.name,
            labels,
            *[stack.classes[stack.target]] * 3,
        )


def score_buildings(truth: Footprints, predicted: Footprints, area: PolygonArray, grid: Grid) -> BuildingCounts:
    """Compare buildings in the scored area, in metres at the middle of the grid; in pixels without a CRS."""
    true, found, scored = (to_plane(p, grid) for p in (truth.polygons, predicted.polygons, area))
    return compare_buildings(cut_to_area(true, scored), cut_to_area(found, scored, predicted.confidence))


def to_plane(polygons: PolygonArray, grid: Grid) -> PolygonArray:
    """Scale polygons from pixels to metres along rows and columns."""
    scale = np.array(grid.gsd_m or (1.0, 1.0))
    return np.asarray(shapely.transform(polygons, lambda xy: xy * scale), object)


def boundary_width(grid: Grid, width_m: float | None, width_px: int | None) -> int:
    """Return the width of the boundary in pixels: as asked, else `BOUNDARY_M`, or `BOUNDARY_PX` without a CRS."""
    if width_px is not None:
        return width_px
    if grid.gsd_m is None:
        return BOUNDARY_PX
    return max(1, round((BOUNDARY_M if width_m is None else width_m) / math.sqrt(grid.gsd_m[0] * grid.gsd_m[1])))
