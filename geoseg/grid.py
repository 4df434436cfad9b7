"""Where pixels lie: windows, georeferenced grids, chips and blocks. Integers and frozen values, no I/O.

The promise that rests on this module: chips lie on one lattice anchored at the scene's first pixel. A block is a
rectangle of whole chips, so cutting a scene into other blocks never moves a chip.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geoseg.gdal import transforming

GSD_TOLERANCE = 0.02
"""Relative difference from the model's GSD below which a scene keeps its own pixels."""

PICTURE = Affine(1, 0, 0, 0, -1, 0)
"""The transform of a picture without georeference: x = column, y = -row, as GIS programs show it."""

GSD_BASELINE_PX = 50
"""Pixels to either side of the center between which the GSD is measured."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels: first row, first column, height and width. May hang over a scene's border."""

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse a window without pixels."""
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs at least one pixel, got {self.height} x {self.width}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def rows(self) -> slice:
        """Rows as a slice."""
        return slice(self.row, self.row + self.height)

    @property
    def cols(self) -> slice:
        """Columns as a slice."""
        return slice(self.col, self.col + self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns as slices, to index a `(y, x)` array of the whole scene."""
        return self.rows, self.cols

    def intersect(self, other: "Window") -> "Window | None":
        """Return the pixels in both windows, or None where there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.rows.stop, other.rows.stop) - row
        width = min(self.cols.stop, other.cols.stop) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def expand(self, px: int) -> "Window":
        """Return the window with `px` more pixels on every side."""
        return Window(self.row - px, self.col - px, self.height + 2 * px, self.width + 2 * px)

    def moved(self, rows: int, cols: int) -> "Window":
        """Return the window moved down and to the right."""
        return Window(self.row + rows, self.col + cols, self.height, self.width)

    def relative_to(self, outer: "Window") -> "Window":
        """Return this window in the pixel coordinates of `outer`."""
        return self.moved(-outer.row, -outer.col)


@dataclass(frozen=True, slots=True)
class Grid:
    """Georeferenced pixels: coordinate reference system, pixel-to-world transform, `(height, width)`.

    `transform` means what rasterio means by it: it maps `(col, row)` of pixel corners to world coordinates and may
    rotate. `crs` is None for a plain picture, whose transform is `PICTURE`.
    """

    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse a grid without pixels or with pixels without area."""
        if min(self.shape) < 1:
            raise ValueError(f"a grid needs at least one pixel, got {self.shape[0]} x {self.shape[1]}")
        if self.transform.determinant == 0:
            raise ValueError(f"the pixels of transform {tuple(self.transform)[:6]} have no area")

    @classmethod
    def of_raster(cls, crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> "Grid":
        """Return the grid of a raster that has these; without CRS and transform it is a picture."""
        return cls(crs, PICTURE if crs is None and transform.is_identity else transform, shape)

    @property
    def height(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[1]

    @property
    def window(self) -> Window:
        """The window of all pixels."""
        return Window(0, 0, self.height, self.width)

    @property
    def is_rotated(self) -> bool:
        """True where rows do not run along the world's x axis."""
        return bool(self.transform.b or self.transform.d)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """World coordinates of the four outer corners, in ring order."""
        return [self.transform @ xy for xy in ((0, 0), (self.width, 0), (self.width, self.height), (0, self.height))]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of the extent in world coordinates."""
        xs, ys = zip(*self.corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def gsd_m(self) -> tuple[float, float] | None:
        """Meters on the ground per pixel along a row and along a column, at the center; None without a CRS.

        Measured on the ellipsoid, so that degrees and Web Mercator give true meters too.

        Raises:
            MissingCRSError: If PROJ knows no place on Earth for the coordinates.
        """
        return _ground_sample_distance(self) if self.crs is not None else None

    def crop(self, window: Window) -> "Grid":
        """Return the grid of a window."""
        return Grid(self.crs, self.transform @ Affine.translation(window.col, window.row), window.shape)

    def reshaped(self, shape: tuple[int, int]) -> "Grid":
        """Return the grid of exactly the same extent with another number of pixels."""
        scale = Affine.scale(self.width / shape[1], self.height / shape[0])
        return Grid(self.crs, self.transform @ scale, shape)

    def resampled(self, gsd_m: float) -> "Grid":
        """Return the grid of exactly the same extent whose pixels are nearest to `gsd_m` meters on the ground.

        A grid within `GSD_TOLERANCE` of it, or without a CRS, is returned as it is.
        """
        own = self.gsd_m
        if own is None or max(abs(axis / gsd_m - 1) for axis in own) <= GSD_TOLERANCE:
            return self
        return self.reshaped((max(1, round(self.height * own[1] / gsd_m)), max(1, round(self.width * own[0] / gsd_m))))

    def window_of_bounds(self, bounds: tuple[float, float, float, float]) -> Window:
        """Return the smallest window of whole pixels that holds the given left, bottom, right, top."""
        left, bottom, right, top = bounds
        inverse = ~self.transform
        cols, rows = zip(*(inverse @ corner for corner in product((left, right), (bottom, top))), strict=True)
        slack = 1e-6
        row, col = math.floor(min(rows) + slack), math.floor(min(cols) + slack)
        height, width = math.ceil(max(rows) - slack) - row, math.ceil(max(cols) - slack) - col
        return Window(row, col, max(1, height), max(1, width))


@cache
def _ground_sample_distance(grid: Grid) -> tuple[float, float]:
    """Measure meters per pixel along a row and along a column on the WGS 84 ellipsoid."""
    from pyproj import Geod
    from rasterio.warp import transform

    assert grid.crs is not None
    row, col = grid.height / 2, grid.width / 2
    dx, dy = min(GSD_BASELINE_PX, grid.width / 2), min(GSD_BASELINE_PX, grid.height / 2)
    ends = [grid.transform @ xy for xy in ((col - dx, row), (col + dx, row), (col, row - dy), (col, row + dy))]
    wgs84 = CRS.from_epsg(4326)
    with transforming(grid.crs, wgs84):
        lon, lat = transform(grid.crs, wgs84, *zip(*ends, strict=True))
    meters = Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])[2]
    return meters[0] / (2 * dx), meters[1] / (2 * dy)


@dataclass(frozen=True, slots=True)
class Block:
    """One dask task's share: rows and columns of chips, and the scene's pixels they own."""

    chip_rows: range
    chip_cols: range
    window: Window

    @property
    def name(self) -> str:
        """A file-safe name, unique within the scene."""
        return f"r{self.window.row}_c{self.window.col}"


@dataclass(frozen=True, slots=True)
class Lattice:
    """Chips over a scene: every pixel is owned by exactly one chip's core.

    `chip (i, j)` owns rows `i * core[0] ...` and columns `j * core[1] ...` and sees `halo_px` more on every side:
    `chip_shape = core + 2 * halo_px`.
    """

    shape: tuple[int, int]
    core: tuple[int, int]
    halo_px: int

    def __post_init__(self) -> None:
        """Refuse a lattice whose chips own nothing."""
        if min(self.core) < 1 or self.halo_px < 0:
            raise ValueError(f"a chip must own pixels, got core {self.core} and halo {self.halo_px}")

    @property
    def chip_shape(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.core[0] + 2 * self.halo_px, self.core[1] + 2 * self.halo_px

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of chips."""
        return math.ceil(self.shape[0] / self.core[0]), math.ceil(self.shape[1] / self.core[1])

    def core_window(self, chip_row: int, chip_col: int) -> Window:
        """Return the pixels of the scene that a chip owns."""
        full = Window(chip_row * self.core[0], chip_col * self.core[1], *self.core)
        owned = full.intersect(Window(0, 0, *self.shape))
        if owned is None:
            raise ValueError(f"chip ({chip_row}, {chip_col}) lies outside the lattice of {self.counts} chips")
        return owned

    def chip_window(self, chip_row: int, chip_col: int) -> Window:
        """Return what a chip sees, core and halo; it may hang over the scene's border."""
        row, col = chip_row * self.core[0], chip_col * self.core[1]
        return Window(row, col, *self.core).expand(self.halo_px)

    def plan_blocks(self, block_px: int) -> list[Block]:
        """Cut the scene into blocks of whole chips, each about `block_px` pixels high and wide."""
        spans = []  # of chips, along each axis
        for count, core in zip(self.counts, self.core, strict=True):
            step = max(1, block_px // core)
            spans.append([range(start, min(start + step, count)) for start in range(0, count, step)])
        blocks = []
        for rows, cols in product(*spans):
            first, last = self.core_window(rows[0], cols[0]), self.core_window(rows[-1], cols[-1])
            window = Window(first.row, first.col, last.rows.stop - first.row, last.cols.stop - first.col)
            blocks.append(Block(rows, cols, window))
        return blocks

    def chips_of(self, block: Block) -> Iterator[tuple[int, int]]:
        """Yield the `(row, column)` of every chip of a block, row by row."""
        return ((i, j) for i in block.chip_rows for j in block.chip_cols)


def fit_lattice(shape: tuple[int, int], *, chip_px: int, halo_px: int, multiple_px: int = 32) -> Lattice:
    """Choose chips no larger than `chip_px` that cover a scene with the least excess.

    A function of the scene's shape and the model alone, never of blocks or workers.

    Args:
        shape: Height and width of the scene, pixels.
        chip_px: Largest side of a chip.
        halo_px: Context on every side of a chip that is thrown away.
        multiple_px: A chip's sides are multiples of this (the network's stride).

    Raises:
        ValueError: If a chip of this size has no core left, or its side is not a multiple of `multiple_px`.
    """
    if chip_px % multiple_px:
        raise ValueError(f"a chip's side is a multiple of {multiple_px} px, got {chip_px}")
    if chip_px - 2 * halo_px < 1:
        raise ValueError(f"a chip of {chip_px} px with a halo of {halo_px} px on both sides owns no pixel")
    core = []
    for n in shape:
        count = math.ceil(n / (chip_px - 2 * halo_px))
        chip = math.ceil((math.ceil(n / count) + 2 * halo_px) / multiple_px) * multiple_px
        core.append(min(chip, chip_px) - 2 * halo_px)
    return Lattice(shape, (core[0], core[1]), halo_px)


def reflect_indices(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Map indices in `[start, stop)` into `[0, size)` by mirroring at the first and the last pixel.

    The border pixel itself is not repeated (numpy's `reflect`), and mirrors repeat as often as needed, so a scene
    smaller than a chip works.
    """
    index: NDArray[Any] = np.arange(start, stop)
    if size == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * size - 2)
    return np.asarray(np.minimum(index, 2 * size - 2 - index))
