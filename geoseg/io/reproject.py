"""Polygons brought to the CRS of a grid.

A side of a polygon is straight in the polygon's own CRS and bent in any other, so its corners alone do not say where it
runs: the northern side of a box of one degree passes 120 m south of the line between its corners in UTM. Polygons
are therefore cut to the surroundings of the grid, get new vertices so close together that no side is off by more than
`TOLERANCE_PX`, and are only then transformed. Around the globe, coordinates may be counted from anywhere: 190 degrees
east is 170 degrees west.
"""

from functools import lru_cache
from math import hypot, pi
from typing import Any

import numpy as np
import rasterio.crs
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely.errors import GEOSException

from geoseg.errors import MissingCRSError
from geoseg.gdal import transforming
from geoseg.grid import Grid

__all__ = ["areal_parts", "bounds_in", "in_degrees", "repaired", "reproject", "turns_of"]

Shapes = NDArray[Any]
"""Shapely polygons and multipolygons, `(n,)`."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top; right may lie more than half the globe east of 0."""

TOLERANCE_PX = 0.05
"""Pixels by which a side of a polygon may be off after the transformation."""

SURROUNDINGS_PX = 1000
"""Pixels on each side of a grid that are its surroundings, at least; of a larger grid, its own size."""

MOST_PARTS = 10_000
"""Parts into which a side is divided, at most."""

LATTICE = 33
"""Points along each axis at which the surroundings are taken to another CRS."""

EARTH_RADIUS_M = 6_378_137

RETURN_M = 1000
"""Meters by which a corner on Earth comes back at most from another CRS, beside a hundredth of all polygons' size: the
ways there and back may be of different accuracy."""

TURNS = (-2, -1, 0, 1, 2)
"""Whole turns of the globe by which two ways to count longitude may differ: each is at most one off."""


def reproject(shapes: Shapes, crs: CRS, grid: Grid) -> Shapes:
    """Bring polygons to the CRS of a grid.

    Args:
        shapes: Polygons and multipolygons; none is missing.
        crs: Their CRS.
        grid: A grid with a CRS.

    Returns:
        As many polygons, in which no side is off by more than `TOLERANCE_PX`. What lies outside the surroundings of the
        grid is cut off; where nothing is left, a polygon is empty.

    Raises:
        MissingCRSError: If PROJ knows no way from one CRS to the other, or polygons reach beyond what it can transform.
    """
    assert grid.crs is not None
    target = CRS.from_wkt(grid.crs.to_wkt())
    if shapely.has_z(shapes).any():
        shapes = shapely.force_2d(shapes)
    around, turn = _surroundings(grid), _turn_of(target)
    if crs == target:
        return shapes if turn is None else _cut(shapes, around, turn)
    forward = _transformer(crs, target)
    region = _region(around, crs, target)
    if region is not None:
        shapes = _cut(shapes, region, _turn_of(crs))
    else:
        _check_return(shapes, crs, target)
    area = region if region is not None else tuple(shapely.total_bounds(shapes))
    longest = _longest_side(forward, area, TOLERANCE_PX * _pixel(grid), turn)
    left, bottom, right, top = shapely.bounds(shapes).T
    long = np.hypot(right - left, top - bottom) > longest
    shapes = shapes.copy()
    shapes[long] = _divided(shapes[long], longest)
    moved = shapely.transform(shapes, lambda xy: np.column_stack(forward.transform(xy[:, 0], xy[:, 1])))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise _beyond(crs, target)
    return moved if turn is None else _cut(_unroll(moved, around, turn, target), around, turn)


def _check_return(shapes: Shapes, crs: CRS, target: CRS) -> None:
    """Refuse polygons with corners that do not come back from another CRS: there are no such places on Earth.

    Raises:
        MissingCRSError: If there is one.
    """
    xy, turn = shapely.get_coordinates(shapes), _turn_of(crs)
    there = _transformer(crs, target).transform(*xy.T)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.column_stack(_transformer(target, crs).transform(*there)) - xy
        if turn is not None:
            off[:, 0] -= turn * np.round(off[:, 0] / turn)
        unit = crs.axis_info[0].unit_conversion_factor * (EARTH_RADIUS_M if crs.is_geographic else 1)
        nearly = RETURN_M / unit + np.hypot(*np.ptp(xy, axis=0)) / 100 if len(xy) else 0.0
        if not (np.hypot(*off.T) <= nearly).all():  # of NaN and infinity, too
            raise _beyond(crs, target)


