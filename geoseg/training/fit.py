"""Train a recipe: prepare, fit, choose the best weights, and write the bundle."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.errors import BundleError, RecipeError
from geoseg.io.aside import check_folder, write_json
from geoseg.networks import Segmenter, build_network, load_segmenter, network_facts
from geoseg.third_party import ignore_warnings
from geoseg.training.block_split import hide_areas
from geoseg.training.card import write_card
from geoseg.training.folder import check_scenes, claim_folder, is_finished, record_scenes, write_row
from geoseg.training.library import find_recipe, load_recipe, toml_value
from geoseg.training.losses import LossMeans, weigh_means
from geoseg.training.optimizer import WeightAverage, check_device, choose_precision
from geoseg.training.pictures import collect_examples, draw_curves, draw_predictions
from geoseg.training.recipe import Network, Recipe
from geoseg.training.source_files import fingerprint_scenes
from geoseg.training.sources import PreparedSource, prepare_sources
from geoseg.training.task import MixedCrops, MixedSampler, SegmentationTask, ValidationChips

__all__ = ["train_plan", "train_recipe", "train_variant"]

log = logging.getLogger(__name__)

_VALIDATION_BATCH = 4

_NEW_CHANNEL_SCALE, _NEW_CHANNEL_LOGIT = 0.1, -3.0
"""Of a channel that the weights of `network.start_from` lack: its random weights are made smaller, and its bias is that
of a probability of 0.05."""

_CURVES_EVERY_S = 20.0
"""Shortest time between two drawings of the curves: a picture takes longer than a short epoch."""

_KNOWN = "|".join(
    (
        ".*does not have many workers",  # crops are slices: none is faster
        "You defined a .validation_step. but have no",  # a recipe may have no validation data
        "Checkpoint directory .* exists",  # of the run that is resumed
        ".*LeafSpec",  # Lightning 2.6 on torch 2.15
        "The .srun. command is available",  # a training has one process, on a cluster too
    )
)
"""Warnings of Lightning about intended things."""


def train_recipe(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    over: Sequence[str | Path] = (),
) -> Path:
    """Train a recipe, and write the bundle of the best weights.

    A run that was interrupted continues from its last checkpoint when it is started again with the same `out`.

    Args:
        recipe: Path of a TOML or YAML file, or name of a recipe that comes with geoseg.
        data: Folder that the recipe's paths are relative to; `data` by default.
        out: Folder of checkpoints, prepared scenes and results; `<recipe's name>_training` by default.
        overrides: Values by dotted key of the recipe.
        over: More recipes, whose keys override the first's, such as other `[[sources]]`.

    Returns:
        The bundle's path: the weights of the highest validation IoU. docs/training.md lists the files beside it.

    Raises:
        RecipeError: The recipe, or a file that it names, cannot be used, or `out` has a run of others.
        LabelError: Labels are missing or have unknown values.
        OutputError: The folder cannot be written.
        TrainingError: The loss is NaN or infinite.
    """
    path = find_recipe(recipe)
    plan = load_recipe(path, overrides, over=over)
    folder = Path(out or f"{plan.name}_training")
    check_folder(folder)
    return train_plan(plan, data=Path(data or "data"), folder=folder, beside=path.parent)


def train_plan(
    plan: Recipe,
    *,
    data: Path,
    folder: Path,
    beside: Path = Path(),
    cache: Path | None = None,
    hidden: Mapping[str, Sequence[tuple[Path, str]]] | None = None,
) -> Path:
    """Train a recipe that is read already; see `train_recipe`.

    Args:
        plan: The recipe.
        data: Folder that its paths are relative to.
        folder: Folder of the results, where an interrupted run continues.
        beside: Another folder where encoder weights may be.
        cache: Folder of the prepared scenes, to be shared by several runs; in `folder` by default.
        hidden: By source the areas that training must not see: a file, and their name in it.
    """
    check_device(plan.fit.device)
    weights = _find_weights(plan.network.encoder_weights, (data, beside, Path()))
    _check_batch(plan)
    # of variants the caller keeps the scenes
    scenes = fingerprint_scenes(plan, data=data, results=folder) if cache is None else {}
    check_scenes(folder, scenes)
    sources = prepare_sources(plan, data=data, cache=cache or folder / "prepared")
    _check_validation(plan, sources)
    for source in sources:
        for file, area in (hidden or {}).get(source.name, ()):
            for path in source.train:
                hide_areas(path, file, area)
    claim_folder(plan, folder)
    if cache is None:
        record_scenes(folder, scenes)
    run = _assemble(plan, sources, weights, folder)
    if run.task.run_progress.done < 1:
        _fit(run)
    return _write_results(run)


def train_variant(
    plan: Recipe,
    name: str,
    *,
    data: Path,
    out: Path,
    beside: Path = Path(),
    hidden: Mapping[str, Sequence[tuple[Path, str]]] | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Train one of several variants of a recipe unless that is finished, and return its `metrics.json`.

    Cross-validation, fine-tuning and search share this.

    Args:
        plan: The recipe.
        name: Name of its folder.
        data: Folder that its paths are relative to.
        out: Holds the folders of all variants, and `prepared`, their scenes.
        beside: See `train_plan`.
        hidden: See `train_plan`.
        again: Write the results of a finished training again.
    """
    folder = out / name
    if again or not is_finished(plan, folder):
        train_plan(plan, data=data, folder=folder, beside=beside, cache=out / "prepared", hidden=hidden)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _check_validation(plan: Recipe, sources: Sequence[PreparedSource]) -> None:
    """Refuse a recipe whose splits leave no file for validation; without any split it trains on all files."""
    if any(prepared.validate for prepared in sources):
        return
    for source, prepared in zip(plan.sources, sources, strict=True):
        for key in ("validate", "validate_scenes", "validate_east", "validate_west", "fold", "split", "split_file"):
            if value := getattr(source, key):
                raise RecipeError(
                    f"sources.{source.name}.{key} = {toml_value(value)} leaves {len(prepared.train)} / 0 files for "
                    "train / validate; expected at least one in each: change the key, or remove it to train without "
                    "validation"
                )


