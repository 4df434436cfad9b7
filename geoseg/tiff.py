"""Where a TIFF ends, by its own directories: GDAL opens a file that was cut short, and may lose its mask in silence."""

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

OFFSETS = (273, 324)
"""Tags of the places of strips and of tiles."""
BYTE_COUNTS = (279, 325)
SUBFILE_TYPE, MASK_OF_IMAGE = 254, 4
TYPES = {3: "u2", 4: "u4", 16: "u8"}
"""SHORT, LONG and LONG8 of TIFF 6.0 and BigTIFF."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a TIFF writes its numbers: byte order, and the sizes of BigTIFF or of the classic one."""

    order: Literal["<", ">"]
    is_big: bool

    def unpack(self, classic: str, big: str, content: bytes) -> tuple[int, ...]:
        """Unpack numbers from the start of `content`."""
        return struct.unpack_from(self.order + (big if self.is_big else classic), content)


@dataclass(frozen=True, slots=True)
class Field:
    """A directory's field: type, number of values, where the values lie in the file."""

    type: int
    count: int
    place: int


def promised_size(path: str | Path) -> int:
    """Return the size that a TIFF must have to hold its directories and the strips or tiles of each of them.

    Images, overviews and masks are followed; nothing that would lie beyond the end of the file is.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        head = file.read(16)
        if len(head) < 16:
            return 16
        layout = _layout_of(head)
        first = layout.unpack("4xI", "8xQ", head)[0]
        return max((end for end in _ends(file, layout, first, size)), default=16)


def has_mask_directory(file: BinaryIO) -> bool:
    """Tell whether a TIFF holds the mask of its image: a directory that says so (TIFF 6.0, tag 254, bit 2).

    Raises:
        ValueError: If it is no TIFF, or its directories cannot be followed.
    """
    file.seek(0)
    head = file.read(16)
    if head[:2] not in (b"II", b"MM") or len(head) < 16:
        raise ValueError("no TIFF")
    layout = _layout_of(head)
    offset, seen = layout.unpack("4xI", "8xQ", head)[0], set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        end = _directory_end(file, layout, offset, sys.maxsize)
        fields, offset = _read_directory(file, layout, offset, end)
        kind = fields.get(SUBFILE_TYPE)
        if kind is not None and int(_read_values(file, layout, kind)[0]) == MASK_OF_IMAGE:
            return True
    return False


def _layout_of(head: bytes) -> Layout:
    order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
    return Layout(order, struct.unpack(f"{order}H", head[2:4]) == (43,))


def _ends(file: BinaryIO, layout: Layout, offset: int, size: int) -> Iterator[int]:
    """Yield the end of every directory and of everything it points to."""
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        end = _directory_end(file, layout, offset, size)
        yield end
        if end > size:
            return
        fields, offset = _read_directory(file, layout, offset, end)
        for places, counts in zip(OFFSETS, BYTE_COUNTS, strict=True):
            yield _data_end(file, layout, fields.get(places), fields.get(counts), size)


def _directory_end(file: BinaryIO, layout: Layout, offset: int, size: int) -> int:
    head, entry, link = (8, 20, 8) if layout.is_big else (2, 12, 4)
    if offset + head > size:
        return offset + head
    file.seek(offset)
    return int(offset + head + layout.unpack("H", "Q", file.read(head))[0] * entry + link)


def _read_directory(file: BinaryIO, layout: Layout, offset: int, end: int) -> tuple[dict[int, Field], int]:
    """Return a directory's fields by tag, and the offset of the next directory."""
    head, entry, link = (8, 20, 8) if layout.is_big else (2, 12, 4)
    file.seek(offset)
    content = file.read(end - offset)
    fields = {}
    for at in range(head, len(content) - link, entry):
        tag, kind, count, value = layout.unpack("HHII", "HHQQ", content[at : at + entry])
        room = 8 if layout.is_big else 4
        is_inline = kind in TYPES and np.dtype(TYPES[kind]).itemsize * count <= room
        fields[tag] = Field(kind, count, offset + at + entry - room if is_inline else value)
    return fields, layout.unpack("I", "Q", content[-link:])[0]


def _data_end(file: BinaryIO, layout: Layout, places: Field | None, counts: Field | None, size: int) -> int:
    """Return the end of the last strip or tile; the end of their table where that lies beyond the file."""
    if places is None or counts is None:
        return 0
    table_end = max(field.place + field.count * _type_of(field).itemsize for field in (places, counts))
    if table_end > size:
        return table_end
    starts, lengths = (_read_values(file, layout, field) for field in (places, counts))
    return int((starts + lengths)[starts > 0].max(initial=0))


def _type_of(field: Field) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype(TYPES.get(field.type, "u4"))


def _read_values(file: BinaryIO, layout: Layout, field: Field) -> NDArray[np.int64]:
    dtype = _type_of(field).newbyteorder(layout.order)
    file.seek(field.place)
    return np.frombuffer(file.read(field.count * dtype.itemsize), dtype).astype(np.int64)
