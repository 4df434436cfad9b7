"""Chips put together: from `(class, y, x)` probabilities of chips to those of a block."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Lattice, Window

Probabilities = NDArray[np.float32]
"""`(class, y, x)` in [0, 1]."""


class Stitch(Protocol):
    """Takes chips in the order of the lattice; holds one float32 per class and pixel of its window, nothing else."""

    def add(self, chip: tuple[int, int], probabilities: Probabilities) -> None:
        """Take the `(class, y, x)` probabilities of a whole chip, halo included."""

    def result(self) -> Probabilities:
        """Return the `(class, y, x)` probabilities of the window; zeros where no chip was."""


class Cropped:
    """Every pixel from the one chip that owns it."""

    def __init__(self, lattice: Lattice, window: Window, classes: int) -> None:
        """Make room for `classes` channels of a window."""
        self.lattice, self.window = lattice, window
        self.out = np.zeros((classes, *window.shape), np.float32)

    def add(self, chip: tuple[int, int], probabilities: Probabilities) -> None:
        """Keep the core of a chip."""
        core, halo = self.lattice.core_window(*chip), self.lattice.halo_px
        own = probabilities[:, halo : halo + core.height, halo : halo + core.width]
        self.out[:, *core.relative_to(self.window).slices] = own

    def result(self) -> Probabilities:
        """Return the cores side by side."""
        return self.out


class Blended:
    """Every pixel from the chips that see it, weighted by a ramp over the halos that adds up to one."""

    def __init__(self, lattice: Lattice, window: Window, classes: int) -> None:
        """Make room for `classes` channels of a window."""
        self.lattice, self.window = lattice, window
        self.out = np.zeros((classes, *window.shape), np.float32)
        self.weight = np.zeros(window.shape, np.float32)

    def add(self, chip: tuple[int, int], probabilities: Probabilities) -> None:
        """Add what a chip sees of the window."""
        seen = self.lattice.chip_window(*chip)
        here = seen.intersect(self.window)
        if here is None:
            return
        ramps = [_ramp(self.lattice, chip[axis], axis) for axis in (0, 1)]
        part, place = here.relative_to(seen), here.relative_to(self.window).slices
        weight = ramps[0][part.rows, None] * ramps[1][None, part.cols]
        self.out[:, *place] += weight * probabilities[:, *part.slices]
        self.weight[place] += weight

    def result(self) -> Probabilities:
        """Return the weighted mean, in the place of the sums."""
        self.out /= np.maximum(self.weight, np.float32(1e-6))
        return self.out


def _ramp(lattice: Lattice, index: int, axis: int) -> NDArray[np.float32]:
    """Return a chip's weights along one axis: a ramp over two halos at each inner border, 1 at the scene's border."""
    size, core, halo = lattice.chip_shape[axis], lattice.core[axis], lattice.halo_px
    if halo == 0:
        return np.ones(size, np.float32)
    rise = np.clip((np.arange(size) + 0.5) / (2 * halo), 0, 1)
    fall = np.clip((size - np.arange(size) - 0.5) / (2 * halo), 0, 1)
    is_first, is_last = index == 0, (index + 1) * core >= lattice.shape[axis]
    return (np.where(is_first, 1, rise) * np.where(is_last, 1, fall)).astype(np.float32)
