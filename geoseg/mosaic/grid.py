"""The grid of a mosaic (its CRS, its pixel, how far it reaches), and where scenes lie on it."""

import math
from collections.abc import Sequence

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.crs import CRS

from geoseg.errors import MissingCRSError, SceneMismatchError, UsageError
from geoseg.grid import GSD_TOLERANCE, Grid, Window
from geoseg.io.tables import name_some
from geoseg.mosaic.warp import ALIGNED_PX, STEP_PX, Warped, origin, places_of
from geoseg.scene import Scene

MAX_PIXELS = 10**12
"""Pixels above which a mosaic is considered a mistake: 300 km by 300 km at 0.3 m."""

BASELINE_PX = 50.0
"""Pixels to either side between which the ground is measured."""

BEND_PX = 0.05
"""Pixels by which an interpolated place may be off the exact one."""

PROBES = 5
"""Cells between nodes along each axis where that is measured, at the middle, where a bend shows most."""

OVERSAMPLING = 1.5
"""Pixels along an axis per pixel of the grid that a finer scene is averaged to before bilinear weights.

With one, averaging and weights together blur: the default network lost 0.3 to 0.4 points of IoU on Accra's validation
area, and nothing with 1.5 or with two, which reads more.
"""

MARGIN_PX = 1
"""Pixels around an extent: its border bends between the points where it is transformed."""

OUTLINE_POINTS = 64
"""Points along each side of an extent that are transformed."""

SHEET_SLACK_PX = 0.06
"""Pixels that a sheet may be off its lattice (`geoseg.scene.vrt`)."""


def _wgs84() -> CRS:  # made when it is needed: PROJ may not find its data, which is an error of a command
    return CRS.from_epsg(4326)


def choose_grid(scenes: Sequence[Scene], *, crs: CRS | None, gsd_m: float | None) -> Grid:
    """Return the north-up grid of a mosaic over scenes.

    CRS and pixel are functions of `crs`, `gsd_m` and the first scene (and of the finest where `gsd_m` is None), and the
    corner is a whole number of pixels from the zero of the CRS: neither an AOI nor one more scene moves a pixel.

    Args:
        scenes: The scenes, in the order given.
        crs: The CRS of the mosaic. Else that of the first scene where it is projected, else the UTM zone of its middle.
        gsd_m: Meters on the ground per pixel; None for the finest scene's.

    Raises:
        MissingCRSError: If a scene has none.
        SceneMismatchError: If a scene has no place in the CRS.
    """
    missing = [scene.name for scene in scenes if scene.native.crs is None]
    if missing:
        raise MissingCRSError(
            f"Scenes without a CRS: {len(missing)} of {len(scenes)} ({name_some(missing, most=5)}). "
            "Their place in a mosaic is unknown. Give it with `crs` or in a manifest, or leave them out."
        )
    first = scenes[0].native
    if crs is None:
        crs = first.crs if first.crs and first.crs.is_projected else utm_zone(*_middle(first, _wgs84()))
    if gsd_m is None:
        finest = min(scenes, key=lambda scene: min(scene.native.gsd_m or (math.inf,))).native
        assert finest.gsd_m is not None
        if finest.crs == crs and not finest.is_rotated:
            width, height = abs(finest.transform.a), abs(finest.transform.e)
        else:
            width, height = _pixel_of(finest, crs, min(finest.gsd_m))
    else:
        width, height = _pixel_of(first, crs, gsd_m)
    plane = Grid(crs, Affine(width, 0, 0, 0, -height, 0), (1, 1))
    windows = [window_of(scene, plane) for scene in scenes]
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    bottom, right = max(w.rows.stop for w in windows), max(w.cols.stop for w in windows)
    return _cut(plane, Window(row, col, bottom - row, right - col))


def crop_grid(grid: Grid, window: Window) -> Grid:
    """Return the grid of a window; its corner stays whole pixels from the zero of the CRS, to the last bit."""
    plane = Grid(grid.crs, Affine(grid.transform.a, 0, 0, 0, grid.transform.e, 0), (1, 1))
    return _cut(plane, window.moved(*origin(grid)))


def _cut(plane: Grid, window: Window) -> Grid:
    t = plane.transform
    return Grid(plane.crs, Affine(t.a, 0, window.col * t.a, 0, t.e, window.row * t.e), window.shape)


