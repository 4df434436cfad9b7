"""The buildings of a whole scene from its stored probabilities, window by window.

The windows are outlined by several threads, or by the workers of a cluster; where the depth between buildings varies,
their buildings are counted first. What of them cannot be finished waits in files, so that memory does not grow with the
scene; what decides which regions are one building (`geoseg.vectorize.instances`) is held: a few numbers for each pixel
and region at the border of a window. Then the scene is gone down once, row of windows by row of windows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import UsageError
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA, PROBABILITY_ONE
from geoseg.scene import Raster
from geoseg.vectorize.blocks import COLUMNS, BlockPolygons, polygonize_block, tally_block
from geoseg.vectorize.footprints import Footprints, Limits
from geoseg.vectorize.generalize import Generalizer
from geoseg.vectorize.instances import Counts, Depth, Links, Tally, count_buildings, solve
from geoseg.vectorize.regular import Regularize
from geoseg.vectorize.seams import BlockOutlines, Pending, SeamSweep, finish_block
from geoseg.vectorize.simplify import Simplify

AT_ONCE = 8_000
"""Approximate number of footprints of a row of windows that are sorted at a time."""

FINE = 16
"""Steps of a surface per step of a stored probability."""

SMOOTH_M = 0.7
"""Standard deviation of the smoothing of a surface, meters."""

SMOOTH_PASSES = 3
"""A box filter three times is close to a Gaussian."""

SPLIT_DEPTH = 0.03
"""How much a probability falls between two buildings; see docs/usage.md."""

INTERIOR_SMOOTH_M = 0.35
"""As `SMOOTH_M`, where the network says where buildings end."""

INTERIOR_DEPTH = 0.5
"""As `SPLIT_DEPTH`, where the network says where buildings end."""

LEAST_DEPTH = 0.03
"""The smallest depth where many buildings touch; a smaller one is taken as it is given."""

Outline = Literal["raw", "simple", "regular"]
"""How buildings are outlined: by their pixels, without corners that matter little, or by straight walls."""

SQUARE = 0.01
"""How much higher than wide, or lower, pixels are that count as square."""

TOLERANCE_M = 0.5
"""Tolerance of outlines by default, meters; at least a pixel."""


def choose_generalizer(outline: Outline, tolerance_m: float | None, grid: Grid) -> Generalizer:
    """Return what makes the outlines of a scene.

    Args:
        outline: See `Outline`.
        tolerance_m: Smallest step in a wall that is kept, meters (pixels without a CRS); by default
            `TOLERANCE_M`, and at least a pixel.
        grid: Grid of the scene's pixels.
    """
    width_m, height_m = grid.gsd_m or (1.0, 1.0)
    aspect = height_m / width_m
    aspect = 1.0 if abs(aspect - 1) < SQUARE else aspect
    usual = max(1.0, aspect, TOLERANCE_M / width_m) if grid.gsd_m else 1.0
    tolerance_px = usual if tolerance_m is None else tolerance_m / width_m
    if outline == "raw" or tolerance_px <= 0:
        return Simplify(0.0, aspect)
    return Regularize(tolerance_px, aspect=aspect) if outline == "regular" else Simplify(tolerance_px, aspect)


def choose_limits(min_area_m2: float, fill_holes_m2: float | None) -> Limits:
    """Return what is too small: buildings, and holes, by default of the same size.

    Raises:
        UsageError: If a hole that is filled could hold a building that is kept.
    """
    largest = min_area_m2 if fill_holes_m2 is None else fill_holes_m2
    if largest > min_area_m2:
        raise UsageError(
            f"`fill_holes_m2={largest:g}` is above `min_area_m2={min_area_m2:g}`: a hole that is filled could hold a "
            "building. Give a smaller `fill_holes_m2`, or a larger `min_area_m2`."
        )
    return Limits(min_area_m2, largest)


def choose_depth(depth: float | None, *, has_interior: bool) -> float:
    """Return the depth that splits buildings: the given one, or the default of a surface."""
    if depth is not None:
        return depth
    return INTERIOR_DEPTH if has_interior else SPLIT_DEPTH


Heights = NDArray[np.unsignedinteger[Any]]
"""Whole numbers of at least 0."""


@dataclass(frozen=True, slots=True)
class Split:
    """How buildings that touch are told apart.

    Attributes:
        depth: How much the smoothed surface must fall to divide a single building, in probability; among several that
            touch, less is enough (`geoseg.vectorize.instances.Depth`).
        radius_px: Radius of the box of a smoothing pass, pixels.
    """

    depth: float
    radius_px: int

    @classmethod
    def on(cls, grid: Grid, depth: float, *, has_interior: bool = False) -> "Split | None":
        """Return how buildings are told apart on the pixels of a grid; None if they are left together.

        Args:
            grid: The grid.
            depth: How much the smoothed surface must fall, in probability; from 1 on they are left together.
            has_interior: Whether the surface is what a network says of where buildings end, or a probability.
        """
        if depth >= 1:
            return None
        gsd_m = min(grid.gsd_m) if grid.gsd_m else 0.3
        smooth_m = INTERIOR_SMOOTH_M if has_interior else SMOOTH_M
        variance = (smooth_m / gsd_m) ** 2 / SMOOTH_PASSES  # of a box of n pixels: (n^2 - 1) / 12
        return cls(depth, max(1, round(((12 * variance + 1) ** 0.5 - 1) / 2)))

    @property
    def steps(self) -> Depth:
        """The depth in steps of the surface, at least 1."""
        alone, least = (max(1, round(depth * PROBABILITY_ONE * FINE)) for depth in (self.depth, LEAST_DEPTH))
        return Depth(alone, min(alone, least))

    @property
    def reach_px(self) -> int:
        """How far the smoothing looks, pixels."""
        return SMOOTH_PASSES * self.radius_px

    def surface(self, values: NDArray[np.uint8]) -> Heights:
        """Return the smoothed surface of stored values, `(y, x)`; 0 without data and beyond.

        Every step is in whole numbers, so a window of it is the same from any larger window.
        """
        largest_sum = (2 * self.radius_px + 1) * (PROBABILITY_ONE * FINE + 1)
        surface: Heights = values.astype(np.uint16) if largest_sum < 2**16 else values.astype(np.uint32)
        surface *= FINE
        surface[values == NODATA] = 0
        for _ in range(SMOOTH_PASSES):
            surface = _box(_box(surface, self.radius_px, axis=0), self.radius_px, axis=1)
        return surface


def _box(values: Heights, radius: int, *, axis: int) -> Heights:
    """Return the mean of the `2 radius + 1` values around each along an axis, rounded to whole numbers; 0 beyond."""
    side, length = 2 * radius + 1, values.shape[axis]
    margins = [(0, 0), (0, 0)]
    margins[axis] = (radius, radius)

    def cut(sums: Heights, start: int, stop: int | None) -> Heights:
        return sums[start:stop] if axis == 0 else sums[:, start:stop]

    sums, size = np.pad(values, margins), 1  # of `size` values each, from every place on
    total, done = cut(sums, 0, length), 1
    while 2 * size <= side:
        sums, size = cut(sums, 0, -size) + cut(sums, size, None), 2 * size
        if side & size:
            total, done = total + cut(sums, done, done + length), done + size
    total += radius
    total //= side
    return total


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """What buildings are outlined from.

    Attributes:
        grid: Grid of the scene.
        probability: Stored probabilities of the target, 255 for nodata; None only where there are `classes`.
        surface: How far inside a building each pixel lies, stored alike; the probabilities if None.
        classes: Class indices, 255 for nodata: buildings are the pixels of `target` instead of those of a probability.
        target: A class.
    """

    grid: Grid
    probability: Raster | None
    surface: Raster | None = None
    classes: Raster | None = None
    target: int = 1

    def read(self, window: Window, threshold: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return stored probabilities, where buildings are, and where there is data, `(y, x)` each."""
        shape = window.shape
        values = self.probability.read(window) if self.probability is not None else np.zeros(shape, np.uint8)
        if self.classes is None:
            valid = values != NODATA
            return values, (values >= threshold) & valid, valid
        classes = self.classes.read(window)
        return values, classes == self.target, classes != NODATA


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineOptions:
    """How buildings are outlined.

    Attributes:
        threshold: Minimum stored probability of a building pixel.
        limits: What is too small.
        generalizer: Makes the outlines.
        coefficients: Those of the confidence, `ModelSpec.confidence`.
        split: How buildings that touch are told apart; None leaves them together.
    """

    threshold: int
    limits: Limits
    generalizer: Generalizer
    coefficients: Mapping[str, float] | None = None
    split: Split | None = None

    @property
    def depth(self) -> Depth | None:
        """How much a surface falls between two buildings, in its steps; None leaves those that touch together."""
        return self.split.steps if self.split is not None else None


