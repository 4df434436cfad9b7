"""Rasters of one byte per pixel on the scored grid, read window by window."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ReadError
from geoseg.grid import Window
from geoseg.inference import NODATA

Bytes = NDArray[np.uint8]

BLOCK_PX = 2048
"""Height and width of the windows that are scored, without halo; scores do not depend on it."""

STRIP_PIXELS = 2**24
"""Number of pixels in a strip of whole rows that is read at a time."""


class Raster(Protocol):
    """One byte per pixel of the scored grid."""

    def read(self, window: Window) -> Bytes:
        """Return the `(y, x)` pixels of a window inside the grid."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scratch:
    """Pixels in a temporary file, so that memory does not grow with the scene."""

    pixels: Bytes

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int]) -> "Scratch":
        """Create the file; all pixels are nodata."""
        pixels: Bytes = np.memmap(path, np.uint8, "w+", shape=shape)
        for strip in strips(shape):
            pixels[strip.slices] = NODATA
        return cls(pixels)

    @classmethod
    def fill(cls, path: Path, shape: tuple[int, int], read: Callable[[Window], Bytes]) -> "Scratch":
        """Create the file and write the pixels that `read` returns for each strip of the grid."""
        scratch = cls.create(path, shape)
        for strip in strips(shape):
            scratch.write(strip, read(strip))
        return scratch

    def read(self, window: Window) -> Bytes:
        """Return the `(y, x)` pixels of a window."""
        return np.array(self.pixels[window.slices])

    def write(self, window: Window, values: Bytes) -> None:
        """Write the `(y, x)` pixels of a window."""
        self.pixels[window.slices] = values


@dataclass(frozen=True, slots=True)
class StoredRaster:
    """The first band of a raster file that is on the scored grid."""

    path: str

    def read(self, window: Window) -> Bytes:
        """Return the `(y, x)` pixels of a window.

        Raises:
            ReadError: If they cannot be read.
        """
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Part

        from geoseg.scene import open_reader

        try:
            part = Part(window.col, window.row, window.width, window.height)
            with open_reader(self.path) as reader:
                return np.asarray(reader.read(1, window=part), np.uint8)
        except RasterioError as err:
            raise ReadError(f"{self.path} cannot be read ({err}). The file may be damaged; create it again.") from err


@dataclass(frozen=True, slots=True)
class Thresholded:
    """Classes 0 and 1 from stored probabilities."""

    probability: Raster
    value: int

    def read(self, window: Window) -> Bytes:
        """Return 1 where the probability is at least `value`, 0 below, 255 for nodata."""
        found = self.probability.read(window)
        return np.where(found == NODATA, NODATA, found >= self.value).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One class of several, as 1, and all others, as 0."""

    classes: Raster
    index: int

    def read(self, window: Window) -> Bytes:
        """Return 1 for pixels of the class, 0 for other classes, 255 for nodata."""
        found = self.classes.read(window)
        return np.where(found == NODATA, NODATA, found == self.index).astype(np.uint8)


def cut_grid(shape: tuple[int, int], block_px: int) -> Iterator[Window]:
    """Yield disjoint windows that cover a grid, row by row."""
    for row in range(0, shape[0], block_px):
        for col in range(0, shape[1], block_px):
            yield Window(row, col, min(block_px, shape[0] - row), min(block_px, shape[1] - col))


def strips(shape: tuple[int, int]) -> Iterator[Window]:
    """Yield strips of whole rows that cover a grid."""
    rows = max(1, STRIP_PIXELS // shape[1])
    for row in range(0, shape[0], rows):
        yield Window(row, 0, min(rows, shape[0] - row), shape[1])
