"""Which pixels of a raster are valid, and where none is, without decoding the pixels.

Mask band, alpha band and nodata values all count. Where there are nodata values, GDAL ignores the alpha band, and
rasterio's `dataset_mask` reads only the last of four bands, be it alpha or infrared
(https://github.com/rasterio/rasterio, `DatasetReader.dataset_mask`).

Nothing is valid where no source of a GDAL virtual raster (VRT) lies, according to its XML
(https://gdal.org/drivers/raster/vrt.html), or where all TIFF tiles are empty, by their bytes: equal bytes in one
file decode to equal pixels. Files without data along their borders repeat a handful of tiles that compress to a few
hundred bytes, and each of these is decoded once.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby, pairwise, product
from pathlib import Path
from typing import BinaryIO
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning
from rasterio.windows import Window as RasterWindow

from geoseg.third_party import ignore_warnings

MASK_ROWS = 512
"""Rows of a mask read at a time; once something valid is found, the rest is not read."""

PLAIN = {None, "VRTSourcedRasterBand"}
"""Kinds of VRT bands that consist of their sources and nothing else."""

Boxes = NDArray[np.float64]
"""`(source, 4)`: first column and row, last column and row plus one."""

LARGEST_TILE = 16_384
"""Bytes of the largest tile that is compared; larger ones are assumed to have data."""

MOST_KNOWN = 256
"""Different tiles that are remembered of a raster."""

MOST_TILES = 500_000
"""Most TIFF tiles of a file that are all checked, some microseconds each: 130 Gpx at 512 x 512."""

Place = tuple[int, int]
"""Row and column in the grid of tiles."""

Content = tuple[bytes, ...]
"""A tile's bytes, of every band where bands lie apart; empty where it was never written and GDAL fills it in."""

_boxes_of: WeakKeyDictionary[rasterio.DatasetReader, Boxes | None] = WeakKeyDictionary()

_known: WeakKeyDictionary[rasterio.DatasetReader, dict[Content, bool]] = WeakKeyDictionary()
"""Whether tiles are empty, by their bytes."""


def read_valid(
    reader: rasterio.DatasetReader, window: RasterWindow, *, uses_nodata: bool = True, uses_alpha: bool = True
) -> NDArray[np.bool_]:
    """Return the `(y, x)` valid mask of a window.

    With nodata values a pixel is valid where any band but alpha has another value, and alpha is not 0.

    Args:
        reader: The raster.
        window: Rows and columns.
        uses_nodata: Whether the file's nodata values count.
        uses_alpha: Whether a band that is marked alpha counts.
    """
    flags = {flag for band in reader.mask_flag_enums for flag in band}
    if MaskFlags.nodata not in flags and (uses_alpha or MaskFlags.alpha not in flags):
        return np.asarray(reader.dataset_mask(window=window) > 0)
    marked = (band for band, c in zip(reader.indexes, reader.colorinterp, strict=True) if c == ColorInterp.alpha)
    alpha = list(marked) if uses_alpha else []
    uses_nodata &= MaskFlags.nodata in flags
    valid = np.full((window.height, window.width), not uses_nodata)
    with ignore_warnings(NodataShadowWarning):
        for band in set(reader.indexes) - set(alpha) if uses_nodata else ():
            valid |= reader.read_masks(band, window=window) > 0
    for band in alpha:
        valid &= reader.read(band, window=window) > 0
    return valid


