"""Losses of binary logits that leave out pixels without truth; a recipe names them and their weights."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError

__all__ = ["LOSSES", "check_losses", "weigh_losses"]

_EPSILON = 1.0


def binary_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross-entropy of the known pixels' logits (pixel,) and truth (pixel,)."""
    return functional.binary_cross_entropy_with_logits(logits, truth)


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the soft Dice coefficient over all known pixels of the batch (Milletari 2016, without squares)."""
    probability = logits.sigmoid()
    overlap = (probability * truth).sum()
    return 1 - (2 * overlap + _EPSILON) / (probability.sum() + truth.sum() + _EPSILON)


def jaccard(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the soft intersection over union over all known pixels of the batch."""
    probability = logits.sigmoid()
    overlap = (probability * truth).sum()
    return 1 - (overlap + _EPSILON) / (probability.sum() + truth.sum() - overlap + _EPSILON)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy,
    "dice": dice,
    "jaccard": jaccard,
}
"""Losses by the name that a recipe's `[loss]` uses."""


def check_losses(weights: Mapping[str, float]) -> None:
    """Refuse unknown losses, negative weights, and a sum that is nothing.

    Raises:
        RecipeError: naming the key, its value and what is allowed.
    """
    for name, weight in weights.items():
        if name not in LOSSES:
            raise RecipeError(f"unknown key loss.{name} = {weight!r}; expected among {', '.join(LOSSES)}")
        if weight < 0:
            raise RecipeError(f"loss.{name} = {weight!r}; expected a weight of at least 0")
    if not any(weights.values()):
        raise RecipeError(f"loss = {dict(weights)}; expected at least one loss with a weight above 0")


def weigh_losses(weights: Mapping[str, float], logits: Tensor, mask: Tensor) -> Tensor:
    """Add up the losses of the pixels with truth.

    Args:
        weights: weight by name of loss.
        logits: (n, 1, y, x), any float type.
        mask: (n, y, x) of 0, 1 and `IGNORED`.

    Returns:
        A scalar; 0 (with a gradient of 0) when no pixel has truth.
    """
    flat, truth = logits.float().flatten(), mask.flatten()
    known = truth != IGNORED
    if not bool(known.any()):
        return flat.sum() * 0.0
    flat, truth = flat[known], truth[known].float()
    return torch.stack([weight * LOSSES[name](flat, truth) for name, weight in weights.items() if weight]).sum()
