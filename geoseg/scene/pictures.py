"""Whether a PNG or JPEG is whole: GDAL reads the missing end of a JPEG as gray, and says nothing."""

from pathlib import Path

from geoseg.errors import TruncatedFileError
from geoseg.io.remote import is_remote

PNG_END, TAIL_BYTES = b"IEND", 4096
"""The last chunk of a PNG, and how near its end it is looked for."""
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"
"""Markers that begin the pixels and end the picture: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1."""


def check_picture(path: str, driver: str) -> None:
    """Refuse a local PNG or JPEG that was cut short.

    Raises:
        TruncatedFileError: If it was.
    """
    if driver not in ("PNG", "JPEG") or is_remote(path) or not Path(path).is_file():
        return
    with Path(path).open("rb") as file:
        if driver == "PNG":
            file.seek(max(0, Path(path).stat().st_size - TAIL_BYTES))
        content = file.read()
    is_whole = PNG_END in content if driver == "PNG" else JPEG_END in content[_first_scan(content) :]
    if not is_whole:
        raise TruncatedFileError(f"{path} is cut short: the mark of its end is missing. Copy or download it again.")


def _first_scan(content: bytes) -> int:
    """Return where the pixels of a JPEG begin, behind the segments of its header, which may hold a small JPEG."""
    at = 2
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != JPEG_SCAN:
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return at
