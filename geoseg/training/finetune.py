"""Fine-tune a model on a user's own scenes; keep the result only if it is better on held-out blocks of them."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg._version import __version__
from geoseg.bundle import DEFAULT_MODEL, Bundle, ModelSpec, list_models, load_bundle, save_bundle
from geoseg.datasets.coding import IGNORED, UNKNOWN, Coding, plan_coding
from geoseg.datasets.labels import count_outside
from geoseg.errors import ExistingResultError, LabelError, UsageError
from geoseg.inference import check_options
from geoseg.io.aside import check_folder, write_json, write_text
from geoseg.io.fingerprint import fingerprint, name_changes
from geoseg.io.pairs import find_labels
from geoseg.io.suffixes import is_raster
from geoseg.io.tables import plural, write_table
from geoseg.scene import Paths, is_remote, list_files
from geoseg.training.card import SCORES
from geoseg.training.folder import SHOWN, claim_inputs
from geoseg.training.library import load_recipe, override, recipe_text
from geoseg.training.recipe import Recipe, build_recipe, check_recipe

if TYPE_CHECKING:
    from geoseg.training.block_split import BlockSplit, LabeledScene

__all__ = ["FinetuneSettings", "Finetuning", "finetune"]

log = logging.getLogger(__name__)

LEAST_GAIN = 0.005
"""Gain in IoU that a new model needs to replace the old one, and another threshold; less is noise of the blocks."""

FEW_STEPS = 50
"""Fewer steps than this hardly change a network; the old threshold is kept, as another one alone is no training."""

SMALL_SHARE = 0.5
"""Share of a scene's rows times that of its columns: fewer with labels suggest that only a part is labeled."""

