"""One block's mask into polygons."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.vectorize.rings import Corners, PolygonArray, outline
from geoseg.vectorize.runs import Runs, find_runs, label_runs


@dataclass(frozen=True, slots=True, eq=False)
class BlockPolygons:
    """Polygons of one block, or of the joined scene, with what is counted inside them.

    Attributes:
        polygons: Shapely polygons in whole-scene pixel coordinates, x = column and y = row, integers, in the canonical
            form of `geoseg.vectorize.rings.outline`; sorted by first vertex (row, col).
        pixel_count: Pixels inside, `(polygon,)`.
        probability_sum: Sum of the uint8 probabilities inside, `(polygon,)`.
        edge: True where a pixel touches the scene's border or a pixel without data, `(polygon,)`.
        open: True where a pixel touches a border of the block inside the scene, so that the polygon may go on beyond
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
    inner = _own_pixels(window, scene_shape, mask.shape, probability.shape, valid.shape)
    own = (mask & valid)[inner]
    runs = find_runs(own)
    count, region = label_runs(runs)
    at_scene, at_block = _border_runs(runs, window, scene_shape)
    at_edge = at_scene if valid.all() else at_scene | (_sum_runs(runs, _beside_nodata(valid)[inner][own]) > 0)
    return BlockPolygons(
        polygons=outline(_corners_of_runs(runs, region, window)),
        pixel_count=add_by_region(region, runs.length, count),
        probability_sum=add_by_region(region, _sum_runs(runs, probability[inner][own]), count),
        edge=add_by_region(region, at_edge, count) > 0,
        open=add_by_region(region, at_block, count) > 0,
    )


def add_by_region(region: NDArray[np.int64], value: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Sum integers or flags by region, exactly."""
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, region, value.astype(np.int64))
    return total


def _own_pixels(window: Window, scene_shape: tuple[int, int], *shapes: tuple[int, ...]) -> tuple[slice, slice]:
    """Check the shapes and return the slices of the block's own pixels in its expanded arrays."""
    scene = Window(0, 0, *scene_shape)
    expanded = window.expand(1).intersect(scene)
    if expanded is None or window.intersect(scene) != window:
        raise ValueError(f"{window} does not lie inside the scene of {scene_shape[0]} x {scene_shape[1]} pixels")
    if any(shape != expanded.shape for shape in shapes):
        raise ValueError(f"arrays of shape {shapes} for {window}; expected {expanded.shape}, one pixel more per side")
    row, col = window.row - expanded.row, window.col - expanded.col
    return slice(row, row + window.height), slice(col, col + window.width)


def _corners_of_runs(runs: Runs, region: NDArray[np.int64], window: Window) -> Corners:
    """Return the four corners of every run as weights, in whole-scene pixels."""
    row, start, stop = runs.row + window.row, runs.start + window.col, runs.stop + window.col
    weight = np.ones(len(runs), dtype=np.int64)
    return Corners(
        region=np.tile(region, 4),
        row=np.concatenate((row, row, row + 1, row + 1)),
        col=np.concatenate((start, stop, start, stop)),
        weight=np.concatenate((weight, -weight, -weight, weight)),
    )


def _border_runs(
    runs: Runs, window: Window, scene_shape: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which runs touch the scene's border, and which a border of the block inside the scene."""
    touches = (runs.row == 0, runs.row == window.height - 1, runs.start == 0, runs.stop == window.width)
    is_scene = (
        window.row == 0,
        window.rows.stop == scene_shape[0],
        window.col == 0,
        window.cols.stop == scene_shape[1],
    )
    at_scene = [touch & own for touch, own in zip(touches, is_scene, strict=True)]
    at_block = [touch & (not own) for touch, own in zip(touches, is_scene, strict=True)]
    return np.logical_or.reduce(at_scene), np.logical_or.reduce(at_block)


def _beside_nodata(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which pixels have a pixel without data among their 4-neighbors."""
    beside = np.zeros(valid.shape, dtype=bool)
    beside[1:] |= ~valid[:-1]
    beside[:-1] |= ~valid[1:]
    beside[:, 1:] |= ~valid[:, :-1]
    beside[:, :-1] |= ~valid[:, 1:]
    return beside


def _sum_runs(runs: Runs, value: NDArray[Any]) -> NDArray[np.int64]:
    """Sum over each run the values of the mask's pixels, `(mask pixel,)`, row by row."""
    if not len(runs):
        return np.zeros(0, dtype=np.int64)
    total: NDArray[np.int64] = np.add.reduceat(value, np.cumsum(runs.length) - runs.length, dtype=np.int64)
    return total
