"""Where a scene comes to lie on the grid of a mosaic."""

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import SceneMismatchError
from geoseg.grid import Grid, Window
from geoseg.mosaic.warp import ALIGNED_PX, STEP_PX, Warped, extent, origin, places_of
from geoseg.scene import Scene

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
    aligned = _shift(scene.native, grid)
    if aligned is not None:
        return Warped(scene.at_shape(scene.native.shape), grid, window, shift=aligned)
    scene = _near(scene, grid, whole)
    return Warped(scene, grid, window, _step(scene.grid, grid, whole))


def window_of(scene: Scene, grid: Grid) -> Window:
    """Return the pixels of a grid, before its first one too, that a scene's extent meets.

    Raises:
        SceneMismatchError: If the scene has no place in the grid's CRS.
    """
    found = extent(scene.native, grid)
    if found is None:
        raise SceneMismatchError(
            f"{scene.name} (bounds {tuple(round(b, 6) for b in scene.native.bounds)} in {scene.native.crs}) has no "
            f"place in {grid.crs}. Choose another CRS for the mosaic, or leave the scene out."
        )
    return _window(found)


def _shift(native: Grid, grid: Grid) -> tuple[int, int] | None:
    """Return rows and columns from a pixel of the grid to the same pixel of a scene, where both are one lattice."""
    if native.crs != grid.crs:
        return None
    both = ~native.transform @ grid.transform
    size = max(native.shape)
    bend = max(abs(both.a - 1), abs(both.e - 1), abs(both.b), abs(both.d)) * size
    row, col = round(both.f), round(both.c)
    off = max(abs(both.f - row), abs(both.c - col)) + bend
    return (row, col) if off < ALIGNED_PX else None


def _near(scene: Scene, grid: Grid, window: Window) -> Scene:
    """Return the scene averaged to a little finer than the grid, where it is finer still; else with its own pixels."""
    own, side = scene.native.gsd_m, _pixel_m(grid, window)
    wanted = side / OVERSAMPLING if side is not None else None
    if own is None or wanted is None or max(own) >= wanted:
        return scene.at_shape(scene.native.shape)
    return scene.at_gsd(wanted)


def _pixel_m(grid: Grid, window: Window) -> float | None:
    """Return the smaller side of a grid's pixel on the ground, meters, at the middle of a window."""
    sides = grid.crop(window).gsd_m
    return min(sides) if sides is not None else None


def _step(scene: Grid, grid: Grid, window: Window) -> int:
    """Return the largest step between nodes whose interpolation is off by less than `BEND_PX`."""
    step = STEP_PX
    while step > 1 and _bend(scene, grid, window, step) > BEND_PX:
        step //= 2
    return step


def _bend(scene: Grid, grid: Grid, window: Window, step: int) -> float:
    """Measure how far places between nodes are off, in pixels of the scene, spread over a window."""
    rows, cols = (_probes(s, first, step) for s, first in zip(window.slices, origin(grid), strict=True))
    corners = [_places(scene, grid, rows + i, cols + j) for i in (0, step) for j in (0, step)]
    exact = _places(scene, grid, rows + step / 2, cols + step / 2)
    off = np.abs(np.mean(corners, axis=0) - exact)
    return float(off[np.isfinite(off)].max(initial=0))


def _probes(span: slice, first: int, step: int) -> NDArray[np.float64]:
    """Return a few nodes along an axis, as pixels of the grid."""
    nodes = np.unique(np.linspace(span.start + first, span.stop + first - step, PROBES).astype(np.int64) // step)
    return np.asarray(nodes * step - first, np.float64)


def _places(scene: Grid, grid: Grid, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return columns and rows on a scene, of all pairs of rows and columns of the grid."""
    t = grid.transform
    x, y = np.meshgrid(t.a * (cols + 0.5) + t.c, t.e * (rows + 0.5) + t.f)
    return np.stack(places_of(scene, grid.crs, x, y))


def sheet_windows(natives: Sequence[Grid], grid: Grid) -> tuple[Window, ...]:
    """Return the pixels of a grid that sheets of one lattice cover, and one more around each for resampling."""
    return tuple(_window(extent(native, grid)).expand(1) for native in natives)


def overlap(natives: Sequence[Grid]) -> bool:
    """Return True where the extents of any two grids of one lattice share a pixel."""
    boxes = _boxes([_window(extent(native, natives[0])) for native in natives])
    return bool(shapely.STRtree(boxes).query(boxes, predicate="intersects").shape[1] > len(boxes))


def find_meeting(windows: Sequence[Window], covered: Sequence[Window]) -> NDArray[np.bool_]:
    """Return for each window whether it shares a pixel with any of the covered ones."""
    met = np.zeros(len(windows), bool)
    met[shapely.STRtree(_boxes(covered)).query(_boxes(windows), predicate="intersects")[0]] = True
    return met


def _boxes(windows: Sequence[Window]) -> NDArray[np.object_]:
    """Return windows as boxes a little smaller, so that neighbors do not meet."""
    left, top, width, height = np.array([(w.col, w.row, w.width, w.height) for w in windows], float).T
    return np.asarray(shapely.box(left + 0.25, top + 0.25, left + width - 0.25, top + height - 0.25))


def _window(found: tuple[float, float, float, float] | None) -> Window:
    """Return the pixels whose centers may lie between first and last row, first and last column."""
    assert found is not None
    slack = 0.06  # what a sheet may be off its lattice (geoseg.vrt)
    top, left = math.floor(found[0] + slack), math.floor(found[2] + slack)
    return Window(top, left, max(1, math.ceil(found[1] - slack) - top), max(1, math.ceil(found[3] - slack) - left))


def shares_lattice(grids: Sequence[Grid]) -> bool:
    """Return True where all grids have one CRS and, to a thousandth of their pixels over their size, one pixel."""
    first = grids[0]
    return all(g.crs == first.crs and _is_same_pixel(first, g) for g in grids[1:])


def _is_same_pixel(first: Grid, grid: Grid) -> bool:
    linear = [(first.transform[i], grid.transform[i]) for i in (0, 1, 3, 4)]
    return bool(max(abs(a - b) for a, b in linear) <= 1e-3 * max(abs(a) for a, _ in linear))
