"""A picture of a finished run: the image and what was found in it, side by side."""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec
from geoseg.grid import Window
from geoseg.inference import NODATA, Plan
from geoseg.outputs.picture import write_picture
from geoseg.outputs.rasters import rgb
from geoseg.scene import Scene
from geoseg.silence import quiet_georeference

PICTURE = "preview.png"

PREVIEW_PX = 1024
"""Longest side of each of the two panels, pixels; smaller scenes keep their working grid."""

SOURCE_PX = 2048
"""Side of the part of the scene that is held at a time, pixels of the scene."""

NODATA_GREY = 96
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def write_preview(plan: Plan, spec: ModelSpec, folder: Path, path: Path) -> Path:
    """Write image and prediction: buildings (the target) in white, several classes in their colours, nodata in grey.

    Args:
        plan: What was run.
        spec: The model's specification.
        folder: Where `mask.tif` or `classes.tif` lies.
        path: The PNG to be.
    """
    shape = preview_shape(plan.scene.grid.shape)
    several = plan.has_class_raster
    colours = [rgb(colour) for colour in spec.class_colours] if several else [BLACK, WHITE]
    values = _read_small(folder / ("classes.tif" if several else "mask.tif"), shape)
    table = np.full((NODATA + 1, 3), NODATA_GREY, np.uint8)
    table[: len(colours)] = colours
    return write_picture(path, [_read_image(plan.scene, shape), table[values]])


def preview_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a panel."""
    factor = max(1.0, max(shape) / PREVIEW_PX)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))


def _read_small(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a raster at about the size of one of its overviews."""
    with quiet_georeference(), rasterio.open(path) as raster:
        return np.asarray(raster.read(1, out_shape=shape), np.uint8)


def _read_image(scene: Scene, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a scene as `(y, x, colour)`, part by part: its first three bands, or its first in grey."""
    small = (scene if shape == scene.grid.shape else scene.at_shape(shape)).with_levels()
    out = np.full((*shape, 3), NODATA_GREY, np.uint8)
    factor = max(small.native.height / shape[0], small.native.width / shape[1])
    step = max(1, int(SOURCE_PX / max(factor, 1)))
    for row in range(0, shape[0], step):
        for col in range(0, shape[1], step):
            window = Window(row, col, min(step, shape[0] - row), min(step, shape[1] - col))
            pixels = small.read(window)
            bands = pixels.values[:3] if len(pixels.values) >= 3 else pixels.values[[0, 0, 0]]
            out[window.slices] = np.where(pixels.valid[..., None], bands.transpose(1, 2, 0), NODATA_GREY)
    return out
