"""Where no source of a GDAL virtual raster (VRT) lies, by its own XML (https://gdal.org/drivers/raster/vrt.html)."""

from weakref import WeakKeyDictionary
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

PLAIN = {None, "VRTSourcedRasterBand"}
"""Kinds of bands that hold what their sources hold and nothing else."""

Boxes = NDArray[np.float64]
"""`(source, 4)`: first column and row, last column and row plus one."""

_boxes_of: WeakKeyDictionary[rasterio.DatasetReader, Boxes | None] = WeakKeyDictionary()


def is_uncovered(reader: rasterio.DatasetReader, window: RasterWindow) -> bool:
    """Return True where a raster is a VRT and none of its sources reaches a window; False where that is not known.

    Args:
        reader: The raster in its full resolution.
        window: Rows and columns.
    """
    boxes = source_boxes(reader)
    if boxes is None:
        return False
    left, top, right, bottom = boxes.T
    inside = (left < window.col_off + window.width) & (right > window.col_off)
    inside &= (top < window.row_off + window.height) & (bottom > window.row_off)
    return not inside.any()


def source_boxes(reader: rasterio.DatasetReader) -> Boxes | None:
    """Return where the sources of a VRT lie, in whole pixels; None where that is not known, or it is no VRT."""
    if reader.driver != "VRT":
        return None
    if reader not in _boxes_of:
        _boxes_of[reader] = _read_boxes(reader)
    return _boxes_of[reader]


def _read_boxes(reader: rasterio.DatasetReader) -> Boxes | None:
    """Return where the sources of all bands and of the mask lie, in whole pixels; None where unknown."""
    root = ElementTree.fromstring(reader.tags(ns="xml:VRT")["xml:VRT"])
    bands = list(root.iter("VRTRasterBand"))
    if root.get("subClass") is not None or not all(band.get("subClass") in PLAIN for band in bands):
        return None  # warped, pan-sharpened, computed by a function
    if reader.mask_flag_enums[0] == [MaskFlags.per_dataset] and root.find("MaskBand") is None:
        return None  # a mask beside the VRT
    boxes = []
    for source in (element for band in bands for element in band if element.tag.endswith("Source")):
        place = source.find("DstRect")
        if place is None:
            return None
        left, top, width, height = (float(place.get(key, "nan")) for key in ("xOff", "yOff", "xSize", "ySize"))
        boxes.append((left, top, left + width, top + height))
    found = np.array(boxes, dtype=float).reshape(-1, 4)
    if not np.isfinite(found).all():
        return None
    return np.column_stack((np.floor(found[:, :2]), np.ceil(found[:, 2:])))
