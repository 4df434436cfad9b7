"""Labels of the scored scenes: their classes on the scored grid."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoseg.datasets.coding import IGNORED, UNKNOWN, Coding, plan_coding
from geoseg.datasets.labels import read_labels
from geoseg.errors import LabelError, RecipeError, UsageError
from geoseg.evaluate.polygons import BuildingPolygons, read_buildings, say_elsewhere
from geoseg.evaluate.rasters import Bytes, Scratch
from geoseg.grid import Grid, Window
from geoseg.io.suffixes import is_raster

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """How a label file is to be read.

    Attributes:
        codes: Number or `#RRGGBB` of a raster to class name, or to `unknown`; class indices and 255 by default.
        layer: Layer of a vector file that has several.
        column: Attribute of polygons that names their class; all are buildings by default.
        elsewhere: Accept polygons none of which touches the scene.
    """

    codes: tuple[tuple[str, str], ...] = ()
    layer: str = ""
    column: str = ""
    elsewhere: bool = False


def plan_labels(
    classes: tuple[str, ...], target: str, codes: tuple[tuple[str, str], ...], colors: Mapping[str, str] | None = None
) -> Coding:
    """Make a coding of the classes, with the numbers and colors of the command line.

    Args:
        classes: Names of the classes by index.
        target: The class that polygons burn.
        codes: Number or `#RRGGBB` to class name, or to `unknown`.
        colors: Usual `#RRGGBB` by class name, where no color is among the codes.

    Raises:
        UsageError: If a code cannot be used.
    """
    named = {key: name for key, name in codes if key.startswith("#")}
    named = named or {color: name for name, color in (colors or {}).items()}
    values = {key: name for key, name in codes if not key.startswith("#")}
    if values and UNKNOWN not in values.values():
        values.setdefault(str(IGNORED), UNKNOWN)
    try:
        return plan_coding(classes, target=target, also=named, values=values or None)
    except RecipeError as err:
        raise UsageError(f"--code cannot be used: {err}") from err


def open_labels(
    path: Path, grid: Grid, native: Grid, coding: Coding, settings: LabelSettings, scratch: Path
) -> tuple[Scratch, BuildingPolygons | None]:
    """Bring a label file onto a grid.

    Args:
        path: Raster or vector file.
        grid: The scored grid.
        native: Grid of the scene's own pixels; a label raster without georeference has its shape.
        coding: What a raster's numbers and colors mean.
        settings: See `LabelSettings`.
        scratch: The file to keep the pixels in.

    Returns:
        Class indices, 255 where nothing is known; and the buildings of polygons without classes, else None.

    Raises:
        LabelError: If the labels are missing, cannot be read, have unknown values or lie elsewhere.
    """
    if not path.exists():
        raise LabelError(f"There are no labels at {path}. Give a raster of class indices and 255, or polygons.")
    if is_raster(path) or settings.column:

        def read(window: Window) -> Bytes:
            return read_labels(
                path, grid.crop(window), coding=coding, native=native, layer=settings.layer, column=settings.column
            )

        return Scratch.fill(scratch, grid.shape, read), None
    if not coding.is_binary:
        raise LabelError(
            f"{path} holds polygons without classes, but {len(coding.indices) - 1} classes are scored. Name the column "
            "with the class with --column, or score one class with --target-only."
        )
    buildings = read_buildings(path, grid, what="labels", error=LabelError, layer=settings.layer)
    if not buildings.is_on(grid):
        message = say_elsewhere(path, grid, "labels", settings.layer)
        if not settings.elsewhere:
            raise LabelError(f"{message} If there truly is no building here, say so with --no-buildings-here.")
        log.warning("%s Everything found counts as wrong.", message)
    target, other = coding.target

    def burn(window: Window) -> Bytes:
        return np.where(buildings.burn(window), target, other).astype(np.uint8)

    return Scratch.fill(scratch, grid.shape, burn), buildings
