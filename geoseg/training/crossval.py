"""Cross-validation: a recipe trained once per fold."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoseg.datasets.layouts import is_chosen
from geoseg.errors import RecipeError, UsageError
from geoseg.io.aside import check_folder, write_json
from geoseg.io.tables import write_table
from geoseg.training.folder import check_scenes, record_scenes
from geoseg.training.library import find_recipe, load_recipe
from geoseg.training.recipe import Recipe, Source

__all__ = ["CrossValidation", "cross_validate"]

log = logging.getLogger(__name__)

CLASS_FIGURES = ("iou", "dice", "precision", "recall")
POOLED_FIGURES = (*CLASS_FIGURES, "mean_iou", "pixel_accuracy")
"""Scores over all validated pixels together."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Scores of every fold.

    Attributes:
        folder: Where the folds are.
        folds: Of each fold its scores over all validated pixels, `None` where one does not exist.
        classes: Of each fold and class `iou`, `dice`, `precision` and `recall`.
        ways: How each source was divided into folds.
    """

    folder: Path
    folds: list[dict[str, float | None]]
    classes: list[dict[str, dict[str, float | None]]]
    ways: dict[str, str]

    def spread(self) -> dict[str, dict[str, float]]:
        """Return mean and sample standard deviation over the folds of every figure."""
        return {key: _spread([fold[key] for fold in self.folds]) for key in self.folds[0]}

    def class_spread(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the same for every class."""
        return {
            name: {key: _spread([fold[name][key] for fold in self.classes]) for key in CLASS_FIGURES}
            for name in self.classes[0]
        }

    def table(self) -> str:
        """Return Markdown tables: a row per fold, mean and spread, then a row per class."""
        spread, keys = self.spread(), list(self.folds[0])
        rows: list[list[str | float]]
        rows = [[f"fold {n}", *(_number(fold[key]) for key in keys)] for n, fold in enumerate(self.folds)]
        rows += [[what, *(spread[key][what] for key in keys)] for what in ("mean", "std")]
        folds = write_table(("", *(key.replace("_", " ") for key in keys)), rows)
        per_class = [
            [name, *(_plus_minus(found[key]) for key in CLASS_FIGURES)] for name, found in self.class_spread().items()
        ]
        return f"{folds}\n\n{write_table(('class, mean ± std', *CLASS_FIGURES), per_class)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `crossval.json`; None where a score does not exist."""
        values = {"folds": self.folds, "classes": self.classes, "ways": self.ways}
        values |= {"spread": self.spread(), "class_spread": self.class_spread()}
        plain: dict[str, Any] = json.loads(json.dumps(values), parse_constant=lambda _: None)
        return plain


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plus_minus(found: Mapping[str, float]) -> str:
    """Return mean and spread; a class that only one fold has is not spread."""
    if math.isnan(found["mean"]):
        return "-"
    return f"{found['mean']:.4f}" + ("" if math.isnan(found["std"]) else f" ± {found['std']:.4f}")


def _spread(values: Sequence[float | None]) -> dict[str, float]:
    known = [value for value in map(_number, values) if not math.isnan(value)]
    if not known:
        return {"mean": math.nan, "std": math.nan}
    mean = sum(known) / len(known)
    std = math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1)) if len(known) > 1 else math.nan
    return {"mean": mean, "std": std}


