"""Rasters of one byte per pixel that geoseg wrote, or any on the same grid, read window by window."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ReadError
from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Window
from geoseg.scene.reader import open_reader


class Raster(Protocol):
    """One byte per pixel of a grid."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the `(y, x)` pixels of a window inside the grid."""
        ...


@dataclass(frozen=True, slots=True)
class StoredRaster:
    """The first band of a raster file."""

    path: str

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the `(y, x)` pixels of a window.

        Raises:
            ReadError: If they cannot be read.
        """
        return read_window(self.path, window).data.astype(np.uint8, copy=False)


def read_window(path: str, window: Window, *, band: int = 1, masked: bool = False) -> "np.ma.MaskedArray[Any, Any]":
    """Return the `(y, x)` pixels of a window as they are; if `masked`, those without data are masked.

    Raises:
        ReadError: If they cannot be read.
    """
    from rasterio.windows import Window as Part

    part = Part(window.col, window.row, window.width, window.height)
    try:
        with open_reader(path) as reader:
            return np.ma.asarray(reader.read(band, window=part, masked=masked))
    except GDAL_ERRORS as err:
        raise ReadError(f"{path} cannot be read ({err}). The file may be damaged; create it again.") from err