AUGMENT = (
    {"step": "dihedral"},
    {"step": "affine", "probability": 0.5, "options": {"rotate_deg": 45.0, "scale": [0.85, 1.2]}},
    {"step": "brightness", "probability": 0.4, "options": {"amount": 0.1}},
    {"step": "contrast", "probability": 0.4, "options": {"amount": 0.2}},
    {"step": "gamma", "probability": 0.3, "options": {"amount": 0.2}},
)
"""Less than in a first training: all scenes are of one place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Options of fine-tuning.

    Attributes:
        labels: Raster or polygons; or a folder of files named as the scenes.
        model: Shipped model, or path of a bundle.
        out: Folder of the results; `<scene>_finetune` by default.
        name: Name of the new model; `<model>-<scene>` by default.
        minutes: Time for training.
        aoi: Polygons of the labeled areas; everything outside them is unknown. The whole scene by default.
        aoi_where: OGR attribute filter on them.
        layer: Layer of a file of polygons that has several.
        column: Attribute of the polygons that names their class.
        codes: Number or `#RRGGBB` of a label raster, and its class or `unknown`.
        instances: Numbers of label rasters are those of single buildings.
        elsewhere: Scenes without any polygon have no buildings; they are left out by default, as unknown.
        nodata: Nodata value that counts instead of that of the scenes.
        alpha: True if a band marked alpha is a mask, False if it is an image; found out by default.
        seed: Random seed of the held-out blocks and the crops.
        overrides: Values by dotted key of the recipe.
    """

    labels: Path
    model: str | Path = DEFAULT_MODEL
    out: Path | None = None
    name: str = ""
    minutes: float = 5.0
    aoi: Path | None = None
    aoi_where: str | None = None
    layer: str = ""
    column: str = ""
    codes: tuple[tuple[str, str], ...] = ()
    instances: bool = False
    elsewhere: bool = False
    nodata: float | None = None
    alpha: bool | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert strings to paths, and check what belongs together."""
        for name in ("labels", "out", "aoi"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))
        check_options(aoi=self.aoi, aoi_where=self.aoi_where)

    @property
    def label_keys(self) -> dict[str, Any]:
        """The keys of a recipe's source that say what labels mean; 255 is unknown unless the codes differ."""
        values = {key: name for key, name in self.codes if not key.startswith("#")}
        if values and UNKNOWN not in values.values() and not self.instances:
            values.setdefault(str(IGNORED), UNKNOWN)
        also = {key: name for key, name in self.codes if key.startswith("#")}
        labels = {"layer": self.layer, "label_column": self.column, "instances": self.instances}
        return labels | {"values": values, "also": also}

    @property
    def scene_keys(self) -> dict[str, Any]:
        """The keys of a recipe's source that say which pixels have data, as far as they are given."""
        given = {"nodata": self.nodata, "alpha": self.alpha}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Finetuning:
    """The scores of the old and the new model on the held-out blocks.

    Attributes:
        folder: Folder of the results.
        bundle: The new model; None if it is not better.
        old: Scores of the old model, as `geoseg.evaluate.Confusion.metrics` returns them, and its `threshold`.
        new: Those of the new model.
        headline: The score that decides: `iou`, or `mean_iou` of more than two classes.
        blocks: Number of blocks of each part; side and inset of a block, and held-out pixels.
    """

    folder: Path
    bundle: Path | None
    old: dict[str, Any]
    new: dict[str, Any]
    headline: str
    blocks: dict[str, Any]

    @property
    def gain(self) -> float:
        """Score of the new model minus that of the old one."""
        return float(self.new[self.headline] - self.old[self.headline])

    def table(self) -> str:
        """Return the comparison as a Markdown table."""
        heads = {"mean_iou": "mean IoU", **SCORES} if self.headline == "mean_iou" else SCORES
        models = ((f"old: {self.old['model']}", self.old), (f"new: {self.new['model']}", self.new))
        rows = [[name, *(m[key] for key in (*heads, "threshold"))] for name, m in models]
        gains = ["better by", *(self.new[key] - self.old[key] for key in heads), ""]
        return write_table(("held-out blocks", *heads.values(), "threshold"), [*rows, gains])

    def verdict(self) -> str:
        """Return the result in one line."""
        what = "mean IoU" if self.headline == "mean_iou" else "IoU"
        where = f"on {self.blocks['held']} held-out blocks ({self.blocks['held_px'] / 1e6:.2f} Mpx)"
        if self.bundle is not None:
            return f"{self.new['model']} is better by {self.gain:.4f} {what} {where}."
        gain = f"{what} {self.gain:+.4f}; {LEAST_GAIN:+g} or more counts"
        return f"{self.old['model']} is kept: the new weights are not better {where}, {gain}."

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `finetune.json`."""
        values = {key: value for key, value in asdict(self).items() if key != "folder"}
        kept = self.bundle.name if self.bundle is not None else None
        return values | {"bundle": kept, "gain": self.gain, "better": kept is not None}


def finetune(scenes: Paths, settings: FinetuneSettings) -> Finetuning:
    """Train a model further on your own scenes; keep it if it is better on blocks of them that it never saw.

    The same call continues a run that was interrupted, in the same folder.

    Args:
        scenes: Raster files, or folders of them; one or several.
        settings: See `FinetuneSettings`.

    Raises:
        UnknownModelError: There is no such model.
        LabelError: Labels cannot be used or are too few.
        ExistingResultError: The folder has results of another fine-tuning.
        OutputError: The folder cannot be written.
        GeosegError: A scene or a setting cannot be used.
    """
    from geoseg.training.block_split import split_blocks
    from geoseg.training.optimizer import check_device

    base = load_bundle(settings.model)
    found = list_files(scenes)
    remote = [file for file in found if is_remote(file) or file.startswith("/vsi")]
    if remote:
        raise UsageError(f"{remote[0]} is not on this machine. Copy it first: training reads it again and again.")
    spec, files = base.spec, [Path(file).absolute() for file in found]
    name = settings.name or re.sub(r"[^\w.-]+", "-", f"{spec.slug}-{files[0].stem}")
    if name == spec.name or name in list_models():
        raise UsageError(f"`name={name}` is an existing model, which is never replaced. Choose another name.")
    folder = settings.out or Path(f"{files[0].stem}_finetune")
    check_folder(folder)
    base.weights()  # a damaged or exported file is refused before any work
    keys = settings.label_keys
    meant = {key: keys[key] for key in ("also", "values", "instances")}
    coding = plan_coding(spec.classes, target=spec.target, colors=spec.colors, **meant)
    labels = find_labels(files, settings.labels.absolute())
    labeled = [_label_scene(*pair, spec, settings, coding) for pair in zip(files, labels, strict=True)]
    if not any((scene.truth == coding.target[0]).any() for scene in labeled):
        _check_place(labeled, settings.layer)
    labeled = _leave_out_unlabeled(labeled, settings, coding.target[0], spec.target)
    split = split_blocks(labeled, spec, coding.target[0], settings.seed)

    table = _plan(name, base, settings, split, split.paths(folder))
    recipe = build_recipe(table)  # checked before anything is written
    check_recipe(recipe)
    check_device(recipe.fit.device)
    _claim(folder, base, [*files, *labels], settings)
    blocks = split.summarize()
    areas = split.write(folder)
    plan = load_recipe(write_text(folder / "recipe.toml", recipe_text(table)))
    candidate = _train(plan, folder, split, areas)

    held = [(scene, path) for scene, path, parts in zip(labeled, areas, split.parts, strict=True) if parts["held"]]
    old, new = (_score(bundle, held, settings) for bundle in (base, candidate))
    blocks["held_px"] = new["pixels"]
    result = Finetuning(folder, None, old, new, "mean_iou" if len(spec.classes) > 2 else "iou", blocks)
    if result.gain >= LEAST_GAIN:
        path = _write_bundle(result, base, candidate, [scene.image for scene in labeled], settings)
        result = replace(result, bundle=path, new={**new, "key": load_bundle(path).key})
    write_json(folder / "finetune.json", result.to_dict())
    return result


def _label_scene(
    file: Path, labels: Path, spec: ModelSpec, settings: FinetuneSettings, coding: Coding
) -> "LabeledScene":
    """Read a scene's labels; warn if they lie in a part of it only, as the rest may not be labeled."""
    from geoseg.training.block_split import label_scene

    scene = label_scene(
        file,
        labels,
        gsd_m=spec.gsd_m,
        coding=coding,
        area=settings.aoi,
        where=settings.aoi_where,
        layer=settings.layer,
        column=settings.column,
        **settings.scene_keys,
    )
    marked = scene.truth == coding.target[0]
    share = float(marked.any(axis=0).mean() * marked.any(axis=1).mean())
    if settings.aoi is None and 0 < share < SMALL_SHARE:
        log.warning(
            "%s: all labels lie within %.0f %% of the scene. If the rest is not labeled, give the labeled areas as "
            "`aoi`.",
            scene.name,
            100 * share,
        )
    return scene


