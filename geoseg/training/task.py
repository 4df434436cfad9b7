"""What Lightning runs: one training step, one validation step, optimiser and schedule."""

import logging
import time
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.errors import TrainingError
from geoseg.training.augment import augment_batch
from geoseg.training.losses import weigh_losses
from geoseg.training.precision import keep_depthwise_full
from geoseg.training.recipe import Recipe
from geoseg.training.schedule import Progress, learning_rate_factor
from geoseg.training.scores import IouCurve

__all__ = ["SegmentationTask", "settle_unsure"]

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


class SegmentationTask(lightning.LightningModule):
    """Train a network on crops, validate it on whole areas."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, recipe: Recipe, validated: tuple[str, ...]) -> None:
        """Train `network` as `recipe` says; `validated` names the sources of the validation batches."""
        super().__init__()
        self.recipe = recipe
        self.network = keep_depthwise_full(network.to(memory_format=torch.channels_last))
        self.run_progress = Progress(recipe.fit.steps, recipe.fit.minutes)
        self.scores = IouCurve(validated)
        self.seconds = {"augment": 0.0, "data": 0.0, "step": 0.0}
        self.mean_loss = 0.0
        self._ended = time.perf_counter()
        spec = recipe.network
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Give logits (n, 1, y, x) of pixels (n, band, y, x) in [0, 1]."""
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
        asked = self.run_progress.done >= fit.unsure_from
        mask = settle_unsure(mask, logits.detach()[:, 0].float().sigmoid() if asked else None, fit.unsure_above)
        loss = weigh_losses(self.recipe.loss, logits, mask)
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

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate that the progress asks for."""
        self.seconds["data"] += time.perf_counter() - self._ended
        fit = self.recipe.fit
        factor = learning_rate_factor(self.run_progress.done, warm_up=fit.warm_up, last=fit.last_learning_rate)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = fit.learning_rate * factor

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss and the time; stop at the end of the schedule."""
        now = time.perf_counter()
        loss = float(outputs["loss"])
        self.mean_loss += (loss - self.mean_loss) * max(0.02, 1 / (self.run_progress.step + 1))
        self.run_progress.advance()
        self.seconds["step"] += now - self._ended
        self._ended = now
        if self.run_progress.step % _LOG_EVERY == 0:
            self._log_step()
        self.trainer.should_stop = self.run_progress.done >= 1

    def _log_step(self) -> None:
        progress, took = self.run_progress, max(1e-9, self.seconds["step"])
        mpx = progress_mpx(self.recipe) * _LOG_EVERY / took
        shares = (100 * self.seconds[key] / took for key in ("augment", "data"))
        message = "step %d, %.1f %%, loss %.4f, %.3f Mpx/s (%.1f %% of the time augmenting, %.1f %% waiting for data)"
        log.info(message, progress.step, 100 * progress.done, self.mean_loss, mpx, *shares)
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.scores = IouCurve(self.scores.sources)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count the predictions of one batch of chips."""
        logits = self(batch["image"].float() / self.recipe.network.pixel_max)
        self.scores.update(logits[:, 0].float().sigmoid(), batch["mask"], batch["source"])

    def on_validation_epoch_end(self) -> None:
        """Log the mean IoU over the sources, which chooses the best checkpoint."""
        threshold = self.recipe.threshold
        self.log("iou", self.scores.mean_iou(threshold))
        listed = ", ".join(f"{name} {iou:.4f}" for name, iou in self.scores.iou(threshold).items())
        mean, best = self.scores.mean_iou(threshold), self.scores.best_threshold()
        at_best = self.scores.mean_iou(best)
        log.info("validation IoU %.4f (%s); at the best threshold %.2f %.4f", mean, listed, best, at_best)
        self._ended = time.perf_counter()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser; biases and normalisation layers get no weight decay."""
        fit = self.recipe.fit
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": fit.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if fit.optimiser == "adamw" else torch.optim.Adam
        return kind(groups, lr=fit.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the progress."""
        progress = self.run_progress
        checkpoint["geoseg_progress"] = {"step": progress.step, "used_s": progress.used_s, "loss": self.mean_loss}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the progress up again."""
        kept = checkpoint["geoseg_progress"]
        self.run_progress.step, self.run_progress.used_s = kept["step"], kept["used_s"]
        self.mean_loss = kept.get("loss", 0.0)


def progress_mpx(recipe: Recipe) -> float:
    """Return the megapixels that one step trains."""
    return recipe.fit.batch * recipe.fit.crop_px**2 / 1e6
