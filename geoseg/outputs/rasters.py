"""Rasters of a whole scene, block by block, as cloud optimised GeoTIFFs."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window as RasterioWindow

from geoseg.grid import Grid, Window
from geoseg.outputs.aside import output_error, reported, write_aside, write_text
from geoseg.outputs.styles import category_xml, class_qml

Blocks = Iterable[tuple[Window, NDArray[np.uint8]]]
"""Disjoint windows of a scene with their `(y, x)` uint8 pixels, in any order."""

NODATA = 255
PROBABILITY_STEPS = 254
"""A probability p is stored as the integer `254 * p`; 255 means no data."""

MASK_COLOURS = {0: (38, 38, 38, 255), 1: (255, 122, 26, 255), NODATA: (0, 0, 0, 0)}
"""Background dark grey, buildings orange; TIFF keeps no alpha, but GDAL and QGIS draw no data as transparent."""

BLOCK_PX = 512
OVERVIEW_PX = 256
"""The smallest overview is no larger than this, so that a whole scene is drawn from one small block."""

CACHE_BYTES = 128 * 2**20
"""Room for two rows of blocks of a scene 100,000 px wide."""

GDAL_FAILURES = (RasterioError, CPLE_BaseError, SystemError)
"""What rasterio raises when GDAL fails; SystemError where GDAL gave no reason."""


@dataclass(frozen=True, slots=True)
class RasterKind:
    """What tells one result raster from another.

    Attributes:
        description: Default description of the band.
        resampling: How overviews are made; no data never counts.
        scale: Real value of one step, or None.
        colours: Colours by value, or None.
        creation: More options of GDAL's COG driver.
    """

    description: str
    resampling: str
    scale: float | None = None
    colours: Mapping[int, tuple[int, int, int, int]] | None = None
    creation: Mapping[str, str] = field(default_factory=dict)


PROBABILITY = RasterKind(
    "building probability", "AVERAGE", scale=1 / PROBABILITY_STEPS, creation={"PREDICTOR": "STANDARD"}
)
MASK = RasterKind("building mask: 0 background, 1 building", "MODE", colours=MASK_COLOURS)


def write_probability_cog(
    path: str | Path,
    blocks: Blocks,
    grid: Grid,
    *,
    description: str = PROBABILITY.description,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write probabilities as a COG: values 0 to 254 with scale 1/254 in the file, 255 = no data, averaged overviews.

    Memory does not grow with the scene. Pixels that no block covers are no data.

    Args:
        path: The file to be; an older one is replaced.
        blocks: Disjoint windows with their `(y, x)` pixels.
        grid: Grid of the whole scene.
        description: Description of the band.
        tags: Metadata of the file.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written; nothing of it is left then.
        ValueError: If a block is not uint8, has another shape than its window or lies outside the grid.
    """
    return _write_cog(path, blocks, grid, PROBABILITY, description, tags or {})


def write_mask_cog(
    path: str | Path,
    blocks: Blocks,
    grid: Grid,
    *,
    description: str = MASK.description,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write a mask as a COG: 0 background, 1 building, 255 no data, with a colour table and overviews by majority.

    See `write_probability_cog` for arguments, result and errors.
    """
    return _write_cog(path, blocks, grid, MASK, description, tags or {})


def write_class_cog(
    path: str | Path,
    blocks: Blocks,
    grid: Grid,
    *,
    names: Sequence[str],
    colours: Sequence[str],
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write class indices as a COG: 255 no data, with a colour table and overviews by majority.

    Two files beside it give the names: `<path>.aux.xml`, where GDAL keeps category names, and a QGIS style of the same
    stem, without which QGIS would list all 256 colours of the table.

    Args:
        path: The file to be; an older one is replaced.
        blocks: Disjoint windows with their `(y, x)` class indices.
        grid: Grid of the whole scene.
        names: Name of every class.
        colours: `#RRGGBB` of every class.
        tags: Metadata of the file.

    Returns:
        The path.

    Raises:
        OutputError: If a file cannot be written; nothing of it is left then.
        ValueError: See `write_probability_cog`.
    """
    target = Path(path)
    table = {index: (*rgb(colour), 255) for index, colour in enumerate(colours)} | {NODATA: (0, 0, 0, 0)}
    listed = ", ".join(f"{index} {name}" for index, name in enumerate(names))
    _write_cog(target, blocks, grid, replace(MASK, colours=table), f"classes: {listed}", tags or {})
    write_text(category_path(target), category_xml(names))
    write_text(target.with_suffix(".qml"), class_qml(names, colours))
    return target


def category_path(path: Path) -> Path:
    """Return where GDAL looks for the category names of a raster."""
    return path.with_name(f"{path.name}.aux.xml")


def rgb(colour: str) -> tuple[int, int, int]:
    """Turn `#RRGGBB` into numbers."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def overview_count(shape: tuple[int, int]) -> int:
    """Return how many overviews a raster gets: one at least, and the last no larger than `OVERVIEW_PX`.

    A single pixel has none.
    """
    halvings = math.ceil(math.log2(max(shape) / OVERVIEW_PX))
    return max(halvings, 1 if max(shape) > 1 else 0)


def _write_cog(
    path: str | Path, blocks: Blocks, grid: Grid, kind: RasterKind, description: str, tags: Mapping[str, str]
) -> Path:
    """Write the blocks into a flat tiled file aside, and let GDAL's COG driver make the result from that."""
    target = Path(path)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), write_aside(target) as aside:
        flat = aside.with_name(f"{aside.name}.flat.tif")
        with _flat_file(flat, target, grid) as dataset:
            _describe(dataset, kind, description, tags)
            expected = _write_blocks(dataset, target, blocks, grid)
        with reported(target, *GDAL_FAILURES):
            rasterio.shutil.copy(flat, aside, driver="COG", **_cog_options(grid, kind))
            found = _sum_values(aside)
        if found != expected:
            raise output_error(target, f"pixels that sum to {found} instead of {expected} after writing")
    return target


