"""The Lightning module of a training: crops, validation chips, steps and optimizer."""

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset, Sampler
from torchgeo.samplers import RandomGeoSampler

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.datasets.prepared import PreparedScene, is_known, keep_labels
from geoseg.errors import RecipeError, TrainingError
from geoseg.grid import Window, fit_lattice
from geoseg.io.tables import name_some
from geoseg.training.augment import augment_batch
from geoseg.training.losses import LossMeans, add_terms, auxiliary_terms, distillation_loss, loss_terms, weigh_means
from geoseg.training.optimizer import Progress, keep_depthwise_full, learning_rate_factor
from geoseg.training.recipe import Recipe
from geoseg.training.scores import Scores, target_probability
from geoseg.training.sources import PreparedSource

__all__ = ["MixedCrops", "MixedSampler", "SegmentationTask", "ValidationChips", "settle_unsure"]

log = logging.getLogger(__name__)

_LOG_EVERY = 25

_ENDLESS = 1 << 40

Sample = dict[str, Tensor]


class MixedCrops(Dataset[Sample]):
    """Windows of several scenes, by (scene's number, torchgeo query)."""

    def __init__(self, sources: Sequence[PreparedSource], *, window_px: int) -> None:
        """Open the training scenes of `sources`; those without room or labels for a window are left out with a warning.

        Attribute `pixels` is the total number of pixels.
        """
        opened = [(n, PreparedScene(p, crop_px=window_px)) for n, s in enumerate(sources) for p in s.train]
        kept = [(n, scene) for n, scene in opened if len(scene)]
        without = [scene.about.get("scene", scene.path.stem) for _, scene in opened if not len(scene)]
        if without:
            message = "%d of %d training scenes have no room or too few labels for a window of %d px; left out: %s"
            log.warning(message, len(without), len(opened), window_px, name_some(without))
        if not kept:
            raise RecipeError(f"no training scene has room for a window of {window_px} px; lower fit.window_px")
        self.scenes = [scene for _, scene in kept]
        self.distill = [sources[n].distill for n, _ in kept]
        self.pixels = sum(scene.window.height * scene.window.width for scene in self.scenes)
        shares = np.array([sources[n].weight for n, _ in kept])
        boxes = np.array([len(scene) for scene in self.scenes])
        totals = np.bincount([n for n, _ in kept], weights=boxes)
        self.odds = torch.from_numpy(shares * boxes / totals[[n for n, _ in kept]])

    def __getitem__(self, index: Any) -> Sample:
        """Return the image (band, y, x) uint8, the mask (y, x) uint8 and auxiliary planes of a window."""
        scene, query = index
        return {**self.scenes[scene][query], "distill": torch.tensor(self.distill[scene])}


