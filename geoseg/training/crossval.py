"""Cross-validation: a recipe trained once per fold, each validated on what the others trained on."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.datasets.layouts import is_chosen
from geoseg.errors import LabelError, RecipeError, UsageError
from geoseg.evaluate.table import write_table
from geoseg.io.aside import write_text
from geoseg.training.folder import claim_data
from geoseg.training.library import find_recipe, load_recipe
from geoseg.training.recipe import Recipe, Source

if TYPE_CHECKING:
    from geoseg.training.demand import Demand

__all__ = ["CrossValidation", "cross_validate"]

log = logging.getLogger(__name__)

CLASS_FIGURES = ("iou", "dice", "precision", "recall")

BLOCKS_PER_FOLD = 5
"""Blocks of a single scene in each fold, about."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Figures of every fold.

    Attributes:
        folder: Where the folds lie.
        folds: Of each fold its figures over all validated pixels, `None` where one does not exist.
        classes: Of each fold and class `iou`, `dice`, `precision` and `recall`.
        ways: How each source was cut into folds.
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
        keys = list(self.folds[0])
        spread = self.spread()
        rows = [_row(f"fold {n}", [fold[key] for key in keys]) for n, fold in enumerate(self.folds)]
        rows += [_row(what, [spread[key][what] for key in keys]) for what in ("mean", "std")]
        folds = write_table(("", *(key.replace("_", " ") for key in keys)), rows)
        per_class = [
            [name, *(f"{found[key]['mean']:.4f} ± {found[key]['std']:.4f}" for key in CLASS_FIGURES)]
            for name, found in self.class_spread().items()
        ]
        return f"{folds}\n\n{write_table(('class, mean ± std', *CLASS_FIGURES), per_class)}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything for `crossval.json`; None where a figure does not exist."""
        values = {"folds": self.folds, "classes": self.classes, "ways": self.ways}
        values |= {"spread": self.spread(), "class_spread": self.class_spread()}
        plain: dict[str, Any] = json.loads(json.dumps(values), parse_constant=lambda _: None)
        return plain


def _row(name: str, values: Sequence[float | None]) -> list[str | float]:
    return [name, *(math.nan if value is None else float(value) for value in values)]


def _spread(values: Sequence[float | None]) -> dict[str, float]:
    known = [float(value) for value in values if value is not None and value == value]
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
    """Train a recipe once per fold, and say how its figures spread.

    Folds that are finished are not repeated when the same call is made again; prepared scenes are shared.

    Args:
        recipe: as for `train_recipe`.
        folds: how many; files are dealt out by name, or the blocks of a scene where there are fewer files than folds.
        data: folder that the recipe's paths start from; `data` by default.
        out: folder of the folds; `<recipe's name>_crossval` by default.
        overrides: dotted recipe keys and their values.
        over: more recipes that are laid over it.

    Raises:
        RecipeError: the recipe, or its data, cannot be used, or `out` holds folds of others.
        UsageError: fewer than two folds.
    """
    if folds < 2:
        raise UsageError(f"-k {folds} is no cross-validation. Give 2 folds or more; 5 are usual.")
    path = find_recipe(recipe)
    plan = load_recipe(path, overrides, over=over)
    folder, root = Path(out or f"{plan.name}_crossval"), Path(data or "data")
    cuts = [_cut(source, plan, folds, root, folder) for source in plan.sources if source.weight > 0]
    claim_data(folder, root)
    _say_left_out(plan)
    figures = [_run_fold(plan, cuts, fold, folds, root, folder, path.parent) for fold in range(folds)]
    found = CrossValidation(
        folder,
        [_headlines(metrics) for metrics in figures],
        [metrics["all"]["classes"] for metrics in figures],
        {cut.source.name: cut.way for cut in cuts},
    )
    write_text(folder / "crossval.json", json.dumps(found.to_dict(), indent=1))
    return found