def _beyond(crs: CRS, target: CRS) -> MissingCRSError:
    return MissingCRSError(
        f"Polygons in {crs.name} reach beyond what can be transformed to {target.name}. Cut them to the ground "
        "that the scene shows, or assign the CRS that they are really in."
    )


def in_degrees(shapes: Shapes, crs: CRS) -> Shapes:
    """Return polygons in EPSG:4326, longitudes from -180 to 180; those across the antimeridian in two parts."""
    return reproject(shapes, crs, _world())


def bounds_in(grid: Grid, crs: CRS, *, margin: float = 0.0) -> Box | None:
    """Return the bounds of a grid in another CRS; None where that CRS does not hold all of it.

    Args:
        grid: A grid with a CRS.
        crs: The other CRS.
        margin: What to add on each side, as a share of the longer side.
    """
    assert grid.crs is not None
    return _region(_surroundings(grid, margin=margin, least_px=0), crs, CRS.from_wkt(grid.crs.to_wkt()))


def turns_of(box: Box, crs: CRS, bounds: Box) -> list[Box]:
    """Return a box in `crs`, counted in each way that meets other bounds."""
    turn = _turn_of(crs) or 0.0
    boxes = {(box[0] + n * turn, box[1], box[2] + n * turn, box[3]) for n in TURNS}
    return [b for b in sorted(boxes) if b[0] <= bounds[2] and b[2] >= bounds[0]]


@lru_cache
def _world() -> Grid:
    """Return the whole globe in degrees; nothing depends on its pixels but the tolerance, about 5 m."""
    return Grid(rasterio.crs.CRS.from_epsg(4326), Affine(0.001, 0, -180, 0, -0.001, 90), (180_000, 360_000))


def _pixel(grid: Grid) -> float:
    return float(abs(grid.transform.determinant) ** 0.5)


def _surroundings(grid: Grid, *, margin: float = 1.0, least_px: int = SURROUNDINGS_PX) -> Box:
    """Return a grid's bounds with a margin, in its CRS; at most once around the globe, and up to the poles."""
    assert grid.crs is not None
    left, bottom, right, top = grid.bounds
    crs = CRS.from_wkt(grid.crs.to_wkt())
    turn = _turn_of(crs)
    dx = dy = max(margin * max(right - left, top - bottom), least_px * _pixel(grid))
    if turn is not None:
        dx = max(0.0, min(dx, (turn - (right - left)) / 2))
    bottom, top = bottom - dy, top + dy
    if crs.is_geographic and turn is not None:
        bottom, top = max(bottom, -turn / 4), min(top, turn / 4)
    return left - dx, bottom, right + dx, top


@lru_cache(maxsize=64)
def _transformer(source: CRS, target: CRS) -> Transformer:
    """Return what transforms coordinates; it may be shared by threads.

    Raises:
        MissingCRSError: If PROJ knows no way.
    """
    with transforming(source, target):
        return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _turn_of(crs: CRS) -> float | None:
    """Return how far x grows around the globe, in units of a CRS in which that is the same everywhere, else None.

    It is a full circle where x is a longitude, and a length in cylindrical projections, such as Web Mercator.
    """
    if crs.is_geographic:
        return float(2 * pi / crs.axis_info[0].unit_conversion_factor)
    try:
        base = crs.geodetic_crs  # not every CRS of a damaged file has one that can be read
        if not crs.is_projected or base is None:
            return None
        forward = Transformer.from_crs(base, crs, always_xy=True)
    except ProjError:
        return None
    circle = 2 * pi / base.axis_info[0].unit_conversion_factor
    lon = np.tile(np.linspace(-circle / 2, circle / 2, 361), (2, 1))
    x, y = forward.transform(lon, np.array([[0.0], [circle / 9]]) + 0 * lon)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    steps = np.diff(x, axis=1)
    step = float(np.median(steps))
    is_even = abs(steps - step) < 1e-6 * abs(step)  # but where x falls back by a turn
    is_level = np.ptp(y, axis=1).max() < abs(step)
    return abs(360 * step) if step and is_level and (is_even.sum(axis=1) >= 359).all() else None


