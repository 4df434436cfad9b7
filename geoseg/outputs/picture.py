"""Pictures for people, side by side in one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Window
from geoseg.io.aside import reported, write_aside
from geoseg.scene import Scene
from geoseg.third_party import allow_no_georeference

GAP_PX, GAP_GRAY = 8, 255

NODATA_GRAY = 96

SOURCE_PX = 2048
"""Maximum side of the part of a scene that is held at a time, in the scene's own pixels."""


def write_picture(path: str | Path, panels: Sequence[NDArray[np.uint8]]) -> Path:
    """Write panels side by side, with a white gap between them.

    Args:
        path: The PNG to be; an older one is replaced.
        panels: `(y, x, color)` uint8 in red, green, blue, all of one height.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written; nothing of it is left then.
    """
    gap = np.full((panels[0].shape[0], GAP_PX, 3), GAP_GRAY, np.uint8)
    row = [part for panel in panels for part in (panel, gap)][:-1]
    pixels = np.concatenate(row, axis=1).transpose(2, 0, 1)
    profile = {"driver": "PNG", "dtype": "uint8", "count": 3, "height": pixels.shape[1], "width": pixels.shape[2]}
    with (
        write_aside(path) as aside,
        reported(path, *GDAL_ERRORS),
        allow_no_georeference(),
        rasterio.open(aside, "w", **profile) as dataset,
    ):
        dataset.write(pixels)
    return Path(path)


def draw_image(scene: Scene, shape: tuple[int, int], window: Window | None = None) -> NDArray[np.uint8]:
    """Draw a scene in its first three bands, or its first band in gray; nodata is `NODATA_GRAY`.

    Args:
        scene: The scene; pixels that are not 8-bit are stretched.
        shape: Height and width at which the whole scene is drawn.
        window: The part to return, in pixels of `shape`; it may reach beyond the scene.

    Returns:
        `(y, x, color)` uint8.
    """
    small = (scene if shape == scene.grid.shape else scene.at_shape(shape)).with_levels()
    window = window or small.grid.window
    image = np.full((*window.shape, 3), NODATA_GRAY, np.uint8)
    inside = window.intersect(small.grid.window)
    if inside is None:
        return image
    factor = max(small.native.height / shape[0], small.native.width / shape[1], 1.0)
    step = max(1, int(SOURCE_PX / factor))
    for row in range(inside.row, inside.rows.stop, step):
        for col in range(inside.col, inside.cols.stop, step):
            part = Window(row, col, min(step, inside.rows.stop - row), min(step, inside.cols.stop - col))
            pixels = small.read(part)
            bands = pixels.values[:3] if len(pixels.values) >= 3 else pixels.values[[0, 0, 0]]
            drawn = np.where(pixels.valid[..., None], bands.transpose(1, 2, 0), NODATA_GRAY)
            image[part.relative_to(window).slices] = drawn
    return image