def _check_batch(plan: Recipe) -> None:
    """Refuse a network that normalizes what it pools over a crop, in batches of one crop: a pass of shapes alone.

    Raises:
        RecipeError: It is one.
    """
    spec, side = plan.network, plan.fit.crop_px
    if plan.fit.batch > 1 or plan.fit.fixed_normalization:
        return
    network = build_network(spec.name, bands=len(spec.bands), classes=len(spec.channels), **spec.builder_options)
    try:
        with suppress(NotImplementedError, RuntimeError):  # a network of one's own that needs values
            network.to("meta").train()(torch.empty(1, len(spec.bands), side, side, device="meta"))
    except ValueError as err:
        raise RecipeError(
            f"fit.batch = 1: {spec.name} normalizes values that it pools over a crop, which takes two crops or more "
            f"({err}). Set fit.batch = 2, with a smaller fit.crop_px if memory is short, or fit.fixed_normalization = "
            "true for weights that are trained already"
        ) from err


def _find_weights(name: str, folders: Sequence[Path]) -> str | None:
    """Find the file of encoder weights; return None for "", and "imagenet" and torchgeo's names as they are."""
    if not name.endswith(".safetensors"):
        return name or None
    found = [folder / name for folder in folders if (folder / name).is_file()]
    if not found:
        places = ", ".join(str(folder) for folder in folders)
        raise RecipeError(
            f'network.encoder_weights = {name!r} is not in {places}; expected "imagenet" (downloaded), "" '
            "(none), or a safetensors file"
        )
    return str(found[0])


