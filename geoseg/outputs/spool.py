"""Compressed TIFF tiles in the order of their making, until all are there and their order in the COG is known."""

from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BUFFER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class TileTable:
    """Where a level's tiles lie in the spool.

    Attributes:
        shape: Height and width of the level in pixels.
        offsets: `(tile row, tile column)` int64.
        sizes: `(tile row, tile column)` uint32; 0 where a tile has no data and is not stored.
    """

    shape: tuple[int, int]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]


class Spool:
    """A file that is written at its end, and read anywhere once all is written."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        self._path, self._end = path, 0
        self._written = path.open("wb", buffering=BUFFER_BYTES)
        self._read: FileIO | None = None

    def append(self, data: bytes) -> int:
        """Write bytes and return their place."""
        place = self._end
        self._written.write(data)
        self._end += len(data)
        return place

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that were written before; nothing may be appended after."""
        if self._read is None:
            self._written.close()
            self._read = FileIO(self._path)
        self._read.seek(offset)
        data = self._read.read(size)
        if len(data) != size:
            raise OSError(f"{self._path} ends at {offset + len(data)}, expected {size} bytes from {offset}")
        return data

    def close(self) -> None:
        """Give the file back; what was not written yet is of no value any more."""
        with suppress(OSError):
            self._written.close()
        if self._read is not None:
            self._read.close()
