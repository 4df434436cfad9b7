"""From raw pixels to probabilities: what an engine runs and what is exported."""

from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Segmenter"]


class Normalization(Protocol):
    """The part of a `ModelSpec` that a `Segmenter` needs."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def pixel_max(self) -> float: ...

    @property
    def classes(self) -> tuple[str, ...]: ...


class Segmenter(nn.Module):
    """A network with its normalization in front and its probabilities behind.

    `forward` takes raw pixels (n, band, y, x) float in [0, pixel_max] and gives (n, class, y, x) float in [0, 1]:
    a sigmoid for one class, a softmax over several.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, spec: Normalization) -> None:
        """Wrap `network` with the mean, std, pixel_max and classes of `spec`."""
        super().__init__()
        self.network = network
        self.is_binary = len(spec.classes) == 1
        std = torch.tensor(spec.std, dtype=torch.float32)[:, None, None]
        mean = torch.tensor(spec.mean, dtype=torch.float32)[:, None, None]
        self.register_buffer("scale", 1.0 / (std * spec.pixel_max), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Give probabilities (n, class, y, x) of raw pixels (n, band, y, x)."""
        logits: Tensor = self.network(pixels * self.scale + self.shift)
        return logits.sigmoid() if self.is_binary else logits.softmax(dim=1)
