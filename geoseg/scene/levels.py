"""Levels: which pixel values become black and white."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geoseg.scene.scene import Scene

Levels = tuple[tuple[float, float], ...]
"""Per band the values `(low, high)` that become 0 and 255."""

LEVEL_PERCENTILES = (2.0, 98.0)
LEVEL_SAMPLE_PX = 1024


def stretch(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Map each band's `(low, high)` to 0 and 255, clipped; `(band, y, x)` of any type to uint8."""
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*levels, strict=True))
    scaled = (values.astype(np.float32) - low) * (255 / np.maximum(high - low, np.float32(1e-12)))
    stretched: NDArray[np.uint8] = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return stretched


def measure_levels(scene: "Scene") -> Levels:
    """Return the percentiles of the valid pixels of a whole scene, read at `LEVEL_SAMPLE_PX`."""
    factor = max(1.0, max(scene.native.shape) / LEVEL_SAMPLE_PX)
    height, width = (max(1, round(n / factor)) for n in scene.native.shape)
    sample = scene.at_shape((height, width))
    pixels = sample.read(sample.grid.window)
    if not pixels.valid.any():
        return tuple((0.0, 1.0) for _ in scene.bands)
    low, high = np.percentile(pixels.values[:, pixels.valid], LEVEL_PERCENTILES, axis=1)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))
