"""Where a raster holds nothing, told without decoding its pixels."""

from itertools import pairwise

import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from geoseg.scene.coverage import is_uncovered
from geoseg.scene.tiles import hold_nothing
from geoseg.scene.valid import read_valid

MASK_ROWS = 512
"""Rows of a mask looked at together; where one of them is valid, the rest need no look."""


def is_blank(reader: rasterio.DatasetReader, window: RasterWindow, *, is_overview: bool = False) -> bool:
    """Return True where nothing in a window is valid; False where something is, or only the pixels could tell.

    What no source of a VRT covers holds nothing, nor do TIFF tiles that were never written, or that repeat one that is
    known to hold nothing. A mask or alpha band is looked at until something valid is found; a nodata value stands in
    the pixels themselves. Only the raster that is to be read is asked: overviews of its mask are made with filters of
    their own, and may miss a pixel.

    Args:
        reader: The raster that is to be read.
        window: Rows and columns.
        is_overview: The raster is an overview, of whose tiles and sources GDAL does not tell.
    """
    flags = {flag for band in reader.mask_flag_enums for flag in band}
    if not is_overview and is_uncovered(reader, window):
        return not _has_valid(reader, _first_pixel(window))  # whatever GDAL fills in is its own business
    if not is_overview and flags & {MaskFlags.nodata, MaskFlags.alpha} and hold_nothing(reader, window):
        return True
    return MaskFlags.nodata not in flags and not _has_valid(reader, window)


def _first_pixel(window: RasterWindow) -> RasterWindow:
    return RasterWindow(window.col_off, window.row_off, 1, 1)


def _has_valid(reader: rasterio.DatasetReader, window: RasterWindow) -> bool:
    stop = window.row_off + window.height
    edges = [window.row_off, *range((window.row_off // MASK_ROWS + 1) * MASK_ROWS, stop, MASK_ROWS), stop]
    return any(
        read_valid(reader, RasterWindow(window.col_off, top, window.width, bottom - top)).any()
        for top, bottom in pairwise(edges)
    )
