"""Fine-tune a model on a user's own scenes, and keep the result only if it is better on ground held out of them."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg._version import __version__
from geoseg.bundle import DEFAULT_MODEL, Bundle, ModelSpec, list_models, load_bundle, save_bundle
from geoseg.datasets.coding import IGNORED, UNKNOWN, Coding, plan_coding
from geoseg.errors import ExistingResultError, LabelError, UsageError
from geoseg.evaluate.table import write_table
from geoseg.io.aside import write_text
from geoseg.scene import is_remote, list_files
from geoseg.training.folder import claim_inputs
from geoseg.training.library import load_recipe, override, recipe_text
from geoseg.training.recipe import Recipe

if TYPE_CHECKING:
    from geoseg.evaluate import SceneScores
    from geoseg.training.blocks import Block, Ground
    from geoseg.training.dealing import Parts

__all__ = ["FinetuneSettings", "Finetuning", "finetune"]

log = logging.getLogger(__name__)

LEAST_THRESHOLD_GAIN = 0.005
"""IoU by which another threshold must be better, on few blocks, to take the place of the old one."""

FEW_STEPS = 50
"""Fewer steps than this hardly move a network: a slow or busy machine wants more time."""

SMALL_SHARE = 0.5
"""Share of a scene's rows times that of its columns: labels in less of both may be of a part of the scene alone."""

FIGURES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}

