"""What every engine promises, and the cores that it may use."""

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
            chips: `(n, band, y, x)` pixel values as the model's specification wants them, not yet normalised.

        Returns:
            `(n, class, y, x)` probabilities in [0, 1]. A chip's result does not depend on its neighbours in the batch.
        """
        ...


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