def cut_grid(shape: tuple[int, int], side_px: int) -> Iterator[Window]:
    """Yield disjoint windows that cover a grid, row by row."""
    for row in range(0, shape[0], side_px):
        for col in range(0, shape[1], side_px):
            yield Window(row, col, min(side_px, shape[0] - row), min(side_px, shape[1] - col))


@dataclass(frozen=True, slots=True, eq=False)
class CountedWindow:
    """A window of a scene, and how many buildings the components have that go on beyond it."""

    window: Window
    counts: Counts = field(default_factory=Counts.empty)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What is read of a window and one pixel around it, cut at the scene's border, `(y, x)` each."""

    is_building: NDArray[np.bool_]
    values: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    surface: Heights | None


def _read(pixels: StoredPixels, window: Window, options: OutlineOptions) -> _Seen | None:
    """Read the pixels that decide the buildings of a window; None if it has none."""
    grid, split = pixels.grid, options.split
    ring = window.expand(1).intersect(grid.window)
    around = window.expand(1 + (split.reach_px if split else 0)).intersect(grid.window)
    assert ring is not None
    assert around is not None
    seen = ring.relative_to(around).slices
    values, is_building, valid = pixels.read(around, options.threshold)
    if not is_building[window.relative_to(around).slices].any():
        return None
    surface = None
    if split is not None:
        surface = split.surface(values if pixels.surface is None else pixels.surface.read(around))[seen]
    return _Seen(is_building[seen], values[seen], valid[seen], surface)