@dataclass(frozen=True)
class _Run:
    """The parts of a training run."""

    plan: Recipe
    folder: Path
    task: SegmentationTask
    average: WeightAverage
    crops: MixedCrops
    chips: ValidationChips
    epoch: int

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run continues from."""
        return self.folder / "checkpoints" / "last.ckpt"


def _assemble(plan: Recipe, sources: Sequence[PreparedSource], weights: str | None, folder: Path) -> _Run:
    fit = plan.fit
    lightning.seed_everything(fit.seed, verbose=False)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    if fit.threads:
        torch.set_num_threads(fit.threads)
    network = _build_network(plan, weights)
    crops = MixedCrops(sources, window_px=fit.read_px)
    chips = ValidationChips(sources, chip_px=plan.chip_px, halo_px=plan.halo_px, stride_px=plan.network.stride_px)
    epoch = fit.validate_every or max(1, math.ceil(crops.pixels / (fit.batch * fit.crop_px**2)))
    ends = [n for n in (fit.steps, fit.epochs * epoch) if n]
    task = SegmentationTask(network, plan, chips.names, steps=min(ends, default=0), teacher=_load_teacher(plan))
    run = _Run(plan, folder, task, WeightAverage(task.network, fit.average_decay), crops, chips, epoch)
    if run.last.exists():
        task.on_load_checkpoint(_read_checkpoint(run.last))
    return run


def _build_network(plan: Recipe, weights: str | None) -> torch.nn.Module:
    spec = plan.network
    bands, channels = len(spec.bands), len(spec.channels)
    network = build_network(spec.name, bands=bands, classes=channels, encoder_weights=weights, **spec.builder_options)
    if spec.start_from:
        bundle = load_bundle(spec.start_from)
        try:
            network.load_state_dict(_fit_channels(bundle, spec, network))
        except RuntimeError as err:
            raise BundleError(
                f"The weights of network.start_from = {spec.start_from!r} do not fit the recipe's network: it is "
                f"{bundle.spec.network!r} with {bundle.spec.network_options} there. Give the recipe the same network."
            ) from err
    return network


def _load_teacher(plan: Recipe) -> Segmenter | None:
    """Load the network of `fit.distill_from`."""
    if not plan.fit.distill_from:
        return None
    bundle, network = load_bundle(plan.fit.distill_from), plan.network
    for key in ("bands", "classes", "pixel_max"):
        found, expected = getattr(bundle.spec, key), getattr(network, key)
        if found != expected:
            raise BundleError(
                f"The network of fit.distill_from = {plan.fit.distill_from!r} has {key} = {found!r}, the recipe "
                f"{expected!r}. Give a bundle with the recipe's bands, classes and pixel_max."
            )
    return load_segmenter(bundle).to(memory_format=torch.channels_last)


def _fit_channels(bundle: Bundle, spec: Network, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a bundle's weights for a network with other auxiliary channels.

    Channels that both have keep their weights; new ones begin near a constant low probability. The weights of channels
    are those whose first size is another in a network of one channel more.
    """
    weights, old = bundle.weights(), bundle.spec
    if old.auxiliary == spec.auxiliary or len(old.classes) != len(spec.classes):
        return weights
    count = len(old.classes)
    origin = [*range(count), *(old.channels.index(name) if name in old.auxiliary else -1 for name in spec.auxiliary)]
    wider = build_network(spec.name, bands=len(spec.bands), classes=len(spec.channels) + 1, **spec.builder_options)
    shapes = {key: tensor.shape for key, tensor in wider.state_dict().items()}
    for key, tensor in network.state_dict().items():
        given = weights.get(key)
        if given is None or shapes.get(key) == tensor.shape:
            continue
        if len(given) == len(old.channels) and given.shape[1:] == tensor.shape[1:]:
            begin = _NEW_CHANNEL_SCALE * tensor if tensor.ndim > 1 else torch.full_like(tensor, _NEW_CHANNEL_LOGIT)
            weights[key] = torch.stack([given[i] if i >= 0 else begin[n] for n, i in enumerate(origin)])
    new = [name for name in spec.auxiliary if name not in old.auxiliary]
    if new:
        listed = ", ".join(new)
        log.info("network.start_from = %s has no channels for %s; they start untrained", spec.start_from, listed)
    return weights


def _read_checkpoint(path: Path) -> dict[str, Any]:
    # Lightning writes its own format; weights_only reads tensors and plain values alone
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    return checkpoint


