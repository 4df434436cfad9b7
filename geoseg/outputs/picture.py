"""Pictures for people, side by side in one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.io.aside import reported, write_aside
from geoseg.outputs.rasters import GDAL_FAILURES
from geoseg.silence import quiet_georeference

GAP_PX, GAP_GRAY = 8, 255


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
        reported(path, *GDAL_FAILURES),
        quiet_georeference(),
        rasterio.open(aside, "w", **profile) as dataset,
    ):
        dataset.write(pixels)
    return Path(path)
