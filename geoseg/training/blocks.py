"""Blocks of ground: scenes cut into squares that train, or are held out, with nothing of one seen in the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.datasets.coding import Coding
from geoseg.datasets.labels import IGNORED, Labels, rasterize_areas, read_labels
from geoseg.datasets.prepared import NO_PIXEL, PreparedScene, write_prepared
from geoseg.grid import Grid, Window
from geoseg.inference import read_aoi
from geoseg.io.aside import write_aside
from geoseg.scene import Scene, open_scene
from geoseg.silence import quiet

__all__ = ["Block", "Ground", "choose_side", "cut_blocks", "dealt_fold", "hide_areas", "survey_ground", "write_areas"]

BLOCKS = 20
"""Blocks that truth is cut into, about."""

LARGEST_PX = 512
"""Longest side of a block: more, smaller blocks say more about a large scene."""

LEAST_PX = 64
"""Shortest side of a block."""

INSET = 16
"""A block that is scored is smaller by this part of its side on each side: houses at its border reach into others."""

_STRIP_PIXELS = 2**24


@dataclass(frozen=True, slots=True)
class Ground:
    """One scene with its truth, on the grid that it is trained on.

    Attributes:
        name: Name of the scene.
        image: Its file.
        labels: File of its truth.
        grid: The working grid.
        truth: (y, x) class indices; `IGNORED` where there is no data, no label, or that was not asked for.
        area: What was asked for, in pixels of the grid; None is everything.
    """

    name: str
    image: Path
    labels: Path
    grid: Grid
    truth: Labels
    area: Any = None

    @property
    def known_px(self) -> int:
        """Pixels that have truth."""
        return int(np.count_nonzero(self.truth != IGNORED))


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a scene.

    Attributes:
        row: Its row among the scene's blocks.
        col: Its column.
        window: Its pixels.
        known_px: Pixels that have truth.
        target_px: Pixels that are the target class.
    """

    row: int
    col: int
    window: Window
    known_px: int
    target_px: int

    @property
    def known(self) -> float:
        """Share of the pixels that have truth."""
        return self.known_px / (self.window.height * self.window.width)

    def outline(self, ground: Ground, *, inset_px: int = 0) -> Any:
        """Return the block's polygon in the scene's coordinates, smaller by `inset_px` on every side."""
        rows, cols = self.window.rows, self.window.cols
        box = shapely.box(cols.start + inset_px, rows.start + inset_px, cols.stop - inset_px, rows.stop - inset_px)
        area = box if ground.area is None else box.intersection(ground.area)
        transform = ground.grid.transform
        return shapely.transform(area, lambda xy: np.column_stack(transform @ (xy[:, 0], xy[:, 1])))


def survey_ground(
    image: Path,
    labels: Path,
    *,
    gsd_m: float,
    coding: Coding,
    area: Path | None = None,
    where: str | None = None,
    layer: str = "",
    column: str = "",
) -> Ground:
    """Read the truth of a scene, and where it has none.

    Args:
        image: The scene.
        labels: Raster or polygons.
        gsd_m: Metres per pixel of the working grid.
        coding: What the labels mean.
        area: Polygons of what is labelled; everything by default.
        where: OGR attribute filter on them.
        layer: Layer of a file of polygons that has several.
        column: Attribute of the polygons that names their class.

    Raises:
        GeosegError: If scene, labels or area cannot be read or do not fit.
    """
    scene = open_scene(image)
    scene = scene.at_gsd(gsd_m) if scene.native.crs is not None else scene
    truth = read_labels(
        labels, scene.grid, coding=coding, native=scene.native, layer=layer, column=column, empty_ok=True
    )
    aoi = read_aoi(area, scene.grid, where=where) if area is not None else None
    if aoi is not None:
        truth[~aoi.mask(scene.grid.window)] = IGNORED
    if scene.has_mask:
        _forget_nodata(scene, truth)
    return Ground(scene.name, image, labels, scene.grid, truth, aoi.polygons if aoi is not None else None)