def _region(around: Box, crs: CRS, target: CRS) -> Box | None:
    """Return the bounds in `crs` of a box in `target`, a little larger; None where it does not fit in there."""
    if crs == target:
        return around
    left, bottom, right, top = around
    x, y = np.meshgrid(np.linspace(left, right, LATTICE), np.linspace(bottom, top, LATTICE))
    forward, back = _transformer(crs, target), _transformer(target, crs)
    there_x, there_y = back.transform(x, y)
    again_x, again_y = forward.transform(there_x, there_y)
    turn, own_turn = _turn_of(target), _turn_of(crs)
    with np.errstate(invalid="ignore"):
        off_x, off_y = again_x - x, again_y - y
        if turn is not None:
            off_x -= turn * np.round(off_x / turn)
        if not (np.hypot(off_x, off_y) <= hypot(right - left, top - bottom) / 100).all():  # of NaN and infinity, too
            return None
    if own_turn is not None:
        there_x = np.unwrap(np.unwrap(there_x, axis=1, period=own_turn), axis=0, period=own_turn)
    box = [there_x.min(), there_y.min(), there_x.max(), there_y.max()]
    dx, dy = (box[2] - box[0]) / 20, (box[3] - box[1]) / 20
    box = [box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy]
    if crs.is_geographic and own_turn is not None:
        pole_x, pole_y = forward.transform([0.0, 0.0], [-own_turn / 4, own_turn / 4])
        poles = [left <= px <= right and bottom <= py <= top for px, py in zip(pole_x, pole_y, strict=True)]
        box[1], box[3] = max(box[1], -own_turn / 4), min(box[3], own_turn / 4)
        if any(poles):
            box[0], box[2] = -own_turn / 2, own_turn / 2
            box[1], box[3] = -own_turn / 4 if poles[0] else box[1], own_turn / 4 if poles[1] else box[3]
    if own_turn is not None and box[2] - box[0] > own_turn:
        middle = (box[0] + box[2]) / 2
        box[0], box[2] = middle - own_turn / 2, middle + own_turn / 2
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


@np.errstate(over="ignore", invalid="ignore")  # of absurd coordinates, which no box holds
def _cut(shapes: Shapes, box: Box, turn: float | None) -> Shapes:
    """Return the part of each polygon in a box, also if it is counted whole turns of the globe away."""
    left, bottom, right, top = shapely.bounds(shapes).T
    reaching = ~((left >= box[0]) & (bottom >= box[1]) & (right <= box[2]) & (top <= box[3]))
    if not reaching.any():
        return shapes
    valid = repaired(shapes[reaching])
    parts = np.full((len(valid), len(TURNS)), shapely.Polygon(), object)
    for column, n in enumerate(TURNS if turn is not None else (0,)):
        shift = n * (turn or 0.0)
        inside = shapely.intersection(valid, shapely.box(box[0] + shift, box[1], box[2] + shift, box[3]))
        parts[:, column] = _moved(inside, -shift) if shift else inside
    out = shapes.copy()
    out[reaching] = [shapely.union_all(areal_parts(row)) for row in parts]
    return out


def areal_parts(geometry: Any) -> Shapes:
    """Return the polygons of geometries, of collections within collections, too; no lines and points."""
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts = shapely.get_parts(parts)
    return np.asarray(parts[(shapely.get_dimensions(parts) == 2) & ~shapely.is_empty(parts)], object)


def repaired(shapes: Shapes) -> Shapes:
    """Return valid geometries, some of them collections; an empty polygon where GEOS knows no way to repair one."""
    try:
        return np.asarray(shapely.make_valid(shapes))
    except GEOSException:
        return np.array([_repaired_or_empty(shape) for shape in shapes], object)


def _repaired_or_empty(shape: Any) -> Any:
    try:
        return shapely.make_valid(shape)
    except GEOSException:
        return shapely.Polygon()


