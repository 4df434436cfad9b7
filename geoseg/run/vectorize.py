"""Building footprints from any raster: the probabilities of a run or of another tool, a mask, or classes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg._version import __version__
from geoseg.errors import ExistingResultError, MissingFileError, UsageError
from geoseg.gdal import GDAL_ERRORS, placed_crs
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA, PROBABILITY_ONE
from geoseg.io.aside import require_closed, write_record
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.io.tables import name_some
from geoseg.outputs.footprints import FORMATS, check_crs, files_of
from geoseg.run.ledger import check_place, read_report, remove_if_empty
from geoseg.run.report import Stages, describe_outlines, describe_settings
from geoseg.run.results import open_staging, stored_pixels, write_footprints
from geoseg.run.settings import VectorizeSettings, choose_outlines
from geoseg.scene import close_readers, open_reader, parse_crs, read_grid, read_window
from geoseg.third_party import allow_no_georeference
from geoseg.vectorize import StoredPixels, cut_grid

log = logging.getLogger(__name__)

REPORT = "vectorize.json"
FILES = (*files_of(FORMATS), REPORT)
"""All files that a result may have, the report last."""

THRESHOLD = 0.5
"""Threshold of probabilities that are not those of a run."""

SURVEY_PX = 1024
"""Height and width of the windows in which a raster is looked through."""

FEW = 16
"""A raster of whole numbers with more values than this holds no mask."""


@dataclass(frozen=True, slots=True)
class VectorizeResult:
    """Footprints of a raster.

    Attributes:
        out: The result folder.
        report: The contents of `vectorize.json`.
    """

    out: Store
    report: dict[str, Any]

    @property
    def paths(self) -> list[str]:
        """The files of the result."""
        return [f"{self.out.url}/{name}" for name in FILES if self.out.has(name)]


@dataclass(frozen=True, slots=True)
class OtherRaster:
    """A band of any raster as stored probabilities: 0 to 254, 255 where there is no data.

    Attributes:
        path: The raster.
        band: Number of the band.
        scale: Probability of a pixel is `scale * value + offset`.
        offset: See `scale`.
        values: Values of buildings instead, which become 254; all others 0.
        nodata: Another value without data, besides what the file says.
    """

    path: str
    band: int
    scale: float = 1.0
    offset: float = 0.0
    values: Sequence[int] = ()
    nodata: int | None = None

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the `(y, x)` pixels of a window.

        Raises:
            ReadError: If they cannot be read.
            UsageError: If a value is not a probability.
        """
        found = read_window(self.path, window, band=self.band, masked=True)
        is_empty = np.ma.getmaskarray(found)
        if self.nodata is not None:
            is_empty = is_empty | (found.data == self.nodata)
        if self.values:
            stored = np.where(np.isin(found.data, self.values), PROBABILITY_ONE, 0)
        else:
            probability = found.data * self.scale + self.offset
            is_empty = is_empty | ~np.isfinite(probability)
            known = probability[~is_empty]
            if known.size and not (known.min() >= 0 and known.max() <= 1 + 1e-6):
                low, high = found.data[~is_empty].min(), found.data[~is_empty].max()
                raise UsageError(
                    f"{self.path} holds values from {low:g} to {high:g}, which are not probabilities from 0 to 1. Give "
                    "the value that stands for 1 as `full_scale`, such as 100 or 255, or the values of buildings as "
                    "`values`."
                )
            stored = np.rint(np.where(is_empty, 0, probability) * PROBABILITY_ONE)
        stored[is_empty] = NODATA
        return stored.astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Source:
    """What is outlined, and how its pixels are taken.

    Attributes:
        name: Name of the raster.
        pixels: The rasters.
        taken: How the pixels are taken, in words.
        is_mask: Whether there are no probabilities.
        threshold: The threshold by default.
        min_area_m2: The minimum area by default.
        split_depth: The depth between buildings by default.
        coefficients: Those of the confidence.
        facts: More for the report.
    """

    name: str
    pixels: StoredPixels
    taken: str
    is_mask: bool = False
    threshold: float = THRESHOLD
    min_area_m2: float = 0.0
    split_depth: float | None = None
    coefficients: Mapping[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def vectorize_raster(source: str | Path, settings: VectorizeSettings | None = None) -> VectorizeResult:
    """Turn a raster into building footprints: `buildings.gpkg`, `buildings.parquet` and `vectorize.json`.

    The raster is read window by window, so memory does not grow with it. The footprints are those of a run on the same
    probabilities and, in another order, of `geoseg.polygonize`.

    Args:
        source: A raster of probabilities, a mask or classes; or the folder of a finished run, for other outlines of it.
            Whole numbers that are neither 0 and 1 nor 0 and 255 need `full_scale` or `values`, unless the file has a
            scale.
        settings: See `VectorizeSettings`.

    Raises:
        UsageError: If the pixels can be meant in two ways, or are not probabilities.
        GeosegError: If the raster cannot be read, or the folder holds files already. Nothing is left behind.
    """
    settings, stages = settings or VectorizeSettings(), Stages()
    path = str(source).rstrip("/")
    found = _open_run(Path(path), settings) if Path(path).is_dir() else _open_raster(path, settings)
    log.info("%s: %s", found.name, found.taken)
    out = open_store(str(settings.out or f"{found.name}_buildings"))
    _check_out(out, settings)
    pixels, has_interior = found.pixels, found.pixels.surface is not None
    if found.is_mask and settings.threshold is not None:
        raise UsageError(f"{path} is {found.taken}: `threshold` would have no effect. Omit it.")
    options = choose_outlines(
        _unsplit(settings) if found.is_mask else settings,
        pixels.grid,
        threshold=found.threshold,
        min_area_m2=found.min_area_m2,
        has_interior=has_interior,
        split_depth=found.split_depth,
        coefficients=found.coefficients,
    )
    check_crs(settings.formats, pixels.grid.crs, found.name)
    stages.done("open")
    try:
        with open_staging(out) as staging:
            omit = ("confidence", "confidence_min") if found.is_mask else ()
            counts = write_footprints(
                pixels, staging, [pixels.grid.window], options, formats=settings.formats, omit=omit
            )
            stages.done("polygons")
            report = {
                "geoseg": __version__,
                "started": stages.began.isoformat(timespec="seconds"),
                "source": path,
                "taken_as": found.taken,
                **found.facts,
                "settings": describe_settings(settings),
                **describe_outlines(options, None if found.is_mask else settings.threshold or found.threshold),
                "counts": {"buildings": counts.count, "buildings_at_edge": counts.at_edge},
                "area_m2": round(counts.area_m2, 1),
                "seconds": {name: round(value, 3) for name, value in stages.seconds.items()},
            }
            write_record(staging / REPORT, report)
            for name in FILES:
                if (staging / name).exists():
                    out.upload(staging / name, name)
                else:
                    out.remove(name)  # of an older result
    finally:
        close_readers()
        remove_if_empty(out)
    return VectorizeResult(out, report)


def _unsplit(settings: VectorizeSettings) -> VectorizeSettings:
    """Return settings that leave the buildings of a mask together, unless asked otherwise."""
    return settings if settings.split_depth is not None else replace(settings, split_depth=1.0)


def _check_out(out: Store, settings: VectorizeSettings) -> None:
    """Raise an error if the folder cannot be created, or holds a result."""
    check_place(out)
    if out.has("run.json"):
        raise ExistingResultError(
            f"{out.url} holds the result of a run. Choose another folder with `out`; or, for other buildings in the "
            "same folder, run the scene with the new settings and `overwrite=True`, which needs no network."
        )
    if settings.overwrite and isinstance(out, LocalStore):
        require_closed(out.folder / "buildings.gpkg")
    held = [name for name in FILES if out.has(name)]
    if held and not settings.overwrite:
        raise ExistingResultError(
            f"{out.url} already holds {', '.join(held)}. Choose another folder with `out`, or replace them with "
            "`overwrite=True`."
        )


def _open_run(folder: Path, settings: VectorizeSettings) -> _Source:
    """Open the probabilities of a finished run."""
    has_pixels = (folder / "probability.tif").is_file()
    report = read_report(open_store(folder), "threshold", "min_area_m2") if has_pixels else None
    if report is None:
        raise MissingFileError(
            f"{folder} is a folder without run.json and probability.tif. Give a raster, or the folder of a "
            "finished run."
        )
    given = [
        name
        for name, usual in (("full_scale", None), ("values", ()), ("crs", None), ("band", 1))
        if getattr(settings, name) != usual
    ]
    if given:
        raise UsageError(f"{folder} is the folder of a run: `{given[0]}` would have no effect. Omit it.")
    grid, _ = _grid_of(str(folder / "probability.tif"), 1, None)
    return _Source(
        name=folder.absolute().name,
        pixels=stored_pixels(grid, folder),
        taken="the probabilities of a run",
        threshold=float(report["threshold"]),
        min_area_m2=float(report["min_area_m2"]),
        split_depth=report.get("split_depth"),
        coefficients=(report.get("model") or {}).get("confidence") or {},
        facts={"model": report.get("model"), "scene": (report.get("scene") or {}).get("name")},
    )


def _open_raster(path: str, settings: VectorizeSettings) -> _Source:
    """Open a raster, and say how its pixels are taken."""
    grid, band = _grid_of(path, settings.band, settings.crs)
    name = Path(path).stem
    raster, taken = _interpret(path, grid, band, settings)
    return _Source(name, StoredPixels(grid, raster), taken, is_mask=bool(raster.values))


@dataclass(frozen=True, slots=True)
class _Band:
    dtype: np.dtype[Any]
    scale: float
    offset: float
    nodata: float | None


def _grid_of(path: str, band: int, crs: str | None) -> tuple[Grid, _Band]:
    """Return the grid of a raster, and what its header says of a band."""
    try:
        with allow_no_georeference(), open_reader(path) as src:
            if band > src.count:
                raise UsageError(f"{path} has {src.count} bands; there is no `band={band}`. Give one of them.")
            found = _Band(
                np.dtype(src.dtypes[band - 1]), src.scales[band - 1], src.offsets[band - 1], src.nodatavals[band - 1]
            )
            grid = read_grid(src, path, parse_crs(crs, "crs") if crs is not None else None)
            has_crs = placed_crs(src.crs) is not None
    except GDAL_ERRORS as err:
        raise MissingFileError(
            f"{path} cannot be read ({err}). Give a raster that GDAL can read; the working folder is {Path.cwd()}."
        ) from err
    if has_crs and crs is not None:
        raise UsageError(f"{path} has a CRS: `crs` would have no effect. Omit it.")
    if grid.crs is None:
        log.warning("%s has no CRS of a place on Earth: areas and tolerances are in the units of its coordinates", path)
    return grid, found


def _interpret(path: str, grid: Grid, band: _Band, settings: VectorizeSettings) -> tuple[OtherRaster, str]:
    """Return a raster as stored probabilities, and how its pixels are taken, in words.

    Raises:
        UsageError: If they can be meant in several ways.
    """
    number = settings.band
    if settings.values:
        return OtherRaster(path, number, values=tuple(settings.values)), (
            f"a raster of classes: buildings are the pixels of {name_some(list(map(str, settings.values)))}"
        )
    one = settings.full_scale
    if one is not None:
        return OtherRaster(path, number, scale=1 / one), f"probabilities from 0 to {one:g}"
    if band.scale != 1 or band.offset != 0:
        return OtherRaster(path, number, band.scale, band.offset), f"probabilities of scale {band.scale:g}"
    if band.dtype.kind == "f":
        return OtherRaster(path, number), "probabilities from 0 to 1"
    values = _survey(path, number, grid)
    if values is not None and values <= {0, 1}:
        return OtherRaster(path, number, values=(1,)), "a mask: buildings are the pixels of 1"
    if values is not None and values <= {0, 1, NODATA} and 1 in values:
        return OtherRaster(path, number, values=(1,), nodata=NODATA), "a mask: buildings are 1, and 255 is no data"
    if values is not None and values <= {0, 255}:
        return OtherRaster(path, number, values=(255,)), "a mask: buildings are the pixels of 255"
    shown = f"more than {FEW} values" if values is None else f"the values {name_some(list(map(str, sorted(values))))}"
    raise UsageError(
        f"{path} holds {shown} as {band.dtype}, which may be probabilities or classes. Give the value that stands for "
        "probability 1 as `full_scale`, such as 100 or 255, or the values of buildings as `values`."
    )


def _survey(path: str, band: int, grid: Grid) -> set[int] | None:
    """Return the values of a raster of whole numbers; None if they are many."""
    found: set[int] = set()
    for window in cut_grid(grid.shape, SURVEY_PX):
        found.update(np.unique(read_window(path, window, band=band, masked=True).compressed()).tolist())
        if len(found) > FEW:
            return None
    return found
