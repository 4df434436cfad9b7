"""Square metres and metres on the ground, whatever the coordinate reference system."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from geoseg.grid import Grid
from geoseg.vectorize.rings import PolygonArray

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


def measure_polygons(polygons: PolygonArray, ground: Ground) -> tuple[Floats, Floats]:
    """Measure area and perimeter, holes subtracted from the one and added to the other.

    On an ellipsoid edges are geodesics between vertices (Karney, "Algorithms for geodesics", 2013), as in PROJ and in
    QGIS's `$area` and `$perimeter`.

    Returns:
        Areas in square metres and perimeters in metres, `(polygon,)`; in units of the coordinates on the plane.
    """
    if ground.geod is None or not len(polygons):
        return shapely.area(polygons).astype(np.float64), shapely.length(polygons).astype(np.float64)
    _, xy, (ring_offset, polygon_offset) = shapely.to_ragged_array(polygons)
    lon, lat = ground.lonlat(xy[:, 0], xy[:, 1])
    rings = zip(ring_offset[:-1].tolist(), ring_offset[1:].tolist(), strict=True)
    measured = [ground.geod.polygon_area_perimeter(lon[i : j - 1], lat[i : j - 1]) for i, j in rings]
    area, perimeter = np.abs(np.array(measured, dtype=np.float64)).T
    area[np.setdiff1d(np.arange(len(area)), polygon_offset[:-1])] *= -1
    return np.add.reduceat(area, polygon_offset[:-1]), np.add.reduceat(perimeter, polygon_offset[:-1])


def pixel_area_m2(grid: Grid, col: Floats, row: Floats, ground: Ground) -> Floats:
    """Return the area of a pixel of the grid at given places, from the ellipsoid's radii of curvature.

    Args:
        grid: Grid of the pixels.
        col: Columns, `(place,)`.
        row: Rows, `(place,)`.
        ground: The ellipsoid below the grid's CRS.

    Returns:
        Square metres, `(place,)`; units of the coordinates, squared, on the plane.
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
    """Return metres per radian of latitude and of longitude (Snyder, "Map projections", 1987, eq. 4-18 to 4-20)."""
    squash = 1 - geod.es * np.sin(latitude) ** 2
    return geod.a * (1 - geod.es) / squash**1.5, geod.a * np.cos(latitude) / np.sqrt(squash)


def to_world(transform: Affine, col: NDArray[Any], row: NDArray[Any]) -> tuple[Floats, Floats]:
    """Apply a pixel-to-world transform to arrays of columns and rows."""
    t = transform
    return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f