def cross_validate(
    recipe: str | Path,
    *,
    folds: int = 5,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    over: Sequence[str | Path] = (),
) -> CrossValidation:
    """Train a recipe once per fold, and return the spread of its scores.

    Folds that are finished are not repeated when the same call is made again; prepared scenes are shared.

    Args:
        recipe: As for `train_recipe`, like `data`, `overrides` and `over`.
        folds: How many. Files are divided among them by name; a scene's blocks if there are fewer files than folds.
        data: Folder that the recipe's paths are relative to.
        out: Folder of the folds; `<recipe's name>_crossval` by default.
        overrides: Values by dotted key of the recipe.
        over: More recipes, whose keys override the first's.

    Raises:
        RecipeError: The recipe, or its data, cannot be used, or `out` has folds of others.
        UsageError: Fewer than two folds.
        OutputError: The folder cannot be written.
    """
    from geoseg.training.fit import train_variant
    from geoseg.training.source_files import fingerprint_scenes

    if folds < 2:
        raise UsageError(f"`folds={folds}` is not a cross-validation. Give 2 or more; 5 are usual.")
    path = find_recipe(recipe)
    plan = load_recipe(path, overrides, over=over)
    folder, data = Path(out or f"{plan.name}_crossval"), Path(data or "data")
    check_folder(folder)
    scenes = fingerprint_scenes(plan, data=data, results=folder)
    check_scenes(folder, scenes)
    cuts = [_cut(source, plan, folds, data, folder) for source in plan.sources if source.weight > 0]
    record_scenes(folder, scenes)
    for source in plan.sources:
        if source.weight == 0:
            log.info("sources.%s has weight 0: it is not part of the folds", source.name)
    figures, classes = [], []
    for fold in range(folds):
        log.info("fold %d of %d", fold, folds)
        sources = tuple(cut.fold(fold, folds) for cut in cuts)
        hidden = {cut.source.name: [(cut.areas, f"train-{fold}")] for cut in cuts if cut.areas is not None}
        variant = replace(plan, sources=sources)
        metrics = train_variant(variant, f"fold-{fold}", data=data, out=folder, beside=path.parent, hidden=hidden)
        pooled = {key: metrics["all"][key] for key in POOLED_FIGURES}
        figures.append({"headline": metrics["headline"], **pooled, "loss": metrics["loss"]})
        classes.append(metrics["all"]["classes"])
    found = CrossValidation(folder, figures, classes, {cut.source.name: cut.way for cut in cuts})
    write_json(folder / "crossval.json", found.to_dict())
    return found


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a source is divided into folds: by file, or by the blocks in a file of areas."""

    source: Source
    way: str
    areas: Path | None = None

    def fold(self, fold: int, folds: int) -> Source:
        """Return the source that is validated on one fold and trained on the others."""
        free: dict[str, Any] = {"validate_scenes": (), "split": (), "split_file": "", "validate_east": 0.0}
        free["validate_west"] = 0.0
        if self.areas is None:
            return replace(self.source, **free, fold=(fold, folds))
        train = tuple(f"train-{n}" for n in range(folds) if n != fold)
        areas = str(self.areas.absolute())
        return replace(self.source, **free, fold=(), areas=areas, train=train, validate=(f"validate-{fold}",))


def _cut(source: Source, plan: Recipe, folds: int, data: Path, folder: Path) -> _Cut:
    """Divide a source into folds of files, or of blocks if it has fewer files than folds, or areas of its own."""
    from geoseg.training.block_split import label_scene, write_folds
    from geoseg.training.source_files import find_images, find_names
    from geoseg.training.sources import coding_of

    names = find_names(source, data, folder)
    if len(names) >= folds and not (source.areas or source.validate_east or source.validate_west):
        return _Cut(source, f"{len(names)} files")
    if source.paint_seeds:
        raise RecipeError(f"sources.{source.name} paints {len(names)} scenes; expected {folds}, one for each fold")
    coding = coding_of(plan, source)
    named = ", ".join("'" + name.replace("'", "''") + "'" for name in (*source.train, *source.validate))
    scenes = [
        label_scene(
            pair.image,
            pair.labels,
            gsd_m=plan.gsd_m,
            coding=coding,
            area=data / source.areas if source.areas else None,
            where=f"split IN ({named})" if source.areas else None,
            layer=source.layer,
            column=source.label_column,
        )
        for pair in find_images(source, data, folder)
        if pair.labels is not None and not is_chosen(pair.name, source.test_scenes)
    ]
    crs = {scene.grid.crs for scene in scenes}
    if len(crs) > 1 or (crs == {None} and len(scenes) > 1):
        raise RecipeError(
            f"sources.{source.name} has {len(scenes)} scenes in several CRS or none, too few for folds of files; "
            "make each scene a source of its own"
        )
    path = folder / "blocks" / f"{source.name}.gpkg"
    count = write_folds(
        path, scenes, folds, stride_px=plan.network.stride_px, target=coding.target[0], name=source.name
    )
    return _Cut(source, f"{count} blocks of {len(names)} scenes", path)
