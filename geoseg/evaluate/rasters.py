"""Rasters of one byte per pixel on the scored grid, read window by window."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.inference import NODATA
from geoseg.scene import Raster

Bytes = NDArray[np.uint8]

BLOCK_PX = 2048
"""Height and width of the windows that are scored, without halo; scores do not depend on it."""

STRIP_PIXELS = 2**24
"""Number of pixels in a strip of whole rows that is read at a time."""


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
class Thresholded:
    """Classes 0 and 1 from stored probabilities of one of them, the target."""

    probability: Raster
    value: int
    target: int = 1

    def read(self, window: Window) -> Bytes:
        """Return the target where the probability is at least `value`, the other class below, 255 for nodata."""
        found = self.probability.read(window)
        return np.where(found == NODATA, NODATA, (found >= self.value) == self.target).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One class of several, as 1 or `target`, and all others, as 0 or what `target` is not."""

    classes: Raster
    index: int
    target: int = 1

    def read(self, window: Window) -> Bytes:
        """Return the target for pixels of the class, the other number for other classes, 255 for nodata."""
        found = self.classes.read(window)
        return np.where(found == NODATA, NODATA, (found == self.index) == self.target).astype(np.uint8)


def strips(shape: tuple[int, int]) -> Iterator[Window]:
    """Yield strips of whole rows that cover a grid."""
    rows = max(1, STRIP_PIXELS // shape[1])
    for row in range(0, shape[0], rows):
        yield Window(row, 0, min(rows, shape[0] - row), shape[1])
