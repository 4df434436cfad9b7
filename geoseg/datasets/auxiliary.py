"""What auxiliary channels learn: where walls are, where buildings touch, how deep inside a building a pixel lies.

All is drawn from the outlines of single buildings, in pixels of the grid (x = column, y = row), so that widths are
exact whatever the pixel size is. A pixel has a value if its center does.

- `edge`: inside a building, at most `edge_px` from its outline.
- `contact`: within half of `contact_px` of two buildings; where they are farther apart than that, but not farther than
  `contact_px`, the gap between them. Where walls touch it is `contact_px` wide, half of it in each building.
- `distance`: the distance from the outline inside a building, `FULL` from `distance_px` on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.datasets.coding import IGNORED, UNSURE

__all__ = ["AUXILIARY", "FULL", "Widths", "draw_auxiliary", "outline_components"]

AUXILIARY = ("edge", "contact", "distance")
"""The names of auxiliary channels that can be trained."""

FULL = 250
"""The stored value of 1 in `distance`."""

_SAME = 0.5
"""Two outlines that share more than this part of the smaller one are the same building drawn twice."""

_LEAST_PX = 6.0
"""Components of a mask below this area, pixels, are specks of resampling: they touch nothing."""

_ARC = 4
"""Segments of a quarter circle around a corner."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of the auxiliary channels in pixels.

    Attributes:
        edge_px: Width of the band inside an outline.
        contact_px: Largest gap between two buildings that are in contact.
        distance_px: Distance from the outline that counts as 1.
        single_px: Largest area of a mask's component that is taken for one building, square pixels.
    """

    edge_px: float
    contact_px: float
    distance_px: float
    single_px: float


def outline_components(marked: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the outlines of the 4-connected components of a mask (y, x), in pixels."""
    return _outline(marked.astype(np.int32))[0]


def outline_instances(ids: NDArray[Any]) -> NDArray[Any]:
    """Return one outline in pixels for each number above 0 in `ids` (y, x), of several parts where they do not touch.

    They are in the order of their numbers.
    """
    numbers, ranks = np.unique(ids, return_inverse=True)
    first = int(np.searchsorted(numbers, 0, side="right"))
    polygons, found = _outline((ranks.reshape(ids.shape) - (first - 1)).clip(0).astype(np.int32))
    order = np.argsort(found, kind="stable")
    return np.asarray(shapely.multipolygons(polygons[order], indices=found[order] - 1), object)


