"""Where a raster holds nothing, told without decoding its pixels."""

from itertools import pairwise

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

MASK_ROWS = 512
"""Rows of a mask looked at together; where one of them is valid, the rest need no look."""


def is_blank(reader: rasterio.DatasetReader, window: RasterWindow, *, is_overview: bool = False) -> bool:
    """Return True where nothing in a window is valid; False where something is, or only the pixels could tell.

    A mask or alpha band is looked at until something valid is found. A nodata value stands in the pixels themselves,
    but TIFF tiles that were never written hold nothing else. Only the raster that is to be read is asked: overviews of
    its mask are made with filters of their own, and may miss a pixel.

    Args:
        reader: The raster that is to be read.
        window: Rows and columns.
        is_overview: The raster is an overview, whose TIFF tiles GDAL does not tell of.
    """
    flags = {flag for band in reader.mask_flag_enums for flag in band}
    if not is_overview and flags & {MaskFlags.nodata, MaskFlags.alpha} and _is_unwritten(reader, window):
        return True
    return MaskFlags.nodata not in flags and not _has_valid(reader, window)


def _has_valid(reader: rasterio.DatasetReader, window: RasterWindow) -> bool:
    stop = window.row_off + window.height
    edges = [window.row_off, *range((window.row_off // MASK_ROWS + 1) * MASK_ROWS, stop, MASK_ROWS), stop]
    return any(
        reader.dataset_mask(window=RasterWindow(window.col_off, top, window.width, bottom - top)).any()
        for top, bottom in pairwise(edges)
    )


def _is_unwritten(reader: rasterio.DatasetReader, window: RasterWindow) -> bool:
    """Return True where no TIFF tile of a window was ever written (`SPARSE_OK`), and GDAL takes that for invalid.

    https://gdal.org/en/stable/drivers/raster/gtiff.html#sparse-files
    """
    if reader.driver != "GTiff":
        return False
    height, width = reader.block_shapes[0]
    rows = range(window.row_off // height, (window.row_off + window.height - 1) // height + 1)
    cols = range(window.col_off // width, (window.col_off + window.width - 1) // width + 1)
    bands = reader.indexes if reader.profile.get("interleave") == "band" else (1,)
    for band in bands:
        for name in (f"BLOCK_OFFSET_{x}_{y}" for y in rows for x in cols):
            if reader.get_tag_item(name, "TIFF", bidx=band) is not None:
                return False
    first = RasterWindow(window.col_off, window.row_off, 1, 1)  # whatever GDAL fills in is its own business
    return not np.any(reader.dataset_mask(window=first))
