"""Connected components of a graph, in numpy."""

import numpy as np
from numpy.typing import NDArray


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
