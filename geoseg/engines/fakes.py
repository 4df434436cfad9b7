"""Engines without a network, to test the pipeline."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class IdentitySegmenter:
    """Return the first band divided by 254 as the probability: stored values 0-254 come back unchanged, 255 as 254."""

    name: str = "identity"
    batch_size: int = 4
    threads: int = 1

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(n, 1, y, x)`: the first band of `(n, band, y, x)` divided by 254."""
        return np.asarray(np.minimum(chips[:, :1].astype(np.float32) / np.float32(254), np.float32(1)))


@dataclass(frozen=True, slots=True)
class ThresholdSegmenter:
    """Call a pixel a building with probability 1 where the first band is at least `threshold`."""

    threshold: float = 128
    name: str = "threshold"
    batch_size: int = 4
    threads: int = 1

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(n, 1, y, x)`: 1 where the first band of `(n, band, y, x)` reaches the threshold, else 0."""
        return (chips[:, :1] >= self.threshold).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ClassSegmenter:
    """Call a pixel class `value * classes // 256` of its first band, with probability `share`."""

    classes: int = 4
    share: float = 0.75
    name: str = "classes"
    batch_size: int = 4
    threads: int = 1

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(n, class, y, x)`: equal steps of the first band of `(n, band, y, x)` as classes."""
        found = chips[:, :1].astype(np.int64) * self.classes // 256
        is_found = found == np.arange(self.classes)[:, None, None]
        return np.where(is_found, self.share, (1 - self.share) / (self.classes - 1)).astype(np.float32)
