"""Square meters and meters on the ground, whatever the coordinate reference system."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from geoseg.grid import Grid

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ground:
    """The ellipsoid below a coordinate reference system; without one, the plane of its coordinates.

    Attributes:
        geod: The ellipsoid, or None for the plane.
        to_geographic: World coordinates to longitude and latitude on the same datum, or None.
        degrees: Degrees per unit of the geographic coordinates.
    """

    geod: Geod | None
    to_geographic: Transformer | None
    degrees: float = 1.0

    @classmethod
    @lru_cache(maxsize=16)  # PROJ takes a tenth of a second to find it
    def of(cls, crs: object) -> "Ground":
        """Find the ellipsoid below a CRS; a missing or an engineering CRS has none."""
        if crs is None:
            return cls(None, None)
        known = official_crs(crs)
        geographic = known.geodetic_crs
        if geographic is None:
            return cls(None, None)
        degrees = float(np.degrees(geographic.axis_info[0].unit_conversion_factor))
        return cls(known.get_geod(), Transformer.from_crs(known, geographic, always_xy=True), degrees)

    def lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return longitude and latitude in degrees."""
        if self.to_geographic is None:
            raise ValueError("a plane has no longitude and latitude")
        lon, lat = self.to_geographic.transform(x, y)
        return np.asarray(lon) * self.degrees, np.asarray(lat) * self.degrees


def official_crs(crs: object) -> CRS:
    """Return the EPSG registry's definition of a CRS, with its area of use, where it has the same; else the CRS."""
    known = CRS.from_user_input(crs)
    code = known.to_epsg()
    official = CRS.from_epsg(code) if code is not None else known
    return official if official == known else known


def measure_polygons(
    xy: Floats, ring_offset: NDArray[np.int64], polygon_offset: NDArray[np.int64], ground: Ground
) -> tuple[Floats, Floats]:
    """Measure area and perimeter, holes subtracted from the one and added to the other.

    Args:
        xy: Vertices in world coordinates, `(vertex, xy)`.
        ring_offset: Where each ring begins, and the end of the last.
        polygon_offset: Where each polygon's rings begin, exterior first, and the end of the last.
        ground: The ellipsoid, or the plane.

    Returns:
        Areas in square meters and perimeters in meters, `(polygon,)`; in units of the coordinates on the plane.
    """
    area, length = measure_rings(xy, ring_offset, ground)
    exterior = polygon_offset[:-1]
    return 2 * area[exterior] - np.add.reduceat(area, exterior), np.add.reduceat(length, exterior)


def measure_rings(xy: Floats, ring_offset: NDArray[np.int64], ground: Ground) -> tuple[Floats, Floats]:
    """Measure what closed rings enclose and how long they are.

    On an ellipsoid edges are geodesics between vertices, as in PROJ and in QGIS's `$area` and `$perimeter`. Rings whose
    edges are shorter than `SHORT` are measured by series, many at once and to a part in 10^8, which is better than
    PROJ does for houses: it measures from the equator and loses 10^-4 m^2. Others are measured by PROJ (Karney,
    "Algorithms for geodesics", 2013), one by one.

    Args:
        xy: Vertices in world coordinates, `(vertex, xy)`.
        ring_offset: Where each ring begins, and the end of the last; the last vertex of a ring is its first.
        ground: The ellipsoid, or the plane.

    Returns:
        Areas in square meters, not negative, and lengths in meters, `(ring,)`; in units of the coordinates on the
        plane.
    """
    if ground.geod is None:
        return _measure_on_plane(xy, ring_offset)
    lon, lat = ground.lonlat(xy[:, 0], xy[:, 1])
    area, length, is_short = _measure_short(np.radians(lon), np.radians(lat), ring_offset, ground.geod)
    for ring in np.flatnonzero(~is_short).tolist():
        own = slice(ring_offset[ring], ring_offset[ring + 1] - 1)
        area[ring], length[ring] = ground.geod.polygon_area_perimeter(lon[own], lat[own])
    return np.abs(area), length


SHORT = 1.6e-4
"""Radians: a kilometer on the Earth. Edges up to here are measured by series."""

STEEP = 0.996
"""Sine of the latitude (85 degrees) up to which edges are measured by series."""


def _measure_on_plane(xy: Floats, ring_offset: NDArray[np.int64]) -> tuple[Floats, Floats]:
    begin, edge = _edges(ring_offset)
    x, y = _from_first(xy[:, 0], ring_offset), _from_first(xy[:, 1], ring_offset)
    dx, dy = x[edge + 1] - x[edge], y[edge + 1] - y[edge]
    return np.abs(np.add.reduceat((y[edge] + dy / 2) * dx, begin)), np.add.reduceat(np.hypot(dx, dy), begin)


