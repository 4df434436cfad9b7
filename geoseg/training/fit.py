"""Train a recipe: prepare, fit, choose the best weights, and write the bundle."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.errors import RecipeError
from geoseg.networks import build_network
from geoseg.training.averaging import WeightAverage
from geoseg.training.crops import MixedCrops, MixedSampler, ValidationChips
from geoseg.training.history import draw_curves, write_row
from geoseg.training.library import find_recipe
from geoseg.training.recipe import Recipe, load_recipe
from geoseg.training.sources import PreparedSource, prepare_source
from geoseg.training.task import SegmentationTask

__all__ = ["train_recipe"]

log = logging.getLogger(__name__)

_VALIDATION_BATCH = 4


def train_recipe(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Train what a recipe says, and write the bundle of the best weights.

    A run that was interrupted continues from its last checkpoint when it is started again with the same `out`.

    Args:
        recipe: path of a TOML recipe, or name of one that comes with geoseg.
        data: folder that the recipe's paths start from; `data` in the current folder by default.
        out: folder of checkpoints, prepared scenes and results; `<recipe's name>_training` by default.
        overrides: dotted recipe keys and the values to use instead.

    Returns:
        The bundle's path. Beside it: `metrics.json`, `history.csv`, `curves.png`.

    Raises:
        RecipeError: the recipe, or a file that it names, cannot be used.
        LabelError: labels are missing or hold unknown values.
        TrainingError: the loss is no longer a number.
    """
    recipe = find_recipe(recipe)
    plan = load_recipe(recipe, overrides)
    folder = Path(out) if out is not None else Path(f"{plan.name}_training")
    root = Path(data) if data is not None else Path("data")
    weights = _find_weights(plan.network.encoder_weights, (root, Path(recipe).parent, Path()))
    sources = [prepare_source(s, data=root, cache=folder / "prepared", gsd_m=plan.gsd_m) for s in plan.sources]
    _prepare_torch(plan)
    task, average, chips = _assemble(plan, sources, weights)
    _fit(plan, sources, task, average, chips, folder)
    return _write_results(plan, task, average, chips, folder)


def _find_weights(name: str, folders: Sequence[Path]) -> str | None:
    """Find a file of encoder weights that a recipe names; "" is none, "imagenet" stays."""
    if name in ("", "imagenet"):
        return name or None
    found = [folder / name for folder in folders if (folder / name).is_file()]
    if not found:
        places = ", ".join(str(folder) for folder in folders)
        raise RecipeError(
            f'network.encoder_weights = {name!r} is not in {places}; expected "imagenet" (fetched from the hub), "" '
            "(none), or a safetensors file"
        )
    return str(found[0])


def _prepare_torch(plan: Recipe) -> None:
    lightning.seed_everything(plan.fit.seed, verbose=False)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    if plan.fit.threads:
        torch.set_num_threads(plan.fit.threads)


def _assemble(
    plan: Recipe, sources: Sequence[PreparedSource], weights: str | None
) -> tuple[SegmentationTask, WeightAverage, ValidationChips]:
    spec = plan.network
    options = {"encoder": spec.encoder, **spec.options}
    bands, classes = len(spec.bands), len(spec.classes)
    network = build_network(spec.name, bands=bands, classes=classes, encoder_weights=weights, **options)
    chips = ValidationChips(sources, chip_px=plan.chip_px, halo_px=plan.halo_px)
    task = SegmentationTask(network, plan, chips.names)
    return task, WeightAverage(task.network, plan.fit.average_decay), chips