def polygonize_window(pixels: StoredPixels, counted: CountedWindow, options: OutlineOptions) -> BlockPolygons:
    """Outline the buildings of a window, in pixels."""
    seen = _read(pixels, counted.window, options)
    if seen is None:
        return BlockPolygons.empty()
    return polygonize_block(
        seen.is_building,
        seen.values,
        seen.valid,
        counted.window,
        scene_shape=pixels.grid.shape,
        surface=seen.surface,
        depth=options.depth,
        counts=counted.counts,
    )


def outline_window(pixels: StoredPixels, counted: CountedWindow, options: OutlineOptions) -> BlockOutlines:
    """Outline the buildings of a window, and finish those that no other window can change."""
    polygons = polygonize_window(pixels, counted, options)
    return finish_block(
        polygons,
        counted.window,
        pixels.grid,
        limits=options.limits,
        generalizer=options.generalizer,
        coefficients=options.coefficients,
    )


@dataclass(frozen=True, slots=True)
class WindowTally:
    """Counts the buildings of one window of a scene after another; pickles, for processes that see the same files."""

    pixels: StoredPixels
    options: OutlineOptions

    def __call__(self, window: Window) -> tuple[Window, Tally]:
        """Return what the scene must know of a window to count its buildings."""
        seen, depth = _read(self.pixels, window, self.options), self.options.depth
        if seen is None or depth is None or seen.surface is None:
            return window, Tally.empty()
        arrays = seen.is_building, seen.valid, seen.surface
        return window, tally_block(*arrays, window, scene_shape=self.pixels.grid.shape, depth=depth)


@dataclass(frozen=True, slots=True)
class WindowOutliner:
    """Outlines one window of a scene after another; pickles, for processes that see the same files.

    Attributes:
        pixels: The scene.
        options: See `OutlineOptions`.
        scratch: Folder for what waits.
    """

    pixels: StoredPixels
    options: OutlineOptions
    scratch: Path

    def __call__(self, counted: CountedWindow) -> Links:
        """Write what a window has outlined, and return what the scene must know of it."""
        outlines = outline_window(self.pixels, counted, self.options)
        if len(outlines.finished) or len(outlines.pending):
            write_outlines(_path(self.scratch, counted.window), outlines)
        return outlines.links


Found = TypeVar("Found")


class Spread(Protocol):
    """Calls a function for every item, for several at the same time; returns the results in any order."""

    def __call__(self, function: Callable[[Any], Found], items: Sequence[Any], /) -> Iterable[Found]:
        """Return the results."""


def in_threads(count: int) -> Spread:
    """Work on so many items at the same time in this process."""

    def spread(function: Callable[[Any], Found], items: Sequence[Any], /) -> list[Found]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(function, items))

    return spread