def _fit(run: _Run) -> None:
    """Train to the end of the recipe, from the last checkpoint if there is one."""
    fit, folder, resumed = run.plan.fit, run.folder, run.last.exists()

    keep: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    kept: list[Callback] = []
    if len(run.chips):
        kept.append(_Checkpoint(run.last.parent, "best-iou", monitor="iou", mode="max", **keep))
        kept.append(_Checkpoint(run.last.parent, "best-loss", monitor="validation_loss", mode="min", **keep))
        if fit.early_stopping:
            kept.append(EarlyStopping("iou", patience=fit.early_stopping, mode="max", check_on_train_epoch_end=True))
    kept.append(_Checkpoint(run.last.parent, "last", **keep))

    sampler = MixedSampler(
        run.crops,
        window_px=fit.read_px,
        batch=fit.batch,
        batches=run.epoch,
        seed=fit.seed,
        progress=run.task.run_progress,
    )
    if resumed:
        log.info("continuing from %s, step %d", run.last, run.task.run_progress.step)
    with ignore_warnings(message=_KNOWN):
        trainer = lightning.Trainer(
            max_epochs=-1,
            accelerator="gpu" if fit.device == "cuda" else fit.device,
            devices=1,
            precision=choose_precision(fit.precision, fit.device),  # type: ignore[arg-type]
            gradient_clip_val=fit.clip_norm or None,
            num_sanity_val_steps=0,
            logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
            log_every_n_steps=1,  # Lightning warns of epochs shorter than that; the task logs once per validation
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[run.average, *kept, _Table(folder)],
            default_root_dir=folder,
        )
        trainer.fit(
            run.task,
            DataLoader(run.crops, batch_sampler=sampler, num_workers=fit.workers, pin_memory=torch.cuda.is_available()),
            _chip_loader(run) if len(run.chips) else None,
            ckpt_path=str(run.last) if resumed else None,
            weights_only=True,
        )


def _chip_loader(run: _Run) -> "DataLoader[dict[str, torch.Tensor]]":
    return DataLoader(run.chips, batch_sampler=run.chips.batches(_VALIDATION_BATCH))  # chips of one shape


class _Checkpoint(ModelCheckpoint):
    """Keep the best score in a folder that was moved, too: Lightning forgets it, and replaces the best weights."""

    @property
    def state_key(self) -> str:
        """Return the key of `ModelCheckpoint`, as checkpoints that are continued have it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the score and the files that it is of, where they are now."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        paths = {key: moved(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


class _Table(Callback):
    """Write a row of history after every epoch, and the curves every now and then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.drawn = folder, time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the row of the epoch."""
        assert isinstance(pl_module, SegmentationTask)
        progress = pl_module.run_progress
        row = {"step": progress.step, "progress": progress.done, "minutes": progress.used_s / 60}
        row |= {"learning_rate": trainer.optimizers[0].param_groups[-1]["lr"]}
        row |= _losses("train", pl_module.train_losses, pl_module.recipe)
        row |= _losses("validation", pl_module.losses, pl_module.recipe) if pl_module.validated else {}
        row |= pl_module.scores.row(pl_module.recipe.threshold) if pl_module.validated else {}
        if trainer.logger is not None:
            trainer.logger.log_metrics(row, step=progress.step)
        write_row(self.folder / "history.csv", row)
        if time.monotonic() - self.drawn > _CURVES_EVERY_S:
            _draw_curves(self.folder)
            self.drawn = time.monotonic()


def _draw_curves(folder: Path) -> None:
    if (folder / "history.csv").exists():
        draw_curves(folder / "history.csv", folder / "curves.png")


def _losses(part: str, losses: LossMeans, recipe: Recipe) -> dict[str, float]:
    """Return the columns of one part's losses: all together, and term by term."""
    terms = losses.means()
    return {f"{part}_loss": weigh_means(recipe.losses, terms), **{f"{part}_{k}": value for k, value in terms.items()}}