AUGMENT = (
    {"step": "dihedral"},
    {"step": "affine", "probability": 0.5, "options": {"rotate_deg": 45.0, "scale": [0.85, 1.2]}},
    {"step": "brightness", "probability": 0.4, "options": {"amount": 0.1}},
    {"step": "contrast", "probability": 0.4, "options": {"amount": 0.2}},
    {"step": "gamma", "probability": 0.3, "options": {"amount": 0.2}},
)
"""Less than a network is trained with at first: the ground is one place, and colours need not stretch to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """What a user may choose.

    Attributes:
        labels: Raster or polygons; or a folder of files named as the scenes.
        model: Shipped model, or path of a bundle.
        out: Folder of the results; `<scene>_finetune` by default.
        name: Name of the new model; `<model>-<scene>` by default.
        minutes: Time for training.
        areas: Polygons of what is labelled; what lies outside is unknown. Everything by default.
        where: OGR attribute filter on them.
        layer: Layer of a file of polygons that has several.
        column: Attribute of the polygons that names their class.
        codes: Number or `#RRGGBB` of a label raster to class name, or to `unknown`.
        seed: Draws the crops, and with them which blocks are held out.
        overrides: Dotted recipe keys and their values.
    """

    labels: Path
    model: str | Path = DEFAULT_MODEL
    out: Path | None = None
    name: str = ""
    minutes: float = 5.0
    areas: Path | None = None
    where: str | None = None
    layer: str = ""
    column: str = ""
    codes: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finetuning:
    """The old model and the new on the held-out blocks.

    Attributes:
        folder: Where everything lies.
        bundle: The new model; None where it is not better.
        old: Figures of the old model, as `geoseg.evaluate.Confusion.metrics` has them, and its `threshold`.
        new: Those of the new one.
        headline: The figure that decides: `iou`, or `mean_iou` of more than two classes.
        blocks: Blocks by part, their side and the strip between parts in pixels, and the held-out pixels.
    """

    folder: Path
    bundle: Path | None
    old: dict[str, Any]
    new: dict[str, Any]
    headline: str
    blocks: dict[str, Any]

    @property
    def gain(self) -> float:
        """By how much the new model is better; negative where it is worse."""
        return float(self.new[self.headline] - self.old[self.headline])

    def table(self) -> str:
        """Return the comparison as a Markdown table, and what follows from it."""
        heads = {"mean_iou": "mean IoU", **FIGURES} if self.headline == "mean_iou" else FIGURES
        rows = [[name, *(m[key] for key in (*heads, "threshold"))] for name, m in self._models()]
        gains = ["better by", *(self.new[key] - self.old[key] for key in heads), ""]
        return write_table(("held-out blocks", *heads.values(), "threshold"), [*rows, gains])

    def _models(self) -> list[tuple[str, dict[str, Any]]]:
        return [(f"old: {self.old['model']}", self.old), (f"new: {self.new['model']}", self.new)]

    def verdict(self) -> str:
        """Return one line: better, or the old model is kept."""
        what = "mean IoU" if self.headline == "mean_iou" else "IoU"
        where = f"on {self.blocks['held']} held-out blocks ({self.blocks['held_px'] / 1e6:.2f} Mpx)"
        if self.bundle is not None:
            return f"{self.new['model']} is better by {self.gain:.4f} {what} {where}."
        return f"{self.old['model']} is kept: the new weights are not better {where}, {what} {self.gain:+.4f}."


def finetune(scenes: Sequence[str | Path], settings: FinetuneSettings) -> Finetuning:
    """Train a model further on own scenes; keep it if it is better on blocks of them that it never saw.

    The same call continues a run that was interrupted, in the same folder.

    Args:
        scenes: Raster files, or folders of them.
        settings: See `FinetuneSettings`.

    Raises:
        UnknownModelError: If there is no such model.
        LabelError: If labels cannot be used or are too few.
        ExistingResultError: If the folder holds another fine-tuning.
        GeosegError: If a scene or a setting cannot be used.
    """
    from geoseg.training.dealing import deal_blocks, summarise, write_blocks

    base = load_bundle(settings.model)
    files = _local_files(scenes)
    name = _name_of(base.spec, settings.name, files[0])
    folder = settings.out or Path(f"{files[0].stem}_finetune")
    base.weights()  # a damaged or exported file is refused before any work
    table = {"layer": settings.layer, "label_column": settings.column, **_meaning(settings.codes)}
    grounds = [_survey(file, base.spec, settings, table) for file in files]
    parts, side = deal_blocks(grounds, base.spec, _coding(base.spec, table).target[0], settings.seed)
    _claim(folder, base, files, settings)
    summary = summarise(grounds, parts, side)
    areas = write_blocks(folder, grounds, parts, side)
    plan = _plan(folder, name, base, settings, grounds, parts, areas, table)
    candidate = _train(plan, folder, areas, parts)
    candidate = _settle_threshold(candidate, folder / "training" / f"{plan.name}.candidate.safetensors")
    held = [(own, path) for own, path, dealt in zip(grounds, areas, parts, strict=True) if dealt["held"]]
    old, new = (_score(bundle, held, settings) for bundle in (base, candidate))
    result = Finetuning(folder, None, old, new, "mean_iou" if len(plan.network.classes) > 2 else "iou", summary)
    return _write(_keep_if_better(result, base, candidate, files, settings))


def _local_files(scenes: Sequence[str | Path]) -> list[Path]:
    files = list_files([str(scene) for scene in scenes])
    remote = [file for file in files if is_remote(file) or file.startswith("/vsi")]
    if remote:
        raise UsageError(f"{remote[0]} is not on this machine. Copy it first: training reads it again and again.")
    return [Path(file).absolute() for file in files]


def _name_of(spec: ModelSpec, name: str, file: Path) -> str:
    """Return the new model's name: never the old one's, nor that of another shipped model."""
    name = name or re.sub(r"[^\w.-]+", "-", f"{spec.slug}-{file.stem}")
    if name == spec.name or name in list_models():
        raise UsageError(f"--name {name} is a model that exists, which is never replaced. Choose another name.")
    return name


def _claim(folder: Path, base: Bundle, files: Sequence[Path], settings: FinetuneSettings) -> None:
    """Write what decides the blocks into a new folder; refuse one of other scenes, labels, areas or model."""
    labels = [_labels_of(file, settings.labels.absolute()) for file in files]
    given = [*files, *labels, *([settings.areas.absolute()] if settings.areas else [])]
    wanted = {
        "model": base.key,
        "files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in given if path.exists()],
        "where": settings.where,
        "layer": settings.layer,
        "column": settings.column,
        "codes": [list(code) for code in settings.codes],
        "seed": settings.seed,
    }
    refusal = ExistingResultError(
        f"{folder} holds a fine-tuning of other scenes, labels, areas, model or seed, or they have changed since. "
        "Choose another folder with --out."
    )
    claim_inputs(folder, wanted, refusal)


def _meaning(codes: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return the `values` and `also` of a source from codes of the command line, 255 unknown unless it is said."""
    values = {key: name for key, name in codes if not key.startswith("#")}
    if values and UNKNOWN not in values.values():
        values.setdefault(str(IGNORED), UNKNOWN)
    return {"values": values, "also": {key: name for key, name in codes if key.startswith("#")}}


def _coding(spec: ModelSpec, table: Mapping[str, Any]) -> Coding:
    return plan_coding(
        spec.classes, target=spec.target, colours=spec.colours, also=table["also"], values=table["values"]
    )


def _survey(file: Path, spec: ModelSpec, settings: FinetuneSettings, table: Mapping[str, Any]) -> "Ground":
    from geoseg.training.blocks import survey_ground

    ground = survey_ground(
        file,
        _labels_of(file, settings.labels.absolute()),
        gsd_m=spec.gsd_m,
        coding=_coding(spec, table),
        area=settings.areas,
        where=settings.where,
        layer=settings.layer,
        column=settings.column,
    )
    log.info("%s: %.2f Mpx with truth at %g m", ground.name, ground.known_px / 1e6, spec.gsd_m)
    if settings.areas is None:
        _warn_of_corner(ground, _coding(spec, table).target[0])
    return ground


