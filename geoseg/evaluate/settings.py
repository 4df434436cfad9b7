"""The settings of an evaluation."""

from dataclasses import dataclass, field
from pathlib import Path

from geoseg.errors import UsageError
from geoseg.inference import ViewChoice, check_options
from geoseg.io.suffixes import is_raster


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """How to read a label file.

    Attributes:
        codes: Number or `#RRGGBB` of a raster to class name, or to `unknown`; class indices and 255 by default.
        layer: Layer of a vector file that has several.
        column: Column with the class of each polygon; all polygons are buildings by default.
        elsewhere: Accept polygons even if none of them touches the scene.
        instances: Numbers of a raster are those of single buildings, 0 is the background; `codes` are exceptions.
    """

    codes: tuple[tuple[str, str], ...] = ()
    layer: str = ""
    column: str = ""
    elsewhere: bool = False
    instances: bool = False

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.instances and self.column:
            raise UsageError(
                f"`instances` is for label rasters, `column={self.column}` for polygons with classes. Give one of them."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to score, and how.

    Attributes:
        labels: Raster or vector file with reference labels, or a folder of files named like the scenes.
        label_settings: How to read the labels.
        model: Name of a shipped model, or path to a bundle; the default model if nothing else is scored.
        mask: Class raster to score instead of a model, or a folder of them.
        footprints: Vector file of buildings to score, alone or together with a mask.
        mask_codes: Number or `#RRGGBB` of the mask to class name.
        confidence: Column of the footprints; found automatically if called confidence, score or probability.
        classes: Names of the mask's classes by index.
        target: The class whose buildings are scored.
        target_only: Score only the target if there are several classes.
        unscored: Classes excluded from means; those of the model, or `unlabelled`, by default.
        aoi: Vector file with the area to score; the whole scene by default.
        aoi_where: OGR attribute filter on the AOI.
        threshold: Minimum probability of a building pixel; the model's by default.
        boundary_m: Boundary width in meters.
        boundary_px: Boundary width in pixels, instead.
        buildings: Also score individual buildings.
        curve: Also score every threshold.
        out: Folder for `metrics.json` and pictures.
        pictures: Also draw pictures.
        overwrite: Replace existing results.

    `blend`, `device`, `precision`, `threads`, `crs`, `nodata`, `alpha`, `chip_px`, `halo_px` and `tta` are those of
    `InferenceOptions`.
    """

    labels: Path
    label_settings: LabelSettings = field(default_factory=LabelSettings)
    model: str | Path | None = None
    mask: Path | None = None
    footprints: Path | None = None
    mask_codes: tuple[tuple[str, str], ...] = ()
    confidence: str | None = None
    classes: tuple[str, ...] = ()
    target: str = ""
    target_only: bool = False
    unscored: tuple[str, ...] | None = None
    aoi: Path | None = None
    aoi_where: str | None = None
    threshold: float | None = None
    boundary_m: float | None = None
    boundary_px: int | None = None
    buildings: bool = True
    curve: bool = False
    out: Path | None = None
    pictures: bool = True
    blend: bool = False
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    overwrite: bool = False
    crs: str | None = None
    nodata: float | None = None
    alpha: bool | None = None
    chip_px: int | None = None
    halo_px: int | None = None
    tta: ViewChoice | None = None

    def __post_init__(self) -> None:
        """Convert strings to paths, and check the values."""
        for name in ("labels", "mask", "footprints", "aoi", "out"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))
        check_options(threshold=self.threshold, threads=self.threads, aoi=self.aoi, aoi_where=self.aoi_where)
        rules = [
            (
                self.boundary_m is None or self.boundary_m > 0,
                f"`boundary_m={self.boundary_m}` is not above 0. Give meters, such as 1.",
            ),
            (
                self.boundary_px is None or self.boundary_px > 0,
                f"`boundary_px={self.boundary_px}` is below 1. Give pixels, such as 3.",
            ),
            (
                self.boundary_m is None or self.boundary_px is None,
                "`boundary_m` and `boundary_px` are alternatives. Give one of them.",
            ),
            (
                not self.has_files or (self.model is None and self.threshold is None),
                "`mask` and `footprints` are scored as they are. Omit `model` and `threshold`, or omit `mask` and "
                "`footprints`.",
            ),
            (
                not self.has_files or not self.curve,
                "`curve` requires probabilities, which `mask` and `footprints` lack. Score a model or a run folder.",
            ),
            (
                self.confidence is None or self.footprints is not None,
                "`confidence` names a column of `footprints`, which is not given. Give both, or omit `confidence`.",
            ),
            (
                not self.mask_codes or self.mask is not None,
                "`mask_codes` applies to `mask`, which is not given. Give both, or omit `mask_codes`.",
            ),
            (
                not self.classes or self.has_files,
                "`classes` names the classes of `mask`, which is not given. Give both, or omit `classes`: models and "
                "runs have their own, and those of labels are named in `codes`.",
            ),
            (
                not self.target or self.has_files,
                "`target` chooses the class of `mask` or `footprints`; models and runs have their own. Omit `target`.",
            ),
            (
                not self.target or self.mask is None or bool(self.classes) or self.names_classes,
                "`target` chooses one of the `classes` of `mask`, which are not given. Give both, or omit `target`.",
            ),
        ]
        for fits, message in rules:
            if not fits:
                raise UsageError(message)

    @property
    def has_files(self) -> bool:
        """True if files of another tool are scored instead of a model."""
        return self.mask is not None or self.footprints is not None

    @property
    def names_classes(self) -> bool:
        """True if codes or a column of the labels name classes."""
        return bool(self.mask_codes or self.label_settings.codes or self.label_settings.column)

    def scores_target_only(self, labels: Path) -> bool:
        """Return True if that is asked for, or if the labels are single buildings without classes."""
        told = self.label_settings
        return self.target_only or told.instances or not (is_raster(labels) or told.column)