def _write_results(run: _Run) -> Path:
    """Write the bundles of the best averaged weights, their scores, pictures and card; return that of the best IoU."""
    seconds, progress = run.task.total_s, run.task.run_progress
    share = {f"share_of_time_{key}": seconds[key] / max(1e-9, seconds["step"]) for key in ("augment", "data")}
    facts = {"steps": progress.step, "minutes": progress.used_s / 60, **share}
    path, other = (run.folder / f"{run.plan.name}{kind}.safetensors" for kind in ("", ".best-loss"))
    has_other = run.last.with_stem("best-loss").exists()
    by_loss = _write_bundle(run, "best-loss", other, facts) if has_other else None
    metrics = facts | _write_bundle(run, "best-iou", path, facts, measured=by_loss)
    if by_loss is not None:
        metrics["best_loss"] = by_loss
    write_json(run.folder / "metrics.json", metrics, sort_keys=True)
    _draw_curves(run.folder)
    plan, spec, task = run.plan, run.plan.network, run.task.eval()
    examples = collect_examples(
        run.chips,
        lambda image: task(image.float() / spec.pixel_max)[:, : task.classes],
        names=run.chips.names,
        threshold=plan.threshold,
        target=task.target,
    )
    if examples:
        draw_predictions(
            examples,
            run.folder / "predictions.png",
            classes=spec.classes,
            colors=spec.colors,
            target=spec.target_class,
            bands=spec.bands,
            title=plan.name,
        )
    write_card(run.folder, plan, metrics, bundle=path, facts=network_facts(task.network, len(spec.bands)))
    score = f"validation IoU {metrics['headline']:.4f}" if "headline" in metrics else "no validation"
    log.info("wrote %s: %s", path, score)
    return path


def _write_bundle(
    run: _Run, checkpoint: str, path: Path, facts: Mapping[str, Any], *, measured: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the averaged weights of a checkpoint, by default of the last, and return their scores.

    Scores `measured` of the same step are not measured again.
    """
    kept = run.last.with_stem(checkpoint)
    loaded = _read_checkpoint(kept if kept.exists() else run.last)
    run.average.load_state_dict(loaded["callbacks"][run.average.state_key])
    run.task.cpu()
    run.task.network.load_state_dict(run.average.average)
    step = int(loaded["geoseg_progress"]["step"])
    is_measured = measured is not None and measured["step"] == step
    metrics = dict(measured or {}) if is_measured else {"step": step, **_measure(run)}
    plan, network = run.plan, run.plan.network
    sources = [asdict(source) for source in plan.sources if source.weight > 0]
    auxiliary = {"auxiliary": asdict(plan.auxiliary)} if network.auxiliary else {}
    spec = ModelSpec(
        name=plan.name,
        version=plan.version,
        network=network.name,
        network_options=network.builder_options,
        bands=network.bands,
        gsd_m=plan.gsd_m,
        mean=network.mean,
        std=network.std,
        pixel_max=network.pixel_max,
        classes=network.classes,
        target=network.target_class,
        auxiliary=network.auxiliary,
        colors=network.colors,
        chip_px=plan.chip_px,
        halo_px=plan.halo_px,
        stride_px=network.stride_px,
        threshold=plan.threshold,
        min_area_m2=plan.min_area_m2,
        split_depth=plan.split_depth or None,
        training={"sources": sources, "loss": plan.loss, **auxiliary, "fit": asdict(plan.fit)},
        metrics={"validation": {**facts, **metrics}},
        license=plan.license,
        description=plan.description,
    )
    save_bundle(path, spec, run.task.network.state_dict())
    return metrics


@torch.inference_mode()
def _measure(run: _Run) -> dict[str, Any]:
    """Score the network on the validation chips in full precision."""
    if not len(run.chips):
        return {}
    task, threshold = run.task, run.plan.threshold
    task.eval()
    task.on_validation_epoch_start()
    for number, batch in enumerate(_chip_loader(run)):
        task.validation_step(batch, number)
    return {
        "loss": weigh_means(run.plan.losses, task.losses.means()),
        "losses": task.losses.means(),
        **task.scores.figures(threshold),
    }