def _outline(ids: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the outlines of the 4-connected areas of one number above 0, and these numbers."""
    from rasterio.features import shapes

    found = [(shape["coordinates"], number) for shape, number in shapes(ids, mask=ids > 0)]
    polygons = np.array([shapely.Polygon(rings[0], rings[1:]) for rings, _ in found], dtype=object)
    return polygons, np.array([number for _, number in found], dtype=np.int64)


def draw_auxiliary(
    channels: Sequence[str],
    outlines: NDArray[Any],
    truth: NDArray[np.uint8],
    target: int,
    widths: Widths,
    *,
    single: bool,
    clipped: bool,
) -> NDArray[np.uint8]:
    """Draw auxiliary channels.

    Args:
        channels: Names among `AUXILIARY`.
        outlines: Polygons in pixels, one per building; or the components of a mask, with `single=False`.
        truth: (y, x) class indices, `UNSURE` where a building may be missing, `IGNORED` without a label.
        target: The index of buildings.
        widths: Widths in pixels.
        single: Whether each outline is one building. Where a component may be several, what its inside is is unknown.
        clipped: Whether outlines end at the border and at `IGNORED` pixels, where the building may go on.

    Returns:
        (channel, y, x) uint8: 0 or 1, of `distance` 0 to `FULL`; `IGNORED` where it is not known.
    """
    shape = (truth.shape[0], truth.shape[1])
    if len(outlines):
        outlines = shapely.make_valid(outlines)
        outlines = _near(outlines[shapely.area(outlines) > 0], shape, widths.contact_px)
    building, unsure = truth == target, truth == UNSURE
    unknown = truth == IGNORED
    several = np.zeros(shape, bool)
    if not single:
        several = _burn(outlines[shapely.area(outlines) > widths.single_px], shape)
        outlines = outlines[shapely.area(outlines) >= _LEAST_PX]
    drawn = []
    for channel in channels:
        if channel == "edge":
            values = _burn(_rims(outlines, widths.edge_px), shape).astype(np.uint8)
            values[several & (values == 0)] = IGNORED
            reach = widths.edge_px
        elif channel == "contact":
            values = _burn(_contacts(outlines, widths.contact_px), shape).astype(np.uint8)
            reach = widths.contact_px / 2
            lonely = building & (values == 0)
            values[lonely & several] = IGNORED
            if unsure.any():  # a neighbor may be missing
                values[lonely & _dilate(unsure, reach)] = IGNORED
        else:
            values = _depths(outlines, shape, widths.distance_px)
            values[several] = IGNORED
            reach = widths.distance_px
        if clipped:
            values[building & _dilate(unknown, reach, border=True)] = IGNORED
        values[unsure & (values == 0)] = IGNORED
        values[unknown] = IGNORED
        drawn.append(values)
    return np.stack(drawn) if drawn else np.zeros((0, *shape), np.uint8)


def _near(outlines: NDArray[Any], shape: tuple[int, int], reach: float) -> NDArray[Any]:
    """Return the outlines that can be seen within an image of (height, width)."""
    height, width = shape
    left, top, right, bottom = shapely.bounds(outlines).T
    seen: NDArray[np.bool_] = (left < width + reach) & (right > -reach) & (top < height + reach) & (bottom > -reach)
    return np.asarray(outlines[seen], object)


def _rims(outlines: NDArray[Any], edge_px: float) -> NDArray[Any]:
    return np.asarray(shapely.difference(outlines, shapely.buffer(outlines, -edge_px, quad_segs=_ARC)), object)


def _contacts(outlines: NDArray[Any], contact_px: float) -> NDArray[Any]:
    """Return the polygons where two buildings are in contact."""
    if len(outlines) < 2:
        return outlines[:0]
    first, second = shapely.STRtree(outlines).query(outlines, predicate="dwithin", distance=contact_px)
    one, other = outlines[first[first < second]], outlines[second[first < second]]
    shared = shapely.area(shapely.intersection(one, other))
    apart = shared <= _SAME * np.minimum(shapely.area(one), shapely.area(other))
    one, other = one[apart], other[apart]
    radius = np.maximum(contact_px / 2, shapely.distance(one, other))
    grown = [shapely.buffer(side, radius, quad_segs=_ARC) for side in (one, other)]
    return np.asarray(shapely.intersection(*grown), object)


def _depths(outlines: NDArray[Any], shape: tuple[int, int], full_px: float) -> NDArray[np.uint8]:
    """Return the distance (y, x) of pixel centers from the outline of the building that they are in, 0 to `FULL`."""
    from rasterio.features import rasterize

    values = np.zeros(shape, np.uint8)
    if len(outlines):
        ids = rasterize(((o, n) for n, o in enumerate(outlines, start=1)), shape, fill=0, dtype="int32")
        rows, cols = np.nonzero(ids)
        walls = shapely.boundary(outlines)[ids[rows, cols] - 1]
        depth = shapely.distance(shapely.points(cols + 0.5, rows + 0.5), walls)
        values[rows, cols] = np.round(FULL * np.minimum(1.0, depth / full_px))
    return values


def _burn(polygons: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return True (y, x) where a pixel's center is in one of the polygons."""
    from rasterio.features import rasterize

    kept = [polygon for polygon in polygons if not polygon.is_empty]
    if not kept:
        return np.zeros(shape, bool)
    burnt: NDArray[np.bool_] = rasterize(((one, 1) for one in kept), shape, fill=0, dtype="uint8").astype(bool)
    return burnt


def _dilate(marked: NDArray[np.bool_], reach: float, *, border: bool = False) -> NDArray[np.bool_]:
    """Mark (y, x) what is up to `reach` rows and columns from a marked pixel, or from beyond the border."""
    steps = max(1, int(np.ceil(reach)))
    grown = np.pad(marked, steps, constant_values=border)
    height, width = marked.shape
    across = np.logical_or.reduce([grown[:, k : k + width] for k in range(2 * steps + 1)])
    return np.asarray(np.logical_or.reduce([across[k : k + height] for k in range(2 * steps + 1)]), bool)
