"""A scene as a torchgeo dataset, and a sampler of the chips of its lattice.

`SceneDataset` is a torchgeo `RasterDataset` whose pixels come from `Scene.read`: resampled to the model's GSD, valid
mask honored, mirrored at the scene's border and at nodata. A block's pixels are read once and its chips cut from
them: torchgeo's own way, a `rasterio.merge` per query, decodes every halo again and skips unreadable files in silence.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import shapely
import torch
from affine import Affine
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from torchgeo.datasets import RasterDataset
from torchgeo.datasets.utils import GeoSlice
from torchgeo.samplers import GeoSampler

from geoseg.grid import Grid, Lattice, Window, reflect_indices
from geoseg.scene import Pixels, Scene


class SceneDataset(RasterDataset):
    """The pixels of one scene, by torchgeo query.

    A query's `x` and `y` slices are world coordinates of the scene; of a rotated scene or one without a CRS, pixel
    coordinates with `y = -row`. A query may extend beyond the scene's border.

    Attributes:
        scene: The scene on its working grid.
        frame: The transform of the queries' coordinates.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        cached: Window | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """Make a dataset of a scene.

        Args:
            scene: The scene on its working grid.
            cached: Window that is read once, at the first query; queries must be inside it.
            transforms: Applied to every sample.
        """
        self.scene, self.transforms, self.cached = scene, transforms, cached
        self.paths, self.cache = list(scene.paths), True
        self.frame = query_frame(scene.grid)
        self._res = (self.frame.a, -self.frame.e)
        self.bands = tuple(str(b) for b in scene.bands)
        self._pixels: tuple[Pixels, NDArray[np.intp], NDArray[np.intp]] | None = None

    @cached_property
    def index(self) -> GeoDataFrame:
        """The scene's extent, as torchgeo needs it; made lazily, as blocks without data do not use it."""
        extent = shapely.box(*Grid(None, self.frame, self.scene.grid.shape).bounds)
        time = pd.IntervalIndex.from_tuples([(self.mint, self.maxt)], closed="both", name="datetime")
        crs = None if self.frame != self.scene.grid.transform else self.scene.grid.crs
        return GeoDataFrame({"filepath": [self.scene.source]}, index=time, geometry=[extent], crs=crs)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels: the scene's, or 8-bit if they are stretched."""
        return torch.uint8 if self.scene.levels or self.scene.dtype == "uint8" else torch.float32

    def __getitem__(self, query: GeoSlice) -> dict[str, Any]:
        """Return the chip of a query.

        Returns:
            `image (band, y, x)`, `valid (y, x)` bool (False beyond the scene too), `bounds` and `crs`.
        """
        x, y, _ = self._disambiguate_slice(query)
        pixels = self.read_chip(self.window_of(x, y))
        sample = {
            "image": torch.from_numpy(pixels.values).to(self.dtype),
            "valid": torch.from_numpy(pixels.valid),
            "bounds": query,
            "crs": self.crs,
        }
        return self.transforms(sample) if self.transforms is not None else sample

    def window_of(self, x: slice, y: slice) -> Window:
        """Return the window of a query: whole pixels, rounded; queries of one size give windows of one size."""
        col, row = ~self.frame @ (x.start, y.stop)
        right, bottom = ~self.frame @ (x.stop, y.start)
        return Window(round(row), round(col), round(bottom - row), round(right - col))

    def read_chip(self, window: Window) -> Pixels:
        """Read a window that may extend beyond the border; invalid pixels are filled by mirroring.

        `valid` is True for pixels of the scene that have data.
        """
        pixels, rows, cols = self._mirrored(window)
        values, valid = _take(pixels.values, rows, cols), _take(pixels.valid, rows, cols)
        return Pixels(fill_invalid(values, valid), valid & _inside(window, self.scene.grid.shape))

    def read_valid(self, window: Window) -> NDArray[np.bool_]:
        """Read the `(y, x)` valid mask of a window that may extend beyond the border, where it is False.

        No pixel is decoded if the mask alone shows that there is no data.
        """
        here = window.intersect(self.scene.grid.window)
        if self._pixels is None and (here is None or not self.scene.may_hold_data(here)):
            return np.zeros(window.shape, bool)
        pixels, rows, cols = self._mirrored(window)
        return np.asarray(_take(pixels.valid, rows, cols) & _inside(window, self.scene.grid.shape))

    def _mirrored(self, window: Window) -> tuple[Pixels, NDArray[np.intp], NDArray[np.intp]]:
        """Return pixels, and the index in them of each row and column of a window."""
        if self.cached is None:
            return self._read(window)
        if self._pixels is None:
            self._pixels = self._read(self.cached)
        pixels, rows, cols = self._pixels
        if window.intersect(self.cached) != window:
            raise ValueError(f"window {window} leaves the cached {self.cached}")
        part = window.relative_to(self.cached)
        return pixels, rows[part.rows], cols[part.cols]

    def _read(self, window: Window) -> tuple[Pixels, NDArray[np.intp], NDArray[np.intp]]:
        """Read the pixels of a mirrored window, and the index in them of each of its rows and columns."""
        height, width = self.scene.grid.shape
        rows = reflect_indices(window.rows.start, window.rows.stop, height)
        cols = reflect_indices(window.cols.start, window.cols.stop, width)
        top, left = int(rows.min()), int(cols.min())
        source = Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
        return self.scene.read(source), rows - top, cols - left