def _say_left_out(plan: Recipe) -> None:
    for source in plan.sources:
        if source.weight == 0:
            log.info("sources.%s only validates (weight = 0): it is left out of the folds", source.name)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a source becomes folds: by file, or by the blocks in a file of areas."""

    source: Source
    way: str
    areas: Path | None = None

    def fold(self, fold: int, folds: int) -> Source:
        """Return the source that trains on all folds but one, and validates on that."""
        free: dict[str, Any] = {"validate_scenes": (), "split": (), "split_file": "", "validate_east": 0.0}
        if self.areas is None:
            return replace(self.source, **free, fold=(fold, folds))
        train = tuple(f"train-{n}" for n in range(folds) if n != fold)
        areas = str(self.areas.absolute())
        return replace(self.source, **free, fold=(), areas=areas, train=train, validate=(f"validate-{fold}",))


def _cut(source: Source, plan: Recipe, folds: int, data: Path, folder: Path) -> _Cut:
    from geoseg.training.sources import find_names

    names = find_names(source, data)
    if len(names) >= folds and not source.areas and not source.validate_east:
        return _Cut(source, f"{len(names)} files")
    if source.paint_seeds:
        raise RecipeError(f"sources.{source.name} paints {len(names)} scenes; expected {folds}, one for each fold")
    areas = folder / "blocks" / f"{source.name}.gpkg"
    count = _write_blocks(source, plan, folds, data, areas)
    return _Cut(source, f"{count} blocks of {len(names)} scenes", areas)


def _write_blocks(source: Source, plan: Recipe, folds: int, data: Path, path: Path) -> int:
    """Write blocks of each scene, dealt out to the folds, once; return how many there are.

    `train-N` are whole blocks of fold N; `validate-N` the same blocks without the strip along their border.
    """
    from geoseg.training.blocks import INSET, choose_side, cut_blocks, dealt_fold, write_areas
    from geoseg.training.demand import plan_demand

    demand = plan_demand(plan)
    grounds = _grounds(source, demand, data)
    side = choose_side(grounds, stride_px=demand.stride_px, blocks=folds * BLOCKS_PER_FOLD)
    areas: list[tuple[str, Any]] = []
    count, known = 0, 0
    for number, ground in enumerate(grounds):
        blocks = cut_blocks(ground, side, demand.coding_of(source).target[0])
        known += ground.known_px
        count += len(blocks)
        for block in blocks:
            fold = dealt_fold(block, number, folds)
            areas.append((f"train-{fold}", block.outline(ground)))
            areas.append((f"validate-{fold}", block.outline(ground, inset_px=max(2, side // INSET))))
    if len({name for name, _ in areas}) < 2 * folds:
        raise LabelError(
            f"sources.{source.name} has {known / 1e6:.2f} Mpx of truth, {count} blocks of {side} px; expected one at "
            f"least for each of {folds} folds. Give more imagery, or fewer folds with -k"
        )
    if not path.is_file():
        write_areas(path, grounds[0].grid, areas)
    return count


def _grounds(source: Source, demand: "Demand", data: Path) -> list[Any]:
    """Return the scenes of a source with the truth that it trains and validates on."""
    from geoseg.training.blocks import survey_ground
    from geoseg.training.sources import find_images

    grounds = []
    named = ", ".join("'" + name.replace("'", "''") + "'" for name in (*source.train, *source.validate))
    for pair in find_images(source, data):
        if pair.labels is None or is_chosen(pair.name, source.test_scenes):
            continue
        ground = survey_ground(
            pair.image,
            pair.labels,
            gsd_m=demand.gsd_m,
            coding=demand.coding_of(source),
            area=data / source.areas if source.areas else None,
            where=f"split IN ({named})" if source.areas else None,
            layer=source.layer,
            column=source.label_column,
        )
        grounds.append(ground)
    crs = {ground.grid.crs for ground in grounds}
    if len(crs) > 1 or (crs == {None} and len(grounds) > 1):
        raise RecipeError(
            f"sources.{source.name} has {len(grounds)} scenes that do not lie on one plane, too few for folds of "
            "files; make each a source of its own"
        )
    return grounds


def _run_fold(
    plan: Recipe, cuts: Sequence[_Cut], fold: int, folds: int, data: Path, folder: Path, beside: Path
) -> dict[str, Any]:
    """Train one fold, unless it is finished, and return its `metrics.json`."""
    sources = tuple(cut.fold(fold, folds) for cut in cuts)
    own = replace(plan, sources=sources)
    place = folder / f"fold-{fold}"
    if not _is_finished(own, place):
        log.info("fold %d of %d", fold, folds)
        _train(own, cuts, fold, data, folder, beside)
    metrics: dict[str, Any] = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _is_finished(plan: Recipe, folder: Path) -> bool:
    recipe = folder / "recipe.json"
    if not (folder / "metrics.json").is_file() or not recipe.is_file():
        return False
    return bool(json.loads(recipe.read_text(encoding="utf-8")) == json.loads(json.dumps(asdict(plan))))


def _train(plan: Recipe, cuts: Sequence[_Cut], fold: int, data: Path, folder: Path, beside: Path) -> None:
    from geoseg.training.blocks import hide_areas
    from geoseg.training.demand import plan_demand
    from geoseg.training.fit import train_plan
    from geoseg.training.sources import prepare_source

    cache, demand = folder / "prepared", plan_demand(plan)
    for source, cut in zip(plan.sources, cuts, strict=True):
        if cut.areas is not None:
            for path in prepare_source(source, data=data, cache=cache, demand=demand).train:
                hide_areas(path, cut.areas, (f"train-{fold}",))
    train_plan(plan, data=data, folder=folder / f"fold-{fold}", beside=beside, cache=cache)


def _headlines(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of a fold that a table shows: those of all validated pixels together."""
    everything = metrics["all"]
    keys = ("iou", "dice", "precision", "recall", "mean_iou", "pixel_accuracy")
    return {"headline": metrics["headline"], **{key: everything[key] for key in keys}, "loss": metrics["loss"]}
