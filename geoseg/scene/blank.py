"""Where a raster holds nothing, told without decoding its pixels.

No source of a GDAL virtual raster (VRT) lies there, by its own XML (https://gdal.org/drivers/raster/vrt.html), or the
TIFF tiles hold nothing, by their bytes: the same bytes of one file decode to the same pixels. Files without data at
their borders repeat a handful of tiles that compress to a few hundred bytes. Each of them is decoded once.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise, product
from pathlib import Path
from typing import BinaryIO
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from geoseg.scene.mask import read_valid

MASK_ROWS = 512
"""Rows of a mask looked at together; where one of them is valid, the rest need no look."""

PLAIN = {None, "VRTSourcedRasterBand"}
"""Kinds of bands that hold what their sources hold and nothing else."""

Boxes = NDArray[np.float64]
"""`(source, 4)`: first column and row, last column and row plus one."""

LARGEST_TILE = 16_384
"""Bytes of the largest tile that is looked at; larger ones hold something."""

MOST_KNOWN = 256
"""Different tiles that are remembered of a raster."""

Place = tuple[int, int]
"""Row and column in the grid of tiles."""

Content = tuple[bytes, ...]
"""A tile's bytes, of every band where bands lie apart; empty where it was never written and GDAL fills it in."""

_boxes_of: WeakKeyDictionary[rasterio.DatasetReader, Boxes | None] = WeakKeyDictionary()

_known: WeakKeyDictionary[rasterio.DatasetReader, dict[Content, bool]] = WeakKeyDictionary()
"""Whether tiles hold nothing."""


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
        first = RasterWindow(window.col_off, window.row_off, 1, 1)
        return not _has_valid(reader, first)  # GDAL fills such a window with one value, valid or not
    if not is_overview and flags & {MaskFlags.nodata, MaskFlags.alpha} and hold_nothing(reader, window):
        return True
    return MaskFlags.nodata not in flags and not _has_valid(reader, window)


def _has_valid(reader: rasterio.DatasetReader, window: RasterWindow) -> bool:
    stop = window.row_off + window.height
    edges = [window.row_off, *range((window.row_off // MASK_ROWS + 1) * MASK_ROWS, stop, MASK_ROWS), stop]
    return any(
        read_valid(reader, RasterWindow(window.col_off, top, window.width, bottom - top)).any()
        for top, bottom in pairwise(edges)
    )


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


def hold_nothing(reader: rasterio.DatasetReader, window: RasterWindow) -> bool:
    """Return True where no TIFF tile of a window holds anything valid; False where one does, or may.

    Tiles that were never written (`SPARSE_OK`) are known of remote files too, others of local files.
    https://gdal.org/en/stable/drivers/raster/gtiff.html#sparse-files

    Args:
        reader: The raster in its full resolution; its own pixels say what is valid, by a nodata value or alpha.
        window: Rows and columns.
    """
    if reader.driver != "GTiff":
        return False
    return all(_are_blank(reader, tiles_under(reader, window)))


def tiles_under(reader: rasterio.DatasetReader, window: RasterWindow) -> Iterator[Place]:
    """Yield the TIFF tiles under a window, row by row."""
    height, width = reader.block_shapes[0]
    rows = range(window.row_off // height, (window.row_off + window.height - 1) // height + 1)
    cols = range(window.col_off // width, (window.col_off + window.width - 1) // width + 1)
    return product(rows, cols)


def tile_counts(reader: rasterio.DatasetReader) -> tuple[int, int]:
    """Return how many rows and columns of TIFF tiles there are."""
    height, width = reader.block_shapes[0]
    return -(-reader.height // height), -(-reader.width // width)


def find_data(reader: rasterio.DatasetReader) -> NDArray[np.bool_]:
    """Return which TIFF tiles hold anything valid, or may, `(row, column)` of the grid of tiles.

    Args:
        reader: As for `hold_nothing`; a GeoTIFF.
    """
    rows, cols = tile_counts(reader)
    blank = np.fromiter(_are_blank(reader, product(range(rows), range(cols))), np.bool_, count=rows * cols)
    return ~blank.reshape(rows, cols)


def _are_blank(reader: rasterio.DatasetReader, places: Iterable[Place]) -> Iterator[bool]:
    bands = reader.indexes if reader.profile.get("interleave") == "band" else (1,)
    with ExitStack() as stack:
        file = _Bytes(reader, stack)
        for place in places:
            yield _is_blank(reader, place, file.content(place, bands))


def _is_blank(reader: rasterio.DatasetReader, place: Place, content: Content | None) -> bool:
    if content is None:
        return False
    known = _known.setdefault(reader, {})
    if content not in known and len(known) < MOST_KNOWN:
        height, width = reader.block_shapes[0]
        row, col = place[0] * height, place[1] * width
        tile = RasterWindow(col, row, min(width, reader.width - col), min(height, reader.height - row))
        known[content] = not read_valid(reader, tile).any()
    return known.get(content, False)


class _Bytes:
    """The bytes of a file's tiles as they are stored."""

    def __init__(self, reader: rasterio.DatasetReader, stack: ExitStack) -> None:
        self.reader, self.stack = reader, stack
        self.file: BinaryIO | None = None

    def content(self, place: Place, bands: Sequence[int]) -> Content | None:
        """Return a tile's bytes; None where they are too many, or not on this machine."""
        found = [self._read(place, band) for band in bands]
        return tuple(part for part in found if part is not None) if None not in found else None

    def _read(self, place: Place, band: int) -> bytes | None:
        offset, size = (
            self.reader.get_tag_item(f"BLOCK_{fact}_{place[1]}_{place[0]}", "TIFF", bidx=band)
            for fact in ("OFFSET", "SIZE")
        )
        if offset is None:
            return b""
        if size is None or int(size) > LARGEST_TILE or not self._open():
            return None
        assert self.file is not None
        self.file.seek(int(offset))
        return self.file.read(int(size))

    def _open(self) -> bool:
        path = Path(self.reader.name)
        if self.file is None and path.is_file():
            self.file = self.stack.enter_context(path.open("rb", buffering=0))
        return self.file is not None