def query_frame(grid: Grid) -> Affine:
    """Return the transform of a scene's queries: its own where it is north-up, else `x = col, y = -row`."""
    north_up = grid.crs is not None and not grid.is_rotated and grid.transform.a > 0 > grid.transform.e
    return grid.transform if north_up else Affine.scale(1, -1)


def _take(array: NDArray[Any], rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[Any]:
    """Pick rows and columns of the last two axes; by slices if nothing is mirrored, which is far faster."""
    picks = [
        slice(int(i[0]), int(i[-1]) + 1) if i[-1] - i[0] == i.size - 1 and (np.diff(i) == 1).all() else i
        for i in (rows, cols)
    ]
    return np.ascontiguousarray(array[..., picks[0], :][..., picks[1]])


def _inside(window: Window, shape: tuple[int, int]) -> NDArray[np.bool_]:
    rows, cols = (np.arange(s.start, s.stop) for s in window.slices)
    return ((rows >= 0) & (rows < shape[0]))[:, None] & ((cols >= 0) & (cols < shape[1]))


class LatticeSampler(GeoSampler):
    """Yields the query of every chip of a block, row by row.

    Unlike those of torchgeo's `GridGeoSampler`, the chips are anchored at the scene's first pixel for every block, and
    a scene smaller than a chip has one.
    """

    def __init__(self, dataset: SceneDataset, lattice: Lattice, chips: Iterable[tuple[int, int]]) -> None:
        """Sample the given `(row, column)` chips of a lattice."""
        super().__init__(dataset)
        self.frame, self.lattice, self.chips = dataset.frame, lattice, list(chips)

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.chips)

    def __iter__(self) -> Iterator[GeoSlice]:
        """Yield `(x, y, t)` slices in the dataset's coordinates."""
        times = slice(self.toi.left, self.toi.right, 1)
        for chip in self.chips:
            window = self.lattice.chip_window(*chip)
            left, top = self.frame @ (window.cols.start, window.rows.start)
            right, bottom = self.frame @ (window.cols.stop, window.rows.stop)
            yield slice(left, right, self.res[0]), slice(bottom, top, self.res[1]), times


def fill_invalid(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Mirror valid pixels into invalid ones: along the row, and rows without any valid pixel along the column.

    A pixel at offset `d` beyond the nearest valid pixel `p` of its row has the value at `p - d`; if that is outside
    the array or invalid, the value at `p`. Networks would otherwise predict buildings at a hard edge to black.

    Args:
        values: `(band, y, x)` pixels.
        valid: `(y, x)`, True where there is data.

    Returns:
        `(band, y, x)`: `values` itself if all is valid, else a filled copy; zeros if nothing is valid.
    """
    if valid.all():
        return values
    if not valid.any():
        return np.zeros_like(values)
    out = values.copy()
    has_data = np.asarray(valid.any(axis=1))
    partly = np.flatnonzero(has_data & ~valid.all(axis=1))
    pixels, sources = _mirrors(valid[partly])
    lines = values[:, partly].reshape(len(values), -1)
    for band in lines:
        band[pixels] = band[sources]
    out[:, partly] = lines.reshape(len(values), *valid[partly].shape)
    rows, sources = _mirrors(has_data[None])
    out[:, rows] = out[:, sources]
    return out


def _mirrors(valid: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the flat indices of the invalid pixels of `(row, x)`, and of those whose values they have.

    Every row has a valid pixel. Each run of invalid pixels is halved, and each half has its nearest valid pixel.
    """
    width = valid.shape[1]
    edges = np.diff(np.pad(~valid, ((0, 0), (1, 1))).view(np.int8), axis=1)
    (rows, starts), stops = np.nonzero(edges == 1), np.nonzero(edges == -1)[1]
    left, right = np.where(starts > 0, starts - 1, -2 * width), np.where(stops < width, stops, 3 * width)
    middles = np.clip((left + right) // 2 + 1, starts, stops)
    firsts, near, lines = (np.concatenate(pair) for pair in ((starts, middles), (left, right), (rows, rows)))
    lengths = np.concatenate((middles - starts, stops - middles))

    def repeat(values: NDArray[np.intp]) -> NDArray[np.int32]:
        return np.repeat(values.astype(np.int32), lengths)

    low = repeat(lines * width)
    pixels = np.arange(low.size, dtype=np.int32) + repeat(firsts + lines * width - (np.cumsum(lengths) - lengths))
    nearest = repeat(near + lines * width)
    mirrored = 2 * nearest - pixels
    mirrored = np.where((mirrored >= low) & (mirrored < low + width), mirrored, nearest)
    return pixels, np.where(valid.reshape(-1)[mirrored], mirrored, nearest)
