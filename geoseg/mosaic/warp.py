"""One scene read on the grid of a mosaic: in another CRS, turned, or at another GSD.

A pixel's value is a function of the scene and the mosaic's grid alone, never of the window it is read through:

- places are exact at nodes, every `step_px` pixels of the grid's world coordinates, and interpolated in between in
  whole numbers: nodes are rounded to 1/4096 of the scene's pixel, and weights are whole numbers over a power of two, so
  the sums are exact in float64;
- the scene is first averaged to about the grid's GSD (`Scene.at_gsd`, exact too), where it is finer;
- values are bilinear with weights of 1/256, by the same few operations per pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS

from geoseg.gdal import transforming
from geoseg.grid import Grid, Window
from geoseg.mosaic.bilinear import ONE, Places, sample, sample_mask
from geoseg.scene import Pixels, Scene

STEP_PX = 64
"""Pixels between nodes, a power of two; fewer where the projections bend more."""

NODE_ONE = 4096
"""Nodes are rounded to this fraction of a scene's pixel."""

NOWHERE = -(2.0**48)
"""Place of a node that the scene's CRS has no coordinates for: no pixel next to it lies on the scene."""

ALIGNED_PX = 1 / (2 * ONE)
"""Offset below which the weights of 1/256 would copy pixels anyway."""

SLACK = 1
"""1/256 pixels by which a place may lie beyond the scene's border: rounding leaves no gap between neighbors."""

