"""Masks that a server did not hand out: GDAL then opens a remote TIFF without its mask, and says nothing."""

import io
import struct
from urllib.parse import urlparse

from geoseg.errors import MissingFileError
from geoseg.io.store import read_range
from geoseg.tiff import has_mask_directory

PIECE = 1 << 14
"""Bytes fetched at a time: the directories of a COG lie in the first piece."""


class RangeFile(io.RawIOBase):
    """A remote file, read in pieces that are fetched once."""

    def __init__(self, url: str) -> None:
        """Begin at the start of a file over HTTP or S3."""
        self.url, self.at, self.pieces = url, 0, dict[int, bytes]()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte, from the start."""
        self.at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes."""
        first, last = self.at // PIECE, (self.at + size - 1) // PIECE
        content = b"".join(self._piece(number) for number in range(first, last + 1))
        start = self.at - first * PIECE
        self.at += size
        return content[start : start + size]

    def _piece(self, number: int) -> bytes:
        if number not in self.pieces:
            self.pieces[number] = read_range(self.url, number * PIECE, (number + 1) * PIECE)
        return self.pieces[number]


def check_mask(path: str) -> None:
    """Refuse a remote TIFF in which GDAL found no mask although there is one.

    Raises:
        MissingFileError: If there is one, or the server does not let see whether there is.
    """
    url = _url_of(path)
    if url is None:
        return
    try:
        is_lost = has_mask_directory(RangeFile(url))  # type: ignore[arg-type]  # reads and seeks, as is needed
    except (ValueError, struct.error, IndexError) as err:
        raise _refusal(path, str(err)) from err
    if is_lost:
        raise _refusal(path, "it has a mask that the server did not hand out")


def _url_of(path: str) -> str | None:
    """Return the address behind GDAL's names; None where only GDAL reaches it."""
    if urlparse(path).scheme in ("http", "https", "s3"):
        return path
    if path.startswith("/vsicurl/http"):
        return path.removeprefix("/vsicurl/")
    return f"s3://{path.removeprefix('/vsis3/')}" if path.startswith("/vsis3/") else None


def _refusal(path: str, found: str) -> MissingFileError:
    return MissingFileError(
        f"{path} cannot be opened whole ({found}). The server was busy or broke off: try again, or copy the file."
    )
