"""Whether a TIFF is whole, by its own directories.

GDAL opens a local file that was cut short, and a remote one without its mask where the server does not hand out the
mask's directory, and does not say so.
"""

import logging
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import MissingFileError, NotARasterError, TruncatedFileError
from geoseg.io.remote import is_remote, open_remote

log = logging.getLogger("geoseg.scene")

OFFSETS = (273, 324)
"""Tags of the places of strips and of tiles."""
BYTE_COUNTS = (279, 325)
SUBFILE_TYPE, MASK_OF_IMAGE = 254, 4
IMAGE_TAGS = {256: 0, 257: 0, 258: 1, 259: 1, 277: 1, 278: 2**32 - 1, 284: 1}
"""Tags of width, height, bits per sample, compression, samples, rows per strip and planes, with their defaults."""
UNCOMPRESSED, SEPARATE = 1, 2
USUAL_TYPES = {3: "u2", 4: "u4", 16: "u8"}
"""SHORT, LONG and LONG8 of TIFF 6.0 and BigTIFF, in which places and sizes are written."""
TYPES = USUAL_TYPES | {1: "u1", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 17: "i8", 18: "u8"}
"""All types of whole numbers: BYTE, signed ones, and those of places of directories."""

SIZES = {kind: np.dtype(text).itemsize for kind, text in TYPES.items()} | {2: 1, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8}
"""Bytes of a value of each type, of those of texts, fractions and floating-point numbers too."""

FARTHEST = 1 << 40
"""Bytes from which on file systems do not even seek, which libtiff prints."""

HEAD_BYTES = 16

MOST_DIRECTORIES, MOST_FIELDS = 1000, 50_000
"""Directories of a file, and fields in all of them, above which it is damaged: images, overviews and masks are a few
dozen, of some twenty fields each."""


def check_complete(path: str) -> None:
    """Refuse a local TIFF that is shorter than its directories promise.

    Raises:
        TruncatedFileError: If it is.
        NotARasterError: If its directories cannot be followed.
    """
    if is_remote(path) or not Path(path).is_file():
        return
    size = Path(path).stat().st_size
    try:
        end = promised_size(path)
    except (ValueError, struct.error, IndexError) as err:
        raise _damaged(path, err) from err
    if end > size:
        raise TruncatedFileError(
            f"{path} is cut short: its pixels reach to byte {end:,}, but it ends at {size:,}. "
            "Copy or download it again."
        )


def has_unusual_tables(path: str) -> bool:
    """Return True for a local TIFF that gives places or sizes of its strips in a type of which GDAL reads few or none.

    Raises:
        NotARasterError: If its directories cannot be followed.
    """
    if is_remote(path) or not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        try:
            _, fields = next(Tiff.of(file).directories(Path(path).stat().st_size), (0, {}))
        except (ValueError, struct.error, IndexError) as err:
            raise _damaged(path, err) from err
    return any(fields[tag].type not in USUAL_TYPES for tag in (*OFFSETS, *BYTE_COUNTS) if tag in fields)


def check_directories(path: str) -> None:
    """Refuse a local TIFF of absurdly many directories, which GDAL would follow for minutes, or of absurdly far ones.

    Raises:
        NotARasterError: If it is one.
    """
    if is_remote(path) or not Path(path).is_file():
        return
    with Path(path).open("rb") as file, suppress(struct.error, IndexError):  # damage is found when GDAL has opened it
        try:
            tiff = Tiff.of(file)
        except ValueError:
            return
        try:
            for end, fields in tiff.directories(tiff.size):
                farthest = max([end, *(field.place for field in fields.values() if field.type in SIZES)])
                if farthest > max(tiff.size, FARTHEST):
                    raise ValueError(f"it points to byte {farthest:,}, and the file ends at {tiff.size:,}")
        except ValueError as err:
            raise _damaged(path, err) from err