def _fit(
    plan: Recipe,
    sources: Sequence[PreparedSource],
    task: SegmentationTask,
    average: WeightAverage,
    chips: ValidationChips,
    folder: Path,
) -> None:
    fit = plan.fit
    crops = MixedCrops([s for s in sources if s.weight > 0], window_px=fit.window_px)
    sampler = MixedSampler(crops, window_px=fit.window_px, batch=fit.batch, batches=fit.validate_every)
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        torch.manual_seed(fit.seed + int(last.stat().st_mtime))
        log.info("continuing from %s", last)
    trainer = _trainer(plan, average, folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # crops are slices: none is faster
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists")  # a resumed run's own
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6 on torch 2.15
        trainer.fit(
            task,
            DataLoader(crops, batch_sampler=sampler),
            _chip_loader(chips) if len(chips) else None,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )


def _chip_loader(chips: ValidationChips) -> "DataLoader[dict[str, torch.Tensor]]":
    return DataLoader(chips, batch_size=_VALIDATION_BATCH)


def _trainer(plan: Recipe, average: WeightAverage, folder: Path) -> lightning.Trainer:
    keep: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(folder / "checkpoints", "best", monitor="iou", mode="max", **keep)
    last = ModelCheckpoint(folder / "checkpoints", "last", **keep)
    return lightning.Trainer(
        max_epochs=-1,
        precision=plan.fit.precision,  # type: ignore[arg-type]
        gradient_clip_val=plan.fit.clip_norm or None,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[average, _Table(folder), best, last],
        default_root_dir=folder,
    )


class _Table(Callback):
    """Write a row of history after every validation, and draw the curves anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write what the epoch gave."""
        assert isinstance(pl_module, SegmentationTask)
        iou = {f"iou_{name}": value for name, value in pl_module.scores.iou(pl_module.recipe.threshold).items()}
        progress = pl_module.run_progress
        row = {"step": progress.step, "progress": progress.done, "minutes": progress.used_s / 60}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        table = self.folder / "history.csv"
        write_row(table, {**row, "learning_rate": rate, "loss": pl_module.mean_loss, **iou})
        draw_curves(table, self.folder / "curves.png")


def _write_results(
    plan: Recipe, task: SegmentationTask, average: WeightAverage, chips: ValidationChips, folder: Path
) -> Path:
    """Write the bundle of the best averaged weights and their figures."""
    best = folder / "checkpoints" / "best.ckpt"
    if best.exists():
        # Lightning writes its own format; weights_only reads tensors and plain values alone
        checkpoint = torch.load(best, map_location="cpu", weights_only=True)  # noqa: TID251
        average.load_state_dict(checkpoint["callbacks"][average.state_key])
    task.network.load_state_dict(average.average)
    metrics = _measure(task, chips) | {"step": task.run_progress.step, "minutes": task.run_progress.used_s / 60}
    path = folder / f"{plan.name}.safetensors"
    save_bundle(path, _spec(plan, metrics), task.network.state_dict())
    aside = folder / "metrics.json.part"
    aside.write_text(json.dumps(metrics, indent=1, sort_keys=True))
    aside.replace(folder / "metrics.json")
    log.info("wrote %s: validation IoU %s", path, metrics.get("iou"))
    return path


@torch.inference_mode()
def _measure(task: SegmentationTask, chips: ValidationChips) -> dict[str, Any]:
    """Score the network on the validation chips in full precision."""
    task.eval()
    task.on_validation_epoch_start()
    for number, batch in enumerate(_chip_loader(chips)):
        task.validation_step(batch, number)
    threshold = task.recipe.threshold
    best = task.scores.best_threshold() if len(chips) else threshold
    return {
        "iou": task.scores.iou(threshold),
        "mean_iou": task.scores.mean_iou(threshold),
        "best_threshold": best,
        "iou_at_best_threshold": task.scores.iou(best),
    }


def _spec(plan: Recipe, metrics: Mapping[str, Any]) -> ModelSpec:
    network = plan.network
    sources = [asdict(source) for source in plan.sources if source.weight > 0]
    return ModelSpec(
        name=plan.name,
        version=plan.version,
        network=network.name,
        network_options={"encoder": network.encoder, **network.options},
        bands=network.bands,
        gsd_m=plan.gsd_m,
        mean=network.mean,
        std=network.std,
        pixel_max=network.pixel_max,
        classes=network.classes,
        chip_px=plan.chip_px,
        halo_px=plan.halo_px,
        threshold=plan.threshold,
        min_area_m2=plan.min_area_m2,
        training={"sources": sources, "loss": plan.loss, "fit": asdict(plan.fit)},
        metrics={"validation": dict(metrics)},
        licence=plan.licence,
        description=plan.description,
    )