@contextmanager
def _flat_file(flat: Path, target: Path, grid: Grid) -> Iterator[DatasetWriter]:
    """Open a sparse tiled GeoTIFF, which holds no data wherever nothing is written, and close it again."""
    place = {} if grid.crs is None and grid.transform == Affine.identity() else {"transform": grid.transform}
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NODATA, "crs": grid.crs, **place}
    layout = {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "sparse_ok": True, "bigtiff": "IF_SAFER"}
    with reported(target, *GDAL_FAILURES), _quiet_about_pictures():
        dataset = rasterio.open(flat, "w", height=grid.height, width=grid.width, **profile, **layout)
    try:
        yield dataset
    finally:
        with reported(target, *GDAL_FAILURES):
            dataset.close()


def _describe(dataset: DatasetWriter, kind: RasterKind, description: str, tags: Mapping[str, str]) -> None:
    """Say in the file what its band holds."""
    dataset.set_band_description(1, description)
    dataset.update_tags(**tags)
    if kind.scale is not None:
        dataset.scales, dataset.offsets = (kind.scale,), (0.0,)
    if kind.colours is not None:
        dataset.write_colormap(1, dict(kind.colours))


def _write_blocks(dataset: DatasetWriter, target: Path, blocks: Blocks, grid: Grid) -> int:
    """Write all blocks; return the sum of the scene's pixels, those without a block counted as no data."""
    total, covered = 0, 0
    for window, values in blocks:
        _check_block(window, values, grid)
        with reported(target, *GDAL_FAILURES):
            dataset.write(values, 1, window=RasterioWindow(window.col, window.row, window.width, window.height))
        total, covered = total + int(values.sum(dtype=np.int64)), covered + values.size
    missing = grid.height * grid.width - covered
    if missing < 0:
        raise ValueError(f"the blocks cover {-missing} pixels more than the scene has; they must not overlap")
    return total + NODATA * missing


def _check_block(window: Window, values: NDArray[np.uint8], grid: Grid) -> None:
    if values.dtype != np.uint8 or values.shape != window.shape:
        raise ValueError(
            f"found {values.dtype} pixels of shape {values.shape} for {window}, expected uint8 of its shape"
        )
    if window.intersect(Window(0, 0, *grid.shape)) != window:
        raise ValueError(f"{window} does not lie inside the grid of {grid.height} x {grid.width} pixels")


def _cog_options(grid: Grid, kind: RasterKind) -> dict[str, str]:
    """Return creation options of the COG driver (https://gdal.org/drivers/raster/cog.html)."""
    count = overview_count(grid.shape)
    overviews = {"OVERVIEW_COUNT": str(count)} if count else {"OVERVIEWS": "NONE"}
    overviews["OVERVIEW_RESAMPLING"] = kind.resampling
    layout = {"BLOCKSIZE": str(BLOCK_PX), "COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS"}
    return {**layout, **overviews, **kind.creation}


def _sum_values(path: Path) -> int:
    """Read a raster once, block by block, and sum its pixels: GDAL tells of a full disk neither always nor at once."""
    with _quiet_about_pictures(), rasterio.open(path) as dataset:
        blocks = (dataset.read(1, window=window) for _, window in dataset.block_windows(1))
        return sum(int(values.sum(dtype=np.int64)) for values in blocks)


@contextmanager
def _quiet_about_pictures() -> Iterator[None]:
    """Let a raster be without georeference: that was said when the scene was opened."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
