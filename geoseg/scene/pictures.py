"""Whether a PNG or JPEG is whole: GDAL reads the missing end of a JPEG as gray, and says nothing."""

from pathlib import Path

from geoseg.errors import TruncatedFileError
from geoseg.io.remote import is_remote

PNG_END = b"IEND"
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"
"""Markers that begin the pixels and end the picture: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1."""


def check_picture(path: str, driver: str) -> None:
    """Refuse a local PNG or JPEG that was cut short.

    Raises:
        TruncatedFileError: If it was.
    """
    if driver not in ("PNG", "JPEG") or is_remote(path) or not Path(path).is_file():
        return
    content = Path(path).read_bytes()
    if PNG_END not in content[-4096:] if driver == "PNG" else JPEG_END not in content[_first_scan(content) :]:
        raise TruncatedFileError(f"{path} is cut short: the mark of its end is missing. Copy or download it again.")


def _first_scan(content: bytes) -> int:
    """Return where the pixels of a JPEG begin, behind the segments of its header, which may hold a small JPEG."""
    at = 2
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != JPEG_SCAN:
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return at
