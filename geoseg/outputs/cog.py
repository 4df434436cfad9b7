"""Cloud optimized GeoTIFFs, byte for byte: directories first, then tiles, the smallest overview before the larger ones.

The layout is that of GDAL's COG driver, so that its readers need no second request per tile
(https://gdal.org/drivers/raster/cog.html, section "Layout"). Tiles without data are not stored: their place and size
are 0 ("sparse files", https://gdal.org/drivers/raster/gtiff.html).
"""

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.outputs.tiles import TILE_PX, TileTable

CLASSIC_LIMIT = 2**32
"""A file of this size or more is a BigTIFF: 32 bits are not enough for its places."""

GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
"""GDAL's promises about the layout; its last space lets an editor write YES."""

SHORT, LONG, LONG8 = 3, 4, 16
SUBFILE, WIDTH, HEIGHT, OFFSETS, SIZES = 254, 256, 257, 324, 325
BITS, COMPRESSION, SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, FORMAT = 258, 259, 277, 284, 317, 322, 323, 339
FORMATS = {SHORT: "<u2", LONG: "<u4", LONG8: "<u8"}
COMMON = (262, 320, 42113)
"""Photometry, colors and no data: said of the overviews as well."""


class Entry(NamedTuple):
    """An entry of a TIFF directory.

    Attributes:
        code: Which one.
        kind: TIFF's number of the type of its values.
        length: Number of values.
        data: The values, little endian.
    """

    code: int
    kind: int
    length: int
    data: bytes


def write_cog(
    path: Path,
    entries: Iterable[Entry],
    tables: Sequence[TileTable],
    read: Callable[[int, int], bytes],
    *,
    predict: bool,
) -> None:
    """Write a COG of one band of uint8 pixels, and have the disk confirm it.

    Args:
        path: The file.
        entries: What `read_entries` tells of the raster: place, colors, description.
        tables: Where the tiles are, full resolution first.
        read: Returns a tile's bytes by its offset and size in the tables.
        predict: See `encode_tile`.

    Raises:
        OSError: If it cannot be written in full.
    """
    head, size = _plan_file(sorted(entries), tables, predict=predict)
    with path.open("wb", buffering=2**20) as file:
        file.write(head)
        for table in reversed(tables):
            stored = table.sizes > 0
            for offset, length in zip(table.offsets[stored].tolist(), table.sizes[stored].tolist(), strict=True):
                data = read(offset, length)
                file.write(b"".join((struct.pack("<I", length), data, data[-4:])))  # as GHOST promises
        file.flush()
        os.fsync(file.fileno())
        if file.tell() != size:
            raise OSError(f"{file.tell()} bytes instead of {size}")


def read_entries(tiff: bytes, codes: Iterable[int]) -> list[Entry]:
    """Return the wanted entries of the first directory of a classic little-endian TIFF."""
    (start,) = struct.unpack_from("<4xI", tiff)
    (count,) = struct.unpack_from("<H", tiff, start)
    wanted, found = set(codes), []
    for at in range(start + 2, start + 2 + 12 * count, 12):
        code, kind, length = struct.unpack_from("<HHI", tiff, at)
        size = length * {1: 1, 2: 1, SHORT: 2, LONG: 4, 5: 8, 12: 8, LONG8: 8}[kind]
        place = at + 8 if size <= 4 else struct.unpack_from("<I", tiff, at + 8)[0]
        if code in wanted:
            found.append(Entry(code, kind, length, tiff[place : place + size]))
    return found


def _plan_file(entries: Sequence[Entry], tables: Sequence[TileTable], *, predict: bool) -> tuple[bytes, int]:
    """Return everything before the first tile, and the size of the whole file."""
    for is_big in (False, True):
        places = [np.zeros(table.sizes.shape, np.int64) for table in tables]
        end = len(_head(_directories(entries, tables, places, predict=predict, is_big=is_big), is_big=is_big))
        for level, table in reversed(list(enumerate(tables))):
            room = np.where(table.sizes > 0, table.sizes.astype(np.int64) + 8, 0)
            ends = end + np.cumsum(room).reshape(room.shape)
            places[level] = np.where(table.sizes > 0, ends - room + 4, 0)
            end = int(ends[-1, -1])
        if is_big or end < CLASSIC_LIMIT:
            break
    return _head(_directories(entries, tables, places, predict=predict, is_big=is_big), is_big=is_big), end


def _directories(
    entries: Sequence[Entry],
    tables: Sequence[TileTable],
    places: Sequence[NDArray[np.int64]],
    *,
    predict: bool,
    is_big: bool,
) -> list[list[Entry]]:
    """Return the entries of every level's directory, in the order of their codes."""
    # Tiles of one band of uint8, compressed by DEFLATE (8).
    values = {BITS: 8, COMPRESSION: 8, SAMPLES: 1, PLANAR: 1, PREDICTOR: 2 if predict else 1, FORMAT: 1}
    values |= {TILE_WIDTH: TILE_PX, TILE_HEIGHT: TILE_PX}
    directories = []
    for level, (table, place) in enumerate(zip(tables, places, strict=True)):
        height, width = table.shape
        directory = [entry for entry in entries if level == 0 or entry.code in COMMON]
        directory += [_numbers(code, SHORT, value) for code, value in values.items()]
        directory += [_numbers(WIDTH, LONG, width), _numbers(HEIGHT, LONG, height)]
        directory += [_numbers(OFFSETS, LONG8 if is_big else LONG, place), _numbers(SIZES, LONG, table.sizes)]
        directory += [_numbers(SUBFILE, LONG, 1)] if level else []
        directories.append(sorted(directory))
    return directories


def _numbers(code: int, kind: int, values: int | NDArray[np.int64] | NDArray[np.uint32]) -> Entry:
    array = np.atleast_1d(values)
    return Entry(code, kind, array.size, array.astype(FORMATS[kind]).tobytes())


def _head(directories: Sequence[Sequence[Entry]], *, is_big: bool) -> bytes:
    """Return header, promises, all directories, and behind them the tables of the tiles, which only few tiles need."""
    room, count, number, fixed, each = (8, "<Q", "<Q", 16, 20) if is_big else (4, "<H", "<I", 6, 12)
    ghost = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(GHOST) + GHOST
    first = _aligned((16 if is_big else 8) + len(ghost))
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if is_big else struct.pack("<2sHI", b"II", 42, first)
    head, starts = (header + ghost).ljust(first, b"\0"), [first]
    for directory in directories:
        outside = [len(e.data) for e in directory if len(e.data) > room and e.code not in (OFFSETS, SIZES)]
        starts.append(starts[-1] + _aligned(fixed + each * len(directory)) + sum(map(_aligned, outside)))
    tables = bytearray()
    for directory, start, following in zip(directories, starts, [*starts[1:-1], 0], strict=False):
        listed, values = struct.pack(count, len(directory)), bytearray()
        values_start = start + _aligned(fixed + each * len(directory))
        for entry in directory:
            value = entry.data
            if len(value) > room:
                target, origin = (tables, starts[-1]) if entry.code in (OFFSETS, SIZES) else (values, values_start)
                value = struct.pack(number, origin + len(target))
                target += entry.data.ljust(_aligned(len(entry.data)), b"\0")
            listed += struct.pack("<HHQ" if is_big else "<HHI", entry.code, entry.kind, entry.length)
            listed += value.ljust(room, b"\0")
        listed += struct.pack(number, following)
        head += listed.ljust(values_start - start, b"\0") + bytes(values)
    return head + bytes(tables)


def _aligned(size: int) -> int:
    """Round up to whole words of eight bytes."""
    return -(-size // 8) * 8