def utm_zone(lon: float, lat: float) -> CRS:
    """Return the UTM zone of a place, beyond 84 degrees north and 80 south the polar stereographic CRS beside it."""
    if not -80 <= lat <= 84:
        return CRS.from_epsg(32661 if lat > 0 else 32761)
    zone = min(60, math.floor((lon + 180) % 360 / 6) + 1)
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def _pixel_of(grid: Grid, crs: CRS, gsd_m: float) -> tuple[float, float]:
    """Return the pixel whose sides are `gsd_m` on the ground, at the middle of a scene, measured on the ellipsoid.

    In a CRS that keeps meters to within `GSD_TOLERANCE`, as a UTM zone does, it is `gsd_m` itself in the CRS's unit.
    """
    unit = crs.linear_units_factor[1] if crs.is_projected else None
    baseline = BASELINE_PX * gsd_m / (unit if unit is not None else 111_000.0)
    x, y = _middle(grid, crs)
    xs, ys = [x - baseline, x + baseline, x, x], [y, y, y - baseline, y + baseline]
    lon, lat = places_of(Grid(_wgs84(), Affine.identity(), (1, 1)), crs, np.array(xs), np.array(ys))
    ground = Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])[2]
    meters = float(ground[0]) / (2 * baseline), float(ground[1]) / (2 * baseline)  # of one unit along x and along y
    if unit is not None and max(abs(m / unit - 1) for m in meters) <= GSD_TOLERANCE:
        return gsd_m / unit, gsd_m / unit
    return gsd_m / meters[0], gsd_m / meters[1]


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
    if grid.height * grid.width <= MAX_PIXELS:
        return grid
    lon, lat = np.array([_middle(scene.native, _wgs84()) for scene in scenes]).T
    distance = Geod(ellps="WGS84").inv(np.full_like(lon, lon[0]), np.full_like(lat, lat[0]), lon, lat)[2]
    raise UsageError(
        f"The mosaic would have {grid.width:,} x {grid.height:,} pixels of {abs(grid.transform.a):.6g} units of "
        f"{grid.crs}; at most {MAX_PIXELS:,} are accepted. {scenes[0].name} and {scenes[int(distance.argmax())].name} "
        "lie far apart: is the CRS of one wrong? Run distant scenes on their own, or crop the mosaic with `aoi`."
    )


def place(scene: Scene, grid: Grid) -> Warped | None:
    """Return a scene on a mosaic's grid; None where it lies beside it.

    Nothing of it depends on how far the grid reaches, so an AOI changes no pixel.

    Args:
        scene: The scene, with its bands and levels.
        grid: The mosaic's grid, north-up.

    Raises:
        SceneMismatchError: If the scene has no place in the grid's CRS.
    """
    whole = window_of(scene, grid)
    window = whole.expand(MARGIN_PX).intersect(grid.window)
    if window is None:
        return None
    shift = _shift(scene.native, grid)
    if shift is not None:
        return Warped(scene.at_shape(scene.native.shape), grid, window, shift=shift)
    own, wanted = scene.native.gsd_m, grid.crop(whole).gsd_m
    if own is None or wanted is None or max(own) >= min(wanted) / OVERSAMPLING:
        scene = scene.at_shape(scene.native.shape)
    else:
        scene = scene.at_gsd(min(wanted) / OVERSAMPLING)
    return Warped(scene, grid, window, _step(scene.grid, grid, whole))


def window_of(scene: Scene, grid: Grid) -> Window:
    """Return the pixels of a grid, before its first one too, that a scene's extent meets.

    Raises:
        SceneMismatchError: If the scene has no place in the grid's CRS.
    """
    window = _window_of(scene.native, grid)
    if window is None:
        raise SceneMismatchError(
            f"{scene.name} (bounds {tuple(round(b, 6) for b in scene.native.bounds)} in {scene.native.crs}) has no "
            f"place in {grid.crs}. Choose another CRS for the mosaic, or leave the scene out."
        )
    return window


