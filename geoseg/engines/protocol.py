"""The protocol of engines, what an engine declares before it is loaded, and engines without a network for tests."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import Bundle
from geoseg.model_file import ModelFormat


class Engine(Protocol):
    """Runs a network on chips of one shape; safe to call from several threads at once."""

    name: str
    """Library, version and device, for logs and `run.json`."""

    batch_size: int
    """Best number of chips per call."""

    threads: int
    """Threads that should call it at the same time."""

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn chips into probabilities.

        Args:
            chips: `(n, band, y, x)` pixel values as the model's specification wants them, not yet normalized.

        Returns:
            `(n, channel, y, x)` probabilities in [0, 1]. A chip's result does not depend on its neighbors in the batch.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is loaded.

    Attributes:
        chip_shape: Height and width of the chips, pixels.
        device: `cpu`, `cuda` or `mps`.
        threads: CPU threads in all; every core by default.
        precision: `f32`, `bf16` or `f16`.
    """

    chip_shape: tuple[int, int]
    device: str
    threads: int | None
    precision: str


@dataclass(frozen=True, slots=True)
class Support:
    """What an engine runs, without importing its library.

    Attributes:
        name: The library, for messages.
        package: What `import` calls it.
        formats: Formats of models.
        devices: Where it runs them, the preferred ones first.
        load: Loads a bundle; raises an error that says what to do if the library or a device cannot be used.
        precisions: What it computes in, by device; `f32` alone on those that are not named.
        is_parallel: True if one thread per core should call it on the CPU; False if it uses the cores by itself.
        has_gpu: Returns True if a device other than the CPU is present; called only with one of `devices`.
        no_gpu: Error message if such a device was requested and is absent, with `{device}` to fill in.
    """

    name: str
    package: str
    formats: tuple[ModelFormat, ...]
    devices: tuple[str, ...]
    load: Callable[[Bundle, EngineOptions], Engine]
    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_parallel: bool = False
    has_gpu: Callable[[str], bool] = lambda device: False
    no_gpu: str = ""

    def supports(self, model_format: ModelFormat, device: str) -> bool:
        """Return True if the engine runs this format on this device."""
        return model_format in self.formats and device in self.devices

    def precisions_on(self, device: str) -> tuple[str, ...]:
        """Return what it computes in on one of its devices."""
        return self.precisions.get(device, ("f32",))

    def is_installed(self) -> bool:
        """Return True if its library can be imported."""
        return importlib.util.find_spec(self.package) is not None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DihedralEngine:
    """Mean of the predictions of a chip's eight views: its four rotations, and those of its mirror image.

    The views are always added up in the same order, so a chip always gets the same numbers.
    """

    def __init__(self, upright: Engine, turned: Engine) -> None:
        """Wrap an engine for chips as they are, and one for chips turned by a quarter: the same if they are square."""
        self.name, self.batch_size, self.threads = f"{upright.name}, d4", upright.batch_size, upright.threads
        self._engines = (upright, turned)

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(n, channel, y, x)` probabilities of `(n, band, y, x)` pixel values."""
        total: NDArray[np.float32] | None = None
        for is_mirrored in (False, True):
            for quarters in range(4):
                view = np.rot90(chips[..., ::-1] if is_mirrored else chips, quarters, axes=(-2, -1))
                found = np.rot90(
                    self._engines[quarters % 2].predict(np.ascontiguousarray(view)), -quarters, axes=(-2, -1)
                )
                found = found[..., ::-1] if is_mirrored else found
                total = found.copy() if total is None else np.add(total, found, out=total)
        assert total is not None
        total /= np.float32(8)
        return total


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
    """Call a pixel class `value * classes // 256` of its first band, with probability `share`.

    Auxiliary channel `k`, counted from 1, is the first band divided by `255 (k + 1)`.
    """

    classes: int = 4
    share: float = 0.75
    auxiliary: int = 0
    name: str = "classes"
    batch_size: int = 4
    threads: int = 1

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(n, channel, y, x)`: equal steps of the first band of `(n, band, y, x)` as classes; its shares."""
        found = chips[:, :1].astype(np.int64) * self.classes // 256
        is_found = found == np.arange(self.classes)[:, None, None]
        classes = np.where(is_found, self.share, (1 - self.share) / max(1, self.classes - 1))
        auxiliary = chips[:, :1] / (255.0 * np.arange(2, self.auxiliary + 2)[:, None, None])
        return np.concatenate([classes, auxiliary], axis=1).astype(np.float32)
