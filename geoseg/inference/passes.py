"""The passes of one block through the network: one, or one per scene whose probabilities are averaged."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.inference.stitch import Probabilities
from geoseg.mosaic import Composite, CountedMask
from geoseg.scene import Scene

Predicted = tuple[Probabilities | None, NDArray[np.bool_]]
"""`(class, y, x)` probabilities of a block, None where none was asked for, and where they count: one pixel more."""


class ValidReader(Protocol):
    """Says where pixels count."""

    def read_valid(self, window: Window) -> NDArray[np.bool_]:
        """Return the `(y, x)` mask of a window that may hang over the border, where it is False."""


def counted(scene: Scene, dataset: ValidReader, reach: Window) -> ValidReader:
    """Return what says which pixels a pass gives: those of the scene on top, where there is one, else all valid ones.

    Args:
        scene: The pass.
        dataset: Its pixels.
        reach: The window inside which it will be asked.
    """
    on_top = scene.counted if isinstance(scene, Composite) else None
    return CountedMask(on_top, reach) if on_top is not None else dataset


def mean_of_passes(passes: Sequence[Scene], predict: Callable[[Scene], Predicted]) -> Predicted:
    """Predict every pass and average the probabilities of those that count, pixel by pixel, in the order given.

    Every step is one operation per pixel, so neither blocks nor libraries change a result; where one pass counts, the
    mean is what it gave.
    """
    if len(passes) == 1:
        return predict(passes[0])
    total: Probabilities | None = None
    count: NDArray[np.float32] = np.zeros((), np.float32)
    valid: NDArray[np.bool_] = np.zeros((), bool)
    for scene in passes:
        stitched, gives = predict(scene)
        valid = valid | gives
        if stitched is not None:
            inside = gives[1:-1, 1:-1]
            stitched *= inside
            total = stitched if total is None else np.add(total, stitched, out=total)
            count = count + inside.astype(np.float32)
    if total is not None:
        total /= np.maximum(count, np.float32(1))
    return total, valid