def _divided(shapes: Shapes, longest: float) -> Shapes:
    """Return polygons whose sides are divided into shorter ones."""
    try:
        return np.asarray(shapely.segmentize(shapes, longest))
    except GEOSException:  # of rings that are a single point
        areas = [shapely.union_all(areal_parts(shape)) for shape in repaired(shapes)]
        return np.asarray(shapely.segmentize(areas, longest))


def _longest_side(forward: Transformer, area: Box, tolerance: float, turn: float | None) -> float:
    """Return the length up to which straight lines in an area stay straight, within a tolerance, if transformed."""
    left, bottom, right, top = area
    whole = length = hypot(right - left, top - bottom)
    if not np.isfinite(whole) or whole == 0:
        return np.inf
    x, y = (v.ravel()[:, None, None] for v in np.meshgrid(np.linspace(left, right, 9), np.linspace(bottom, top, 9)))
    angle = np.arange(4)[:, None] * pi / 4
    share = np.linspace(0, 1, 5)
    for _ in range(20):
        along = length * (share - 0.5)
        there = np.stack(forward.transform(x + np.cos(angle) * along, y + np.sin(angle) * along))
        with np.errstate(invalid="ignore"):
            if turn is not None:
                there[0] = np.unwrap(there[0], period=turn)
            off = np.hypot(*(there - there[..., :1] - (there[..., -1:] - there[..., :1]) * share)).max(axis=-1)
        off = off[np.isfinite(off)]
        worst = float(off.max()) if off.size else 0.0
        if worst <= tolerance or length < whole / MOST_PARTS:  # as around a pole, where nothing is straight
            break
        length *= max(0.05, 0.9 * (tolerance / worst) ** 0.5)  # a side bends with the square of its length
    return max(length, whole / MOST_PARTS)


def _unroll(shapes: Shapes, around: Box, turn: float, crs: CRS) -> Shapes:
    """Return polygons whose x does not jump by a turn between two vertices, counted as in the middle of a box."""
    xy = shapely.get_coordinates(shapes)
    xy[:, 0] = _without_jumps(xy[:, 0], turn)
    rings = shapely.get_rings(shapes)
    last = np.cumsum(shapely.get_num_coordinates(rings)) - 1
    first = np.append(0, last[:-1] + 1)[: len(last)]
    out = shapes.copy()
    if (abs(xy[last, 0] - xy[first, 0]) < turn / 2).all():
        out = shapely.set_coordinates(out, xy)
    else:
        out[:] = [shapely.union_all([_open_at_pole(part, turn, crs) for part in shapely.get_parts(s)]) for s in shapes]
    left, _, right, _ = shapely.bounds(out).T
    turns = np.round(((around[0] + around[2] - left - right) / 2) / turn)
    for n in set(turns[np.isfinite(turns)]) - {0.0}:
        out[turns == n] = _moved(out[turns == n], n * turn)
    return out


def _open_at_pole(polygon: shapely.Polygon, turn: float, crs: CRS) -> shapely.Polygon:
    """Return a polygon whose x does not jump by a turn; one around a pole gets a side along it."""
    rings: list[NDArray[np.float64]] = []
    for ring in (polygon.exterior, *polygon.interiors):
        xy = shapely.get_coordinates(ring)
        xy[:, 0] = _without_jumps(xy[:, 0], turn)
        xy[:, 0] -= turn * np.round((xy[:, 0].mean() - (rings[0][:, 0].mean() if rings else 0.0)) / turn)
        if abs(xy[-1, 0] - xy[0, 0]) > turn / 2:
            if not crs.is_geographic:
                raise MissingCRSError(f"A polygon holds a pole, which has no place in {crs.name}. Cut the pole off.")
            pole = np.sign(xy[:, 1].mean()) * turn / 4
            xy = np.vstack([xy, [xy[-1, 0], pole], [xy[0, 0], pole], xy[0]])
        rings.append(xy)
    return repaired(np.array([shapely.Polygon(rings[0], rings[1:])]))[0]


def _without_jumps(x: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    """Return x plus whole turns, so that none is more than half a turn from the one before it."""
    return np.asarray(x + turn * np.round((np.unwrap(x, period=turn) - x) / turn))


def _moved(shapes: Any, shift: float) -> Any:
    return shapely.transform(shapes, lambda xy: xy + np.array([shift, 0.0]))
