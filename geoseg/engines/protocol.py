"""What every engine promises, what it declares before it is loaded, and the cores that it may use."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.artifact import Form
from geoseg.bundle import Bundle


class Engine(Protocol):
    """Runs a network on chips of one shape; safe to call from several threads at once."""

    name: str
    """Library, version and device, for logs and `run.json`."""

    batch_size: int
    """Chips that the engine takes best at a time."""

    threads: int
    """Threads that should call it at a time."""

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn chips into probabilities.

        Args:
            chips: `(n, band, y, x)` pixel values as the model's specification wants them, not yet normalized.

        Returns:
            `(n, class, y, x)` probabilities in [0, 1]. A chip's result does not depend on its neighbors in the batch.
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
    """What an engine runs; nothing of its library is imported for it.

    Attributes:
        name: The library, for messages.
        package: What `import` calls it.
        forms: Formats of models.
        devices: Where it runs them, the preferred ones first.
        load: Loads a bundle; raises what the user should do where the library or a device does not serve.
        precisions: What it computes in on a GPU.
        is_parallel: True where one thread per core should call it on the CPU; False where it uses the cores by itself.
        has_gpu: Returns True where a device other than the CPU is present; asked only about those in `devices`.
        no_gpu: Message of the error where such a device was asked for and is absent, with `{device}` to fill in.
    """

    name: str
    package: str
    forms: tuple[Form, ...]
    devices: tuple[str, ...]
    load: Callable[[Bundle, EngineOptions], Engine]
    precisions: tuple[str, ...] = ("f32",)
    is_parallel: bool = False
    has_gpu: Callable[[str], bool] = lambda device: False
    no_gpu: str = ""

    def supports(self, form: Form, device: str) -> bool:
        """Return True where the engine runs this format on this device, if both are there."""
        return form in self.forms and device in self.devices

    def is_installed(self) -> bool:
        """Return True where its library can be imported."""
        return importlib.util.find_spec(self.package) is not None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