def is_blank(reader: rasterio.DatasetReader, window: RasterWindow, *, is_overview: bool = False) -> bool:
    """Return True if nothing in a window is valid; False if something is, or only the pixels could tell.

    Empty is what no source of a VRT covers, and TIFF tiles that were never written or that repeat one known to be
    empty. A mask or alpha band is read until something valid is found; nodata values are in the pixels themselves. Only
    the raster that is to be read is checked: overviews of its mask are made with other filters and may miss a pixel.

    Args:
        reader: The raster that is to be read.
        window: Rows and columns.
        is_overview: The raster is an overview, whose tiles and sources GDAL does not report.
    """
    flags = {flag for band in reader.mask_flag_enums for flag in band}
    boxes = source_boxes(reader) if not is_overview else None
    if boxes is not None:
        left, top, right, bottom = boxes.T
        inside = (left < window.col_off + window.width) & (right > window.col_off)
        inside &= (top < window.row_off + window.height) & (bottom > window.row_off)
        if not inside.any():  # GDAL fills such a window with one value, valid or not
            return not read_valid(reader, RasterWindow(window.col_off, window.row_off, 1, 1)).any()
    tells = reader.driver == "GTiff" and not is_overview and flags & {MaskFlags.nodata, MaskFlags.alpha}
    if tells and all(_are_blank(reader, tiles_under(reader, window))):
        return True
    if MaskFlags.nodata in flags:
        return False
    stop = window.row_off + window.height
    edges = [window.row_off, *range((window.row_off // MASK_ROWS + 1) * MASK_ROWS, stop, MASK_ROWS), stop]
    parts = (RasterWindow(window.col_off, top, window.width, bottom - top) for top, bottom in pairwise(edges))
    return not any(read_valid(reader, part).any() for part in parts)


def source_boxes(reader: rasterio.DatasetReader) -> Boxes | None:
    """Return where the sources of a VRT lie, in whole pixels; None if that is not known, or it is not a VRT."""
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


def tiles_under(reader: rasterio.DatasetReader, window: RasterWindow) -> Iterator[Place]:
    """Yield the TIFF tiles under a window, row by row."""
    height, width = reader.block_shapes[0]
    rows = range(window.row_off // height, (window.row_off + window.height - 1) // height + 1)
    cols = range(window.col_off // width, (window.col_off + window.width - 1) // width + 1)
    return product(rows, cols)


def _are_blank(reader: rasterio.DatasetReader, places: Iterable[Place]) -> Iterator[bool]:
    """Yield for each TIFF tile whether nothing in it is valid; False where that is not known.

    Tiles that were never written (`SPARSE_OK`) are recognized in remote files too, others in local files only.
    https://gdal.org/en/stable/drivers/raster/gtiff.html#sparse-files

    Args:
        reader: The raster in its full resolution; a nodata value or alpha tells what is valid.
        places: Which tiles.
    """
    bands = reader.indexes if reader.profile.get("interleave") == "band" else (1,)
    known, path = _known.setdefault(reader, {}), Path(reader.name)
    with path.open("rb", buffering=0) if path.is_file() else nullcontext() as file:
        for place in places:
            content = _stored(reader, place, bands, file)
            if content is None:
                yield False
                continue
            if content not in known and len(known) < MOST_KNOWN:
                height, width = reader.block_shapes[0]
                row, col = place[0] * height, place[1] * width
                tile = RasterWindow(col, row, min(width, reader.width - col), min(height, reader.height - row))
                known[content] = not read_valid(reader, tile).any()
            yield known.get(content, False)


def _stored(
    reader: rasterio.DatasetReader, place: Place, bands: Sequence[int], file: BinaryIO | None
) -> Content | None:
    """Return a tile's bytes as they are stored; None where they are too many, or not on this machine."""
    content = []
    for band in bands:
        offset, size = (
            reader.get_tag_item(f"BLOCK_{fact}_{place[1]}_{place[0]}", "TIFF", bidx=band) for fact in ("OFFSET", "SIZE")
        )
        if offset is None:
            content.append(b"")
            continue
        if size is None or int(size) > LARGEST_TILE or file is None:
            return None
        file.seek(int(offset))
        content.append(file.read(int(size)))
    return tuple(content)


def data_boxes(reader: rasterio.DatasetReader, data_bands: Sequence[int]) -> Boxes | None:
    """Return where data may lie, in pixels of the file; None where that is not known, or everywhere."""
    flags = {tuple(reader.mask_flag_enums[band - 1]) for band in data_bands}
    if len(flags) != 1:
        return None  # bands that disagree about what is valid
    if reader.driver == "VRT":
        sources = source_boxes(reader)
        return None if sources is None else np.unique(sources, axis=0)
    height, width = reader.block_shapes[0]
    rows, cols = math.ceil(reader.height / height), math.ceil(reader.width / width)
    tells = bool({MaskFlags.nodata, MaskFlags.alpha} & set(*flags))
    if reader.driver != "GTiff" or not tells or rows * cols > MOST_TILES:
        return None
    blank = np.fromiter(_are_blank(reader, product(range(rows), range(cols))), np.bool_, count=rows * cols)
    if not blank.any():
        return None
    boxes, top = [], 0  # of runs in a row, joined over equal rows
    for row, alike in groupby(~blank.reshape(rows, cols), key=lambda row: row.tobytes()):
        bottom = top + len(list(alike))
        edges = np.flatnonzero(np.diff(np.frombuffer(row, bool), prepend=False, append=False))
        boxes += [(left, top, right, bottom) for left, right in edges.reshape(-1, 2)]
        top = bottom
    return np.asarray(np.reshape(boxes, (-1, 4)) * (width, height, width, height), np.float64)