CHUNK_PX = 512
"""Side of the part of a window that is sampled at a time: its arrays stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Warped:
    """A scene on the grid of a mosaic.

    Attributes:
        scene: The scene, on a working grid of about the mosaic's GSD.
        grid: The mosaic's grid: north-up.
        window: The pixels of the grid that the scene may cover.
        step_px: Pixels between nodes.
        shift: Rows and columns from a pixel of the grid to the same pixel of the scene, where both are one lattice.
    """

    scene: Scene
    grid: Grid
    window: Window
    step_px: int = STEP_PX
    shift: tuple[int, int] | None = None

    def read(self, window: Window) -> Pixels:
        """Read a window of the mosaic's grid.

        Returns:
            `(band, y, x)` values, zeros where there are none, and the `(y, x)` valid mask: True where the scene's pixel
            nearest to the center is valid. Values are made of the valid ones among the four nearest.

        Raises:
            ReadError: If the pixels cannot be read.
        """
        bands, dtype = len(self.scene.bands), np.dtype("uint8" if self.scene.levels else self.scene.dtype)
        out = Pixels(np.zeros((bands, *window.shape), dtype), np.zeros(window.shape, bool))
        needed = self._needed(window)
        if needed is None:
            return out
        pixels = self.scene.read(needed)
        if self.shift is not None:
            part = needed.relative_to(window.moved(*self.shift)).slices
            out.values[:, *part] = np.where(pixels.valid, pixels.values, 0)
            out.valid[part] = pixels.valid
            return out
        for chunk in _chunks(window):
            places = self._places(chunk)
            inside = places.inside(self.scene.grid.shape, SLACK)
            region = places.moved(needed.row, needed.col).span(needed.shape)
            if region is None or not inside.any():
                continue
            cut = Pixels(pixels.values[:, *region.slices], pixels.valid[region.slices])
            found = sample(cut, places.moved(needed.row + region.row, needed.col + region.col), inside)
            part = chunk.relative_to(window).slices
            out.values[:, *part], out.valid[part] = found.values, found.valid
        return out

    def read_valid(self, window: Window) -> NDArray[np.bool_]:
        """Read the `(y, x)` valid mask of a window; where the scene has no mask, from places alone."""
        valid, needed = np.zeros(window.shape, bool), self._needed(window)
        if needed is None or not self.scene.may_hold_data(needed):
            return valid
        has_mask = self.scene.has_mask or self.scene.dtype.startswith("float")
        mask = self.scene.read(needed).valid if has_mask else np.broadcast_to(np.True_, needed.shape)
        if self.shift is not None:
            valid[needed.relative_to(window.moved(*self.shift)).slices] = mask
            return valid
        for chunk in _chunks(window):
            places = self._places(chunk)
            inside = places.inside(self.scene.grid.shape, SLACK)
            part = chunk.relative_to(window).slices
            valid[part] = sample_mask(mask, places.moved(needed.row, needed.col), inside)
        return valid

    def may_hold_data(self, window: Window) -> bool:
        """Return False where nothing in a window is valid, as far as the scene's mask tells."""
        needed = self._needed(window)
        return needed is not None and self.scene.may_hold_data(needed)

    def _needed(self, window: Window) -> Window | None:
        """Return the pixels of the scene that a window depends on; None where there are none."""
        if self.shift is not None:
            return window.moved(*self.shift).intersect(self.scene.grid.window)
        knots = []  # all places of a window lie between those at its nodes and along its border
        for span, first in zip(window.slices, origin(self.grid), strict=True):
            pixels = np.arange(span.start, span.stop)
            keep = (pixels + first) % self.step_px == 0
            keep[[0, -1]] = True
            knots.append(pixels[keep])
        return self._places_at(*knots).span(self.scene.grid.shape)

    def _places(self, window: Window) -> Places:
        """Return where the centers of a window's pixels lie on the scene."""
        return self._places_at(*(np.arange(s.start, s.stop) for s in window.slices))

    def _places_at(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Places:
        """Return the places of pixels in these rows and these columns of the grid."""
        first_row, first_col = origin(self.grid)
        down, across = Nodes.of(rows + first_row, self.step_px), Nodes.of(cols + first_col, self.step_px)
        # Counted from the zero of the CRS, a pixel's coordinates do not depend on the corner of the grid.
        t = self.grid.transform
        x = (across.numbers + 0.5) * t.a + (t.c - first_col * t.a)
        y = (down.numbers + 0.5) * t.e + (t.f - first_row * t.e)
        places = []
        for nodes in reversed(places_of(self.scene.grid, self.grid.crs, *np.meshgrid(x, y))):
            rounded = np.where(np.isfinite(nodes), np.round(nodes * NODE_ONE), NOWHERE)
            places.append(_interpolate(rounded, down, across))
        return Places(*places)


def origin(grid: Grid) -> tuple[int, int]:
    """Return the numbers of a north-up grid's first row and column, counted from the zero of its CRS."""
    return round(grid.transform.f / grid.transform.e), round(grid.transform.c / grid.transform.a)


def places_of(
    grid: Grid, crs: CRS | None, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return columns and rows of world coordinates on a grid of another CRS; infinite where there is none."""
    if crs != grid.crs:
        assert crs is not None
        assert grid.crs is not None
        x, y = _transformer(crs.to_wkt(), grid.crs.to_wkt()).transform(x, y)
    inverse = ~grid.transform
    with np.errstate(invalid="ignore"):
        return inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    """Return what transforms coordinates; shared by threads (https://pyproj4.github.io/pyproj/stable/advanced_examples.html)."""
    with transforming(source, target):
        return Transformer.from_crs(source, target, always_xy=True)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes along one axis of a window: their pixel numbers, and for each pixel its node and the steps from it."""

    numbers: NDArray[np.float64]
    before: NDArray[np.int64]
    steps: NDArray[np.float64]
    step_px: int

    @classmethod
    def of(cls, pixels: NDArray[np.int64], step_px: int) -> "Nodes":
        """Return the nodes around pixels, by their numbers from the zero of the CRS, in rising order."""
        before = pixels // step_px
        numbers = np.arange(before[0], before[-1] + 2, dtype=np.float64) * step_px
        return cls(numbers, before - before[0], (pixels % step_px).astype(np.float64), step_px)


def _interpolate(nodes: NDArray[np.float64], rows: Nodes, cols: Nodes) -> NDArray[np.int64]:
    """Interpolate between `(node, node)` places: `(y, x)`, rounded to whole 1/256 pixels; every sum is exact."""
    left, right = nodes[:, cols.before], nodes[:, cols.before + 1]
    across = left * cols.step_px + (right - left) * cols.steps
    above, below = across[rows.before], across[rows.before + 1]
    below -= above
    below *= rows.steps[:, None]
    above *= rows.step_px
    above += below
    above *= ONE / (NODE_ONE * rows.step_px * cols.step_px)  # a power of two
    above += 0.5
    return np.asarray(np.floor(above, out=above), np.int64)


def _chunks(window: Window) -> Iterator[Window]:
    for row in range(window.rows.start, window.rows.stop, CHUNK_PX):
        for col in range(window.cols.start, window.cols.stop, CHUNK_PX):
            height, width = min(CHUNK_PX, window.rows.stop - row), min(CHUNK_PX, window.cols.stop - col)
            yield Window(row, col, height, width)