def _warn_of_corner(ground: "Ground", target: int) -> None:
    """Warn where all that is marked lies together in a part of the scene: the rest may not be labelled at all."""
    marked = ground.truth == target
    share = float(marked.any(axis=0).mean() * marked.any(axis=1).mean())
    if 0 < share < SMALL_SHARE:
        log.warning(
            "%s: all that is marked lies within %.0f %% of the scene; if the rest is not labelled, say with --areas "
            "what is",
            ground.name,
            100 * share,
        )


def _labels_of(file: Path, labels: Path) -> Path:
    if not labels.is_dir():
        return labels
    found = sorted(path for path in labels.iterdir() if path.stem == file.stem and path != file)
    if not found:
        raise LabelError(f"{labels} holds no labels for {file.name}; expected a file {file.stem}.tif or .gpkg there")
    return found[0]


def _plan(
    folder: Path,
    name: str,
    base: Bundle,
    settings: FinetuneSettings,
    grounds: Sequence["Ground"],
    parts: "Parts",
    areas: Sequence[Path],
    table: Mapping[str, Any],
) -> Recipe:
    """Write the recipe, with everything that it starts from, and read it as any other."""
    from geoseg.training.dealing import name_grounds

    known = sum(ground.known_px for ground in grounds)
    sources = [
        _source(named, ground, dealt, path, known) | {k: v for k, v in table.items() if v}
        for named, ground, dealt, path in zip(name_grounds(grounds), grounds, parts, areas, strict=True)
        if dealt["train"] or dealt["choose"]
    ]
    recipe = _recipe(name, base, settings, sources, parts)
    for key, value in settings.overrides.items():
        override(recipe, key, value)
    path = folder / "recipe.toml"
    write_text(path, recipe_text(recipe))
    return load_recipe(path)


def _source(name: str, ground: "Ground", dealt: Mapping[str, list["Block"]], areas: Path, known: int) -> dict[str, Any]:
    train = sum(block.known_px for block in dealt["train"])
    return {
        "name": name,
        "weight": round(train / known, 6),
        "root": str(ground.image.parent),
        "images": escape(ground.image.name),
        "labels": str(ground.labels),
        "areas": str(areas.absolute()),
        "train": ["train"] if train else [],
        "validate": ["choose"] if dealt["choose"] else [],
        "empty_ok": True,
    }


def _recipe(
    name: str, base: Bundle, settings: FinetuneSettings, sources: list[dict[str, Any]], parts: "Parts"
) -> dict[str, Any]:
    spec = base.spec
    keys = ("gsd_m", "threshold", "min_area_m2", "chip_px", "halo_px", "licence")
    network = {key: getattr(spec, key) for key in ("bands", "classes", "target", "colours", "mean", "std", "pixel_max")}
    network |= {"name": spec.network, "options": spec.network_options, "start_from": _reference(settings.model)}
    usual = {"bce": 1.0, "dice": 1.0} if len(spec.classes) == 1 else {"ce": 1.0, "dice": 1.0}
    return {
        "name": name,
        "description": f"{spec.name}, fine-tuned on {', '.join(source['name'] for source in sources)}.",
        **{key: getattr(spec, key) for key in keys},
        "network": network,
        "sources": sources,
        "loss": spec.training.get("loss") or usual,
        "augment": list(AUGMENT),
        "fit": _fit(spec, settings, parts),
    }


def _reference(model: str | Path) -> str:
    return str(model) if str(model) in list_models() else str(Path(model).absolute())


