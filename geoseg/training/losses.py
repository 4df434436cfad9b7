"""Losses by the names of a recipe's `[loss]`, of sigmoid and softmax networks, over the labeled pixels.

One channel is the probability of the one class (sigmoid); several channels compete (softmax). Pixels of `IGNORED` and
`UNSURE` are masked before anything is computed, so that whatever a network predicts there, infinities included, changes
neither loss nor gradient. All losses are computed in float32, under autocast too. Overlap losses (Dice, Jaccard,
Tversky) are summed over the whole batch, as most windows of 100 m have too few buildings to be scored one by one.

Of several classes the overlap losses average those that the batch's labels have. A missing class cannot overlap: its
loss would be 1 with almost no gradient, and what is wrongly predicted as such a class is already missing from another.
(segmentation-models-pytorch 0.6 counts absent classes as 0 in the same mean, and a binary batch without buildings not
at all, so that false positives there cost nothing; its multi-class focal loss treats softmax channels as sigmoid ones.
Its Lovasz loss is Berman's own and is used here.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from geoseg.datasets.auxiliary import FULL
from geoseg.datasets.labels import UNSURE
from geoseg.errors import RecipeError

__all__ = [
    "LOSSES",
    "LossMeans",
    "add_terms",
    "auxiliary_terms",
    "check_losses",
    "distillation_loss",
    "loss_terms",
    "weigh_means",
]

_NOTHING = 1e-6
"""Keeps the gradient of a root finite where a loss is 0."""


def check_losses(losses: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Check the table `[loss]` of a recipe: names, options, values, and whether the classes allow the losses.

    Raises:
        RecipeError: Names the key, its value and what is allowed.
    """
    listed = f"network.classes = {list(classes)}"
    for name, entry in losses.items():
        if name not in LOSSES:
            raise RecipeError(f"unknown key loss.{name} = {entry!r}; expected among {', '.join(LOSSES)}")
        table = entry if isinstance(entry, Mapping) else {"weight": entry}
        weight, options = table.get("weight", 1.0), _options(entry)
        key = f"loss.{name}.weight" if table is entry else f"loss.{name}"
        _expect(key, weight, _is_number(weight), "a weight of at least 0")
        for option in options.keys() - LOSSES[name].keys():
            allowed = ", ".join(["weight", *LOSSES[name]])
            raise RecipeError(f"unknown key loss.{name}.{option} = {options[option]!r}; expected among {allowed}")
        if name == "bce" and len(classes) != 1:
            raise RecipeError(f"loss.bce is for one class, and {listed}; expected loss.ce, or one class")
        if name == "ce" and len(classes) < 2:
            raise RecipeError(
                f'loss.ce is for several classes, and {listed}; expected loss.bce, or "background" as a class'
            )
        _check_options(name, LOSSES[name] | options, len(classes))
    if not any(_weight(entry) for entry in losses.values()):
        raise RecipeError(f"loss = {dict(losses)}; expected at least one loss with a weight above 0")


def _check_options(name: str, options: Mapping[str, Any], classes: int) -> None:
    for option, value in options.items():
        key = f"loss.{name}.{option}"
        if option == "class_weights" or (option == "alpha" and name == "focal" and classes > 1):
            is_list = isinstance(value, list | tuple) and len(value) == classes and all(map(_is_number, value))
            fits = value is None or (is_list and any(value))
            _expect(key, value, fits, f"{classes} weights of at least 0, one for each of network.classes")
        elif option == "alpha" and name == "focal":
            _expect(key, value, value is None or (_is_number(value) and 0 < value < 1), "a number between 0 and 1")
        elif option in ("alpha", "beta") or (option == "gamma" and name == "focal"):
            _expect(key, value, _is_number(value), "a number of at least 0")
        else:
            _expect(key, value, _is_number(value) and value > 0, "a number above 0")
    if name == "tversky" and not options["alpha"] + options["beta"]:
        raise RecipeError("loss.tversky.alpha = 0 and loss.tversky.beta = 0; expected one of them above 0")


def _expect(key: str, value: Any, fits: bool, allowed: str) -> None:
    if not fits:
        raise RecipeError(f"{key} = {value!r}; expected {allowed}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _weight(entry: Any) -> float:
    return float(entry.get("weight", 1.0) if isinstance(entry, Mapping) else entry)


def _options(entry: Any) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != "weight"} if isinstance(entry, Mapping) else {}


