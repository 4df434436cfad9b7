"""Reference labels on the scored grid."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.datasets.coding import IGNORED, UNKNOWN, Coding, plan_coding
from geoseg.datasets.labels import read_labels, read_outlines
from geoseg.errors import LabelError, RecipeError, UsageError
from geoseg.evaluate.polygons import BuildingPolygons, describe_mismatch, read_buildings, repair_polygons
from geoseg.evaluate.rasters import Bytes, Scratch
from geoseg.evaluate.settings import LabelSettings
from geoseg.grid import Grid, Window
from geoseg.io.suffixes import is_raster

log = logging.getLogger(__name__)


def plan_labels(
    classes: tuple[str, ...],
    target: str,
    codes: tuple[tuple[str, str], ...],
    colors: Mapping[str, str] | None = None,
    *,
    instances: bool = False,
    argument: str = "codes",
) -> Coding:
    """Return the coding of the classes that results from the codes of a user.

    Args:
        classes: Names of the classes by index.
        target: The class of polygons.
        codes: Number or `#RRGGBB` to class name, or to `unknown`.
        colors: Default `#RRGGBB` by class name, if no code is a color.
        instances: See `LabelSettings`.
        argument: Name of the argument with the codes, for messages.

    Raises:
        UsageError: If a code is not valid.
    """
    named = {key: name for key, name in codes if key.startswith("#")}
    named = named or {color: name for name, color in (colors or {}).items()}
    values = {key: name for key, name in codes if not key.startswith("#")}
    if values and UNKNOWN not in values.values() and not instances:
        values.setdefault(str(IGNORED), UNKNOWN)
    try:
        return plan_coding(classes, target=target, also=named, values=values or None, instances=instances)
    except RecipeError as err:
        key, _, found = str(err).partition(": ")  # a key of a recipe
        raise UsageError(f"`{key if key == 'instances' else argument}` cannot be used: {found}.") from err


def open_labels(
    path: Path, grid: Grid, native: Grid, coding: Coding, settings: LabelSettings, scratch: Path
) -> tuple[Scratch, BuildingPolygons | None, NDArray[np.int64] | None]:
    """Read a label file on a grid.

    Args:
        path: Raster or vector file.
        grid: The scored grid.
        native: Grid of the scene's own pixels; a label raster without georeference has its shape.
        coding: Meaning of the numbers and colors of a raster.
        settings: See `LabelSettings`.
        scratch: Path of a temporary file for the pixels.

    Returns:
        Class indices, 255 where unknown; the buildings, if the labels are polygons without classes or a raster of
        their numbers, else None; and the pixels of a raster by class index and 255, `(256,)`, else None.

    Raises:
        LabelError: If the labels are missing, cannot be read, have unknown values or do not overlap the grid.
    """
    if not path.exists():
        raise LabelError(f"There are no labels at {path}. Give a raster of class indices and 255, or polygons.")
    if is_raster(path) or settings.column:
        counts = np.zeros(256, np.int64) if is_raster(path) else None

        def read(window: Window) -> Bytes:
            return read_labels(
                path,
                grid.crop(window),
                coding=coding,
                native=native,
                layer=settings.layer,
                column=settings.column,
                counts=counts,
            )

        outlines = read_outlines(path, grid, coding=coding, native=native) if is_raster(path) else None
        single = None if outlines is None else BuildingPolygons(repair_polygons(outlines)[0])
        return Scratch.fill(scratch, grid.shape, read), single, counts
    if not coding.is_binary:
        raise LabelError(
            f"{path} contains polygons without classes, but {len(coding.indices) - 1} classes are scored. Give the "
            "column with the class, `label_settings=LabelSettings(column='NAME')`, or score a single class with "
            "`target_only=True`."
        )
    buildings = read_buildings(path, grid, what="labels", error=LabelError, layer=settings.layer, are_true=True)
    if not buildings.is_on(grid):
        message = describe_mismatch(path, grid, "labels", settings.layer)
        if not settings.elsewhere:
            raise LabelError(
                f"{message} If the scene really has no buildings, give `label_settings=LabelSettings(elsewhere=True)`."
            )
        log.warning("%s All predicted buildings count as false positives.", message)
    target, other = coding.target

    def burn(window: Window) -> Bytes:
        return np.where(buildings.burn(window), target, other).astype(np.uint8)

    return Scratch.fill(scratch, grid.shape, burn), buildings, None
