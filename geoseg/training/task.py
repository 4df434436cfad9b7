"""What Lightning runs: one training step, one validation step, optimiser and schedule."""

import logging
import time
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.errors import TrainingError
from geoseg.training.augment import augment_batch
from geoseg.training.losses import LossMeans, add_terms, loss_terms, weigh_means
from geoseg.training.optimizer import Progress, keep_depthwise_full, learning_rate_factor
from geoseg.training.recipe import Recipe
from geoseg.training.scores import open_scores

__all__ = ["SegmentationTask", "settle_unsure", "target_probability"]

log = logging.getLogger(__name__)

_LOG_EVERY = 25


def settle_unsure(mask: Tensor, probability: Tensor | None, above: float) -> Tensor:
    """Decide the pixels that incomplete labels leave open.

    Args:
        mask: (n, y, x) labels with `UNSURE`.
        probability: (n, y, x) what the network thinks now; None while it is too young to be asked.
        above: from this probability on, an unsure pixel may be a building that the labels leave out.

    Returns:
        The mask without `UNSURE`: maybe-buildings are `IGNORED`, the others background.
    """
    unsure = mask == UNSURE
    maybe = unsure if probability is None else unsure & (probability >= above)
    return mask.masked_fill(unsure, 0).masked_fill(maybe, IGNORED)


def target_probability(logits: Tensor, target: int) -> Tensor:
    """Return the target's probability (n, y, x) float32 of logits (n, class, y, x): of one class a sigmoid."""
    logits = logits.float()
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)[:, target]


class SegmentationTask(lightning.LightningModule):
    """Train a network on crops, validate it on whole areas."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, recipe: Recipe, validated: tuple[str, ...], *, steps: int) -> None:
        """Train `network` as `recipe` says for at most `steps`; `validated` names the validation batches' sources."""
        super().__init__()
        fit, spec = recipe.fit, recipe.network
        self.recipe, self.validated = recipe, validated
        self.network = keep_depthwise_full(network.to(memory_format=torch.channels_last))
        self.run_progress = Progress(steps, fit.minutes)
        # an optimiser of nothing, whose rate is the factor of the real one's, which follows the progress too
        self.plateau = ReduceLROnPlateau(
            torch.optim.SGD([torch.zeros(1)], lr=1.0),
            factor=fit.plateau_factor,
            patience=fit.plateau_patience,
            min_lr=fit.last_learning_rate,
            eps=0.0,
        )
        self.target = spec.classes.index(spec.target_class)
        self.seconds = {"augment": 0.0, "data": 0.0, "step": 0.0}
        self.total_s = dict(self.seconds)
        self._ended = time.perf_counter()
        self._counted = 0
        self.train_losses = LossMeans()
        self.on_validation_epoch_start()
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Give logits (n, class, y, x) of pixels (n, band, y, x) in [0, 1]."""
        ready = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(ready)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Augment, predict, settle what is unsure, and return the loss."""
        fit, began = self.recipe.fit, time.perf_counter()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            image = batch["image"].float() / self.recipe.network.pixel_max
            image, mask = augment_batch(image, batch["mask"], self.recipe.augment, crop_px=fit.crop_px)
        self.seconds["augment"] += time.perf_counter() - began
        logits = self(image)
        if not all(source.complete for source in self.recipe.sources):
            asked = self.run_progress.done >= fit.unsure_from
            probability = target_probability(logits.detach(), self.target) if asked else None
            mask = settle_unsure(mask, probability, fit.unsure_above)
        terms = loss_terms(self.recipe.loss, logits, mask)
        self.train_losses.update(terms, mask)
        loss = add_terms(self.recipe.loss, terms)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.run_progress.step}; the checkpoints of the last validation "
                "are kept: lower fit.learning_rate or fit.clip_norm, or use precision 32-true"
            )
        return loss

    def on_train_start(self) -> None:
        """Count time from here."""
        self.run_progress.start()
        self._ended = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Average the losses anew; validation and the files of the epoch before are no waiting for data."""
        self.train_losses = LossMeans()
        self._ended = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate that the progress asks for."""
        self.seconds["data"] += time.perf_counter() - self._ended
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["top_lr"] * self.learning_rate_factor()

    def learning_rate_factor(self) -> float:
        """Return the factor of every group's learning rate now."""
        fit = self.recipe.fit
        factor = learning_rate_factor(
            self.run_progress.done, schedule=fit.schedule, warm_up=fit.warm_up, last=fit.last_learning_rate
        )
        return factor * self.plateau.optimizer.param_groups[0]["lr"] if fit.schedule == "plateau" else factor

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the time; stop at the end of the schedule."""
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
                weigh_means(self.recipe.loss, self.train_losses.means()),
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
        """Start counting anew."""
        spec, unscored = self.recipe.network, self.recipe.fit.unscored
        self.scores = open_scores(self.validated, spec.classes, target=spec.target_class, unscored=unscored)
        self.losses = LossMeans()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count the predictions of one batch of chips."""
        logits = self(batch["image"].float() / self.recipe.network.pixel_max)
        self.losses.update(loss_terms(self.recipe.loss, logits, batch["mask"]), batch["mask"])
        self.scores.update(logits, batch["mask"], batch["source"])

    def on_validation_epoch_end(self) -> None:
        """Log what chooses the best checkpoints: the IoU over the sources, and the validation loss."""
        threshold, row = self.recipe.threshold, self.scores.row(self.recipe.threshold)
        loss = weigh_means(self.recipe.loss, self.losses.means())
        self.log("iou", self.scores.headline(threshold))
        self.log("validation_loss", loss)
        self.plateau.step(loss)
        listed = ", ".join(f"{name} {value:.4f}" for name, value in row.items())
        log.info("validation IoU %.4f, loss %.4f (%s)", self.scores.headline(threshold), loss, listed)
        self._ended = time.perf_counter()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser; biases and normalisation layers get no weight decay, the encoder a rate of its own."""
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
        kind = torch.optim.AdamW if fit.optimiser == "adamw" else torch.optim.Adam
        return kind(groups, lr=fit.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the progress."""
        progress = self.run_progress
        checkpoint["geoseg_progress"] = {"step": progress.step, "used_s": progress.used_s}
        checkpoint["geoseg_plateau"] = {
            "factor": self.plateau.optimizer.param_groups[0]["lr"],
            "best": self.plateau.best,
            "waited": self.plateau.num_bad_epochs,
        }
        checkpoint["geoseg_seconds"] = dict(self.total_s)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the progress up again."""
        kept = checkpoint["geoseg_progress"]
        self.run_progress.step, self.run_progress.used_s = kept["step"], kept["used_s"]
        self._counted = kept["step"]
        plateau = checkpoint["geoseg_plateau"]
        self.plateau.optimizer.param_groups[0]["lr"] = plateau["factor"]
        self.plateau.best, self.plateau.num_bad_epochs = plateau["best"], plateau["waited"]
        self.total_s = dict(checkpoint["geoseg_seconds"])