def count_windows(
    pixels: StoredPixels, options: OutlineOptions, windows: Sequence[Window], spread: Spread
) -> list[CountedWindow]:
    """Count the buildings of the components that lie in several windows, if the depth depends on that.

    Args:
        pixels: The scene.
        options: See `OutlineOptions`.
        windows: Disjoint windows that hold every building pixel.
        spread: Where windows are looked at; see `in_threads`.

    Returns:
        The windows, in any order.
    """
    if options.depth is None or not options.depth.varies:
        return [CountedWindow(window) for window in windows]
    tallies = list(spread(WindowTally(pixels, options), windows))
    counts = count_buildings([tally for _, tally in tallies])
    return [CountedWindow(window, counts.of(tally.name)) for window, tally in tallies]


def outline_scene(
    pixels: StoredPixels,
    options: OutlineOptions,
    *,
    scratch: Path,
    windows: Sequence[Window],
    spread: Spread,
) -> Iterator[Footprints]:
    """Yield the footprints of a scene in reading order, a few rows of pixels at a time.

    Args:
        pixels: The scene.
        options: See `OutlineOptions`.
        scratch: Folder for what waits.
        windows: Disjoint windows that hold every building pixel; footprints do not depend on them.
        spread: Where windows are outlined; see `in_threads`.
    """
    windows = sorted(windows, key=lambda window: (window.row, window.col))
    counted = count_windows(pixels, options, windows, spread)
    links = Links.concatenate(list(spread(WindowOutliner(pixels, options, scratch), counted)))
    buildings = solve(links)
    sweep = SeamSweep(pixels.grid, buildings, options.limits, options.generalizer, options.coefficients)
    windows = [window for window in windows if _path(scratch, window).exists()]
    rows = [(below, list(row)) for below, row in groupby(windows, key=lambda window: window.rows.stop)]
    joined, written = Footprints.empty(), 0
    for number, (below, row) in enumerate(rows):
        pending = Pending.concatenate([read_pending(_path(scratch, window)) for window in row])
        is_last = number + 1 == len(rows)
        finished = sweep.add(pending, None if is_last else below)
        joined = Footprints.concatenate([joined, finished]).in_reading_order()
        while written < len(rows) and rows[written][0] <= (np.inf if is_last else min(below, sweep.first_row)):
            stop, above = rows[written]
            end = int(np.searchsorted(joined.row, stop))
            yield from _band([*(read_finished(_path(scratch, window)) for window in above), joined.between(0, end)])
            joined, written = joined.between(end, len(joined)), written + 1


def _band(parts: Sequence[Footprints]) -> Iterator[Footprints]:
    """Yield the footprints of a row of windows in reading order, a few rows of pixels at a time.

    Args:
        parts: Footprints, each in reading order.
    """
    starts = np.sort(np.concatenate([part.row for part in parts]))
    stops = [*np.unique(starts[AT_ONCE::AT_ONCE]), np.iinfo(np.int64).max]
    cuts = np.array([[0, *np.searchsorted(part.row, stops)] for part in parts])
    for begin, end in pairwise(cuts.T):
        band = Footprints.concatenate([p.between(a, b) for p, a, b in zip(parts, begin, end, strict=True)])
        yield band.in_reading_order()


def _path(scratch: Path, window: Window) -> Path:
    return scratch / f"r{window.row}_c{window.col}.npz"


def write_outlines(path: Path, outlines: BlockOutlines) -> None:
    """Write what a window has outlined, except links, as plain arrays."""
    arrays = {f"finished_{column.name}": getattr(outlines.finished, column.name) for column in fields(Footprints)}
    if len(outlines.pending):
        polygons = outlines.pending.polygons
        _, vertices, (ring_offset, polygon_offset) = shapely.to_ragged_array(polygons.polygons)
        arrays |= {f"pending_{name}": getattr(polygons, name) for name in COLUMNS if name != "polygons"}
        arrays |= {"vertices": vertices, "ring_offset": ring_offset, "polygon_offset": polygon_offset}
        arrays["done"] = outlines.pending.done
    np.savez(path, **arrays)


def read_finished(path: Path) -> Footprints:
    """Read finished footprints that `write_outlines` wrote."""
    with np.load(path) as arrays:
        return Footprints(*(arrays[f"finished_{column.name}"] for column in fields(Footprints)))


def read_pending(path: Path) -> Pending:
    """Read pending polygons that `write_outlines` wrote."""
    with np.load(path) as arrays:
        if "vertices" not in arrays:
            return Pending.concatenate([])
        offsets = arrays["ring_offset"], arrays["polygon_offset"]
        polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, arrays["vertices"], offsets)
        columns = {name: arrays[f"pending_{name}"] for name in COLUMNS if name != "polygons"}
        return Pending(BlockPolygons(polygons=np.asarray(polygons, object), **columns), arrays["done"])
