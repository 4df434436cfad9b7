"""Compressed TIFF tiles in the order of their making, until all are there and their order in the COG is known."""

from contextlib import suppress
from dataclasses import dataclass
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
    """A file that is written at its end and read anywhere."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        self._path, self._end = path, 0
        self._file = path.open("w+b", buffering=BUFFER_BYTES)

    def append(self, data: bytes) -> int:
        """Write bytes and return their place."""
        place = self._end
        self._file.seek(place)
        self._file.write(data)
        self._end += len(data)
        return place

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that were written before."""
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise OSError(f"{self._path} ends at {offset + len(data)}, expected {size} bytes from {offset}")
        return data

    def close(self) -> None:
        """Give the file back; what was not written yet is of no value any more."""
        with suppress(OSError):
            self._file.close()
