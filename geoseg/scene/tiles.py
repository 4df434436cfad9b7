"""TIFF tiles that hold nothing, told by their bytes: the same bytes of one file decode to the same pixels.

Files without data at their borders repeat a handful of tiles that compress to a few hundred bytes. Each of them is
decoded once.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import BinaryIO
from weakref import WeakKeyDictionary

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from geoseg.scene.valid import read_valid

LARGEST = 16_384
"""Bytes of the largest tile that is looked at; larger ones hold something."""

MOST = 256
"""Different tiles that are remembered of a raster."""

Place = tuple[int, int]
"""Row and column in the grid of tiles."""

Content = tuple[bytes, ...]
"""A tile's bytes, of every band where bands lie apart; empty where it was never written and GDAL fills it in."""

_known: WeakKeyDictionary[rasterio.DatasetReader, dict[Content, bool]] = WeakKeyDictionary()
"""Whether tiles hold nothing."""


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
    if content not in known and len(known) < MOST:
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
        offset, size = (self._ask(f"BLOCK_{fact}_{place[1]}_{place[0]}", band) for fact in ("OFFSET", "SIZE"))
        if offset is None:
            return b""
        if size is None or int(size) > LARGEST or not self._open():
            return None
        assert self.file is not None
        self.file.seek(int(offset))
        return self.file.read(int(size))

    def _ask(self, fact: str, band: int) -> str | None:
        found: str | None = self.reader.get_tag_item(fact, "TIFF", bidx=band)
        return found

    def _open(self) -> bool:
        path = Path(self.reader.name)
        if self.file is None and path.is_file():
            self.file = self.stack.enter_context(path.open("rb", buffering=0))
        return self.file is not None