def _window_of(native: Grid, grid: Grid) -> Window | None:
    """Return the pixels of a grid whose centers may lie in another one's extent; None if it has no place there."""
    t = np.linspace(0, 1, OUTLINE_POINTS)
    zero, one = np.zeros_like(t), np.ones_like(t)
    col, row = np.concatenate((t, one, t, zero)) * native.width, np.concatenate((zero, t, one, t)) * native.height
    m = native.transform
    col, row = places_of(grid, native.crs, m.a * col + m.b * row + m.c, m.d * col + m.e * row + m.f)
    known = np.isfinite(col) & np.isfinite(row)
    if not known.any():
        return None
    top, left = (math.floor(float(v[known].min()) + SHEET_SLACK_PX) for v in (row, col))
    bottom, right = (math.ceil(float(v[known].max()) - SHEET_SLACK_PX) for v in (row, col))
    return Window(top, left, max(1, bottom - top), max(1, right - left))


def _shift(native: Grid, grid: Grid) -> tuple[int, int] | None:
    """Return rows and columns from a pixel of the grid to the same pixel of a scene, where both are one lattice."""
    if native.crs != grid.crs:
        return None
    both = ~native.transform @ grid.transform
    bend = max(abs(both.a - 1), abs(both.e - 1), abs(both.b), abs(both.d)) * max(native.shape)
    row, col = round(both.f), round(both.c)
    off = max(abs(both.f - row), abs(both.c - col)) + bend
    return (row, col) if off < ALIGNED_PX else None


def _step(scene: Grid, grid: Grid, window: Window) -> int:
    """Return the largest step between nodes whose interpolation is off by less than `BEND_PX` pixels of the scene."""
    t = grid.transform

    def places(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = np.meshgrid(t.a * (cols + 0.5) + t.c, t.e * (rows + 0.5) + t.f)
        return np.stack(places_of(scene, grid.crs, x, y))

    step = STEP_PX
    while step > 1:
        axes: list[NDArray[np.float64]] = []
        for span, first in zip(window.slices, origin(grid), strict=True):
            ends = span.start + first, span.stop + first - step
            nodes = np.unique(np.linspace(*ends, PROBES).astype(np.int64) // step) * step
            axes.append(np.asarray(nodes - first, np.float64))
        rows, cols = axes
        corners = [places(rows + i, cols + j) for i in (0, step) for j in (0, step)]
        off = np.abs(np.mean(corners, axis=0) - places(rows + step / 2, cols + step / 2))
        if off[np.isfinite(off)].max(initial=0) <= BEND_PX:
            break
        step //= 2
    return step


def shares_lattice(grids: Sequence[Grid]) -> bool:
    """Return True where all grids have one CRS and, to a thousandth of their pixels over their size, one pixel."""
    linear = np.array([grid.transform[:2] + grid.transform[3:5] for grid in grids])
    is_one_pixel = np.abs(linear - linear[0]).max() <= 1e-3 * np.abs(linear[0]).max()
    return bool(is_one_pixel) and all(grid.crs == grids[0].crs for grid in grids)


def sheet_windows(natives: Sequence[Grid], grid: Grid) -> tuple[Window, ...]:
    """Return the pixels of a grid that sheets of one lattice cover, and one more around each for resampling."""
    found = (_window_of(native, grid) for native in natives)
    return tuple(window.expand(1) for window in found if window is not None)


def overlap(natives: Sequence[Grid]) -> bool:
    """Return True where the extents of any two grids of one lattice share a pixel."""
    found = (_window_of(native, natives[0]) for native in natives)
    boxes = _boxes([window for window in found if window is not None])
    return bool(shapely.STRtree(boxes).query(boxes, predicate="intersects").shape[1] > len(boxes))


def find_meeting(windows: Sequence[Window], covered: Sequence[Window]) -> NDArray[np.bool_]:
    """Return for each window whether it shares a pixel with any of the covered ones."""
    met = np.zeros(len(windows), bool)
    met[shapely.STRtree(_boxes(covered)).query(_boxes(windows), predicate="intersects")[0]] = True
    return met


def _boxes(windows: Sequence[Window]) -> NDArray[np.object_]:
    """Return windows as boxes a little smaller, so that neighbors do not meet."""
    corners = [(w.col, w.row, w.width, w.height) for w in windows]
    left, top, width, height = np.array(corners, float).reshape(-1, 4).T  # there may be none
    return np.asarray(shapely.box(left + 0.25, top + 0.25, left + width - 0.25, top + height - 0.25))
