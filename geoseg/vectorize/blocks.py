"""One block's buildings into polygons, by their runs: horizontal stretches of pixels of one region."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.vectorize.instances import Counts, Depth, Links, Tally, find_regions, tally_buildings
from geoseg.vectorize.rings import Corners, PolygonArray, outline, reading_order


@dataclass(frozen=True, slots=True, eq=False)
class BlockPolygons:
    """Polygons of one block, or of the joined scene, with what is counted inside them.

    Attributes:
        polygons: Shapely polygons in whole-scene pixel coordinates, x = column and y = row, integers, in the canonical
            form of `geoseg.vectorize.rings.outline`; sorted by first vertex (row, col).
        summit: Order of the highest pixel, which tells buildings apart (`geoseg.vectorize.instances`), `(polygon,)`.
        pixel_count: Pixels inside, `(polygon,)`.
        probability_sum: Sum of the uint8 probabilities inside, `(polygon,)`.
        probability_min: The smallest of them, `(polygon,)`.
        touches: True where a pixel of another building is beside one of its own; not final while it is open,
            `(polygon,)`.
        edge: True where a pixel touches the scene's border or a pixel without data, `(polygon,)`.
        open: True where the building may continue in another region or block, `(polygon,)`.
        links: What the scene must know to join them.
    """

    polygons: PolygonArray
    summit: NDArray[np.int64]
    pixel_count: NDArray[np.int64]
    probability_sum: NDArray[np.int64]
    probability_min: NDArray[np.int64]
    touches: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    open: NDArray[np.bool_]
    links: Links = dataclasses.field(default_factory=Links.empty)

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        sizes = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns must have the same length, got {sizes}")

    def __len__(self) -> int:
        """Return the number of polygons."""
        return len(self.polygons)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put the polygons of several blocks one after another."""
        parts = parts or [cls.empty()]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        return cls(**columns, links=Links.concatenate([part.links for part in parts]))

    @classmethod
    def empty(cls) -> Self:
        """Return no polygons."""
        number, flag = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
        return cls(np.zeros(0, dtype=object), number, number, number, number, flag, flag, flag)

    def take(self, index: NDArray[Any]) -> Self:
        """Return the polygons of an index or a boolean array, without links."""
        return type(self)(**{name: getattr(self, name)[index] for name in COLUMNS})