def _fit(spec: ModelSpec, settings: FinetuneSettings, parts: "Parts") -> dict[str, Any]:
    """Choose how to train: crops no larger than a block, a low learning rate and a lower one for the encoder."""
    side = min(min(b.window.shape) for dealt in parts for own in dealt.values() for b in own)
    crop = max(spec.stride_px, min(256, side) // spec.stride_px * spec.stride_px)
    return {
        "batch": 8,
        "crop_px": crop,
        "window_px": crop + min(crop // 4, side // 4),
        "minutes": settings.minutes,
        "validate_every": 50,
        "learning_rate": 2e-4,
        "encoder_rate": 0.3,
        "weight_decay": 0.01,
        "average_decay": 0.98,
        "seed": settings.seed,
        "unscored": list(spec.training.get("fit", {}).get("unscored", ())),
    }


def _train(plan: Recipe, folder: Path, areas: Sequence[Path], parts: "Parts") -> Bundle:
    """Prepare the scenes, hide what is held out, and train."""
    from geoseg.training.blocks import hide_areas
    from geoseg.training.demand import plan_demand
    from geoseg.training.fit import train_plan
    from geoseg.training.sources import prepare_source

    cache, demand = folder / "prepared", plan_demand(plan)
    hidden = [path.absolute() for path, dealt in zip(areas, parts, strict=True) if dealt["held"]]
    for source in plan.sources:
        prepared = prepare_source(source, data=Path(), cache=cache, demand=demand)
        for path in prepared.train:
            for area in hidden:
                hide_areas(path, area, ("hidden",))
    path = train_plan(plan, data=folder, folder=folder / "training", cache=cache)
    _warn_of_few_steps(path, plan.fit.minutes)
    return load_bundle(path)


def _warn_of_few_steps(path: Path, minutes: float) -> None:
    steps = json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))["steps"]
    if steps < FEW_STEPS:
        message = "%d steps in %g minutes are few; the same command with more --minutes continues from here"
        log.warning(message, steps, minutes)


def _settle_threshold(bundle: Bundle, path: Path) -> Bundle:
    """Give the new weights the threshold that is best where they were chosen, if it is clearly better there."""
    metrics = json.loads((bundle.path.parent / "metrics.json").read_text(encoding="utf-8"))
    threshold, best = bundle.spec.threshold, metrics.get("iou_at_best_threshold")
    if best and _mean(best) - _mean(metrics["iou"]) > LEAST_THRESHOLD_GAIN:
        threshold = metrics["best_threshold"]
    return load_bundle(save_bundle(path, replace(bundle.spec, threshold=threshold), bundle.weights()))


def _mean(figures: Mapping[str, float | None]) -> float:
    known = [value for value in figures.values() if value is not None]
    return sum(known) / max(1, len(known))


def _score(bundle: Bundle, held: Sequence[tuple["Ground", Path]], settings: FinetuneSettings) -> dict[str, Any]:
    """Score a model on the held-out blocks, through the same inference as `geoseg run`."""
    from geoseg.evaluate.scores import pool

    log.info("scoring %s on the held-out blocks", bundle.spec.name)
    total = pool([_score_scene(bundle, ground, areas, settings) for ground, areas in held])
    return total.metrics() | {"model": bundle.spec.name, "key": bundle.key, "threshold": bundle.spec.threshold}


def _score_scene(bundle: Bundle, ground: "Ground", areas: Path, settings: FinetuneSettings) -> "SceneScores":
    from geoseg.evaluate import EvaluateSettings, LabelSettings, evaluate_scenes

    labels = LabelSettings(codes=settings.codes, layer=settings.layer, column=settings.column, elsewhere=True)
    asked = EvaluateSettings(
        labels=ground.labels,
        label_settings=labels,
        model=bundle.path,
        area=areas,
        where="split = 'held'",
        buildings=False,
    )
    return evaluate_scenes(ground.image, asked).total


def _keep_if_better(
    result: Finetuning, base: Bundle, candidate: Bundle, files: Sequence[Path], settings: FinetuneSettings
) -> Finetuning:
    """Write the new model with its provenance where it is better; otherwise write none."""
    result = replace(result, blocks={**result.blocks, "held_px": result.new["pixels"]})
    if not result.gain > 0:
        return result
    spec = candidate.spec
    old = {"name": base.spec.name, "version": base.spec.version, "key": base.key}
    training = {
        "based_on": old,
        "scenes": [file.name for file in files],
        "labels": settings.labels.name,
        "blocks": result.blocks,
        "loss": spec.training["loss"],
        "fit": spec.training["fit"],
        "geoseg": __version__,
    }
    figures = ("iou", "dice", "precision", "recall", "mean_iou", "pixel_accuracy", "pixels")
    held = {which: {key: m[key] for key in figures} for which, m in (("old", result.old), ("new", result.new))}
    validation = {k: spec.metrics["validation"].get(k) for k in ("headline", "step", "minutes")}
    kept = replace(spec, training=training, metrics={"held_out": held, "validation": validation})
    path = save_bundle(result.folder / f"{spec.name}.safetensors", kept, candidate.weights())
    return replace(result, bundle=path, new={**result.new, "key": load_bundle(path).key})


def _write(result: Finetuning) -> Finetuning:
    values = {key: value for key, value in asdict(result).items() if key != "folder"}
    values |= {"bundle": result.bundle and result.bundle.name, "gain": result.gain, "better": result.bundle is not None}
    write_text(result.folder / "finetune.json", json.dumps(values, indent=1, default=str))
    return result
