"""What a user may choose for a score, checked before any work."""

from dataclasses import dataclass, field
from pathlib import Path

from geoseg.errors import UsageError
from geoseg.evaluate.labels import LabelSettings
from geoseg.io.suffixes import is_raster


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to score, and on what.

    Attributes:
        labels: Raster or vector file of the truth, or a folder of files named like the scenes.
        label_settings: How it is to be read.
        model: Name of a shipped model, or path of a bundle; the default model where nothing else is scored.
        mask: Raster of classes to score instead of a model, or a folder of them.
        footprints: Vector file of buildings to score, instead of a model or beside a mask.
        mask_codes: Number or `#RRGGBB` of the mask to class name.
        confidence: Column of the footprints; found by itself where it is called confidence, score or probability.
        classes: Names of the mask's classes by index.
        target: The class whose buildings are scored.
        target_only: Score the target alone where there are several classes.
        unscored: Classes left out of means; the model's own, or `unlabelled`, by default.
        aoi: Vector file with the area to score; everywhere by default.
        aoi_where: OGR attribute filter on it.
        threshold: Probability from which a pixel is a building; the model's by default.
        boundary_m: Width of the boundary on the ground, meters.
        boundary_px: Width of the boundary, pixels, instead.
        buildings: Also score buildings one by one.
        curve: Also score every threshold.
        out: Folder for `metrics.json` and pictures.
        pictures: Also draw pictures there.
        blend: Blend chips over their halos.
        device: `auto`, `cpu`, `cuda` or `mps`.
        threads: CPU threads in all.
        overwrite: Replace existing results.
        crs: CRS of a scene that has none.
        chip_px: Another chip size than the model's.
        halo_px: Another halo than the model's.
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
    threads: int | None = None
    overwrite: bool = False
    crs: str | None = None
    chip_px: int | None = None
    halo_px: int | None = None

    def __post_init__(self) -> None:
        """Take paths as strings, too; refuse values that make no sense."""
        for name in ("labels", "mask", "footprints", "aoi", "out"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))
        rules = [
            (
                self.threshold is None or 0 < self.threshold < 1,
                f"--threshold {self.threshold} is not a probability. Give a number between 0 and 1, such as 0.5.",
            ),
            (
                self.threads is None or self.threads > 0,
                f"--threads {self.threads} is below 1. Give a number of threads.",
            ),
            (
                self.boundary_m is None or self.boundary_m > 0,
                f"--boundary-m {self.boundary_m} is not above 0. Give meters, such as 1.",
            ),
            (
                self.boundary_px is None or self.boundary_px > 0,
                f"--boundary-px {self.boundary_px} is below 1. Give pixels, such as 3.",
            ),
            (
                self.boundary_m is None or self.boundary_px is None,
                "--boundary-m and --boundary-px say the same twice. Give one of them.",
            ),
            (
                self.aoi_where is None or self.aoi is not None,
                f"--aoi-where {self.aoi_where} chooses features of --aoi, which is not given. Give both.",
            ),
            (
                not self.has_files or (self.model is None and self.threshold is None),
                "What --mask or --footprints names is scored as it is: leave out --model and --threshold, or leave out "
                "--mask and --footprints.",
            ),
            (
                not self.has_files or not self.curve,
                "--curve needs probabilities, which --mask and --footprints have not. Score a model or a run folder.",
            ),
        ]
        for fits, message in rules:
            if not fits:
                raise UsageError(message)

    @property
    def has_files(self) -> bool:
        """True where files of some tool are scored instead of a model."""
        return self.mask is not None or self.footprints is not None

    def scores_target_only(self, labels: Path) -> bool:
        """Return True where that is asked, or where labels are polygons without classes: they are the target."""
        return self.target_only or not (is_raster(labels) or self.label_settings.column)