def _damaged(path: str, err: Exception) -> NotARasterError:
    return NotARasterError(
        f"{path} has a damaged directory ({err}). Copy or download it again, or repair it with `gdal_translate`."
    )


def check_mask(path: str) -> None:
    """Refuse a remote TIFF in which GDAL found no mask although there is one.

    Where the server refuses to answer, log a warning.

    Raises:
        MissingFileError: If there is one, or the server does not let us find out.
    """
    if not is_remote(path):
        return
    found, cause = "it has a mask that the server did not hand out", None
    try:
        with open_remote(path) as file:
            if not has_mask_directory(file):  # type: ignore[arg-type]  # reads and seeks, as is needed
                return
    except PermissionError as err:
        log.warning("%s: not checked whether it has a mask, because the server refused to tell (%s).", path, err)
        return
    except (OSError, ValueError, struct.error, IndexError) as err:
        found, cause = str(err), err
    raise MissingFileError(
        f"{path} cannot be opened whole ({found}). The server was busy or disconnected: retry, or copy the file."
    ) from cause


def promised_size(path: str | Path) -> int:
    """Return the size that a TIFF must have to hold its directories and the strips or tiles of each of them.

    Images, overviews and masks are followed, up to the end of the file.

    Raises:
        ValueError: If it is not a TIFF, or its directories cannot be followed.
    """
    size = Path(path).stat().st_size
    if size < HEAD_BYTES:
        return HEAD_BYTES
    with Path(path).open("rb") as file:
        ends, tables = [HEAD_BYTES], 0
        tiff = Tiff.of(file)
        for end, fields in tiff.directories(size):
            ends += end, *(field.end for tag, field in fields.items() if tag in IMAGE_TAGS)
            if max(ends) > size:
                break
            for places, counts in zip(OFFSETS, BYTE_COUNTS, strict=True):
                if places in fields and counts in fields:
                    most = tiff.strip_bytes(fields)
                    ends.append(tiff.data_end(fields[places], fields[counts], size, most=most))
                    tables += sum(fields[tag].count * fields[tag].dtype.itemsize for tag in (places, counts))
                    if size < tables and ends[-1] <= size:
                        raise ValueError("its directories overlap")
        return max(ends)


def has_mask_directory(file: BinaryIO) -> bool:
    """Tell whether a TIFF holds the mask of its image: a directory marked as such (TIFF 6.0, tag 254, bit 2).

    Raises:
        ValueError: If it is not a TIFF, or its directories cannot be followed.
    """
    tiff = Tiff.of(file)
    kinds = (fields[SUBFILE_TYPE] for _, fields in tiff.directories(sys.maxsize) if SUBFILE_TYPE in fields)
    return any(int(tiff.values(kind)[0]) == MASK_OF_IMAGE for kind in kinds)


