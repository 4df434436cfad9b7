"""Progress of a run, learning rate, moving average of the weights, precision and device."""

import math
import time
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from geoseg.errors import RecipeError

__all__ = [
    "Progress",
    "WeightAverage",
    "check_device",
    "choose_precision",
    "keep_depthwise_full",
    "learning_rate_factor",
]

_RISE = 0.3
"""Share of a one-cycle run that rises: Smith 2018, https://arxiv.org/abs/1803.09820, and torch's OneCycleLR."""


@dataclass
class Progress:
    """Progress of a run: steps, and time with that of earlier calls; 0 `steps` set no limit."""

    steps: int
    minutes: float
    step: int = 0
    used_s: float = 0.0
    _since: float = field(default_factory=lambda: time.monotonic())

    def advance(self) -> None:
        """Count one step and the time since the last one."""
        now = time.monotonic()
        self.step, self.used_s, self._since = self.step + 1, self.used_s + now - self._since, now

    def start(self) -> None:
        """Count time from now on, not from before loading."""
        self._since = time.monotonic()

    @property
    def done(self) -> float:
        """Progress in [0, 1]: the larger of the shares of steps and time."""
        return min(1.0, max(self.step / self.steps if self.steps else 0.0, self.used_s / (60 * self.minutes)))


def learning_rate_factor(progress: float, *, schedule: str, warm_up: float, last: float) -> float:
    """Return the factor of the learning rate at a progress in [0, 1].

    It rises linearly over `warm_up`. Then `cosine` falls to `last`; `one-cycle` rises over 30 % and falls to `last`;
    `constant` and `plateau`, which has a factor of its own, stay at 1.
    """

    def cosine(first: float, last: float, done: float) -> float:
        return last + (first - last) * (1 + math.cos(math.pi * done)) / 2

    if progress < warm_up:
        return max(progress / warm_up, 1e-3)
    done = min(1.0, (progress - warm_up) / max(1e-9, 1 - warm_up))
    if schedule == "cosine":
        return cosine(1.0, last, done)
    if schedule == "one-cycle":
        return cosine(last, 1.0, done / _RISE) if done < _RISE else cosine(1.0, last, (done - _RISE) / (1 - _RISE))
    return 1.0


class WeightAverage(Callback):
    """Average parameters and BatchNorm statistics exponentially; validate with the average.

    The decay rises as (1 + n) / (10 + n) to `decay`, as in TensorFlow's ExponentialMovingAverage with `num_updates`.

    Lightning's `WeightAveraging` is not used: torch's `AveragedModel` below it copies the weights at its first update
    instead of averaging them, averages whole numbers too, and its checkpoints have the average as the weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Average the state of `network`."""
        self.network, self.decay, self.updates = network, decay, 0
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._own: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Bring the average to the network's device."""
        state = self.network.state_dict()
        self.average = {k: v.to(state[k].device) for k, v in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Take one step towards the network's present weights."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = self.network.state_dict()
        floating = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [state[k] for k in floating], weight)
        for key in state.keys() - set(floating):
            self.average[key].copy_(state[key])

    def on_validation_start(self, *args: Any, **kwargs: Any) -> None:
        """Give the network the averaged weights."""
        self._own = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)

    def on_validation_end(self, *args: Any, **kwargs: Any) -> None:
        """Give the network its own weights back."""
        self.network.load_state_dict(self._own)
        self._own = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.average, self.updates = state_dict["average"], state_dict["updates"]


def keep_depthwise_full(network: nn.Module) -> nn.Module:
    """Run the depthwise convolutions of `network` in float32 under a CPU's autocast; return the network.

    oneDNN's backward pass of a depthwise 5x5 convolution takes three to five times longer in bfloat16 than in float32
    (torch 2.15, Xeon with AMX); the whole training step of a U-Net on EfficientNet-Lite2 becomes a quarter shorter.
    The names of the weights stay.
    """

    def forward(self: nn.Conv2d, image: Tensor) -> Tensor:
        if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return type(self).forward(self, image)
        with torch.autocast("cpu", enabled=False):
            return type(self).forward(self, image.float()).to(image.dtype)

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]
    return network


def choose_precision(precision: str, device: str) -> str:
    """Return the precision to train in: `auto` is bfloat16 if the hardware supports it, else float32."""
    if precision != "auto":
        return precision
    if device in ("auto", "cuda") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported()
    elif device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        has_bfloat16 = False
    else:
        tests = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
        has_bfloat16 = any(test() for test in tests if test is not None)
    return "bf16-mixed" if has_bfloat16 else "32-true"


def check_device(device: str) -> None:
    """Check that this machine has the device of a recipe's `fit.device`.

    Raises:
        RecipeError: It does not.
    """
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device, False):
        raise RecipeError(f'fit.device = {device!r}, which this machine does not have; expected "auto" or "cpu"')