class MixedSampler(Sampler[list[Any]]):
    """Batches of `MixedCrops`: the source is drawn by weight, the position by torchgeo's `RandomGeoSampler`."""

    def __init__(
        self, crops: MixedCrops, *, window_px: int, batch: int, batches: int, seed: int, progress: Progress
    ) -> None:
        """Draw `batches` batches per epoch. A batch depends on `seed` and the number of its step alone.

        So it does not matter how far ahead of the steps of `progress` it is drawn, for processes that read crops.
        """
        self.crops, self.batch, self.batches, self.seed, self.progress = crops, batch, batches, seed, progress
        self.samplers = [RandomGeoSampler(scene, size=window_px, length=_ENDLESS) for scene in crops.scenes]

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield lists of (scene's number, query)."""
        queries = [iter(sampler) for sampler in self.samplers]
        first = self.progress.step
        for step in range(first, first + self.batches):
            with torch.random.fork_rng(devices=[]):  # torchgeo draws from the global generator
                torch.default_generator.manual_seed(_seed_of("crops", self.seed, step))
                chosen = torch.multinomial(self.crops.odds, self.batch, replacement=True).tolist()
                batch = [(scene, next(queries[scene])) for scene in chosen]
            yield batch

    def __len__(self) -> int:
        """Return batches per epoch."""
        return self.batches


def _seed_of(what: str, seed: int, step: int) -> int:
    """Return a seed of its own for each step, and for each of what is drawn in it."""
    return int.from_bytes(hashlib.sha256(f"{what} {seed} {step}".encode()).digest()[:8], "little", signed=True)


class ValidationChips(Dataset[Sample]):
    """The chips of all validation scenes as in inference, with its lattice, context and mirrored borders.

    The context's labels are `IGNORED`, so that each pixel counts once. Chips of one scene have one shape.
    """

    def __init__(self, sources: Sequence[PreparedSource], *, chip_px: int, halo_px: int, stride_px: int = 32) -> None:
        """Lay lattices over the validation scenes of `sources`; chips without labels are left out."""
        self.names = tuple(source.name for source in sources if source.validate)
        paths: list[tuple[int, Path]] = [(self.names.index(s.name), p) for s in sources for p in s.validate]
        self.scenes = [(source, PreparedScene(path)) for source, path in paths]
        self.lattices = [
            fit_lattice(scene.scene_shape, chip_px=chip_px, halo_px=halo_px, multiple_px=stride_px)
            for _, scene in self.scenes
        ]
        self.chips: list[tuple[int, tuple[int, int]]] = []
        for number, ((_, scene), lattice) in enumerate(zip(self.scenes, self.lattices, strict=True)):
            stored = Window(*scene.origin, *scene.window.shape)
            for chip in np.ndindex(*lattice.counts):
                core = lattice.core_window(*chip).intersect(stored)
                if core and bool(is_known(scene.pixels[core.relative_to(stored).slices][..., -1]).any()):
                    self.chips.append((number, chip))

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        """Return image (band, y, x), mask (y, x) uint8, auxiliary planes and the source's number of a chip."""
        number, chip = self.chips[index]
        (source, scene), lattice = self.scenes[number], self.lattices[number]
        seen, core = lattice.chip_window(*chip), lattice.core_window(*chip)
        sample = keep_labels(scene.read_chip(seen), core.relative_to(seen))
        return {**sample, "source": torch.tensor(source)}

    def batches(self, size: int) -> list[list[int]]:
        """Return the chips' numbers in batches of at most `size` chips of one shape, for a `DataLoader`."""
        shapes = [self.lattices[number].chip_shape for number, _ in self.chips]
        groups = (list(group) for _, group in itertools.groupby(range(len(shapes)), key=shapes.__getitem__))
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def settle_unsure(mask: Tensor, probability: Tensor | None, above: float) -> Tensor:
    """Replace `UNSURE` in a mask (n, y, x): by `IGNORED` where a building may be missing, else by background.

    A building may be missing where the network's `probability` (n, y, x) is at least `above`; anywhere if it is None.
    """
    unsure = mask == UNSURE
    maybe = unsure if probability is None else unsure & (probability >= above)
    return mask.masked_fill(unsure, 0).masked_fill(maybe, IGNORED)


class SegmentationTask(lightning.LightningModule):
    """Train a network on crops, validate it on whole areas."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        validated: tuple[str, ...],
        *,
        steps: int,
        teacher: nn.Module | None = None,
    ) -> None:
        """Train `network` for at most `steps`; `validated` are the names of the validation sources.

        The `teacher` of `fit.distill_from` takes raw pixels and returns probabilities (`Segmenter`).
        """
        super().__init__()
        fit, spec = recipe.fit, recipe.network
        self.recipe, self.validated = recipe, validated
        self.network = keep_depthwise_full(network.to(memory_format=torch.channels_last))
        encoder = getattr(network, "encoder", None)
        self._frozen = encoder.requires_grad_(False) if encoder and not fit.encoder_rate else None
        self._teacher = (keep_depthwise_full(teacher) if teacher else None,)  # not a child: checkpoints have no copy
        self.run_progress = Progress(steps, fit.minutes)
        # of a dummy optimizer, whose learning rate is a factor of the real one
        self.plateau = ReduceLROnPlateau(
            torch.optim.SGD([torch.zeros(1)], lr=1.0),
            factor=fit.plateau_factor,
            patience=fit.plateau_patience,
            min_lr=fit.last_learning_rate,
            eps=0.0,
        )
        self.target = spec.classes.index(spec.target_class)
        self.classes = len(spec.classes)
        self.seconds = {"augment": 0.0, "data": 0.0, "step": 0.0}
        self.total_s = dict(self.seconds)
        self._ended = time.perf_counter()
        self._counted = 0
        self.train_losses = LossMeans()
        self.on_validation_epoch_start()
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (n, channel, y, x) of pixels (n, band, y, x) in [0, 1]."""
        ready = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(ready)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Augment, predict, settle unsure pixels, and return the loss."""
        fit, began = self.recipe.fit, time.perf_counter()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            image = batch["image"].float() / self.recipe.network.pixel_max
            planes = torch.cat([batch["mask"][:, None], *([batch["auxiliary"]] if "auxiliary" in batch else [])], dim=1)
            image, planes = augment_batch(image, planes, self.recipe.augment, crop_px=fit.crop_px)
            mask, auxiliary = planes[:, 0], planes[:, 1:]
        self.seconds["augment"] += time.perf_counter() - began
        logits = self(image)
        if not all(source.complete for source in self.recipe.sources):
            asked = self.run_progress.done >= fit.unsure_from
            probability = target_probability(logits[:, : self.classes].detach(), self.target) if asked else None
            mask = settle_unsure(mask, probability, fit.unsure_above)
        terms = self._loss_terms(logits, mask, auxiliary)
        loss = add_terms(self.recipe.losses, terms)
        (teacher,) = self._teacher
        if teacher is not None:
            with torch.no_grad():
                taught = teacher.to(image.device)(image * self.recipe.network.pixel_max)[:, : self.classes]
            terms["distillation"] = distillation_loss(logits[:, : self.classes], taught, batch["distill"])
            loss = loss + fit.distill_weight * terms["distillation"]
        self.train_losses.update(terms, mask)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.run_progress.step}; the checkpoints of the last validation "
                'are kept. Lower fit.learning_rate or fit.clip_norm, or use fit.precision = "32-true".'
            )
        return loss

    def _loss_terms(self, logits: Tensor, mask: Tensor, auxiliary: Tensor) -> dict[str, Tensor]:
        """Return every loss by name: those of the classes, and one of each auxiliary channel."""
        names, gamma = self.recipe.network.auxiliary, self.recipe.auxiliary.gamma
        terms = loss_terms(self.recipe.loss, logits[:, : self.classes], mask)
        return terms | auxiliary_terms(names, logits[:, self.classes :], auxiliary, gamma=gamma)

    def on_train_start(self) -> None:
        """Count time from here, and fix the normalization that is not to move."""
        if self._frozen is not None:
            self._frozen.eval()
        if self.recipe.fit.fixed_normalization:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        self.run_progress.start()
        self._ended = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Reset the losses; time of validation and files does not count as waiting for data."""
        self.train_losses = LossMeans()
        self._ended = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, and the seed of augmentation and dropout in this step."""
        self.seconds["data"] += time.perf_counter() - self._ended
        torch.manual_seed(_seed_of("step", self.recipe.fit.seed, self.run_progress.step))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["top_lr"] * self.learning_rate_factor()

    def learning_rate_factor(self) -> float:
        """Return the present factor of every group's learning rate."""
        fit = self.recipe.fit
        factor = learning_rate_factor(
            self.run_progress.done, schedule=fit.schedule, warm_up=fit.warm_up, last=fit.last_learning_rate
        )
        return factor * self.plateau.optimizer.param_groups[0]["lr"] if fit.schedule == "plateau" else factor

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step and its time; stop at the end."""
        now, progress = time.perf_counter(), self.run_progress
        progress.advance()
        self.seconds["step"] += now - self._ended
        self._ended = now
        if progress.step % _LOG_EVERY == 0:
            took = max(1e-9, self.seconds["step"])
            mpx = self.recipe.fit.batch * self.recipe.fit.crop_px**2 / 1e6 * (progress.step - self._counted) / took
            log.info(
                "step %d, %.1f %%, loss %.4f, %.3f Mpx/s (%.1f %% of the time augmenting, %.1f %% waiting for data)",
                progress.step,
                100 * progress.done,
                weigh_means(self.recipe.losses, self.train_losses.means()),
                mpx,
                *(100 * self.seconds[key] / took for key in ("augment", "data")),
            )
            self._count_seconds()
        if progress.done >= 1:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Count the time of the epoch's last steps too."""
        self._count_seconds()

    def _count_seconds(self) -> None:
        for key, value in self.seconds.items():
            self.total_s[key] += value
        self.seconds, self._counted = dict.fromkeys(self.seconds, 0.0), self.run_progress.step

    def on_validation_epoch_start(self) -> None:
        """Reset scores and losses."""
        spec, unscored = self.recipe.network, self.recipe.fit.unscored
        self.scores = Scores(
            self.validated, spec.classes, target=spec.target_class, unscored=unscored, auxiliary=spec.auxiliary
        )
        self.losses = LossMeans()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count the predictions of one batch of chips."""
        logits = self(batch["image"].float() / self.recipe.network.pixel_max)
        auxiliary = batch.get("auxiliary", batch["mask"][:, None][:, :0])
        self.losses.update(self._loss_terms(logits, batch["mask"], auxiliary), batch["mask"])
        self.scores.update(logits[:, : self.classes], batch["mask"], batch["source"])
        self.scores.update_auxiliary(logits[:, self.classes :], auxiliary, batch["source"])

    def on_validation_epoch_end(self) -> None:
        """Log the IoU and the loss, which choose the best checkpoints."""
        threshold, row = self.recipe.threshold, self.scores.row(self.recipe.threshold)
        loss = weigh_means(self.recipe.losses, self.losses.means())
        self.log("iou", self.scores.headline(threshold))
        self.log("validation_loss", loss)
        self.plateau.step(loss)
        listed = ", ".join(f"{name} {value:.4f}" for name, value in row.items())
        log.info("validation IoU %.4f, loss %.4f (%s)", self.scores.headline(threshold), loss, listed)
        self._ended = time.perf_counter()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer; biases and normalization have no weight decay, the encoder its own learning rate."""
        fit = self.recipe.fit
        alike: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                alike.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
        groups = [
            {
                "params": parameters,
                "weight_decay": fit.weight_decay if is_matrix else 0.0,
                "top_lr": fit.learning_rate * (fit.encoder_rate if is_encoder else 1.0),
            }
            for (is_encoder, is_matrix), parameters in alike.items()
        ]
        kind = torch.optim.AdamW if fit.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, lr=fit.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save progress, plateau and times."""
        progress = self.run_progress
        checkpoint["geoseg_progress"] = {"step": progress.step, "used_s": progress.used_s}
        checkpoint["geoseg_plateau"] = {
            "factor": self.plateau.optimizer.param_groups[0]["lr"],
            "best": self.plateau.best,
            "waited": self.plateau.num_bad_epochs,
        }
        checkpoint["geoseg_seconds"] = dict(self.total_s)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        kept = checkpoint["geoseg_progress"]
        self.run_progress.step, self.run_progress.used_s = kept["step"], kept["used_s"]
        self._counted = kept["step"]
        plateau = checkpoint["geoseg_plateau"]
        self.plateau.optimizer.param_groups[0]["lr"] = plateau["factor"]
        self.plateau.best, self.plateau.num_bad_epochs = plateau["best"], plateau["waited"]
        self.total_s = dict(checkpoint["geoseg_seconds"])
