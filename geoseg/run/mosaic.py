"""Parts -> rasters of the whole scene, block by block; and what they count."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, Plan
from geoseg.run.parts import read_classes, read_probability


@dataclass(slots=True)
class Counts:
    """Pixels of a whole scene; the ground that classes cover is measured block by block, on the ellipsoid.

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

    def add_mask(self, mask: NDArray[np.uint8]) -> None:
        """Count a block's `(y, x)` mask."""
        self.valid += int((mask != NODATA).sum())
        self.building += int((mask == 1).sum())

    def add_classes(self, classes: NDArray[np.uint8], pixel_m2: float) -> None:
        """Count a block's `(y, x)` class indices."""
        found = np.bincount(classes.ravel(), minlength=NODATA + 1)[: len(self.class_pixels)]
        self.class_pixels += found
        self.class_m2 += found * pixel_m2

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


def write_rasters(plan: Plan, spec: ModelSpec, threshold: int, blocks: list[Block], folder: Path) -> Counts:
    """Mosaic the parts into probability, mask and, for more than two classes, class raster; return what they count."""
    from geoseg.outputs import write_class_cog, write_mask_cog, write_probability_cog

    grid, target = plan.scene.grid, spec.target
    counts = Counts(class_pixels=np.zeros(len(spec.classes), np.int64), class_m2=np.zeros(len(spec.classes)))
    write_probability_cog(
        folder / "probability.tif", _probabilities(blocks, folder), grid, description=f"{target} probability"
    )
    write_mask_cog(
        folder / "mask.tif",
        _masks(blocks, folder, threshold, counts),
        grid,
        description=f"{target} mask: 0 {'background' if target == 'building' else 'other'}, 1 {target}",
    )
    if plan.has_class_raster:
        found = _classes(blocks, folder, grid, counts)
        write_class_cog(folder / "classes.tif", found, grid, names=spec.classes, colours=spec.class_colours)
    return counts


Parts = Iterator[tuple[Window, NDArray[np.uint8]]]


def _probabilities(blocks: list[Block], folder: Path) -> Parts:
    """Yield every block's window and probabilities."""
    return ((block.window, read_probability(folder, block)) for block in blocks)


def _masks(blocks: list[Block], folder: Path, threshold: int, counts: Counts) -> Parts:
    """Yield every block's window and mask, and count it."""
    for window, probability in _probabilities(blocks, folder):
        mask = np.where(probability == NODATA, NODATA, probability >= threshold).astype(np.uint8)
        counts.add_mask(mask)
        yield window, mask


def _classes(blocks: list[Block], folder: Path, grid: Grid, counts: Counts) -> Parts:
    """Yield every block's window and classes, and count them."""
    for block in blocks:
        classes = read_classes(folder, block)
        gsd_m = grid.crop(block.window).gsd_m
        counts.add_classes(classes, gsd_m[0] * gsd_m[1] if gsd_m else 0.0)
        yield block.window, classes
