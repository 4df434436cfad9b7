"""One block's mask into polygons, by its runs: horizontal stretches of mask pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.vectorize.rings import Corners, PolygonArray, outline


@dataclass(frozen=True, slots=True, eq=False)
class BlockPolygons:
    """Polygons of one block, or of the joined scene, with what is counted inside them.

    Attributes:
        polygons: Shapely polygons in whole-scene pixel coordinates, x = column and y = row, integers, in the canonical
            form of `geoseg.vectorize.rings.outline`; sorted by first vertex (row, col).
        pixel_count: Pixels inside, `(polygon,)`.
        probability_sum: Sum of the uint8 probabilities inside, `(polygon,)`.
        edge: True where a pixel touches the scene's border or a pixel without data, `(polygon,)`.
        open: True where a pixel touches a border of the block inside the scene, so that the polygon may continue beyond
            it, `(polygon,)`.
    """

    polygons: PolygonArray
    pixel_count: NDArray[np.int64]
    probability_sum: NDArray[np.int64]
    edge: NDArray[np.bool_]
    open: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns must have the same length, got {sizes}")

    def __len__(self) -> int:
        """Return the number of polygons."""
        return len(self.polygons)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put the polygons of several blocks one after another."""
        parts = parts or [cls.empty()]
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @classmethod
    def empty(cls) -> Self:
        """Return no polygons."""
        number, flag = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
        return cls(np.zeros(0, dtype=object), number, number, flag, flag)

    def take(self, index: NDArray[Any]) -> Self:
        """Return the polygons of an index or a boolean array."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Pixels `start .. stop - 1` of a row, for every run; sorted by row, then by start. All arrays are `(run,)`."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.row)

    @property
    def length(self) -> NDArray[np.int64]:
        """Pixels of each run."""
        return self.stop - self.start

    def sum(self, value: NDArray[Any]) -> NDArray[np.int64]:
        """Sum over each run the values of the mask's pixels, `(mask pixel,)`, row by row."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        total: NDArray[np.int64] = np.add.reduceat(value, np.cumsum(self.length) - self.length, dtype=np.int64)
        return total


def polygonize_block(
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    window: Window,
    *,
    scene_shape: tuple[int, int],
) -> BlockPolygons:
    """Outline the 4-connected buildings of one block, holes kept.

    All three arrays cover `window.expand(1)` cut at the scene's border, so that `edge` is a function of the scene and
    not of the blocks. Pixels without data are never inside a polygon, whatever the mask says.

    Args:
        mask: True = building, `(y, x)`.
        probability: Probability of each pixel, summed as it is, `(y, x)` uint8.
        valid: True = the scene has data there, `(y, x)`.
        window: The block's own pixels, in pixels of the whole scene.
        scene_shape: Height and width of the whole scene, pixels.

    Returns:
        Polygons of the block's own pixels.

    Raises:
        ValueError: If the window does not lie inside the scene or an array has another shape.
    """
    scene = Window(0, 0, *scene_shape)
    expanded = window.expand(1).intersect(scene)
    if expanded is None or window.intersect(scene) != window:
        raise ValueError(f"{window} does not lie inside the scene of {scene_shape[0]} x {scene_shape[1]} pixels")
    shapes = mask.shape, probability.shape, valid.shape
    if any(shape != expanded.shape for shape in shapes):
        raise ValueError(f"arrays of shape {shapes} for {window}; expected {expanded.shape}, one pixel more per side")
    inner = window.relative_to(expanded).slices
    own = (mask & valid)[inner]
    runs = find_runs(own)
    count, region = label_runs(runs)

    touches = (runs.row == 0, runs.row == window.height - 1, runs.start == 0, runs.stop == window.width)
    is_scene = (window.row == 0, window.rows.stop == scene.height, window.col == 0, window.cols.stop == scene.width)
    at_scene = np.logical_or.reduce([touch & is_own for touch, is_own in zip(touches, is_scene, strict=True)])
    at_block = np.logical_or.reduce([touch & (not is_own) for touch, is_own in zip(touches, is_scene, strict=True)])
    at_edge = at_scene if valid.all() else at_scene | (runs.sum(_beside_nodata(valid)[inner][own]) > 0)

    row, start, stop = runs.row + window.row, runs.start + window.col, runs.stop + window.col
    weight = np.ones(len(runs), dtype=np.int64)
    corners = Corners(
        region=np.tile(region, 4),
        row=np.concatenate((row, row, row + 1, row + 1)),
        col=np.concatenate((start, stop, start, stop)),
        weight=np.concatenate((weight, -weight, -weight, weight)),
    )
    return BlockPolygons(
        polygons=outline(corners),
        pixel_count=add_by_region(region, runs.length, count),
        probability_sum=add_by_region(region, runs.sum(probability[inner][own]), count),
        edge=add_by_region(region, at_edge, count) > 0,
        open=add_by_region(region, at_block, count) > 0,
    )


def add_by_region(region: NDArray[np.int64], value: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Sum integers or flags by region, exactly."""
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, region, value.astype(np.int64))
    return total


def _beside_nodata(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return True for pixels with a pixel without data among their 4-neighbors."""
    beside = np.zeros(valid.shape, dtype=bool)
    beside[1:] |= ~valid[:-1]
    beside[:-1] |= ~valid[1:]
    beside[:, 1:] |= ~valid[:, :-1]
    beside[:, :-1] |= ~valid[:, 1:]
    return beside


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Find the runs of a `(y, x)` mask."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), dtype=bool)
    padded[:, :width] = mask
    flat = padded.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        changes = np.concatenate(([0], changes))
    row, start = np.divmod(changes[::2], width + 1)
    return Runs(row, start, start + changes[1::2] - changes[::2])


def label_runs(runs: Runs) -> tuple[int, NDArray[np.int64]]:
    """Number the 4-connected components of the runs by their first pixel, row by row.

    Returns:
        The number of components and the component of every run, `(run,)`.
    """
    if not len(runs):
        return 0, np.zeros(0, dtype=np.int64)
    stride = int(runs.stop.max()) + 1
    start, stop = runs.row * stride + runs.start, runs.row * stride + runs.stop
    first = np.searchsorted(stop, start + stride, side="right")
    last = np.searchsorted(start, stop + stride, side="left")
    above, below = expand_ranges(first, last)
    return connected_components(len(runs), above, below)


def expand_ranges(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List every pair `(i, j)` with `first[i] <= j < last[i]`."""
    count = np.maximum(last - first, 0)
    i = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, first[i] + offset


def connected_components(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Number the components of the graph whose edges join node `a[i]` to node `b[i]`.

    Every round hooks each root below the smallest root next to it and then flattens the trees (Shiloach and Vishkin,
    "An O(log n) parallel connectivity algorithm", 1982), so a round is a handful of numpy calls.

    Args:
        count: Number of nodes.
        a: First nodes of the edges, `(edge,)`.
        b: Second nodes of the edges, `(edge,)`.

    Returns:
        The number of components and the component of every node. Components are numbered by their smallest node.
    """
    root = np.arange(count, dtype=np.int64)
    while a.size:
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(above := root[root], root):
            root = above
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
    is_root = root == np.arange(count)
    return int(is_root.sum()), (np.cumsum(is_root) - 1)[root]