def _edges(ring_offset: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the edges of each ring begin, and the first vertex of every edge."""
    is_edge = np.ones(ring_offset[-1], dtype=bool)
    is_edge[ring_offset[1:] - 1] = False
    return ring_offset[:-1] - np.arange(len(ring_offset) - 1), np.flatnonzero(is_edge)


def _from_first(value: Floats, ring_offset: NDArray[np.int64]) -> Floats:
    """Return values less that of the ring's first vertex: nothing is lost in sums of small differences."""
    return value - np.repeat(value[ring_offset[:-1]], np.diff(ring_offset))


def _measure_short(
    lon: Floats, lat: Floats, ring_offset: NDArray[np.int64], geod: Geod
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Measure rings of short edges, in radians; say which rings have no others.

    Lengths by Gauss's mid-latitude formula. Areas in the equal-area cylindrical projection, where the ground below a
    straight edge is a trapezium, and the geodesic bends away from it: by Clairaut's relation the second derivative of
    its ordinate `_authalic(sin(lat))` is -sin(lat) (east^2 + 3 north^2) / (a^2 (1 - es)) per edge, with the edge's
    meters to the east and to the north; a twelfth of it times `dlon` lies in between.
    """
    begin, edge = _edges(ring_offset)
    sine = np.sin(lat)
    height = _from_first(_authalic(sine, geod.es), ring_offset)
    dlon, dlat = lon[edge + 1] - lon[edge], lat[edge + 1] - lat[edge]
    middle = (sine[edge] + sine[edge + 1]) / 2 * (1 + dlat * dlat / 8)
    squash = 1 - geod.es * middle * middle
    east, north = dlon * dlon * (1 - middle * middle) / squash, dlat * dlat * (1 - geod.es) ** 2 / squash**3
    bend = dlon * middle * (east + 3 * north) / (12 * (1 - geod.es))
    area = np.add.reduceat((height[edge] + height[edge + 1]) / 2 * dlon + bend, begin)
    length = np.add.reduceat(np.sqrt(east + north), begin)
    is_short = (east + north <= SHORT**2) & (np.abs(middle) <= STEEP)
    return geod.a**2 * (1 - geod.es) * area, geod.a * length, np.logical_and.reduceat(is_short, begin)


def _authalic(sine: Floats, es: float) -> Floats:
    """Return the area between the equator and a latitude, per radian of longitude, in units of a^2 (1 - es).

    `q / 2 / (1 - es)` of Snyder, "Map projections", 1987, eq. 3-12, by its series in the sine of the latitude, which is
    exact to the last bits for the flattening of any planet.
    """
    x = es * sine * sine
    series = np.zeros_like(x)
    for power in range(9, -1, -1):
        series = series * x + (1 + 1 / (2 * power + 1)) / 2
    total: Floats = sine * series
    return total


def pixel_area_m2(grid: Grid, col: Floats, row: Floats, ground: Ground) -> Floats:
    """Return the area of a pixel of the grid at given places, from the ellipsoid's radii of curvature.

    Args:
        grid: Grid of the pixels.
        col: Columns, `(place,)`.
        row: Rows, `(place,)`.
        ground: The ellipsoid below the grid's CRS.

    Returns:
        Square meters, `(place,)`; units of the coordinates, squared, on the plane.
    """
    if ground.geod is None:
        return np.full(len(col), abs(grid.transform.determinant))
    lon, lat = ground.lonlat(*to_world(grid.transform, col[:, None] + _STEPS[0], row[:, None] + _STEPS[1]))
    lat, middle = np.radians(lat), np.radians(lat[:, :1])
    dlon = np.radians(np.remainder(lon - lon[:, :1] + 180, 360) - 180)
    meridian, parallel = _radii(middle, ground.geod)
    x, y = dlon * parallel, (lat - middle) * meridian
    area: Floats = np.abs((x[:, 1] - x[:, 2]) * (y[:, 3] - y[:, 4]) - (x[:, 3] - x[:, 4]) * (y[:, 1] - y[:, 2])) / 4
    return area


_STEPS = np.array([[0.0, 1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, -1.0]])
"""Offsets (col, row) in pixels: the place itself, then one pixel to either side along each axis."""


def _radii(latitude: Floats, geod: Geod) -> tuple[Floats, Floats]:
    """Return meters per radian of latitude and of longitude (Snyder, "Map projections", 1987, eq. 4-18 to 4-20)."""
    squash = 1 - geod.es * np.sin(latitude) ** 2
    return geod.a * (1 - geod.es) / squash**1.5, geod.a * np.cos(latitude) / np.sqrt(squash)


def to_world(transform: Affine, col: NDArray[Any], row: NDArray[Any]) -> tuple[Floats, Floats]:
    """Apply a pixel-to-world transform to arrays of columns and rows."""
    t = transform
    return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f
