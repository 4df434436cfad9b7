"""A moving average of the weights, used for validation and for the bundle."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage(Callback):
    """Average parameters and BatchNorm statistics exponentially; validate with the average.

    The decay rises as (1 + n) / (10 + n) to `decay`, so that the first weights are soon forgotten (as TensorFlow's
    ExponentialMovingAverage does with `num_updates`). A decay of 0 is the weights themselves.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Average the state of `network`."""
        self.network, self.decay, self.updates = network, decay, 0
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._own: dict[str, Tensor] | None = None

    def update(self) -> None:
        """Take one step towards the network's present weights."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = self.network.state_dict()
        floating = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [state[k] for k in floating], weight)
        for key in state.keys() - set(floating):
            self.average[key].copy_(state[key])

    def swap_in(self) -> None:
        """Give the network the averaged weights, keeping its own aside."""
        self._own = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)

    def swap_out(self) -> None:
        """Give the network its own weights back."""
        if self._own is not None:
            self.network.load_state_dict(self._own)
        self._own = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Bring the average to the network's device."""
        state = self.network.state_dict()
        self.average = {k: v.to(state[k].device) for k, v in self.average.items()}

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Update after every step."""
        with torch.no_grad():
            self.update()

    def on_validation_start(self, *args: Any, **kwargs: Any) -> None:
        """Validate the average."""
        self.swap_in()

    def on_validation_end(self, *args: Any, **kwargs: Any) -> None:
        """Train the weights."""
        self.swap_out()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint."""
        self.average, self.updates = state_dict["average"], state_dict["updates"]
