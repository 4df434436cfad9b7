"""Truth on the scored grid, from a raster of classes or a file of polygons."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoseg.datasets.coding import IGNORED, UNKNOWN, Coding, plan_coding
from geoseg.datasets.labels import read_labels
from geoseg.errors import LabelError, RecipeError, UsageError
from geoseg.evaluate.layers import Bytes, Scratch, fill_scratch
from geoseg.evaluate.vectors import Footprints, read_footprints, say_elsewhere
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


@dataclass(frozen=True, slots=True)
class Truth:
    """Truth of one scene.

    Attributes:
        layer: Class indices, 255 where nothing is known.
        footprints: The buildings of a vector file; None for a raster.
    """

    layer: Scratch
    footprints: Footprints | None = None


def open_truth(path: Path, grid: Grid, native: Grid, coding: Coding, settings: LabelSettings, scratch: Path) -> Truth:
    """Bring a label file onto a grid.

    Args:
        path: Raster or vector file.
        grid: The scored grid.
        native: Grid of the scene's own pixels; a label raster without georeference has its shape.
        coding: What a raster's numbers and colours mean.
        settings: See `LabelSettings`.
        scratch: The file to keep the pixels in.

    Raises:
        LabelError: If the labels are missing, cannot be read, have unknown values or lie elsewhere.
    """
    if not path.exists():
        raise LabelError(f"There are no labels at {path}. Give a raster of class indices and 255, or polygons.")
    if is_raster(path) or settings.column:
        return Truth(_read_coded(path, grid, native, coding, settings, scratch))
    if not coding.is_binary:
        raise LabelError(
            f"{path} holds polygons without classes, but {len(coding.indices) - 1} classes are scored. Name the column "
            "with the class with --column, or score one class with --target-only."
        )
    footprints = read_footprints(path, grid, what="labels", error=LabelError, layer=settings.layer)
    if not footprints.is_on(grid):
        _refuse_elsewhere(path, grid, settings)
    target, other = coding.target
    return Truth(
        fill_scratch(
            scratch, grid.shape, lambda window: np.where(footprints.burn(window), target, other).astype(np.uint8)
        ),
        footprints,
    )


def _refuse_elsewhere(path: Path, grid: Grid, settings: LabelSettings) -> None:
    message = say_elsewhere(path, grid, "labels", settings.layer)
    if not settings.elsewhere:
        raise LabelError(f"{message} If there truly is no building here, say so with --no-buildings-here.")
    log.warning("%s Everything found counts as wrong.", message)


def _read_coded(
    path: Path, grid: Grid, native: Grid, coding: Coding, settings: LabelSettings, scratch: Path
) -> Scratch:
    """Read a raster, or polygons with classes, strip by strip."""

    def read(window: Window) -> Bytes:
        return read_labels(
            path, grid.crop(window), coding=coding, native=native, layer=settings.layer, column=settings.column
        )

    return fill_scratch(scratch, grid.shape, read)


def plan_labels(
    classes: tuple[str, ...], target: str, codes: tuple[tuple[str, str], ...], colours: Mapping[str, str] | None = None
) -> Coding:
    """Make a coding of the classes, with the numbers and colours of the command line.

    Args:
        classes: Names of the classes by index.
        target: The class that polygons burn.
        codes: Number or `#RRGGBB` to class name, or to `unknown`.
        colours: Usual `#RRGGBB` by class name, where no colour is among the codes.

    Raises:
        UsageError: If a code cannot be used.
    """
    named = {key: name for key, name in codes if key.startswith("#")}
    named = named or {colour: name for name, colour in (colours or {}).items()}
    values = {key: name for key, name in codes if not key.startswith("#")}
    if values and UNKNOWN not in values.values():
        values.setdefault(str(IGNORED), UNKNOWN)
    try:
        return plan_coding(classes, target=target, also=named, values=values or None)
    except RecipeError as err:
        raise UsageError(f"--code cannot be used: {err}") from err
