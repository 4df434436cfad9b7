"""Outlines as walls: straight pieces of arcs, the lines fitted to them, and the main directions of buildings.

All numbers are computed point by point or summed in the order of a ring, without functions that round differently from
machine to machine (no sines), so that the same polygons give the same walls in any company.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vectorize.arcs import UNIT, Arcs

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
Lines = tuple[Floats, Indices]
"""Points of all arcs and the number of them before each arc, as `join_arcs` takes them."""

FREE = 4
"""Class of a wall in its own direction; 0 and 1 are parallel and perpendicular to the main direction, 2 and 3 lie at 45
degrees to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Walls:
    """Walls of all arcs, in the order of the arcs; all arrays are `(wall,)` or `(wall, 2)`."""

    arc: Indices
    first: Indices  # the first and the last crack, counted over all arcs
    last: Indices
    length: Floats
    kind: Indices
    normal: Floats
    offset: Floats  # normal . p = offset for every p of the line
    weight: Floats

    def take(self, index: NDArray[Any]) -> Self:
        """Return the walls of an index or a boolean array."""
        return type(self)(*(getattr(self, name)[index] for name in WALL_COLUMNS))

    @classmethod
    def concatenate(cls, *parts: Self) -> Self:
        """Put walls one after another."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in WALL_COLUMNS))


WALL_COLUMNS = ("arc", "first", "last", "length", "kind", "normal", "offset", "weight")


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Middles of all cracks, in pixels from the first crack of their arc, with exact sums.

    Attributes:
        xy: The points, absolute, pixels, `(crack, 2)`.
        base: Place that the sums of each arc are relative to, pixels, `(arc, 2)` int.
        sums: Sums of x, y, xx, xy, yy in units of 1/256 pixel before each crack, `(crack + 1, 5)` int.
    """

    xy: Floats
    base: Indices
    sums: Indices

    @classmethod
    def of(cls, arcs: Arcs) -> Self:
        """Sum the middles of the cracks."""
        base = arcs.middle[arcs.start[:-1]] // UNIT
        local = arcs.middle - UNIT * np.repeat(base, arcs.size, axis=0)
        x, y = local.T
        sums = np.zeros((len(x) + 1, 5), np.int64)
        np.cumsum(np.column_stack((x, y, x * x, x * y, y * y)), axis=0, out=sums[1:])
        return cls(arcs.middle / UNIT, base, sums)

    def moments(self, first: Indices, last: Indices) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        """Return number, local mean x and y, and the scatter xx, xy, yy of cracks `first .. last`, pixels."""
        count = (last - first + 1).astype(np.float64)
        x, y, xx, xy, yy = ((self.sums[last + 1] - self.sums[first]) / [UNIT, UNIT, UNIT**2, UNIT**2, UNIT**2]).T
        return count, x / count, y / count, xx - x * x / count, xy - x * y / count, yy - y * y / count


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """Arcs without the middles or corners of cracks that Douglas and Peucker's rule drops.

    Attributes:
        xy: The points left, between the junctions or closed, pixels, `(point, 2)`.
        crack: The crack of each, see `_dense_lines`.
        count: Points of each arc, `(arc,)`.
    """

    xy: Floats
    crack: Indices
    count: Indices

    @classmethod
    def of(cls, arcs: Arcs, xy: Floats, tolerance_px: float) -> Self:
        """Drop points."""
        dense, crack, start = _dense_lines(arcs, xy)
        lines = shapely.from_ragged_array(
            shapely.GeometryType.LINESTRING, np.column_stack((dense, np.arange(len(dense)))), (start,)
        )
        kept = shapely.simplify(lines, tolerance_px, preserve_topology=False)
        left = shapely.get_coordinates(kept, include_z=True)
        return cls(left[:, :2], crack[left[:, 2].astype(np.int64)], shapely.get_num_coordinates(kept))


