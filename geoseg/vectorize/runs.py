"""Runs: horizontal stretches of mask pixels, and the 4-connected components they form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Pixels `start .. stop - 1` of a row, for every run; sorted by row, then by start. All arrays are `(run,)`."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.row)

    @property
    def length(self) -> NDArray[np.int64]:
        """Pixels of each run."""
        return self.stop - self.start


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Find the runs of a `(y, x)` mask."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), dtype=bool)
    padded[:, :width] = mask
    flat = padded.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        changes = np.concatenate(([0], changes))
    row, start = np.divmod(changes[::2], width + 1)
    return Runs(row, start, start + changes[1::2] - changes[::2])


def label_runs(runs: Runs) -> tuple[int, NDArray[np.int64]]:
    """Number the 4-connected components of the runs by their first pixel, row by row.

    Returns:
        The number of components and the component of every run, `(run,)`.
    """
    if not len(runs):
        return 0, np.zeros(0, dtype=np.int64)
    stride = int(runs.stop.max()) + 1
    start, stop = runs.row * stride + runs.start, runs.row * stride + runs.stop
    first = np.searchsorted(stop, start + stride, side="right")
    last = np.searchsorted(start, stop + stride, side="left")
    above, below = expand_ranges(first, last)
    return connected_components(len(runs), above, below)


def expand_ranges(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List every pair `(i, j)` with `first[i] <= j < last[i]`."""
    count = np.maximum(last - first, 0)
    i = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, first[i] + offset


def connected_components(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Number the components of the graph whose edges join node `a[i]` to node `b[i]`.

    Every round hooks each root below the smallest root next to it and then flattens the trees (Shiloach and Vishkin,
    "An O(log n) parallel connectivity algorithm", 1982), so a round is a handful of numpy calls.

    Args:
        count: Number of nodes.
        a: First nodes of the edges, `(edge,)`.
        b: Second nodes of the edges, `(edge,)`.

    Returns:
        The number of components and the component of every node. Components are numbered by their smallest node.
    """
    root = np.arange(count, dtype=np.int64)
    while a.size:
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        root = _flatten(root)
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
    is_root = root == np.arange(count)
    return int(is_root.sum()), (np.cumsum(is_root) - 1)[root]


def _flatten(root: NDArray[np.int64]) -> NDArray[np.int64]:
    """Point every node at the root of its tree."""
    while True:
        above = root[root]
        if np.array_equal(above, root):
            return root
        root = above