def _leave_out_unlabeled(
    labeled: Sequence["LabeledScene"], settings: FinetuneSettings, target: int, name: str
) -> list["LabeledScene"]:
    """Leave out scenes that no polygon touches: nobody said that their ground has no buildings; say what is labeled."""
    kept = []
    for scene in labeled:
        is_told = settings.elsewhere or settings.aoi is not None or (scene.truth == target).any()
        counted = None if is_told else count_outside(scene.labels, [scene.grid], layer=settings.layer)
        if counted is None or counted[0] > counted[1]:
            kept.append(scene)
            log.info(
                "%s: %.2f Mpx with labels, %.1f %% of them %s%s",
                *(scene.name, scene.known_px / 1e6),
                *(100 * np.count_nonzero(scene.truth == target) / max(1, scene.known_px), name),
                "" if is_raster(scene.labels) else "; what no polygon covers has none",
            )
        else:
            log.warning(
                "%s: no polygon of %s touches it, so its ground is unknown, and it is left out. If it has no "
                "buildings, give `elsewhere=True`; if only a part is labeled, give that as `aoi`.",
                *(scene.name, scene.labels),
            )
    if not kept:
        raise LabelError(
            f"No polygon of {settings.labels} touches any of {plural(len(labeled), 'scene')}. Check that they show the "
            "same place; if there are no buildings, give `elsewhere=True`."
        )
    return kept


