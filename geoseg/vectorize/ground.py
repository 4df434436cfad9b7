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
        known = official_crs(crs)
        geographic = known.geodetic_crs if known is not None else None
        if known is None or geographic is None:
            return cls(None, None)
        degrees = float(np.degrees(geographic.axis_info[0].unit_conversion_factor))
        return cls(known.get_geod(), Transformer.from_crs(known, geographic, always_xy=True), degrees)

    def lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return longitude and latitude in degrees."""
        if self.to_geographic is None:
            raise ValueError("a plane has no longitude and latitude")
        lon, lat = self.to_geographic.transform(x, y)
        return np.asarray(lon) * self.degrees, np.asarray(lat) * self.degrees


def official_crs(crs: object) -> CRS | None:
    """Return the EPSG registry's definition of a CRS, with its area of use, where it has the same; else the CRS.

    Args:
        crs: A CRS in any form that pyproj takes, or None, which stays None.
    """
    if crs is None:
        return None
    known = CRS.from_user_input(crs)
    code = known.to_epsg()
    official = CRS.from_epsg(code) if code is not None else known
    return official if official == known else known


SHORT = 1.6e-4
"""Radians: a kilometer on the Earth. Edges up to here are measured by series."""

STEEP = 0.996
"""Sine of the latitude (85 degrees) up to which edges are measured by series."""


def measure_polygons(
    xy: Floats, ring_offset: NDArray[np.int64], polygon_offset: NDArray[np.int64], crs: object
) -> tuple[Floats, Floats]:
    """Measure area and perimeter, holes subtracted from the one and added to the other.

    On an ellipsoid edges are geodesics between vertices, as in PROJ and in QGIS's `$area` and `$perimeter`. Rings whose
    edges are shorter than `SHORT` are measured by series, many at once and to a part in 10^8. That is better than PROJ
    does for houses: it measures from the equator and loses 10^-4 m^2. (In PROJ's equal-area projection edges are
    straight: at 27 degrees areas of houses differ by up to 2 x 10^-4 m^2, and with PROJ's lengths it takes 2 to 8 times
    as long.) Others are measured by PROJ (Karney, "Algorithms for geodesics", 2013), one by one.

    Args:
        xy: Vertices in world coordinates, `(vertex, xy)`.
        ring_offset: Where each ring begins, and the end of the last; the last vertex of a ring is its first.
        polygon_offset: Where each polygon's rings begin, exterior first, and the end of the last.
        crs: CRS of the coordinates; without one they are those of a plane.

    Returns:
        Areas in square meters and perimeters in meters, `(polygon,)`; in units of the coordinates on the plane.
    """
    ground, first = Ground.of(crs), np.repeat(ring_offset[:-1], np.diff(ring_offset))
    begin = ring_offset[:-1] - np.arange(len(ring_offset) - 1)  # where the edges of each ring begin
    edge = np.delete(np.arange(ring_offset[-1]), ring_offset[1:] - 1)  # the first vertex of every edge
    if ground.geod is None:
        x, y = (xy - xy[first]).T  # from the ring's first vertex: nothing is lost in sums of small differences
        dx, dy = x[edge + 1] - x[edge], y[edge + 1] - y[edge]
        area, length = np.add.reduceat((y[edge] + dy / 2) * dx, begin), np.add.reduceat(np.hypot(dx, dy), begin)
    else:
        degrees = ground.lonlat(xy[:, 0], xy[:, 1])
        (lon, lat), es = map(np.radians, degrees), ground.geod.es
        sine = np.sin(lat)
        height = _authalic(sine, es)
        height -= height[first]
        dlon, dlat = lon[edge + 1] - lon[edge], lat[edge + 1] - lat[edge]
        middle = (sine[edge] + sine[edge + 1]) / 2 * (1 + dlat * dlat / 8)
        squash = 1 - es * middle * middle
        # Lengths by Gauss's mid-latitude formula: squares of radians to the east and to the north.
        east, north = dlon * dlon * (1 - middle * middle) / squash, dlat * dlat * (1 - es) ** 2 / squash**3
        length = ground.geod.a * np.add.reduceat(np.sqrt(east + north), begin)
        # Areas in the equal-area cylindrical projection, where the ground below a straight edge is a trapezium, and
        # the geodesic bends away from it: by Clairaut's relation the second derivative of its ordinate is
        # -sin(lat) (east^2 + 3 north^2) / (a^2 (1 - es)) per edge, with the edge's meters to the east and to the north;
        # a twelfth of it times `dlon` lies in between.
        bend = dlon * middle * (east + 3 * north) / (12 * (1 - es))
        area = np.add.reduceat((height[edge] + height[edge + 1]) / 2 * dlon + bend, begin)
        area = ground.geod.a**2 * (1 - es) * area
        is_short = np.logical_and.reduceat((east + north <= SHORT**2) & (np.abs(middle) <= STEEP), begin)
        for ring in np.flatnonzero(~is_short).tolist():
            own = slice(ring_offset[ring], ring_offset[ring + 1] - 1)
            area[ring], length[ring] = ground.geod.polygon_area_perimeter(degrees[0][own], degrees[1][own])
    area, exterior = np.abs(area), polygon_offset[:-1]
    return 2 * area[exterior] - np.add.reduceat(area, exterior), np.add.reduceat(length, exterior)


def find_azimuths(
    xy: Floats, ring_offset: NDArray[np.int64], polygon_offset: NDArray[np.int64], direction: Floats, grid: Grid
) -> Floats:
    """Return in which direction buildings are longer, along their walls or across.

    Directions are those of the CRS, as QGIS's `main_angle` has them: from grid north in a projected CRS, from true
    north in longitude and latitude, and from up in a picture without a CRS whose rows run down.

    Args:
        xy: Vertices in world coordinates, `(vertex, xy)`.
        ring_offset: Where each ring begins, and the end of the last.
        polygon_offset: Where each polygon's rings begin, exterior first, and the end of the last.
        direction: Direction of some of the walls in pixels, of any length, `(polygon, xy)`.
        grid: Grid of the pixels.

    Returns:
        Degrees clockwise from north, at least 0 and below 180, `(polygon,)`.
    """
    ground, known, t = Ground.of(grid.crs), official_crs(grid.crs), grid.transform
    first = ring_offset[polygon_offset[:-1]]
    size = ring_offset[polygon_offset[:-1] + 1] - first
    start = np.cumsum(size) - size
    polygon = np.repeat(np.arange(len(size)), size)
    x, y = (xy[np.arange(len(polygon)) + (first - start)[polygon]] - xy[first][polygon]).T
    dx, dy = t.a * direction[:, 0] + t.b * direction[:, 1], t.d * direction[:, 0] + t.e * direction[:, 1]
    if known is None and t.e > 0:
        y, dy = -y, -dy
    if known is not None and known.is_geographic:
        squash = np.cos(np.radians(ground.lonlat(*xy[first].T)[1]))
        x, dx = x * squash[polygon], dx * squash
    along, across = x * dx[polygon] + y * dy[polygon], y * dx[polygon] - x * dy[polygon]
    extents = [np.maximum.reduceat(part, start) - np.minimum.reduceat(part, start) for part in (along, across)]
    is_along = extents[0] >= extents[1]
    east, north = np.where(is_along, dx, -dy), np.where(is_along, dy, dx)
    azimuth = np.degrees(np.arctan2(east, north)) % 180
    found: Floats = np.where(azimuth >= 180, 0.0, azimuth)
    return found


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


def pixel_area_m2(grid: Grid, col: Floats, row: Floats) -> Floats:
    """Return the area of a pixel of the grid at given places, from the ellipsoid's radii of curvature.

    Args:
        grid: Grid of the pixels.
        col: Columns, `(place,)`.
        row: Rows, `(place,)`.

    Returns:
        Square meters, `(place,)`; units of the coordinates, squared, without a CRS.
    """
    ground = Ground.of(grid.crs)
    if ground.geod is None:
        return np.full(len(col), abs(grid.transform.determinant))
    lon, lat = ground.lonlat(*to_world(grid.transform, col[:, None] + _STEPS[0], row[:, None] + _STEPS[1]))
    lat, middle = np.radians(lat), np.radians(lat[:, :1])
    dlon = np.radians(np.remainder(lon - lon[:, :1] + 180, 360) - 180)
    # Meters per radian of latitude and of longitude: Snyder, "Map projections", 1987, eq. 4-18 to 4-20.
    squash = 1 - ground.geod.es * np.sin(middle) ** 2
    meridian = ground.geod.a * (1 - ground.geod.es) / squash**1.5
    parallel = ground.geod.a * np.cos(middle) / np.sqrt(squash)
    x, y = dlon * parallel, (lat - middle) * meridian
    area: Floats = np.abs((x[:, 1] - x[:, 2]) * (y[:, 3] - y[:, 4]) - (x[:, 3] - x[:, 4]) * (y[:, 1] - y[:, 2])) / 4
    return area


_STEPS = np.array([[0.0, 1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, -1.0]])
"""Offsets (col, row) in pixels: the place itself, then one pixel to either side along each axis."""


def to_world(transform: Affine, col: NDArray[Any], row: NDArray[Any]) -> tuple[Floats, Floats]:
    """Apply a pixel-to-world transform to arrays of columns and rows."""
    t = transform
    return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f