def _dense_lines(arcs: Arcs, xy: Floats) -> tuple[Floats, Indices, Indices]:
    """Return the points of all arcs between their junctions, or closed; the crack of each, and points before each arc.

    The junctions at the ends of an open arc count as its first and last crack, the last point of a closed one as the
    crack after its last.
    """
    closed, size = arcs.is_closed, arcs.size
    lead = (~closed).astype(np.int64)
    full = size + lead + 1
    start = np.concatenate(([0], np.cumsum(full)))
    arc = np.repeat(np.arange(len(size)), full)
    position = np.arange(start[-1]) - start[arc] - lead[arc]
    over, is_closed = position >= size[arc], closed[arc]
    crack = arcs.start[arc] + np.clip(position, 0, size[arc] - 1)
    crack[over & is_closed] = arcs.start[arc[over & is_closed]]
    points = xy[crack]
    is_end, is_begin = over & ~is_closed, position < 0
    points[is_end] = arcs.junction[arcs.end[arc[is_end]]]
    points[is_begin] = arcs.junction[arcs.begin[arc[is_begin]]]
    crack[over & is_closed] += size[arc[over & is_closed]]
    return points, crack, start


def find_segments(arcs: Arcs, points: Points, chains: Chains) -> Walls:
    """Return the straight pieces of arcs, each with a line fitted to it in its own direction."""
    arc = np.repeat(np.arange(len(chains.count)), chains.count)
    same = np.flatnonzero(arc[1:] == arc[:-1])
    arc, first, last = arc[same], chains.crack[same], chains.crack[same + 1]
    last = np.maximum(np.minimum(last, arcs.start[arc + 1] - 1), first)
    chord = chains.xy[same + 1] - chains.xy[same]
    length = np.sqrt((chord * chord).sum(axis=1))
    return _fitted(points, arc, first, last, length, *unit_vectors(*chord.T))


def _fitted(
    points: Points, arc: Indices, first: Indices, last: Indices, length: Floats, ux: Floats, uy: Floats
) -> Walls:
    """Fit lines to cracks `first .. last` by total least squares; short ones keep the direction `(ux, uy)`."""
    count, x, y, xx, xy, yy = points.moments(*trim(first, last))
    fits = (count >= 4) & (xx + yy > 0)
    vx, vy = half_angle(*unit_vectors(np.where(fits, xx - yy, 1), np.where(fits, 2 * xy, 0)))
    ux, uy = np.where(fits, vx, ux), np.where(fits, vy, uy)
    normal = np.column_stack((-uy, ux))
    offset = normal[:, 0] * (x + points.base[arc, 0]) + normal[:, 1] * (y + points.base[arc, 1])
    return Walls(arc, first, last, length, np.full(len(arc), FREE), normal, offset, count)


def trim(first: Indices, last: Indices) -> tuple[Indices, Indices]:
    """Leave out the outermost cracks of long walls: those next to a corner may belong to the next wall."""
    by = np.where(last - first >= 4, 1, 0)
    return first + by, last - by


