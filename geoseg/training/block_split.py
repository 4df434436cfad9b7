"""Block splits: labeled scenes divided into blocks for training and blocks that are held out from it."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.bundle import ModelSpec
from geoseg.datasets.coding import Coding
from geoseg.datasets.labels import IGNORED, Labels, rasterize_areas, read_labels
from geoseg.datasets.prepared import NO_PIXEL, PreparedScene, write_prepared
from geoseg.errors import LabelError
from geoseg.grid import Grid, Window
from geoseg.inference import read_aoi
from geoseg.io.aside import write_aside
from geoseg.io.tables import plural
from geoseg.scene import open_scene
from geoseg.third_party import ignore_warnings

__all__ = ["BlockSplit", "LabeledBlock", "LabeledScene", "hide_areas", "label_scene", "split_blocks", "write_folds"]

log = logging.getLogger(__name__)

PARTS = ("train", "choose", "held")
"""Uses of blocks: training, choosing weights and threshold, comparing the old model with the new."""

BLOCKS = 20
"""About as many blocks the labeled area is divided into."""

BLOCKS_PER_FOLD = 5
"""The same for each fold of a cross-validation."""

LARGEST_PX = 512
"""Longest side of a block."""

LEAST_PX = 64
"""Shortest side of a block."""

INSET = 16
"""A scored block is smaller by this part of its side on each side: houses at its border extend into others."""

LEAST_KNOWN = 0.5
"""A block with labels on a smaller share of its pixels is only used for training."""

LEAST_TARGET_PX = 64
"""Each part needs at least this many pixels of the target class."""

MOST_CHOOSING = 4
"""Blocks for choosing weights: few, as they are predicted after every epoch."""

LITTLE_PX = 500_000
"""Fewer labeled pixels than this cause a warning."""

_STRIP_PIXELS = 2**24


@dataclass(frozen=True, slots=True)
class LabeledScene:
    """One scene with its labels, on the grid that it is trained on.

    Attributes:
        name: Name of the scene.
        image: Its file.
        labels: File of its labels.
        grid: The working grid.
        truth: (y, x) class indices; `IGNORED` without data, without a label, or outside the area.
        area: The area that was asked for, in pixels of the grid; None is everything.
    """

    name: str
    image: Path
    labels: Path
    grid: Grid
    truth: Labels
    area: Any = None

    @property
    def known_px(self) -> int:
        """Number of pixels with labels."""
        return int(np.count_nonzero(self.truth != IGNORED))


@dataclass(frozen=True, slots=True)
class LabeledBlock:
    """The block of a scene at `row` and `col`; how many of its pixels have labels, and how many are of the target."""

    row: int
    col: int
    window: Window
    known_px: int
    target_px: int

    @property
    def known(self) -> float:
        """Share of the pixels with labels."""
        return self.known_px / (self.window.height * self.window.width)

    def outline(self, scene: LabeledScene, *, inset_px: int = 0) -> Any:
        """Return the block's polygon in the scene's coordinates, smaller by `inset_px` on every side."""
        rows, cols = self.window.rows, self.window.cols
        box = shapely.box(cols.start + inset_px, rows.start + inset_px, cols.stop - inset_px, rows.stop - inset_px)
        area = box if scene.area is None else box.intersection(scene.area)
        transform = scene.grid.transform
        return shapely.transform(area, lambda xy: np.column_stack(transform @ (xy[:, 0], xy[:, 1])))


def label_scene(
    image: Path,
    labels: Path,
    *,
    gsd_m: float,
    coding: Coding,
    area: Path | None = None,
    where: str | None = None,
    layer: str = "",
    column: str = "",
    nodata: float | None = None,
    alpha: bool | None = None,
) -> LabeledScene:
    """Read the labels of a scene.

    Args:
        image: The scene.
        labels: Raster or polygons.
        gsd_m: Meters per pixel of the working grid.
        coding: What the labels mean.
        area: Polygons of the labeled area; everything by default.
        where: OGR attribute filter on them.
        layer: Layer of a file of polygons that has several.
        column: Attribute of the polygons that names their class.
        nodata: Nodata value that counts instead of the scene's own.
        alpha: True if a band marked alpha is a mask, False if it is an image; found out by default.

    Raises:
        GeosegError: Scene, labels or area cannot be read or do not fit.
    """
    scene = open_scene(image, nodata=nodata, alpha=alpha)
    scene = scene.at_gsd(gsd_m) if scene.native.crs is not None else scene
    grid = scene.grid
    truth = read_labels(labels, grid, coding=coding, native=scene.native, layer=layer, column=column, empty_ok=True)
    aoi = read_aoi(area, grid, where=where) if area is not None else None
    if aoi is not None:
        truth[~aoi.mask(grid.window)] = IGNORED
    if scene.has_mask:
        rows = max(1, _STRIP_PIXELS // grid.width)
        for row in range(0, grid.height, rows):
            strip = Window(row, 0, min(rows, grid.height - row), grid.width)
            truth[strip.slices][~scene.read(strip).valid] = IGNORED
    return LabeledScene(scene.name, image, labels, grid, truth, aoi.polygons if aoi is not None else None)


def _choose_side(scenes: Sequence[LabeledScene], *, stride_px: int, blocks: int) -> int:
    """Return the side of a block, pixels: about `blocks` of them over all labels, and room for a crop in each."""
    known = sum(scene.known_px for scene in scenes)
    return int(min(LARGEST_PX, max(LEAST_PX, 2 * stride_px, math.sqrt(known / blocks))))


def _cut_blocks(scene: LabeledScene, side_px: int, target: int) -> list[LabeledBlock]:
    """Divide a scene evenly into blocks of about `side_px`; count `target`, leave out blocks without any label."""
    edges = []
    for size in scene.grid.shape:
        parts = max(1, min(round(size / side_px), size // LEAST_PX))
        edges.append([round(n * size / parts) for n in range(parts + 1)])
    rows, cols = edges
    blocks = []
    for row, top in enumerate(rows[:-1]):
        for col, left in enumerate(cols[:-1]):
            window = Window(top, left, rows[row + 1] - top, cols[col + 1] - left)
            truth = scene.truth[window.slices]
            known, target_px = np.count_nonzero(truth != IGNORED), np.count_nonzero(truth == target)
            if known:
                blocks.append(LabeledBlock(row, col, window, int(known), int(target_px)))
    return blocks


@dataclass(frozen=True, slots=True)
class BlockSplit:
    """The blocks of several scenes, of about `side_px`: for each scene those of each of `PARTS`."""

    scenes: Sequence[LabeledScene]
    parts: Sequence[dict[str, list[LabeledBlock]]]
    side_px: int

    @property
    def known_px(self) -> int:
        """Number of pixels with labels in all scenes."""
        return sum(scene.known_px for scene in self.scenes)

    @property
    def inset_px(self) -> int:
        """Width of the strip along a block's border that is not scored."""
        return max(2, self.side_px // INSET)

    @property
    def names(self) -> list[str]:
        """A unique name for each scene."""
        stems = [re.sub(r"[^\w-]+", "_", scene.name) for scene in self.scenes]
        return [stem if stems.count(stem) == 1 else f"{stem}_{n}" for n, stem in enumerate(stems)]

    def summarize(self) -> dict[str, Any]:
        """Log and return how many blocks each part has; warn if there are few labels."""
        known = self.known_px
        if known < LITTLE_PX:
            log.warning(
                "Only %.2f Mpx have labels. Fine-tuning works better with %g Mpx or more.", known / 1e6, LITTLE_PX / 1e6
            )
        counts = {part: sum(len(blocks[part]) for blocks in self.parts) for part in PARTS}
        log.info(
            "%d blocks of about %d px are for training, %d for choosing weights, %d are held out",
            counts["train"],
            self.side_px,
            counts["choose"],
            counts["held"],
        )
        return {**counts, "side_px": self.side_px, "inset_px": self.inset_px, "known_px": known}

    def paths(self, folder: Path) -> list[Path]:
        """Return the file of blocks of each scene in a folder of results."""
        return [folder / "blocks" / f"{name}.gpkg" for name in self.names]

    def write(self, folder: Path) -> list[Path]:
        """Write a GeoPackage of blocks per scene, once: `hidden` are whole held-out blocks, `held` what is scored."""
        paths = self.paths(folder)
        inset_px = self.inset_px
        for path, scene, blocks in zip(paths, self.scenes, self.parts, strict=True):
            if not path.is_file():
                areas = [("train", block.outline(scene)) for block in blocks["train"]]
                areas += [("hidden", block.outline(scene)) for block in blocks["held"]]
                for part in ("choose", "held"):
                    areas += [(part, block.outline(scene, inset_px=inset_px)) for block in blocks[part]]
                _write_areas(path, scene.grid, areas)
        return paths


def split_blocks(scenes: Sequence[LabeledScene], spec: ModelSpec, target: int, seed: int) -> BlockSplit:
    """Divide the blocks of scenes into those for training, for choosing weights, and those that are held out.

    A block's color is (row + 2 column + scene) mod 4: no two of one color touch, not even at a corner. One color is
    held out, part of the opposite color is for choosing, the rest for training.

    Args:
        scenes: The scenes.
        spec: The model's specification.
        target: Class index that each part needs.
        seed: Which color is tried first.

    Raises:
        LabelError: No color leaves enough of the target in each part.
    """
    side_px = _choose_side(scenes, stride_px=spec.stride_px, blocks=BLOCKS)
    blocks = [_cut_blocks(scene, side_px, target) for scene in scenes]
    for first in range(4):
        parts = _color_blocks(blocks, (seed + first) % 4)
        targets = [sum(block.target_px for own in parts for block in own[part]) for part in PARTS]
        if min(targets) >= LEAST_TARGET_PX:
            return BlockSplit(scenes, parts, side_px)
    everything = [block for own in blocks for block in own]
    full = [block for block in everything if block.known >= LEAST_KNOWN]
    good = [block for block in full if block.target_px >= LEAST_TARGET_PX]
    meters, least_ha = side_px * spec.gsd_m, LITTLE_PX * spec.gsd_m**2 / 1e4
    raise LabelError(
        f"There are too few labels for fine-tuning. Of {plural(len(everything), 'block')} of {side_px} px "
        f"({meters:.0f} m) with labels, {len(full)} have labels on half of their pixels, and {len(good)} of these have "
        f"{LEAST_TARGET_PX} px of {spec.target}. At least 4 labeled blocks are needed, with {spec.target} in 3 of "
        "them: for training, for choosing weights and for the comparison. Fine-tuning pays off from "
        f"{LITTLE_PX / 1e6:g} Mpx ({least_ha:.1f} ha) on. Label more of the scene completely, "
        "and give the labeled areas as `aoi`."
    )


def _color_blocks(blocks: Sequence[Sequence[LabeledBlock]], held: int) -> list[dict[str, list[LabeledBlock]]]:
    """Return the blocks of each part of each scene; blocks with few labels have no color and are for training."""
    colors = [
        [(b.row + 2 * b.col + n) % 4 if b.known >= LEAST_KNOWN else -1 for b in own] for n, own in enumerate(blocks)
    ]
    opposite = [(n, i) for n, row in enumerate(colors) for i, color in enumerate(row) if color == (held + 2) % 4]
    chosen = set(opposite[:: max(2, math.ceil(len(opposite) / MOST_CHOOSING))])
    parts: list[dict[str, list[LabeledBlock]]] = []
    for n, own in enumerate(blocks):
        parts.append({part: [] for part in PARTS})
        for i, block in enumerate(own):
            part = "choose" if (n, i) in chosen else "held" if colors[n][i] == held else "train"
            parts[n][part].append(block)
    return parts


def write_folds(
    path: Path, scenes: Sequence[LabeledScene], folds: int, *, stride_px: int, target: int, name: str
) -> int:
    """Divide the blocks of scenes among folds, and write them, once; return how many blocks there are.

    Folds are diagonals, so that each is spread over the whole of every scene. In the file `train-N` are whole blocks
    of fold N; `validate-N` the same blocks without the strip along their border.

    Args:
        path: GeoPackage with a column `split`.
        scenes: The scenes, in one CRS.
        folds: How many folds.
        stride_px: A crop's sides are multiples of this.
        target: Class index that is counted.
        name: Name of the recipe's source, for messages.

    Raises:
        LabelError: There are fewer blocks than folds.
    """
    side_px = _choose_side(scenes, stride_px=stride_px, blocks=folds * BLOCKS_PER_FOLD)
    blocks = [_cut_blocks(scene, side_px, target) for scene in scenes]
    count = sum(map(len, blocks))
    step = 2 if folds != 2 else 1
    areas: list[tuple[str, Any]] = []
    for n, (scene, own) in enumerate(zip(scenes, blocks, strict=True)):
        for block in own:
            fold = (block.row + step * block.col + n) % folds
            areas.append((f"train-{fold}", block.outline(scene)))
            areas.append((f"validate-{fold}", block.outline(scene, inset_px=max(2, side_px // INSET))))
    if len({area for area, _ in areas}) < 2 * folds:
        mpx = sum(scene.known_px for scene in scenes) / 1e6
        raise LabelError(
            f"sources.{name} has {mpx:.2f} Mpx with labels, {count} blocks of {side_px} px; expected at least one for "
            f"each of {folds} folds. Give more imagery, or fewer `folds`."
        )
    if not path.is_file():
        _write_areas(path, scenes[0].grid, areas)
    return count


def _write_areas(path: Path, grid: Grid, areas: Sequence[tuple[str, Any]]) -> None:
    """Write polygons and their names, in the column `split`, as a GeoPackage for `Source.areas` and QGIS."""
    import geopandas

    parts = [(name, part) for name, shape in areas for part in shapely.get_parts(shape) if part.area > 0]
    names, shapes = zip(*((name, part) for name, part in parts if part.geom_type == "Polygon"), strict=True)
    crs = grid.crs.to_wkt() if grid.crs is not None else None
    frame = geopandas.GeoDataFrame({"split": list(names)}, geometry=list(shapes), crs=crs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside, ignore_warnings(message="'crs' was not provided"):  # a plain picture has none
        frame.to_file(aside, driver="GPKG", layer="areas")


def hide_areas(prepared: Path, areas: Path, name: str) -> None:
    """Remove the pixels of the areas called `name` from a prepared scene: no crop sees them, not even as context.

    A scene that does not touch them, or where they are removed already, is not changed.
    """
    scene = PreparedScene(prepared)
    crs, transform = scene.about["crs"], Affine(*scene.about["transform"])
    grid = Grid(CRS.from_wkt(crs) if crs else None, transform, scene.scene_shape)
    hidden = rasterize_areas(areas, [name], grid.crop(Window(*scene.origin, *scene.window.shape)))
    stored = np.array(scene.pixels)
    planes, truth = stored[..., :-1].transpose(2, 0, 1), stored[..., -1].astype(np.uint8)
    image, auxiliary = np.split(planes, [len(planes) - len(scene.auxiliary)])
    there = truth != NO_PIXEL
    if (there & hidden).any():
        valid = there & ~hidden
        kept = np.where(valid, image, 0).astype(stored.dtype)
        further = auxiliary.astype(np.uint8)
        write_prepared(prepared, kept, truth, about=scene.about, valid=valid, auxiliary=further)
