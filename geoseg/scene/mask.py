"""The mask of a raster: which pixels are valid, and whether GDAL has found the mask at all.

Valid is told by all that a raster says: mask band, alpha band, nodata values. Where there are nodata values, GDAL
forgets the alpha band, and rasterio's `dataset_mask` asks the last of four bands alone, be it alpha or infrared
(https://github.com/rasterio/rasterio, `DatasetReader.dataset_mask`).

A remote TIFF whose server does not hand out the mask's directory is opened by GDAL without its mask, and without a
word: its directories are therefore read here.
"""

import io
import struct
from urllib.parse import urlparse

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning
from rasterio.windows import Window as RasterWindow

from geoseg.errors import MissingFileError
from geoseg.io.store import read_range
from geoseg.silence import quiet
from geoseg.tiff import has_mask_directory

PIECE = 1 << 14
"""Bytes fetched at a time: the directories of a COG lie in the first piece."""


def read_valid(reader: rasterio.DatasetReader, window: RasterWindow) -> NDArray[np.bool_]:
    """Return the `(y, x)` valid mask of a window.

    With nodata values a pixel is valid where any band but alpha holds another one, unless alpha hides it.
    """
    if not any(MaskFlags.nodata in flags for flags in reader.mask_flag_enums):
        return np.asarray(reader.dataset_mask(window=window) > 0)
    alpha = [band for band, color in zip(reader.indexes, reader.colorinterp, strict=True) if color == ColorInterp.alpha]
    valid = np.zeros((window.height, window.width), bool)
    with quiet(NodataShadowWarning):
        for band in set(reader.indexes) - set(alpha):
            valid |= reader.read_masks(band, window=window) > 0
    for band in alpha:
        valid &= reader.read(band, window=window) > 0
    return valid


def check_mask(path: str) -> None:
    """Refuse a remote TIFF in which GDAL found no mask although there is one.

    Raises:
        MissingFileError: If there is one, or the server does not let see whether there is.
    """
    if urlparse(path).scheme in ("http", "https", "s3"):
        url = path
    elif path.startswith("/vsicurl/http"):
        url = path.removeprefix("/vsicurl/")
    elif path.startswith("/vsis3/"):
        url = f"s3://{path.removeprefix('/vsis3/')}"
    else:
        return  # only GDAL reaches it
    try:
        is_lost = has_mask_directory(RangeFile(url))  # type: ignore[arg-type]  # reads and seeks, as is needed
    except (ValueError, struct.error, IndexError) as err:
        raise _refusal(path, str(err)) from err
    if is_lost:
        raise _refusal(path, "it has a mask that the server did not hand out")


def _refusal(path: str, found: str) -> MissingFileError:
    return MissingFileError(
        f"{path} cannot be opened whole ({found}). The server was busy or broke off: try again, or copy the file."
    )


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
        for number in range(first, last + 1):
            if number not in self.pieces:
                self.pieces[number] = read_range(self.url, number * PIECE, (number + 1) * PIECE)
        content = b"".join(self.pieces[number] for number in range(first, last + 1))
        start = self.at - first * PIECE
        self.at += size
        return content[start : start + size]
