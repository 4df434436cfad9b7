"""Rasters of a whole scene, block by block, as cloud optimized GeoTIFFs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA, PROBABILITY_ONE
from geoseg.io.aside import reported, write_aside, write_text
from geoseg.outputs.cog import Entry, read_entries, write_cog
from geoseg.outputs.overviews import halve_average, halve_majority
from geoseg.outputs.pyramid import Derivation, Layer, Pyramid
from geoseg.outputs.styles import category_xml, class_qml, mask_qml, probability_qml
from geoseg.third_party import allow_no_georeference

Blocks = Iterable[tuple[Window, NDArray[np.uint8]]]
"""Disjoint windows of a scene with their `(y, x)` uint8 pixels, in any order."""

MASK_NAMES = ("background", "building")
MASK_COLORS = ("#262626", "#ff7a1a")
"""Background dark gray, buildings orange."""

OVERVIEW_PX = 256
"""The smallest overview is no larger than this, so that a whole scene is drawn from one TIFF tile."""

DESCRIBING = (262, 320, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
"""TIFF tags that GDAL writes for us: photometry, colors; scale, tie point or matrix, CRS; metadata and no data."""


@dataclass(frozen=True, slots=True)
class RasterFile:
    """A result raster that is to be written: one band of uint8 pixels, 255 = no data.

    Attributes:
        path: The file to be.
        layer: How its overviews are made and its tiles compressed.
        description: Description of the band.
        tags: Metadata of the file.
        scale: Real value of one step, or None.
        colors: Colors `#RRGGBB` by value, or none for gray levels.
        beside: Texts by the path of the file that holds them, written after the raster.
    """

    path: Path
    layer: Layer
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)
    scale: float | None = None
    colors: Sequence[str] = ()
    beside: Mapping[Path, str] = field(default_factory=dict)


def probability_file(path: str | Path, *, description: str = "building probability") -> RasterFile:
    """Describe a raster of probabilities: values 0 to 254, scale 1/254, averaged overviews, a QGIS style beside it."""
    path = Path(path)
    beside = {path.with_suffix(".qml"): probability_qml(description.removesuffix(" probability"))}
    return RasterFile(path, Layer(halve_average, predict=True), description, scale=1 / PROBABILITY_ONE, beside=beside)


def mask_file(path: str | Path, *, names: Sequence[str] = MASK_NAMES) -> RasterFile:
    """Describe a mask: 0 and 1 by name, with a color table, overviews by majority and a QGIS style beside it.

    Without the style QGIS would list all 256 colors of the table, and hide the image below the background.
    """
    path, description = Path(path), f"{names[1]} mask: 0 {names[0]}, 1 {names[1]}"
    beside = {path.with_suffix(".qml"): mask_qml(names, MASK_COLORS)}
    return RasterFile(path, Layer(halve_majority, predict=False), description, colors=MASK_COLORS, beside=beside)


def class_file(path: str | Path, *, names: Sequence[str], colors: Sequence[str]) -> RasterFile:
    """Describe a raster of class indices, with a color table and overviews by majority.

    Two files beside it give the names: `<path>.aux.xml`, where GDAL keeps category names, and a QGIS style of the same
    stem, without which QGIS would list all 256 colors of the table.

    Args:
        path: The file to be; an older one is replaced.
        names: Name of every class.
        colors: `#RRGGBB` of every class.
    """
    path, description = Path(path), f"classes: {', '.join(f'{index} {name}' for index, name in enumerate(names))}"
    gdal = path.with_name(f"{path.name}.aux.xml")
    beside = {gdal: category_xml(names), path.with_suffix(".qml"): class_qml(names, colors)}
    return RasterFile(path, Layer(halve_majority, predict=False), description, colors=colors, beside=beside)


class RastersWriter:
    """Several rasters of one scene that are being written in one pass."""

    def __init__(self, pyramid: Pyramid, grid: Grid, target: Path, inputs: int) -> None:
        """Write through `pyramid`; errors name `target`."""
        self._pyramid, self._grid, self._target, self._inputs = pyramid, grid, target, inputs

    def put(self, window: Window, pixels: NDArray[np.uint8]) -> None:
        """Take the `(input, y, x)` pixels of a window, disjoint from all others.

        Raises:
            OutputError: If the disk is full.
            ValueError: If they are not uint8, have another shape than the window, lie outside the grid or overlap.
        """
        if pixels.dtype != np.uint8 or pixels.shape != (self._inputs, *window.shape):
            raise ValueError(
                f"found {pixels.dtype} pixels of shape {pixels.shape[1:]} for {window}, expected uint8 of its shape"
                + (f", for {self._inputs} rasters" if self._inputs > 1 else "")
            )
        if window.intersect(self._grid.window) != window:
            shape = f"{self._grid.height} x {self._grid.width}"
            raise ValueError(f"{window} does not lie inside the grid of {shape} pixels")
        with reported(self._target):
            self._pyramid.put(window, pixels)

    def finish_above(self, row: int) -> None:
        """Announce that no more pixels come above a row of the scene: tiles that wait for them are finished."""
        with reported(self._target):
            self._pyramid.finish_above(row)


@contextmanager
def open_rasters(
    rasters: Sequence[RasterFile],
    grid: Grid,
    *,
    derive: Derivation | None = None,
    inputs: int | None = None,
    threads: int | None = None,
) -> Iterator[RastersWriter]:
    """Write several rasters of one scene in one pass; the files appear when the block ends well, and only then.

    Memory does not grow with the scene: see `Pyramid`. The files are a function of the pixels alone, byte for byte,
    whatever the windows, their order and the threads. Pixels that nothing is put at are no data.

    Args:
        rasters: What to write; older files are replaced.
        grid: Grid of the whole scene.
        derive: Makes the pixels of all rasters from those put in; None where they are the same.
        inputs: Rasters put in, where they are not those written.
        threads: Threads that compress; one per core by default.

    Raises:
        OutputError: If a file cannot be written; nothing of it is left then.
    """
    target, inputs = rasters[0].path, inputs or len(rasters)
    levels = 1 + overview_count(grid.shape)
    with ExitStack() as files:
        asides = [files.enter_context(write_aside(raster.path)) for raster in rasters]
        spool = asides[0].with_name(f"{asides[0].name}.spool")
        layers = [raster.layer for raster in rasters]
        with reported(target):
            pyramid = Pyramid(grid.shape, layers, spool, levels=levels, derive=derive, inputs=inputs, threads=threads)
        with closing(pyramid):
            yield RastersWriter(pyramid, grid, target, inputs)
            with reported(target):
                pyramid.finish()
            for raster, aside, tables in zip(rasters, asides, pyramid.tables, strict=True):
                with reported(raster.path, *GDAL_ERRORS):
                    write_cog(aside, _describe(raster, grid), tables, pyramid.spool.read, predict=raster.layer.predict)
    for raster in rasters:
        for path, text in raster.beside.items():
            write_text(path, text)


def write_raster(raster: RasterFile, blocks: Blocks, grid: Grid) -> Path:
    """Write one raster of a scene; memory does not grow with the scene.

    Args:
        raster: What to write, such as `probability_file(path)`.
        blocks: Disjoint windows with their `(y, x)` pixels; pixels that no block covers are no data.
        grid: Grid of the whole scene.

    Returns:
        The path.

    Raises:
        OutputError: If a file cannot be written; nothing of it is left then.
        ValueError: If a block is not uint8, has another shape than its window, lies outside the grid or overlaps.
    """
    with open_rasters([raster], grid) as writer:
        for window, pixels in blocks:
            writer.put(window, pixels[np.newaxis])
    return raster.path


def rgb(color: str) -> tuple[int, int, int]:
    """Turn `#RRGGBB` into numbers."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def overview_count(shape: tuple[int, int]) -> int:
    """Return how many overviews a raster gets: one at least, and the last no larger than `OVERVIEW_PX`.

    A single pixel has none.
    """
    halvings = math.ceil(math.log2(max(shape) / OVERVIEW_PX))
    return max(halvings, 1 if max(shape) > 1 else 0)


def _describe(raster: RasterFile, grid: Grid) -> list[Entry]:
    """Return the TIFF tags of place, colors and description, from a file of one pixel that GDAL writes in memory."""
    place = {} if grid.crs is None and grid.transform == Affine.identity() else {"transform": grid.transform}
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NODATA, "crs": grid.crs, **place}
    with allow_no_georeference(), MemoryFile() as file:
        with file.open(height=1, width=1, ENDIANNESS="LITTLE", **profile) as dataset:
            dataset.set_band_description(1, raster.description)
            dataset.update_tags(**raster.tags)
            if raster.scale is not None:
                dataset.scales, dataset.offsets = (raster.scale,), (0.0,)
            if raster.colors:  # TIFF keeps no alpha, but GDAL and QGIS draw no data as transparent
                table = {index: (*rgb(color), 255) for index, color in enumerate(raster.colors)}
                dataset.write_colormap(1, table | {NODATA: (0, 0, 0, 0)})
        return read_entries(file.read(), DESCRIBING)