@dataclass(frozen=True, slots=True)
class Field:
    """A directory's field: type, number of values, where the values lie in the file."""

    type: int
    count: int
    place: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The type of its values."""
        return np.dtype(TYPES.get(self.type, "u4"))

    @property
    def end(self) -> int:
        """Where in the file its values end."""
        return self.place + self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Tiff:
    """An open TIFF: its size, its byte order, whether it is a BigTIFF, where its first directory lies."""

    file: BinaryIO
    size: int
    order: Literal["<", ">"]
    is_big: bool
    first: int

    @classmethod
    def of(cls, file: BinaryIO) -> "Tiff":
        """Read the head of a file.

        Raises:
            ValueError: If it is not a TIFF.
        """
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if head[:2] not in (b"II", b"MM") or len(head) < HEAD_BYTES:
            raise ValueError("not a TIFF")
        order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
        is_big = struct.unpack(f"{order}H", head[2:4]) == (43,)
        return cls(file, size, order, is_big, struct.unpack_from(f"{order}8xQ" if is_big else f"{order}4xI", head)[0])

    def directories(self, size: int) -> Iterator[tuple[int, dict[int, Field]]]:
        """Yield the end of each directory and its fields by tag; one that ends beyond `size` is the last, unread.

        Raises:
            ValueError: If there are absurdly many.
        """
        head, entry, link = ("Q", "HHQQ", "Q") if self.is_big else ("H", "HHII", "I")
        head_size, entry_size, link_size = (struct.calcsize(f"{self.order}{text}") for text in (head, entry, link))
        room = struct.calcsize(f"{self.order}{link}")  # of values that lie in the directory itself
        offset, seen, fields_seen = self.first, set[int](), 0
        while offset and offset not in seen:
            seen.add(offset)
            end = offset + head_size
            if end <= size:
                self.file.seek(offset)
                count = self._unpack(head, self.file.read(head_size))[0]
                end += count * entry_size + link_size
            if end > size:
                yield end, {}
                return
            fields_seen += count
            if len(seen) > MOST_DIRECTORIES or fields_seen > MOST_FIELDS:
                raise ValueError(f"more than {MOST_DIRECTORIES:,} directories or {MOST_FIELDS:,} fields in them")
            content = self.file.read(end - offset - head_size)
            fields = {}
            for at in range(0, len(content) - link_size, entry_size):
                tag, kind, count, value = self._unpack(entry, content[at : at + entry_size])
                is_inline = kind in SIZES and SIZES[kind] * count <= room
                place = offset + head_size + at + entry_size - room if is_inline else value
                fields[tag] = Field(kind, count, place)
            offset = self._unpack(link, content[-link_size:])[0]
            yield end, fields

    def _unpack(self, text: str, content: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self.order + text, content)

    def data_end(self, places: Field, counts: Field, size: int, *, most: NDArray[np.int64] | None = None) -> int:
        """Return the end of the last strip or tile; the end of their table where that lies beyond `size`.

        Args:
            places: The field of their offsets.
            counts: The field of their sizes.
            size: Size of the file.
            most: Bytes of each that its pixels need, if known: some writers give every strip the size of a whole one.

        Raises:
            ValueError: If there are more or fewer sizes than offsets.
        """
        table_end = max(places.end, counts.end)
        if table_end > size:
            return table_end
        starts, lengths = self.values(places), self.values(counts)
        if len(starts) != len(lengths):
            raise ValueError(f"a directory places {len(starts)} strips or tiles and gives the size of {len(lengths)}")
        if most is not None and len(most) == len(lengths):
            lengths = np.minimum(lengths, most)
        return int((starts + lengths)[starts > 0].max(initial=0))

    def strip_bytes(self, fields: Mapping[int, Field]) -> NDArray[np.int64] | None:
        """Return the bytes that the pixels of each strip need; None where they are compressed, or lie in tiles."""
        known = dict(IMAGE_TAGS)
        for tag in IMAGE_TAGS.keys() & fields.keys():
            known[tag] = int(self.values(fields[tag]).max(initial=0))
        width, height, bits, compression, samples, rows, planes = known.values()
        if OFFSETS[0] not in fields or compression != UNCOMPRESSED or min(width, height, bits, samples, rows) < 1:
            return None
        strips = -(-height // rows)
        if fields[OFFSETS[0]].count != strips * (samples if planes == SEPARATE else 1):
            return None
        each = np.full(strips, rows)
        each[-1] = height - rows * (strips - 1)
        row_bytes = -(-width * bits * (1 if planes == SEPARATE else samples) // 8)
        return np.tile(each * row_bytes, samples if planes == SEPARATE else 1)

    def values(self, field: Field) -> NDArray[np.int64]:
        """Read the values of a field.

        Raises:
            ValueError: If they reach beyond the end of the file.
        """
        dtype = field.dtype.newbyteorder(self.order)
        if field.end > self.size:
            raise ValueError(f"a field of {field.count:,} values reaches beyond the end of the file")
        self.file.seek(field.place)
        return np.frombuffer(self.file.read(field.count * dtype.itemsize), dtype).astype(np.int64)