def loss_terms(losses: Mapping[str, Any], logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return every loss by name, not weighted; 0 (with a gradient of 0) if no pixel has a label.

    Args:
        losses: By name a weight, or a table of `weight` and options; checked by `check_losses`.
        logits: (n, class, y, x), any float type.
        mask: (n, y, x) of class indices (one channel: 0 and 1), `UNSURE` and `IGNORED`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        known = _Known(logits, mask)
        return {name: _TERMS[name](known, **_options(entry)) for name, entry in losses.items()}


def auxiliary_terms(
    channels: Sequence[str], logits: Tensor, targets: Tensor, *, gamma: float = 0.0
) -> dict[str, Tensor]:
    """Return the loss of every auxiliary channel by name, not weighted: cross-entropy plus Dice over the known pixels.

    Of `distance`, whose truth is a share, it is the cross-entropy alone.

    Args:
        channels: Names of the channels.
        logits: (n, channel, y, x), any float type; each is a sigmoid.
        targets: (n, channel, y, x) uint8 of `draw_auxiliary`.
        gamma: Of the focal loss; 0 is plain cross-entropy.
    """
    terms = {}
    with torch.autocast(logits.device.type, enabled=False):
        for number, name in enumerate(channels):
            mask = targets[:, number]
            if name == "distance":
                here = mask <= FULL
                share = mask.masked_fill(~here, 0).float() / FULL
                logit = logits[:, number].float().masked_fill(~here, 0.0)
                loss = functional.binary_cross_entropy_with_logits(logit, share, reduction="none") * here
                terms[name] = loss.sum() / here.sum().clamp_min(1)
            else:
                known = _Known(logits[:, number : number + 1], mask)
                terms[name] = (focal(known, gamma=gamma) if gamma else bce(known)) + dice(known)
    return terms


def distillation_loss(logits: Tensor, taught: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean over all pixels of how far probabilities are from those of a teacher, 0 where they are equal.

    It is the Kullback-Leibler divergence: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, at
    temperature 1; labels have no part in it. Images that are not chosen count as 0.

    Args:
        logits: (n, class, y, x), any float type; one class is a sigmoid, several are a softmax.
        taught: The teacher's probabilities, (n, class, y, x).
        chosen: (n,) True for the images that count.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, taught = logits.float(), taught.float()
        if logits.shape[1] == 1:
            logits = torch.cat([logits, torch.zeros_like(logits)], dim=1)
            taught = torch.cat([taught, 1 - taught], dim=1)
        away = functional.kl_div(logits.log_softmax(dim=1), taught, reduction="none").sum(dim=1)
        return (away * chosen[:, None, None]).mean()


def add_terms(losses: Mapping[str, Any], terms: Mapping[str, Tensor]) -> Tensor:
    """Return the weighted sum of the results of `loss_terms` and `auxiliary_terms`."""
    return torch.stack([_weight(entry) * terms[name] for name, entry in losses.items() if _weight(entry)]).sum()


def weigh_means(losses: Mapping[str, Any], means: Mapping[str, float]) -> float:
    """Return the weighted sum of the result of `LossMeans.means`."""
    return sum(_weight(entry) * means.get(name, float("nan")) for name, entry in losses.items() if _weight(entry))


class LossMeans:
    """Means of loss terms over batches, weighted by the number of labeled pixels."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._pixels: Tensor | int = 0

    def update(self, terms: Mapping[str, Tensor], mask: Tensor) -> None:
        """Add the terms of a batch with the mask (n, y, x)."""
        pixels = (mask < UNSURE).sum().double()
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().double() * pixels
        self._pixels = self._pixels + pixels

    def means(self) -> dict[str, float]:
        """Return the means by name; NaN if no pixel had a label."""
        pixels = float(self._pixels) or float("nan")
        return {name: float(total) / pixels for name, total in self._sums.items()}


@dataclass(frozen=True)
class _Known:
    """Logits and labels of a batch, and what losses share; pixels without a label are masked."""

    given: Tensor
    mask: Tensor

    @cached_property
    def here(self) -> Tensor:
        """(n, 1, y, x) True where there is a label."""
        return (self.mask < UNSURE)[:, None]

    @cached_property
    def pixels(self) -> Tensor:
        """Number of labeled pixels, at least 1."""
        return self.here.sum().clamp_min(1)

    @cached_property
    def logits(self) -> Tensor:
        """(n, class, y, x) float32, 0 without a label."""
        return self.given.float().masked_fill(~self.here, 0.0)

    @cached_property
    def labels(self) -> Tensor:
        """(n, y, x) int64, 0 without a label."""
        return self.mask.masked_fill(~self.here[:, 0], 0).long()

    @property
    def is_binary(self) -> bool:
        """Whether there is one channel, a sigmoid's."""
        return self.given.shape[1] == 1

    @cached_property
    def truth(self) -> Tensor:
        """(n, class, y, x) float32: 1 in the channel of a pixel's class, else 0."""
        first, channels = (1, 1) if self.is_binary else (0, self.given.shape[1])
        classes = torch.arange(first, first + channels, dtype=self.mask.dtype, device=self.mask.device)
        return (self.mask[:, None] == classes[:, None, None]).float()

    @cached_property
    def log_truth(self) -> Tensor:
        """(n, y, x) log of the true class' probability, 0 without a label."""
        if self.is_binary:
            loss = functional.binary_cross_entropy_with_logits(self.logits, self.truth, reduction="none")[:, 0]
        else:
            loss = functional.cross_entropy(self.logits, self.labels, reduction="none")
        return -loss * self.here[:, 0]

    @cached_property
    def overlap(self) -> tuple[Tensor, Tensor, Tensor]:
        """Soft true positives, false positives and false negatives, each (class,)."""
        probability = (self.logits.sigmoid() if self.is_binary else self.logits.softmax(dim=1)) * self.here
        both, given, true = ((t.sum(dim=(0, 2, 3))) for t in (probability * self.truth, probability, self.truth))
        return both, given - both, true - both

    def mean_of_classes(self, losses: Tensor) -> Tensor:
        """Average (class,) losses over the classes that the labels have; that of a sigmoid always counts."""
        counts = torch.ones_like(losses) if self.is_binary else (self.truth.sum(dim=(0, 2, 3)) > 0).float()
        return (losses * counts).sum() / counts.sum().clamp_min(1)


_TERMS: dict[str, Callable[..., Tensor]] = {}


def _loss(term: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register a function as the loss of its name; its keyword arguments are the options."""
    _TERMS[term.__name__] = term
    return term


@_loss
def bce(known: _Known, *, positive_weight: float = 1.0) -> Tensor:
    """Mean binary cross-entropy, pixels of the class counting `positive_weight` times.

    As with torch's `pos_weight`, the sum is not divided by the weights.
    """
    weights = 1 + (positive_weight - 1) * known.truth[:, 0]
    return -(known.log_truth * weights).sum() / known.pixels


@_loss
def ce(known: _Known, *, class_weights: Sequence[float] | None = None) -> Tensor:
    """Mean cross-entropy of several classes, each pixel weighted by the `class_weights` of its class.

    With weights the sum is divided by their sum over the pixels, as torch's `cross_entropy` does.
    """
    if class_weights is None:
        return -known.log_truth.sum() / known.pixels
    weights = known.logits.new_tensor(class_weights)[known.labels] * known.here[:, 0]
    return -(known.log_truth * weights).sum() / weights.sum().clamp_min(_NOTHING)


@_loss
def dice(known: _Known) -> Tensor:
    """One minus the soft Dice coefficient: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, without squares.

    With one pixel in numerator and denominator, (2 TP + 1) / (2 TP + FP + FN + 1), so that a batch without buildings
    is best when none are found.
    """
    return _overlap_loss(known, alpha=0.5, beta=0.5, smooth=0.5)


@_loss
def focal(known: _Known, *, alpha: float | Sequence[float] | None = None, gamma: float = 2.0) -> Tensor:
    """Mean of cross-entropy times (1 - p)^`gamma` of the true class' probability p.

    It counts `alpha` times for the class and 1 - `alpha` for the background, or of several classes `alpha` for each.
    Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5, https://arxiv.org/abs/1708.02002; there the sum is
    divided by the number of matched anchors, here by the pixels.
    """
    missing = (-torch.expm1(known.log_truth)).clamp_min(_NOTHING)
    losses = -(missing**gamma) * known.log_truth
    if alpha is not None:
        per_class = [1 - alpha, alpha] if isinstance(alpha, int | float) else list(alpha)
        losses = losses * losses.new_tensor(per_class)[known.labels]
    return losses.sum() / known.pixels


@_loss
def jaccard(known: _Known) -> Tensor:
    """One minus the soft intersection over union, (TP + 1) / (TP + FP + FN + 1).

    Rahman and Wang 2016, https://doi.org/10.1007/978-3-319-50835-1_22, smoothed by one pixel.
    """
    return _overlap_loss(known, alpha=1.0, beta=1.0, smooth=1.0)


@_loss
def lovasz(known: _Known) -> Tensor:
    """Lovasz hinge (one channel) or Lovasz softmax over the classes present: Berman et al. 2018.

    https://arxiv.org/abs/1705.08790, as segmentation-models-pytorch carries the authors' code.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    here = known.here[:, 0]
    if not bool(here.any()):
        return known.logits.sum() * 0.0
    logits = known.logits.movedim(1, -1)[here].T[None, ..., None]  # (1, class, pixel, 1)
    loss: Tensor = LovaszLoss("binary" if known.is_binary else "multiclass")(logits, known.labels[here][None, :, None])
    return loss


@_loss
def tversky(known: _Known, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0) -> Tensor:
    """One minus the soft Tversky index TP / (TP + alpha FP + beta FN), to the power of gamma.

    Salehi et al. 2017, https://arxiv.org/abs/1706.05721; the power is Abraham and Khan 2019,
    https://arxiv.org/abs/1810.07842, whose gamma is 1 / gamma of here (their 4/3 is 0.75).
    """
    return _overlap_loss(known, alpha=alpha, beta=beta, smooth=1.0, gamma=gamma)


def _overlap_loss(known: _Known, *, alpha: float, beta: float, smooth: float, gamma: float = 1.0) -> Tensor:
    both, wrong, missed = known.overlap
    losses = 1 - (both + smooth) / (both + alpha * wrong + beta * missed + smooth)
    return known.mean_of_classes(losses if gamma == 1 else losses.clamp_min(_NOTHING) ** gamma)


LOSSES: dict[str, dict[str, Any]] = {name: dict(term.__kwdefaults__ or {}) for name, term in _TERMS.items()}
"""The losses and the options that each takes, with their defaults."""