def _forget_nodata(scene: Scene, truth: Labels) -> None:
    rows = max(1, _STRIP_PIXELS // scene.grid.width)
    for row in range(0, scene.grid.height, rows):
        strip = Window(row, 0, min(rows, scene.grid.height - row), scene.grid.width)
        truth[strip.slices][~scene.read(strip).valid] = IGNORED


def choose_side(grounds: Sequence[Ground], *, stride_px: int, blocks: int = BLOCKS) -> int:
    """Return the side of a block, pixels: about `blocks` of them over all truth, and room for a crop in each."""
    known = sum(ground.known_px for ground in grounds)
    return int(min(LARGEST_PX, max(LEAST_PX, 2 * stride_px, math.sqrt(known / blocks))))


def cut_blocks(ground: Ground, side_px: int, target: int) -> list[Block]:
    """Cut a scene into blocks of about `side_px`; those without any truth are left out.

    Args:
        ground: The scene.
        side_px: Height and width, about: the scene is divided evenly.
        target: Class index that is counted.
    """
    rows, cols = (_edges(n, side_px) for n in ground.grid.shape)
    blocks = [
        _count(ground, row, col, Window(top, left, rows[row + 1] - top, cols[col + 1] - left), target)
        for row, top in enumerate(rows[:-1])
        for col, left in enumerate(cols[:-1])
    ]
    return [block for block in blocks if block.known_px]


def _edges(size: int, side_px: int) -> list[int]:
    parts = max(1, min(round(size / side_px), size // LEAST_PX))
    return [round(n * size / parts) for n in range(parts + 1)]


def _count(ground: Ground, row: int, col: int, window: Window, target: int) -> Block:
    truth = ground.truth[window.slices]
    return Block(row, col, window, int(np.count_nonzero(truth != IGNORED)), int(np.count_nonzero(truth == target)))


def dealt_fold(block: Block, scene: int, folds: int) -> int:
    """Return the fold of a block: in diagonals, so that each fold is spread over the whole of every scene."""
    return (block.row + 2 * block.col + scene) % folds if folds != 2 else (block.row + block.col + scene) % 2


def write_areas(path: Path, grid: Grid, areas: Sequence[tuple[str, Any]]) -> Path:
    """Write named polygons as a GeoPackage with a column `split`, aside and renamed, for `Source.areas` and QGIS.

    Args:
        path: Where to.
        grid: Whose coordinates they are in.
        areas: Name and polygon of each; empty ones are left out.
    """
    import geopandas

    parts = [(name, part) for name, shape in areas for part in shapely.get_parts(shape) if part.area > 0]
    names, shapes = zip(*((name, part) for name, part in parts if part.geom_type == "Polygon"), strict=True)
    crs = grid.crs.to_wkt() if grid.crs is not None else None
    frame = geopandas.GeoDataFrame({"split": list(names)}, geometry=list(shapes), crs=crs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside, quiet(message="'crs' was not provided"):  # a plain picture has none
        frame.to_file(aside, driver="GPKG", layer="areas")
    return path


def hide_areas(prepared: Path, areas: Path, names: Sequence[str]) -> bool:
    """Take the pixels of areas out of a prepared scene: no crop sees them, not even as surroundings.

    Args:
        prepared: What `write_prepared` wrote of a georeferenced scene or a plain picture.
        areas: Polygons with a column `split`.
        names: Which of them.

    Returns:
        False where they were hidden already, or lie elsewhere.
    """
    scene = PreparedScene(prepared)
    hidden = rasterize_areas(areas, names, _grid_of(scene))
    stored = np.array(scene.pixels)
    image, truth = stored[..., :-1].transpose(2, 0, 1), stored[..., -1].astype(np.uint8)
    valid: NDArray[np.bool_] = (truth != NO_PIXEL) & ~hidden
    if (valid == (truth != NO_PIXEL)).all():
        return False
    image = np.where(valid, image, 0).astype(stored.dtype)
    write_prepared(prepared, image, truth, about=scene.about, valid=valid)
    return True


def _grid_of(scene: PreparedScene) -> Grid:
    """Return the grid of what is stored of a scene."""
    whole = open_scene(scene.about["image"]).native
    window = Window(*scene.origin, *scene.window.shape)
    scale = Affine.scale(whole.width / scene.scene_shape[1], whole.height / scene.scene_shape[0])
    return Grid(whole.crs, whole.transform @ scale, scene.scene_shape).crop(window)