COLUMNS = ("polygons", "summit", "pixel_count", "probability_sum", "probability_min", "touches", "edge", "open")
"""Attributes of `BlockPolygons` with an entry per polygon."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Pixels `start .. stop - 1` of a row, all of one region; sorted by row, then by start. All arrays are `(run,)`."""

    region: NDArray[np.int64]
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

    def reduce(self, ufunc: np.ufunc, value: NDArray[Any]) -> NDArray[np.int64]:
        """Reduce over each run the values of the runs' pixels, `(pixel,)`, row by row."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        reduced: NDArray[np.int64] = ufunc.reduceat(value, np.cumsum(self.length) - self.length, dtype=np.int64)
        return reduced


def polygonize_block(
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    window: Window,
    *,
    scene_shape: tuple[int, int],
    surface: NDArray[np.integer] | None = None,
    depth: Depth | None = None,
    counts: Counts | None = None,
) -> BlockPolygons:
    """Outline the buildings of one block, holes kept.

    All arrays cover `window.expand(1)` cut at the scene's border, so that `edge` is a function of the scene and not of
    the blocks. Pixels without data are never inside a polygon, whatever the mask says.

    Args:
        mask: True = building, `(y, x)`.
        probability: Probability of each pixel, summed as it is, `(y, x)` uint8.
        valid: True = the scene has data there, `(y, x)`.
        window: The block's own pixels, in pixels of the whole scene.
        scene_shape: Height and width of the whole scene, pixels.
        surface: How far inside a building each pixel lies, whole numbers of at least 0, `(y, x)`; 0 by default.
        depth: How much the surface falls between two buildings; by default buildings are the 4-connected parts of the
            mask.
        counts: See `find_regions`.

    Returns:
        Polygons of the block's own pixels.

    Raises:
        ValueError: If the window does not lie inside the scene, an array has another shape, or counts are missing.
    """
    scene, ring = Window(0, 0, *scene_shape), window.expand(1)
    inside, height = _around(mask, valid, surface, window, scene_shape)
    if probability.shape != mask.shape:
        raise ValueError(f"a probability of shape {probability.shape} for {window}; expected {mask.shape}")
    expanded = ring.intersect(scene)
    assert expanded is not None
    inner = window.relative_to(expanded).slices
    found = find_regions(height, inside, window, scene_shape=scene_shape, depth=depth, counts=counts)
    runs = find_runs(found.region)
    region, count = runs.region, len(found.summit)

    touches = (runs.row == 0, runs.row == window.height - 1, runs.start == 0, runs.stop == window.width)
    is_scene = (window.row == 0, window.rows.stop == scene.height, window.col == 0, window.cols.stop == scene.width)
    at_edge = np.logical_or.reduce([touch & is_own for touch, is_own in zip(touches, is_scene, strict=True)])
    own = found.region >= 0
    if not valid.all():
        at_edge |= runs.reduce(np.add, _beside_nodata(valid)[inner][own]) > 0

    row, start, stop = runs.row + window.row, runs.start + window.col, runs.stop + window.col
    weight = np.ones(len(runs), dtype=np.int64)
    corners = Corners(
        region=np.tile(region, 4),
        row=np.concatenate((row, row, row + 1, row + 1)),
        col=np.concatenate((start, stop, start, stop)),
        weight=np.concatenate((weight, -weight, -weight, weight)),
    )
    values = probability[inner][own]
    lowest = np.full(count, np.iinfo(np.uint8).max, np.int64)
    np.minimum.at(lowest, region, runs.reduce(np.minimum, values))
    polygons = BlockPolygons(
        polygons=outline(corners),
        summit=found.summit,
        pixel_count=add_by_region(region, runs.length, count),
        probability_sum=add_by_region(region, runs.reduce(np.add, values), count),
        probability_min=lowest,
        touches=found.touches,
        edge=add_by_region(region, at_edge, count) > 0,
        open=found.is_open,
    )
    order = reading_order(polygons.polygons)
    return dataclasses.replace(polygons.take(order), links=found.links)


def tally_block(
    mask: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    surface: NDArray[np.integer],
    window: Window,
    *,
    scene_shape: tuple[int, int],
    depth: Depth,
) -> Tally:
    """Count the buildings of one block for those of its components that go on in others; see `polygonize_block`."""
    inside, height = _around(mask, valid, surface, window, scene_shape)
    return tally_buildings(height, inside, window, scene_shape=scene_shape, depth=depth)


def _around(
    mask: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    surface: NDArray[np.integer] | None,
    window: Window,
    scene_shape: tuple[int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.integer]]:
    """Return mask and surface of `window.expand(1)`, False and 0 beyond the scene; see `polygonize_block`."""
    scene, ring = Window(0, 0, *scene_shape), window.expand(1)
    expanded = ring.intersect(scene)
    if expanded is None or window.intersect(scene) != window:
        raise ValueError(f"{window} does not lie inside the scene of {scene_shape[0]} x {scene_shape[1]} pixels")
    surface = np.zeros(mask.shape, np.uint8) if surface is None else surface
    shapes = mask.shape, valid.shape, surface.shape
    if any(shape != expanded.shape for shape in shapes):
        raise ValueError(f"arrays of shape {shapes} for {window}; expected {expanded.shape}, one pixel more per side")
    seen = expanded.relative_to(ring).slices
    inside, height = np.zeros(ring.shape, bool), np.zeros(ring.shape, surface.dtype)
    inside[seen], height[seen] = mask & valid, surface
    return inside, height


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


def find_runs(region: NDArray[np.int32]) -> Runs:
    """Find the runs of a raster of regions, `(y, x)`, -1 outside all of them."""
    height, width = region.shape
    padded = np.full((height, width + 1), -1, np.int32)
    padded[:, :width] = region
    flat = padded.ravel()
    first = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    last = np.append(first[1:], len(flat))
    kept = flat[first] >= 0
    row, start = np.divmod(first[kept], width + 1)
    return Runs(flat[first[kept]].astype(np.int64), row, start, start + last[kept] - first[kept])