def _check_place(labeled: Sequence["LabeledScene"], layer: str) -> None:
    """Refuse polygons that touch none of their scenes."""
    from geoseg.evaluate.polygons import describe_mismatch

    for path in dict.fromkeys(scene.labels for scene in labeled):
        grids = [scene.grid for scene in labeled if scene.labels == path]
        counted = count_outside(path, grids, layer=layer)
        if counted is not None and counted[0] == counted[1]:
            raise LabelError(describe_mismatch(path, grids[0], "labels", layer))


def _claim(folder: Path, base: Bundle, scenes_and_labels: Sequence[Path], settings: FinetuneSettings) -> None:
    """Record what decides the blocks in a new folder; refuse one of other scenes, labels, areas or model."""
    given = [*scenes_and_labels, *([settings.aoi.absolute()] if settings.aoi else [])]
    files = fingerprint(given)
    wanted = {
        "model": base.key,
        "files": files,
        "where": settings.aoi_where,
        "layer": settings.layer,
        "column": settings.column,
        "codes": [list(code) for code in settings.codes],
        "instances": settings.instances,
        "elsewhere": settings.elsewhere,
        "seed": settings.seed,
        "nodata": settings.nodata,
        "alpha": settings.alpha,
    }

    def refuse(kept: Mapping[str, Any]) -> ExistingResultError:
        changes = name_changes(kept["files"], files) if "files" in kept else []
        named = f" ({'; '.join(changes[:SHOWN])}{'; ...' if len(changes) > SHOWN else ''})" if changes else ""
        return ExistingResultError(
            f"{folder} has results of other scenes, labels, areas, model or seed, or they have changed since{named}. "
            "Choose another folder with `out`."
        )

    claim_inputs(folder, wanted, refuse)


