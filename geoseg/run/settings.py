"""The settings of a run, and the facts that decide its result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.bundle import DEFAULT_MODEL, Bundle
from geoseg.errors import UsageError
from geoseg.grid import Grid
from geoseg.inference import (
    BLOCK_PX,
    RULES,
    Area,
    GridChoice,
    InferenceOptions,
    Rule,
    check_options,
    stored_threshold,
)
from geoseg.io.fingerprint import fingerprint
from geoseg.outputs.footprints import DEFAULT_FORMATS, check_names
from geoseg.redaction import redact
from geoseg.scene import parse_crs
from geoseg.sources import SceneSource, pixels_with_data
from geoseg.vectorize import (
    Outline,
    OutlineOptions,
    Split,
    choose_depth,
    choose_generalizer,
    choose_limits,
)

DECIDING = (
    "aoi_where",
    "threshold",
    "min_area_m2",
    "fill_holes_m2",
    "outline",
    "tolerance_m",
    "split_depth",
    "bands",
    "crs",
    "nodata",
    "alpha",
    "grid",
    "blend",
    "precision",
    "chip_px",
    "halo_px",
    "tta",
    "mosaic",
    "target_crs",
)
"""Settings that change the result. Blocks, threads, workers and devices do not.

Nor does `errors`, which only decides what happens to blocks that fail; `run.json` lists those.
"""

OUTLINING = ("threshold", "min_area_m2", "fill_holes_m2", "outline", "tolerance_m", "split_depth")
"""Those of them that only decide how buildings are outlined in the probabilities."""

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
        fill_holes_m2: Minimum area of a hole in a footprint in square meters; `min_area_m2` by default, and at most.
        outline: `regular` for straight walls and right angles, `simple` for fewer corners, `raw` for those of the
            pixels.
        tolerance_m: Smallest step in a wall that is kept, meters (pixels without a CRS); 0.5 by default, and
            at least a pixel.
        split_depth: How much the smoothed probability must fall to divide a building that stands alone, above 0, and
            less where many touch (docs/usage.md); the model's by default, or that of
            `geoseg.vectorize.choose_depth`. 1 leaves them together.
        block_px: Approximate height and width of a block in pixels of the working grid; automatic by default.
        overwrite: Replace an existing result.
        formats: Vector formats of the footprints: `gpkg`, `parquet` (in any case), `fgb`, `geojson`,
            `pmtiles`.
        picture: Also write `preview.png`: image and prediction side by side.
        page: Also write `index.html`, a page to look at the result without a GIS.
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
    fill_holes_m2: float | None = None
    outline: Outline = "regular"
    tolerance_m: float | None = None
    split_depth: float | None = None
    block_px: int | None = None
    overwrite: bool = False
    formats: Sequence[str] = DEFAULT_FORMATS
    picture: bool = False
    page: bool = True
    mosaic: Rule | None = None
    target_crs: str | None = None
    asset: str | None = None
    errors: OnFailure = "stop"
    scheduler: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        InferenceOptions.__post_init__(self)
        check_options(threshold=self.threshold, threads=self.threads, aoi=self.aoi, aoi_where=self.aoi_where)
        checks = [
            *check_outlining(self),
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
        _refuse_first(checks)
        check_names(self.formats)
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
        """Return the settings of one scene: what its manifest says of it overrides what is given for all scenes."""
        own = pixels_with_data(source, self.nodata, self.alpha)
        return replace(self, out=out, crs=source.crs or self.crs, bands=source.bands or self.bands, **own)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizeSettings:
    """Settings of `geoseg.vectorize_raster`.

    Attributes:
        out: Result folder, or `s3://bucket/prefix`; `<raster name>_buildings` in the working folder by default.
        threshold: Minimum probability of a building pixel; that of the run, or 0.5, by default. Not for a mask.
        min_area_m2: See `RunSettings`; that of the run, or 0, by default.
        fill_holes_m2: See `RunSettings`.
        outline: See `RunSettings`.
        tolerance_m: See `RunSettings`.
        split_depth: See `RunSettings`; that of the run by default. Those of a mask that touch are left together by
            default.
        band: Number of the raster's band, from 1.
        full_scale: Pixel value that stands for probability 1, such as 1, 100 or 255; by default what the file says.
        values: Pixel values of buildings, in a raster of classes or a mask.
        crs: CRS of a raster that has none.
        formats: See `RunSettings`.
        overwrite: Replace an existing result.
    """

    out: str | Path | None = None
    threshold: float | None = None
    min_area_m2: float | None = None
    fill_holes_m2: float | None = None
    outline: Outline = "regular"
    tolerance_m: float | None = None
    split_depth: float | None = None
    band: int = 1
    full_scale: float | None = None
    values: Sequence[int] = ()
    crs: str | None = None
    formats: Sequence[str] = DEFAULT_FORMATS
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(threshold=self.threshold)
        checks = [
            *check_outlining(self),
            (self.band >= 1, f"`band={self.band}` is below 1. Give the number of a band, from 1."),
            (
                self.full_scale is None or self.full_scale > 0,
                f"`full_scale={self.full_scale}` is not above 0. Give the pixel value of probability 1, such as 255.",
            ),
            (
                self.full_scale is None or not self.values,
                "`full_scale` is for probabilities and `values` is for classes. Give one of them.",
            ),
            (
                self.threshold is None or not self.values,
                "`threshold` is for probabilities and `values` is for classes. Give one of them.",
            ),
        ]
        _refuse_first(checks)
        check_names(self.formats)
        if self.crs is not None:
            parse_crs(self.crs, "crs")


def _refuse_first(checks: Sequence[tuple[bool, str]]) -> None:
    """Raise `UsageError` with the message of the first value that is not possible."""
    for fits, message in checks:
        if not fits:
            raise UsageError(message)


def check_outlining(settings: RunSettings | VectorizeSettings) -> list[tuple[bool, str]]:
    """Return for each value that decides how buildings are outlined whether it is possible, and what to say if not."""
    return [
        (
            settings.min_area_m2 is None or settings.min_area_m2 >= 0,
            f"`min_area_m2={settings.min_area_m2}` is negative. Give square meters, such as 5.",
        ),
        (
            settings.fill_holes_m2 is None or settings.fill_holes_m2 >= 0,
            f"`fill_holes_m2={settings.fill_holes_m2}` is negative. Give square meters, such as 2.",
        ),
        (
            settings.outline in get_args(Outline),
            f"`outline={settings.outline!r}` is unknown. Choose regular, simple or raw.",
        ),
        (
            settings.tolerance_m is None or settings.tolerance_m >= 0,
            f"`tolerance_m={settings.tolerance_m}` is negative. Give meters, such as 0.5.",
        ),
        (
            settings.split_depth is None or 0 < settings.split_depth <= 1,
            f"`split_depth={settings.split_depth}` is not a number above 0 and up to 1. Give a difference of "
            "probabilities, such as 0.05, or 1 to leave buildings that touch together.",
        ),
    ]


def choose_outlines(
    settings: RunSettings | VectorizeSettings,
    grid: Grid,
    *,
    threshold: float,
    min_area_m2: float,
    has_interior: bool,
    split_depth: float | None = None,
    coefficients: Mapping[str, float] | None = None,
) -> OutlineOptions:
    """Return how the buildings of a scene are outlined.

    Args:
        settings: What is given.
        grid: Grid of the scene.
        threshold: The threshold by default.
        min_area_m2: The minimum area by default.
        has_interior: Whether the model says where buildings end.
        split_depth: The depth by default, `ModelSpec.split_depth`.
        coefficients: Those of the confidence, `ModelSpec.confidence`.

    Raises:
        UsageError: If holes that are filled could hold a building.
    """
    least = min_area_m2 if settings.min_area_m2 is None else settings.min_area_m2
    depth = split_depth if settings.split_depth is None else settings.split_depth
    depth = choose_depth(depth, has_interior=has_interior)
    return OutlineOptions(
        threshold=stored_threshold(threshold if settings.threshold is None else settings.threshold),
        limits=choose_limits(least, settings.fill_holes_m2),
        generalizer=choose_generalizer(settings.outline, settings.tolerance_m, grid),
        coefficients=coefficients,
        split=Split.on(grid, depth, has_interior=has_interior),
    )


def run_facts(files: Sequence[str | Path], bundle: Bundle, settings: RunSettings) -> Facts:
    """Return the facts that decide a result, as plain types; `run.json` records them.

    Files are identified by their fingerprint, see `geoseg.io.fingerprint`. The folder of a local file does not count,
    so that a dataset can be moved; nor does the signature of a URL, so that it can be signed again.
    """
    facts: Facts = {"model": bundle.key}
    facts |= {name: getattr(settings, name) for name in DECIDING}
    facts["aoi"] = _describe_aoi(settings.aoi)
    facts["files"] = fingerprint(files)
    plain: Facts = json.loads(redact(json.dumps(facts, sort_keys=True, default=str)))
    return plain


def _describe_aoi(aoi: Area | None) -> list[Any] | None:
    """Return what identifies an area: a file's row of its fingerprint and the others, or a hash of shapes and CRS."""
    if aoi is None:
        return None
    if isinstance(aoi, str | Path):
        row, *beside = fingerprint([aoi])
        return [*row, *beside]
    shapes = [aoi] if isinstance(aoi, BaseGeometry) else list(aoi.geometry)
    digest = hashlib.sha256(b"".join(shapely.to_wkb(shape, byte_order=1) for shape in shapes)).hexdigest()
    return ["geometry", digest[:16], str(getattr(aoi, "crs", None))]


def key_of(facts: Facts) -> str:
    """Return a short hash of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
