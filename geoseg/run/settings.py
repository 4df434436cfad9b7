"""The settings of a run, and the facts that decide its result."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.bundle import DEFAULT_MODEL, Bundle
from geoseg.errors import UsageError
from geoseg.inference import BLOCK_PX, RULES, Area, GridChoice, InferenceOptions, Rule, check_options
from geoseg.io.store import stamp
from geoseg.outputs.footprints import FORMATS
from geoseg.scene import is_remote, parse_crs
from geoseg.sources import SceneSource

DECIDING = (
    "aoi_where",
    "threshold",
    "min_area_m2",
    "simplify_px",
    "bands",
    "crs",
    "grid",
    "blend",
    "precision",
    "chip_px",
    "halo_px",
    "mosaic",
    "target_crs",
)
"""Settings that change the result. Blocks, threads, workers and devices do not.

Nor does `errors`, which only decides what happens to blocks that fail; `run.json` lists those.
"""

Facts = dict[str, Any]

OnFailure = Literal["stop", "nodata"]
"""What happens if blocks fail: there is no result, or one with nodata in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(InferenceOptions):
    """Settings of a run, in addition to those of `InferenceOptions`.

    Attributes:
        model: Name of a shipped model, or path to a bundle.
        out: Result folder, or `s3://bucket/prefix`; `<scene name>_geoseg` in the working folder by default.
        threshold: Minimum probability of a building pixel; the model's by default.
        min_area_m2: Minimum area of a footprint in square meters; the model's by default.
        simplify_px: Simplification tolerance in pixels of the working grid; 0 keeps every pixel corner.
        block_px: Approximate height and width of a block in pixels of the working grid; automatic by default.
        overwrite: Replace an existing result.
        also: Vector formats to write in addition to GeoPackage and GeoParquet, such as `fgb`.
        picture: Also write `preview.png`: image and prediction side by side.
        mosaic: Rule for overlaps in one mosaic of all scenes; None makes one result per scene.
        target_crs: CRS of the mosaic; the first scene's by default.
        asset: Key of the STAC asset that holds the pixels.
        errors: `stop` ends without a result if blocks fail; `nodata` makes them nodata.
        scheduler: Address or scheduler file of a dask cluster to use.
        workers: Number of local worker processes, each with `threads` threads and, if there are any, its own GPU.
    """

    model: str | Path = DEFAULT_MODEL
    out: str | Path | None = None
    threshold: float | None = None
    min_area_m2: float | None = None
    simplify_px: float = 1.0
    block_px: int | None = None
    overwrite: bool = False
    also: Sequence[str] = ()
    picture: bool = False
    mosaic: Rule | None = None
    target_crs: str | None = None
    asset: str | None = None
    errors: OnFailure = "stop"
    scheduler: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(threshold=self.threshold, threads=self.threads, aoi=self.aoi, aoi_where=self.aoi_where)
        checks = [
            (
                self.min_area_m2 is None or self.min_area_m2 >= 0,
                f"`min_area_m2={self.min_area_m2}` is negative. Give square meters, such as 5.",
            ),
            (
                self.simplify_px >= 0,
                f"`simplify_px={self.simplify_px}` is negative. Give pixels; 0 keeps every corner.",
            ),
            (
                set(self.also) <= FORMATS.keys(),
                f"`also={', '.join(self.also)}` is not a known format. Choose from {', '.join(FORMATS)}.",
            ),
            (self.grid in get_args(GridChoice), f"`grid={self.grid!r}` is unknown. Choose model or scene."),
            (
                self.block_px is None or self.block_px > 0,
                f"`block_px={self.block_px}` is below 1. Give pixels, such as {BLOCK_PX}.",
            ),
            (
                self.mosaic is None or self.mosaic in RULES,
                f"`mosaic={self.mosaic!r}` is not a rule for overlaps. Choose first, latest or mean.",
            ),
            (
                self.target_crs is None or self.mosaic is not None,
                "`target_crs` is for a mosaic; a single scene keeps its CRS. Give `mosaic` too, or omit `target_crs`.",
            ),
            (self.errors in get_args(OnFailure), f"`errors={self.errors!r}` is unknown. Choose stop or nodata."),
            (
                self.workers is None or self.workers > 0,
                f"`workers={self.workers}` is below 1. Give a number of worker processes.",
            ),
            (
                self.workers is None or self.scheduler is None,
                "`workers` starts workers on this machine and `scheduler` uses those of a cluster. Give one of them.",
            ),
        ]
        for fits, message in checks:
            if not fits:
                raise UsageError(message)
        for name in ("crs", "target_crs"):
            if getattr(self, name) is not None:
                parse_crs(getattr(self, name), name)

    @property
    def aoi_text(self) -> str:
        """The AOI as messages name it: with its path if it is a file."""
        return f"the AOI {self.aoi}" if isinstance(self.aoi, str | Path) else "the AOI"

    @property
    def is_in_process(self) -> bool:
        """True if the workers are threads of this process."""
        return self.scheduler is None and self.workers is None

    def folder_of(self, name: str) -> str:
        """Return the run folder of a scene that is run on its own: `out`, or `<name>_geoseg` by default."""
        return str(self.out or f"{name}_geoseg")

    def for_source(self, source: SceneSource, out: str | Path) -> "RunSettings":
        """Return the settings of one scene: CRS and bands of its manifest override those given for all scenes."""
        return replace(self, out=out, crs=source.crs or self.crs, bands=source.bands or self.bands)


def run_facts(files: Sequence[str | Path], bundle: Bundle, settings: RunSettings) -> Facts:
    """Return the facts that decide a result, as plain types; `run.json` records them.

    A file is identified by its name, size and modification time, a remote one by what the server reports. The folder
    of a local file does not count, so that a dataset can be moved.
    """
    facts: Facts = {"model": bundle.key}
    facts |= {name: getattr(settings, name) for name in DECIDING}
    facts["aoi"] = _describe_aoi(settings.aoi)
    facts["files"] = [stamp(part) for file in files for part in _files_behind(str(file))]
    plain: Facts = json.loads(json.dumps(facts, sort_keys=True, default=str))
    return plain


def _describe_aoi(aoi: Area | None) -> list[Any] | None:
    """Return what identifies an area: name, size and time of a file, or a hash of the shapes and their CRS."""
    if aoi is None or isinstance(aoi, str | Path):
        return None if aoi is None else stamp(str(aoi))
    shapes = [aoi] if isinstance(aoi, BaseGeometry) else list(aoi.geometry)
    digest = hashlib.sha256(b"".join(shapely.to_wkb(shape, byte_order=1) for shape in shapes)).hexdigest()
    return ["geometry", digest[:16], str(getattr(aoi, "crs", None))]


def key_of(facts: Facts) -> str:
    """Return a short hash of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _files_behind(file: str) -> list[str]:
    """Return a file, and the files that it refers to if it is a virtual raster."""
    if not file.lower().endswith(".vrt") or is_remote(file):
        return [file]
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(file) as dataset:
            return [str(part) for part in dataset.files]
    except RasterioError:
        return [file]