def _plan(
    name: str, base: Bundle, settings: FinetuneSettings, split: "BlockSplit", areas: Sequence[Path]
) -> dict[str, Any]:
    """Return the complete recipe as a table; crops are no larger than a block."""
    spec, sources = base.spec, []
    for scene, title, path, parts in zip(split.scenes, split.names, areas, split.parts, strict=True):
        if parts["train"] or parts["choose"]:
            train = sum(block.known_px for block in parts["train"])
            source = {
                "name": title,
                "weight": round(train / split.known_px, 6),
                "root": str(scene.image.parent),
                "images": escape(scene.image.name),
                "labels": str(scene.labels),
                "areas": str(path.absolute()),
                "train": ["train"] if train else [],
                "validate": ["choose"] if parts["choose"] else [],
                "empty_ok": True,
            }
            labels = {key: value for key, value in settings.label_keys.items() if value}
            sources.append(source | labels | settings.scene_keys)
    network = {
        key: getattr(spec, key)
        for key in ("bands", "classes", "target", "auxiliary", "colors", "mean", "std", "pixel_max")
    }
    start = str(settings.model) if str(settings.model) in list_models() else str(Path(settings.model).absolute())
    network |= {"name": spec.network, "options": spec.network_options, "start_from": start}
    usual = {"bce": 1.0, "dice": 1.0} if len(spec.classes) == 1 else {"ce": 1.0, "dice": 1.0}
    side = min(min(b.window.shape) for parts in split.parts for blocks in parts.values() for b in blocks)
    crop = max(spec.stride_px, min(256, side) // spec.stride_px * spec.stride_px)
    keys = ("gsd_m", "threshold", "min_area_m2", "chip_px", "halo_px", "license")
    recipe: dict[str, Any] = {
        "name": name,
        "description": f"{spec.name}, fine-tuned on {', '.join(str(source['name']) for source in sources)}.",
        **{key: getattr(spec, key) for key in keys},
        **({"split_depth": spec.split_depth} if spec.split_depth else {}),
        "network": network,
        **({"auxiliary": spec.training["auxiliary"]} if spec.auxiliary and "auxiliary" in spec.training else {}),
        "sources": sources,
        "loss": spec.training.get("loss") or usual,
        "augment": list(AUGMENT),
        "fit": {
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
        },
    }
    for key, value in settings.overrides.items():
        override(recipe, key, value)
    return recipe


def _train(plan: Recipe, folder: Path, split: "BlockSplit", areas: Sequence[Path]) -> Bundle:
    """Train without the held-out blocks; change the threshold if another is clearly better where weights are chosen."""
    from geoseg.training.fit import train_variant

    held = [(path.absolute(), "hidden") for path, parts in zip(areas, split.parts, strict=True) if parts["held"]]
    hidden = {source.name: held for source in plan.sources}
    metrics = train_variant(plan, "training", data=folder, out=folder, hidden=hidden, again=True)
    if metrics["steps"] < FEW_STEPS and metrics["minutes"] >= plan.fit.minutes:
        message = "There was time for %s only in %g minutes. Continue with the same call and more `minutes`."
        log.warning(message, plural(metrics["steps"], "step"), plan.fit.minutes)
    bundle = load_bundle(folder / "training" / f"{plan.name}.safetensors")
    threshold, best = bundle.spec.threshold, metrics.get("iou_at_best_threshold")
    if best and metrics["steps"] >= FEW_STEPS and _mean(best) - _mean(metrics["iou"]) > LEAST_GAIN:
        threshold = metrics["best_threshold"]
    path = bundle.path.with_name(f"{plan.name}.candidate.safetensors")
    return load_bundle(save_bundle(path, replace(bundle.spec, threshold=threshold), bundle.weights()))


def _mean(figures: Mapping[str, float | None]) -> float:
    known = [value for value in figures.values() if value is not None]
    return sum(known) / max(1, len(known))


def _score(bundle: Bundle, held: Sequence[tuple["LabeledScene", Path]], settings: FinetuneSettings) -> dict[str, Any]:
    """Score a model on the held-out blocks, with the inference of `geoseg run`."""
    from geoseg.evaluate import EvaluateSettings, LabelSettings, evaluate_scenes
    from geoseg.evaluate.scores import pool

    log.info("scoring %s on the held-out blocks", bundle.spec.name)
    scores = []
    for scene, areas in held:
        codes = settings.codes if is_raster(scene.labels) else ()
        asked = EvaluateSettings(
            labels=scene.labels,
            label_settings=LabelSettings(
                codes=codes,
                layer=settings.layer,
                column=settings.column,
                instances=settings.instances,
                elsewhere=True,
            ),
            model=bundle.path,
            aoi=areas,
            aoi_where="split = 'held'",
            buildings=False,
            precision="f32",  # what is kept must not depend on the processor
            **settings.scene_keys,
        )
        scores.append(evaluate_scenes(scene.image, asked).total)
    return pool(scores).metrics() | {
        "model": bundle.spec.name,
        "key": bundle.key,
        "threshold": bundle.spec.threshold,
    }


def _write_bundle(
    result: Finetuning, base: Bundle, candidate: Bundle, files: Sequence[Path], settings: FinetuneSettings
) -> Path:
    """Write the new model with its origin and its scores on the held-out blocks."""
    spec = candidate.spec
    old = {"name": base.spec.name, "version": base.spec.version, "key": base.key}
    training: dict[str, Any] = {
        "based_on": old,
        "scenes": [file.name for file in files],
        "labels": settings.labels.name,
        "blocks": result.blocks,
        **{key: spec.training[key] for key in ("loss", "auxiliary") if key in spec.training},
        "fit": spec.training["fit"],
        "geoseg": __version__,
    }
    figures = ("iou", "dice", "precision", "recall", "mean_iou", "pixel_accuracy", "pixels")
    held = {which: {key: m[key] for key in figures} for which, m in (("old", result.old), ("new", result.new))}
    validation = {k: spec.metrics["validation"].get(k) for k in ("headline", "step", "minutes")}
    kept = replace(spec, training=training, metrics={"held_out": held, "validation": validation})
    return save_bundle(result.folder / f"{spec.name}.safetensors", kept, candidate.weights())
