"""TIFF tiles on their way into a COG: encoded, waiting for the rest of their pixels, or spooled.

Of those that wait the newest are in memory and the others in a file. Those that are encoded are in another file, in the
order in which they were made, until all are there and their order in the COG is known.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

TILE_PX = 512
"""Height and width of a TIFF tile."""

MEMORY_LEVEL = 7
"""zlib's for the tables of its compressor: a fifth faster than 8 or 9 on masks of buildings, and no larger."""

BUFFER_BYTES = 2**20


def encode_tile(pixels: NDArray[np.uint8], *, predict: bool) -> bytes:
    """Return the compressed bytes of a TIFF tile (https://www.awaresystems.be/imaging/tiff/tifftags/predictor.html).

    DEFLATE looks for repeated values alone (zlib's Z_RLE), after the difference of neighbors if `predict`. Time and
    size per pixel, those of zlib's default in brackets: masks of buildings 1.9 ns (7.2) and 0.21 bit (0.19),
    probabilities of a network 4.7 ns (21.6) and 1.53 bit (1.43).

    Args:
        pixels: `(y, x)` uint8.
        predict: Store each pixel's difference to the one on its left: TIFF's predictor 2.
    """
    stored = pixels.copy()
    if predict:
        np.subtract(pixels[:, 1:], pixels[:, :-1], out=stored[:, 1:])
    deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, zlib.MAX_WBITS, MEMORY_LEVEL, zlib.Z_RLE)
    return deflate.compress(stored.data) + deflate.flush()


@cache
def encode_uniform(value: int, *, predict: bool) -> bytes:
    """Return the bytes of a TIFF tile of one value; at most 2 x 256 of them are kept, of about 300 bytes each."""
    return encode_tile(np.full((TILE_PX, TILE_PX), value, np.uint8), predict=predict)


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
        """Close the file; what was not written yet is not needed any more."""
        with suppress(OSError):
            self._written.close()
        if self._read is not None:
            self._read.close()


class Key(NamedTuple):
    """A TIFF tile: its overview level (0 is full resolution), its row and its column."""

    level: int
    row: int
    col: int


class PendingTiles:
    """Stacks of TIFF tiles under construction, and how much each still waits for.

    A scene 100,000 px wide has rows of 196 tiles on borders between blocks. Only `memory` bytes of them are held; the
    ones touched longest ago lie in a file whose places are used again, so that it too grows with the width alone.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], *, memory: int) -> None:
        """Hold stacks of `(raster, y, x)` pixels; the file is made when it is first needed."""
        self._path, self._shape = path, shape
        self._size = int(np.prod(shape))
        self._limit = max(1, memory // self._size)
        self._waiting: dict[Key, int] = {}
        self._stacks: OrderedDict[Key, NDArray[np.uint8]] = OrderedDict()
        self._places: dict[Key, int] = {}
        self._free: list[int] = []
        self._file: BinaryIO | None = None

    def take(self, key: Key) -> tuple[NDArray[np.uint8], int] | None:
        """Remove and return a stack and how many pixels or tiles it waits for; None if there is no such stack."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return None
        stack = self._stacks.pop(key, None)
        return self._read(self._places.pop(key)) if stack is None else stack, waiting

    def keep(self, key: Key, stack: NDArray[np.uint8], waiting: int) -> None:
        """Hold a stack until the next of its pixels come."""
        self._waiting[key] = waiting
        self._stacks[key] = stack
        if len(self._stacks) > self._limit:
            oldest, values = self._stacks.popitem(last=False)
            self._places[oldest] = self._write(values)

    def select(self, is_wanted: Callable[[Key], bool]) -> list[Key]:
        """Return the keys that are wanted, in order."""
        return sorted(key for key in self._waiting if is_wanted(key))

    def close(self) -> None:
        """Close the file; its contents are not needed any more."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _write(self, stack: NDArray[np.uint8]) -> int:
        if self._file is None:
            self._file = self._path.open("w+b")
        place = self._free.pop() if self._free else len(self._places)
        self._file.seek(place * self._size)
        self._file.write(stack.tobytes())
        return place

    def _read(self, place: int) -> NDArray[np.uint8]:
        assert self._file is not None
        stack = np.empty(self._shape, np.uint8)
        self._file.seek(place * self._size)
        if self._file.readinto(stack.data) != self._size:  # type: ignore[attr-defined]
            raise OSError(f"{self._path} is shorter than what was written to it")
        self._free.append(place)
        return stack
