"""Areas and lengths on the ellipsoid, against PROJ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Proj

from geoseg.vectorize.ground import measure_polygons

WGS84 = Geod(ellps="WGS84")
METER = 1 / 111_320
"""Degrees of latitude."""


def polygon_around(lon, lat, radius_m, corners, seed=0):
    """Return a closed ring of degrees with its corners in all directions."""
    rng = np.random.default_rng(seed)
    angle = (np.arange(corners) + rng.uniform(0, 0.9, corners)) * 2 * np.pi / corners
    reach = radius_m * METER * rng.uniform(0.5, 1, corners)
    ring = np.column_stack((lon + reach * np.cos(angle) / np.cos(np.radians(lat)), lat + reach * np.sin(angle)))
    return np.concatenate((ring, ring[:1]))


def measure(*rings):
    begin = np.cumsum([0, *map(len, rings)])
    return measure_polygons(np.concatenate(rings), begin, np.arange(len(begin)), CRS.from_epsg(4326))


def in_equal_area_projection(ring):
    """Return the area in Lambert's projection around the ring, which is exact where it is small."""
    lon, lat = ring.mean(axis=0)
    x, y = Proj(proj="laea", lon_0=lon, lat_0=lat, ellps="WGS84")(*ring.T)
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


@settings(max_examples=50)
@given(st.floats(-180, 180), st.floats(-84, 84), st.floats(3, 100), st.integers(5, 12), st.integers(0, 9))
def test_houses_have_the_area_of_an_equal_area_projection_and_the_length_of_geodesics(lon, lat, radius_m, n, seed):
    ring = polygon_around(lon, lat, radius_m, n, seed)
    (area,), (length,) = measure(ring)
    assert area == pytest.approx(in_equal_area_projection(ring), rel=1e-7)
    assert length == pytest.approx(WGS84.line_length(*ring.T), rel=1e-8)


@settings(max_examples=50)
@given(st.floats(-180, 180), st.floats(-84, 84), st.floats(300, 1400), st.integers(5, 12), st.integers(0, 9))
def test_large_polygons_have_the_area_between_geodesics(lon, lat, radius_m, n, seed):
    ring = polygon_around(lon, lat, radius_m, n, seed)
    (area,), (length,) = measure(ring)
    assert area == pytest.approx(abs(WGS84.polygon_area_perimeter(*ring[:-1].T)[0]), rel=1e-8)
    assert length == pytest.approx(WGS84.line_length(*ring.T), rel=1e-7)


@pytest.mark.parametrize(("lon", "lat", "radius_m"), [(10, 50, 2e5), (20, 89.9995, 40), (180, 0, 3e4), (-71, 42, 5000)])
def test_long_edges_and_the_pole_are_left_to_PROJ(lon, lat, radius_m):
    ring = polygon_around(lon, lat, radius_m, 7)
    house = polygon_around(lon - 30, 10, 20, 6)
    area, length = measure(house, ring, house)
    expected = WGS84.polygon_area_perimeter(*ring[:-1].T)
    assert (area[1], length[1]) == pytest.approx((abs(expected[0]), expected[1]), rel=1e-6)
    np.testing.assert_array_equal((area[::2], length[::2]), np.repeat(measure(house), 2, axis=1))


def test_a_ring_measures_the_same_in_any_company():
    rings = [polygon_around(7 + 0.001 * i, 50 + 0.002 * i, 5 + i, 4 + i % 9, seed=i) for i in range(60)]
    alone = np.concatenate([measure(ring) for ring in rings], axis=1)
    np.testing.assert_array_equal(measure(*rings), alone)
