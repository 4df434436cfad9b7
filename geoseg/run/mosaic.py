"""Parts -> rasters of the whole scene, in one pass over the blocks; and what they count."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, Plan
from geoseg.io.store import Store
from geoseg.run.parts import read_raster

if TYPE_CHECKING:
    from geoseg.outputs.rasters import RasterFile

CELL_TILES = 8
"""The ground that a pixel covers is measured once per cell of 8 x 8 TIFF tiles (4,096 px), whatever the blocks."""

RasterName = Literal["probability", "classes"]
Cell = tuple[int, int]


@dataclass(slots=True)
class Counts:
    """Pixels of a whole scene; the ground that classes cover is measured cell by cell, on the ellipsoid.

    Attributes:
        valid: Pixels with data, inside the AOI.
        building: Pixels of the mask.
        class_pixels: Per class.
        class_m2: Square metres per class; zeros without a CRS.
    """

    valid: int = 0
    building: int = 0
    class_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    class_m2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def describe_classes(self, spec: ModelSpec, grid: Grid) -> dict[str, dict[str, Any]]:
        """Return pixels, share of the valid pixels and square metres (None without a CRS) by class name."""
        total = max(1, int(self.class_pixels.sum()))
        return {
            name: {
                "pixels": int(pixels),
                "share": round(int(pixels) / total, 6),
                "area_m2": round(float(area_m2), 1) if grid.crs is not None else None,
            }
            for name, pixels, area_m2 in zip(spec.classes, self.class_pixels, self.class_m2, strict=False)
        }


def write_rasters(
    plan: Plan, spec: ModelSpec, threshold: int, blocks: Sequence[Block], store: Store, folder: Path
) -> Counts:
    """Mosaic the parts into probability, mask and, for more than two classes, class raster; return what they count.

    All rasters are written in one pass. Memory does not grow with the scene, and the files do not depend on the blocks.

    Args:
        plan: The plan of the run.
        spec: The model's names and colours.
        threshold: Smallest stored probability that counts as a building.
        blocks: Blocks whose parts are there; everywhere else is no data.
        store: The run's parts.
        folder: A local folder for the rasters.

    Raises:
        MissingFileError: If a block has no part.
        DamagedPartError: If a part is not whole.
        OutputError: If there is no room.
    """
    from geoseg.outputs.rasters import open_rasters

    names: tuple[RasterName, ...] = ("probability", "classes") if plan.has_class_raster else ("probability",)
    tally = Tally(plan.scene.grid, threshold, len(spec.classes))
    files = _describe_files(spec, folder, has_classes=plan.has_class_raster)
    with open_rasters(files, plan.scene.grid, derive=tally.derive, inputs=len(names)) as rasters:
        for block in sorted(blocks, key=lambda block: (block.window.row, block.window.col)):
            rasters.finish_above(block.window.row)
            pixels = _read_block(store, block, names)
            if pixels is not None:
                rasters.put(block.window, pixels)
    return tally.count()


class Tally:
    """Makes the mask of every TIFF tile, and counts what it sees; TIFF tiles may come from several threads."""

    def __init__(self, grid: Grid, threshold: int, classes: int) -> None:
        """Count on `grid` what is at least `threshold`, and as many classes."""
        self._grid, self._threshold, self._classes = grid, threshold, classes
        self._valid = self._building = 0
        self._by_cell: dict[Cell, NDArray[np.int64]] = {}
        self._lock = Lock()

    def derive(self, pixels: NDArray[np.uint8], row: int, col: int) -> NDArray[np.uint8]:
        """Return probability, mask and, where there are any, classes of one TIFF tile.

        Args:
            pixels: `(1 or 2, y, x)` probabilities, and classes.
            row: Row of the TIFF tile.
            col: Its column.
        """
        probability, *others = pixels
        mask, valid = mask_buildings(probability, self._threshold)
        building = int(np.count_nonzero(mask == 1))
        found = [_count_classes(classes, self._classes) for classes in others]
        with self._lock:
            self._valid += valid
            self._building += building
            for counts in found:
                cell = (row // CELL_TILES, col // CELL_TILES)
                self._by_cell[cell] = self._by_cell.get(cell, np.zeros(self._classes, np.int64)) + counts
        return np.stack((probability, mask, *others))

    def count(self) -> Counts:
        """Return what was counted; sums are made in the order of the cells, so that they are always the same."""
        counts = Counts(self._valid, self._building, np.zeros(self._classes, np.int64), np.zeros(self._classes))
        for cell, found in sorted(self._by_cell.items(), key=lambda item: item[0]):
            counts.class_pixels += found
            counts.class_m2 += found * self._pixel_m2(cell)
        return counts

    def _pixel_m2(self, cell: Cell) -> float:
        """Return the ground of a pixel in the middle of a cell, 0 without a CRS."""
        from geoseg.outputs.encoding import TILE_PX

        side = CELL_TILES * TILE_PX
        window = Window(cell[0] * side, cell[1] * side, side, side).intersect(self._grid.window)
        gsd_m = self._grid.crop(window).gsd_m if window is not None else None
        return gsd_m[0] * gsd_m[1] if gsd_m else 0.0


def mask_buildings(probability: NDArray[np.uint8], threshold: int) -> tuple[NDArray[np.uint8], int]:
    """Return the `(y, x)` mask (0, 1, 255 = no data) of stored probabilities, and how many pixels have data."""
    mask = (probability >= threshold).view(np.uint8)
    is_empty = probability == NODATA
    empty = int(np.count_nonzero(is_empty))
    if empty:
        mask[is_empty] = NODATA
    return mask, probability.size - empty


def _count_classes(classes: NDArray[np.uint8], number: int) -> NDArray[np.int64]:
    return np.bincount(classes.ravel(), minlength=NODATA + 1)[:number]


def _read_block(store: Store, block: Block, names: Sequence[RasterName]) -> NDArray[np.uint8] | None:
    """Return a block's `(raster, y, x)` pixels, None where none of its rasters holds any."""
    rasters = [read_raster(store, block, name) for name in names]
    if all(raster is None for raster in rasters):
        return None
    if len(rasters) == 1 and rasters[0] is not None:
        return rasters[0][np.newaxis]
    return np.stack([np.full(block.window.shape, NODATA, np.uint8) if r is None else r for r in rasters])


def _describe_files(spec: ModelSpec, folder: Path, *, has_classes: bool) -> "list[RasterFile]":
    """Say what each raster of the result is."""
    from geoseg.outputs.rasters import class_file, mask_file, probability_file

    names = ("background" if spec.target == "building" else "other", spec.target)
    files = [
        probability_file(folder / "probability.tif", description=f"{spec.target} probability"),
        mask_file(folder / "mask.tif", names=names),
    ]
    if has_classes:
        files.append(class_file(folder / "classes.tif", names=spec.classes, colours=spec.class_colours))
    return files
