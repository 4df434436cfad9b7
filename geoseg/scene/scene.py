"""A scene: one georeferenced image, from one file or several, read lazily on the grid that a model wants.

`open_scene` reads headers only and checks everything that can be checked before any work. A `Scene` is a frozen recipe:
it pickles as paths and numbers, and opens its files lazily, once per thread (GDAL datasets are not thread-safe).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import BandMismatchError
from geoseg.grid import Grid, Window
from geoseg.scene.resample import Axis, resample
from geoseg.scene.source import is_blank_source, read_source

OVERVIEW_OVERSAMPLING = 2
"""Pixels along an axis that an overview must have per pixel of the working grid (two by area) to be read."""

Levels = tuple[tuple[float, float], ...]
"""Per band the values `(low, high)` that become 0 and 255."""

LEVEL_PERCENTILES = (2.0, 98.0)
LEVEL_SAMPLE_PX = 1024


def stretch(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Map each band's `(low, high)` to 0 and 255, clipped; `(band, y, x)` of any type to uint8."""
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*levels, strict=True))
    scaled = (values.astype(np.float32) - low) * (255 / np.maximum(high - low, np.float32(1e-12)))
    stretched: NDArray[np.uint8] = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return stretched


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a window: `values (band, y, x)` and `valid (y, x)`, True where there is data."""

    values: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """One georeferenced image on its working grid.

    Attributes:
        name: File-safe name, from the first file.
        paths: The files, as the user named them.
        source: What rasterio opens: a path, or a VRT over several files.
        native: The grid of the scene's own pixels.
        grid: The working grid: exactly the same extent, perhaps other pixels.
        bands: One-based band numbers that `read` returns, in this order.
        dtype: Type of the pixels in the file.
        nodata: Nodata value in the file, if any.
        has_mask: True where some pixels may be nodata (nodata value, alpha or mask band).
        data_bands: Every band but alpha; red, green and blue first where the file marks them.
        overviews: `(height, width)` of each overview in the file.
        levels: Per band `(low, high)` that become 0 and 255; None leaves the values as they are.
    """

    name: str
    paths: tuple[str, ...]
    source: str
    native: Grid
    grid: Grid
    bands: tuple[int, ...]
    band_count: int
    dtype: str
    nodata: float | None
    has_mask: bool
    data_bands: tuple[int, ...] = ()
    overviews: tuple[tuple[int, int], ...] = ()
    levels: Levels | None = None

    def at_gsd(self, gsd_m: float) -> "Scene":
        """Return the scene on the grid of the same extent nearest to `gsd_m` meters per pixel on the ground."""
        return replace(self, grid=self.native.resampled(gsd_m))

    def at_shape(self, shape: tuple[int, int]) -> "Scene":
        """Return the scene on the grid of the same extent with this height and width."""
        return replace(self, grid=self.native.reshaped(shape) if shape != self.native.shape else self.native)

    def with_bands(self, bands: Sequence[int]) -> "Scene":
        """Return the scene with other bands.

        Raises:
            BandMismatchError: If the file has no such band.
        """
        if not bands or min(bands) < 1 or max(bands) > self.band_count:
            raise BandMismatchError(
                f"{self.name} has bands 1 to {self.band_count}, but bands {','.join(map(str, bands))} were requested. "
                "Name existing bands with `bands`."
            )
        return replace(self, bands=tuple(bands), levels=None)

    def with_levels(self) -> "Scene":
        """Return the scene stretched to 0-255 per band, unless its pixels are 8-bit already.

        Levels are the 2nd and 98th percentile of the valid pixels of the whole scene, measured once, never per chip.
        """
        if self.dtype == "uint8" or self.levels is not None:
            return self
        factor = max(1.0, max(self.native.shape) / LEVEL_SAMPLE_PX)
        height, width = (max(1, round(n / factor)) for n in self.native.shape)
        sample = self.at_shape((height, width))
        pixels = sample.read(sample.grid.window)
        if not pixels.valid.any():
            return replace(self, levels=tuple((0.0, 1.0) for _ in self.bands))
        low, high = np.percentile(pixels.values[:, pixels.valid], LEVEL_PERCENTILES, axis=1)
        return replace(self, levels=tuple((float(a), float(b)) for a, b in zip(low, high, strict=True)))

    def read(self, window: Window) -> Pixels:
        """Read a window of the working grid.

        Args:
            window: Rows and columns, inside the grid.

        Returns:
            `(band, y, x)` values (uint8 where `levels` stretch them, the file's type otherwise) and the valid mask.
            Area-averaged where the working grid is coarser than the file, bilinear where it is finer; a pixel's value
            does not depend on the window.

        Raises:
            ValueError: If the window leaves the grid.
            ReadError: If the pixels cannot be read.
        """
        if window.intersect(self.grid.window) != window:
            raise ValueError(f"window {window} leaves the grid of {self.grid.shape}")
        shape, level = self._best_source()
        if shape == self.grid.shape:
            values, valid = read_source(self, window.rows, window.cols, level)
            valid = np.ones(window.shape, bool) if valid is None else valid
        else:
            axes = (Axis(shape[0], self.grid.height), Axis(shape[1], self.grid.width))
            values, valid = resample(
                lambda rows, cols: read_source(self, rows, cols, level),
                axes,
                window.rows,
                window.cols,
                len(self.bands),
                np.dtype(self.dtype),
            )
        return Pixels(stretch(values, self.levels) if self.levels else values, valid)

    def may_hold_data(self, window: Window) -> bool:
        """Return False where nothing in a window is valid, as far as the mask tells.

        Only pixels of a mask are decoded. True where only the pixels themselves could tell.

        Raises:
            ReadError: If the mask cannot be read.
        """
        if not self.has_mask:
            return True
        shape, level = self._best_source()
        axes = (Axis(s, t) for s, t in zip(shape, self.grid.shape, strict=True))
        rows, cols = (a.source_span(s.start, s.stop) for a, s in zip(axes, window.slices, strict=True))
        return not is_blank_source(self, rows, cols, level)

    @property
    def reads_overview(self) -> bool:
        """True where `read` takes its pixels from an overview of the file."""
        return self._best_source()[1] is not None

    def _best_source(self) -> tuple[tuple[int, int], int | None]:
        """Return the shape and overview level with the fewest pixels that still oversample the working grid."""
        needed = tuple(n * OVERVIEW_OVERSAMPLING for n in self.grid.shape)
        fitting = [(s, i) for i, s in enumerate(self.overviews) if s[0] >= needed[0] and s[1] >= needed[1]]
        return min(fitting, default=(self.native.shape, None))