def find_directions(arcs: Arcs, segments: Walls, count: int) -> tuple[Floats, Floats, Floats]:
    """Return cosine and sine of four times the main direction of each polygon, and how strong it is.

    Of the mean of all directions and the direction of the longest wall the one is taken from which the walls, weighted
    by length, differ less; then the walls within 11 degrees of it are averaged.
    """
    cos, sin = double_angle(*double_angle(segments.normal[:, 0], segments.normal[:, 1]))
    left = arcs.is_exterior[segments.arc]
    right = arcs.right_exterior[segments.arc] & (arcs.right[segments.arc] >= 0)
    wall = np.concatenate((np.flatnonzero(left), np.flatnonzero(right)))
    polygon = np.concatenate((arcs.left[segments.arc[left]], arcs.right[segments.arc[right]]))
    cos, sin, length = cos[wall], sin[wall], segments.length[wall]
    weight = length * length

    def mean(use: Floats) -> tuple[Floats, Floats, Floats]:
        x, y = sum_by(polygon, use * cos, count), sum_by(polygon, use * sin, count)
        return *unit_vectors(x, y), np.sqrt(x * x + y * y)

    def residual(c: Floats, s: Floats) -> Floats:
        away = np.minimum(1 - (cos * c[polygon] + sin * s[polygon]), 0.5)
        return sum_by(polygon, length * away, count)

    mean_cos, mean_sin, _ = mean(weight)
    by_length = np.lexsort((np.arange(len(wall)), -length, polygon))
    longest = by_length[np.flatnonzero(np.diff(polygon[by_length], prepend=-1))]
    long_cos, long_sin = np.ones(count), np.zeros(count)
    long_cos[polygon[longest]], long_sin[polygon[longest]] = cos[longest], sin[longest]
    is_mean = residual(mean_cos, mean_sin) <= residual(long_cos, long_sin)
    best_cos, best_sin = np.where(is_mean, mean_cos, long_cos), np.where(is_mean, mean_sin, long_sin)
    is_near = cos * best_cos[polygon] + sin * best_sin[polygon] > 0.707
    found_cos, found_sin, strength = mean(weight * is_near)
    nothing = strength == 0
    return np.where(nothing, best_cos, found_cos), np.where(nothing, best_sin, found_sin), strength


def simple_arcs(arcs: Arcs, chains: Chains) -> tuple[Lines, Flags]:
    """Return arcs without the points that Douglas and Peucker's rule drops.

    Closed arcs of which so too little is left keep the corners of their pixels; which ones is returned too.
    """
    closed, count = arcs.is_closed, chains.count
    arc, xy = np.repeat(np.arange(len(count)), count), chains.xy
    keep = np.ones(len(xy), bool)
    keep[np.cumsum(count)[closed] - 1] = False
    is_raw = closed & (count < 4)
    keep &= ~is_raw[arc]
    arc, xy = arc[keep], xy[keep]
    if is_raw.any():
        small = np.flatnonzero(is_raw)
        size, first = arcs.size[small], arcs.start[small]
        offset = np.cumsum(size) - size
        ring = np.repeat(np.arange(len(small)), size)
        position = np.arange(len(ring)) - offset[ring]
        here, ahead, behind = (
            arcs.corner[first[ring] + (position + by) % size[ring]].astype(np.float64) for by in (0, 1, -1)
        )
        turns = (ahead + behind != 2 * here).any(axis=1)
        arc, xy = np.concatenate((arc, small[ring[turns]])), np.concatenate((xy, here[turns]))
        order = np.argsort(arc, kind="stable")
        arc, xy = arc[order], xy[order]
    return (xy, np.concatenate(([0], np.cumsum(np.bincount(arc, minlength=len(count)))))), is_raw


def unit_vectors(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return unit vectors; (1, 0) for those of no length."""
    size = np.sqrt(x * x + y * y)
    nothing = size == 0
    size = np.where(nothing, 1, size)
    return np.where(nothing, 1, x / size), y / size


def sum_by(index: Indices, value: Floats, count: int) -> Floats:
    """Sum values by index, in their order."""
    total: Floats = np.bincount(index, value, count).astype(np.float64)
    return total


def half_angle(cos: Floats, sin: Floats) -> tuple[Floats, Floats]:
    """Return cosine and sine of half an angle in (-180, 180] degrees."""
    half_cos = np.sqrt(np.maximum(0, (1 + cos) / 2))
    half_sin = np.sqrt(np.maximum(0, (1 - cos) / 2))
    return half_cos, np.where(sin < 0, -half_sin, half_sin)


def double_angle(cos: Floats, sin: Floats) -> tuple[Floats, Floats]:
    """Return cosine and sine of twice an angle."""
    return cos * cos - sin * sin, 2 * cos * sin


def quarter_angle(cos: Floats, sin: Floats) -> tuple[Floats, Floats]:
    """Return cosine and sine of a quarter of an angle."""
    return half_angle(*half_angle(cos, sin))
