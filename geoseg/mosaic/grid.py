"""The grid of a mosaic: its CRS, its pixel, how far it reaches."""

import math
from collections.abc import Sequence

import numpy as np
from affine import Affine
from pyproj import Geod
from rasterio.crs import CRS

from geoseg.errors import MissingCRSError, UsageError
from geoseg.grid import GSD_TOLERANCE, Grid, Window
from geoseg.mosaic.placement import window_of
from geoseg.mosaic.warp import places_of
from geoseg.scene import Scene

MAX_PIXELS = 10**12
"""Pixels above which a mosaic is taken for a mistake: 300 km by 300 km at 0.3 m."""

BASELINE_PX = 50.0
"""Pixels to either side between which the ground is measured."""

WGS84 = CRS.from_epsg(4326)


def choose_grid(scenes: Sequence[Scene], *, crs: CRS | None, gsd_m: float | None) -> Grid:
    """Return the north-up grid of a mosaic over scenes.

    CRS and pixel are functions of `crs`, `gsd_m` and the first scene (and of the finest where `gsd_m` is None), and the
    corner is a whole number of pixels from the zero of the CRS: neither an AOI nor one more scene moves a pixel.

    Args:
        scenes: The scenes, in the order given.
        crs: The CRS asked for. Else that of the first scene where it is projected, else the UTM zone of its middle.
        gsd_m: Meters on the ground per pixel; None for the finest scene's.

    Raises:
        MissingCRSError: If a scene has none.
        SceneMismatchError: If a scene has no place in the CRS.
    """
    missing = [scene.name for scene in scenes if scene.native.crs is None]
    if missing:
        raise MissingCRSError(
            f"{len(missing)} of {len(scenes)} scenes have no CRS, so their place in a mosaic is unknown: "
            f"{_list(missing)}. Give it with `crs` or in a manifest, or leave them out."
        )
    crs = crs or _choose_crs(scenes[0].native)
    width, height = _choose_pixel(scenes, crs, gsd_m)
    plane = Grid(crs, Affine(width, 0, 0, 0, -height, 0), (1, 1))
    return _cut(plane, _hull([window_of(scene, plane) for scene in scenes]))


def crop_grid(grid: Grid, window: Window) -> Grid:
    """Return the grid of a window; its corner stays whole pixels from the zero of the CRS, to the last bit."""
    row, col = round(grid.transform.f / grid.transform.e), round(grid.transform.c / grid.transform.a)
    plane = Grid(grid.crs, Affine(grid.transform.a, 0, 0, 0, grid.transform.e, 0), (1, 1))
    return _cut(plane, Window(window.row + row, window.col + col, *window.shape))


def _cut(plane: Grid, window: Window) -> Grid:
    t = plane.transform
    return Grid(plane.crs, Affine(t.a, 0, window.col * t.a, 0, t.e, window.row * t.e), window.shape)


def _hull(windows: Sequence[Window]) -> Window:
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    bottom, right = max(w.rows.stop for w in windows), max(w.cols.stop for w in windows)
    return Window(row, col, bottom - row, right - col)


def _choose_crs(grid: Grid) -> CRS:
    assert grid.crs is not None
    return grid.crs if grid.crs.is_projected else utm_zone(*_middle(grid, WGS84))


def utm_zone(lon: float, lat: float) -> CRS:
    """Return the UTM zone of a place, beyond 84 degrees north and 80 south the polar stereographic CRS beside it."""
    if not -80 <= lat <= 84:
        return CRS.from_epsg(32661 if lat > 0 else 32761)
    zone = min(60, math.floor((lon + 180) % 360 / 6) + 1)
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def _choose_pixel(scenes: Sequence[Scene], crs: CRS, gsd_m: float | None) -> tuple[float, float]:
    """Return width and height of a pixel in units of the CRS."""
    if gsd_m is not None:
        return _pixel_of(scenes[0].native, crs, gsd_m)
    finest = min(scenes, key=lambda scene: min(scene.native.gsd_m or (math.inf,))).native
    if finest.crs == crs and not finest.is_rotated:
        return abs(finest.transform.a), abs(finest.transform.e)
    assert finest.gsd_m is not None
    return _pixel_of(finest, crs, min(finest.gsd_m))


def _pixel_of(grid: Grid, crs: CRS, gsd_m: float) -> tuple[float, float]:
    """Return the pixel whose sides are `gsd_m` on the ground, at the middle of a scene.

    In a CRS that keeps meters to within `GSD_TOLERANCE`, as a UTM zone does, it is `gsd_m` itself in the CRS's unit.
    """
    meters = _meters_per_unit(crs, *_middle(grid, crs), gsd_m)
    unit = crs.linear_units_factor[1] if crs.is_projected else None
    if unit is not None and max(abs(m / unit - 1) for m in meters) <= GSD_TOLERANCE:
        return gsd_m / unit, gsd_m / unit
    return gsd_m / meters[0], gsd_m / meters[1]


def _meters_per_unit(crs: CRS, x: float, y: float, gsd_m: float) -> tuple[float, float]:
    """Measure the ground that one unit of the CRS covers along x and along y, on the ellipsoid."""
    baseline = BASELINE_PX * gsd_m / (crs.linear_units_factor[1] if crs.is_projected else 111_000.0)
    xs, ys = [x - baseline, x + baseline, x, x], [y, y, y - baseline, y + baseline]
    plane = Grid(WGS84, Affine.identity(), (1, 1))
    lon, lat = places_of(plane, crs, np.array(xs), np.array(ys))
    meters = Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])[2]
    return float(meters[0]) / (2 * baseline), float(meters[1]) / (2 * baseline)


def _middle(grid: Grid, crs: CRS) -> tuple[float, float]:
    """Return the middle of a grid in another CRS."""
    x, y = grid.transform @ (grid.width / 2, grid.height / 2)
    plane = Grid(crs, Affine.identity(), (1, 1))
    col, row = places_of(plane, grid.crs, np.array([x]), np.array([y]))
    return float(col[0]), float(row[0])


def check_size(grid: Grid, scenes: Sequence[Scene]) -> Grid:
    """Return a mosaic's grid.

    Raises:
        UsageError: If it is absurdly large.
    """
    pixels = grid.height * grid.width
    if pixels <= MAX_PIXELS:
        return grid
    first, last = scenes[0].name, max(scenes, key=lambda s: _distance(scenes[0].native, s.native)).name
    raise UsageError(
        f"The mosaic would have {grid.width:,} x {grid.height:,} pixels of {abs(grid.transform.a):.6g} units of "
        f"{grid.crs}; at most {MAX_PIXELS:,} are accepted. {first} and {last} lie far apart: is the CRS of one wrong? "
        "Run distant scenes on their own, or crop the mosaic with `aoi`."
    )


def _distance(a: Grid, b: Grid) -> float:
    (lon_a, lat_a), (lon_b, lat_b) = _middle(a, WGS84), _middle(b, WGS84)
    return float(Geod(ellps="WGS84").inv(lon_a, lat_a, lon_b, lat_b)[2])


def _list(names: Sequence[str], most: int = 5) -> str:
    """Return a few names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
