"""Where a scene may hold data, told by its file's directory alone: there only are blocks worth a look."""

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from geoseg.grid import Window
from geoseg.scene.blank import Boxes, find_data, source_boxes, tile_counts
from geoseg.scene.reader import open_reader
from geoseg.scene.remote import gdal_env, reach_of
from geoseg.scene.scene import Scene

MOST_TILES = 500_000
"""TIFF tiles of a file that is looked through, some microseconds each: 130 Gpx at 512 x 512."""

REACH_PX = 2
"""Pixels of the file beyond which resampling does not reach."""


def data_windows(scene: Scene) -> tuple[Window, ...]:
    """Return windows of the working grid outside which nothing is valid; none where that is not known.

    Sources of a VRT, and TIFF tiles of a local file but those that were never written or are known to hold nothing
    (`geoseg.scene.blank`). A remote file's directory is not fetched for it.
    """
    if not scene.has_mask or scene.reads_overview or reach_of(scene.paths) is not None:
        return ()
    try:
        with gdal_env(scene.paths), open_reader(scene.source, files=scene.paths) as reader:
            boxes = _boxes(reader, scene.data_bands)
    except (RasterioError, OSError):  # the blocks will say so
        return ()
    return tuple(_on_grid(scene, boxes)) if boxes is not None else ()


def _boxes(reader: rasterio.DatasetReader, data_bands: Sequence[int]) -> Boxes | None:
    """Return where data may lie, in pixels of the file."""
    flags = {tuple(reader.mask_flag_enums[band - 1]) for band in data_bands}
    if len(flags) != 1:
        return None  # bands that disagree about what is valid
    if reader.driver == "VRT":
        boxes = source_boxes(reader)
        return None if boxes is None else np.unique(boxes, axis=0)
    tells = bool({MaskFlags.nodata, MaskFlags.alpha} & set(*flags))
    if reader.driver != "GTiff" or not tells or math.prod(tile_counts(reader)) > MOST_TILES:
        return None
    holds, (height, width) = find_data(reader), reader.block_shapes[0]
    return None if holds.all() else _runs(holds) * (width, height, width, height)


def _runs(holds: NDArray[np.bool_]) -> Boxes:
    """Return boxes of the true cells: runs of a row, and of rows that are alike."""
    boxes, top = [], 0
    for row, alike in groupby(holds, key=lambda row: row.tobytes()):
        bottom = top + len(list(alike))
        edges = np.flatnonzero(np.diff(np.frombuffer(row, bool), prepend=False, append=False))
        boxes += [(left, top, right, bottom) for left, right in edges.reshape(-1, 2)]
        top = bottom
    return np.array(boxes, dtype=float).reshape(-1, 4)


def _on_grid(scene: Scene, boxes: Boxes) -> list[Window]:
    """Return boxes of the file as windows of the working grid, with what resampling adds."""
    if scene.grid.shape == scene.native.shape:
        reach, scale = 0, (1.0, 1.0)
    else:
        height, width = (ours / own for ours, own in zip(scene.grid.shape, scene.native.shape, strict=True))
        reach, scale = REACH_PX, (width, height)
    first = np.floor((boxes[:, :2] - reach) * scale).astype(int)
    stop = np.ceil((boxes[:, 2:] + reach) * scale).astype(int)
    corners = np.column_stack((first, stop)).tolist()
    windows = [Window(top, left, bottom - top, right - left) for left, top, right, bottom in corners]
    cut = [window.intersect(scene.grid.window) for window in windows]
    return [window for window in cut if window is not None]
