"""An exported network gives what torch gives, or it is not written."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.bundle import Bundle, ModelSpec
from geoseg.errors import ExportError
from geoseg.networks import load_segmenter

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]

SMALLEST_CHECK_PX = 32
LARGEST_CHECK_PX = 512
"""Chips of the check are no larger, so that it takes seconds."""

TOLERANCES = {"f32": 1e-4, "f16": 2e-2}
"""Largest difference of a probability by precision of the weights. 1e-4 is a fortieth of a stored gray level."""


@dataclass(frozen=True, slots=True)
class Check:
    """How far an exported network is from torch.

    Attributes:
        runtime: What ran it.
        max_difference: Largest difference of a probability.
        mean_difference: Mean difference.
        tolerance: Largest difference allowed.
        shapes: `(n, band, y, x)` of the pixels that were compared.
    """

    runtime: str
    max_difference: float
    mean_difference: float
    tolerance: float
    shapes: tuple[tuple[int, ...], ...]


def check_export(bundle: Bundle, predict: Predict, *, runtime: str, weights: str = "f32") -> Check:
    """Compare an exported network with torch on noise and on pixels like a scene's, at two sizes.

    Args:
        bundle: The model.
        predict: Runs the exported network on `(n, band, y, x)` pixel values.
        runtime: What runs it, for the report.
        weights: `f32` or `f16`.

    Raises:
        ExportError: If a probability differs by more than the tolerance, or a shape does.
    """
    model, tolerance = load_segmenter(bundle), TOLERANCES[weights]
    pixels = [draw(bundle.spec, shape) for shape in check_shapes(bundle.spec) for draw in (_noise, _scene)]
    differences = []
    for chips in pixels:
        with torch.inference_mode():
            expected = model(torch.from_numpy(chips)).numpy()
        found = predict(chips)
        if found.shape != expected.shape:
            raise ExportError(
                f"The exported network gives {found.shape} for pixels of {chips.shape}; expected {expected.shape}. The "
                "export froze the sizes: export to another format, and please report it."
            )
        differences.append(np.asarray(np.abs(found - expected), np.float32))
    largest = max(float(difference.max()) for difference in differences)
    if not largest <= tolerance:  # NaN is refused too
        raise ExportError(
            f"{bundle.spec.name} exported gives other probabilities than torch: they differ by up to {largest:.2g} in "
            f"{runtime}, more than {tolerance:g}. Nothing was written. Export to another format, and please report it."
        )
    mean = float(np.mean([difference.mean() for difference in differences]))
    return Check(runtime, largest, mean, tolerance, tuple(chips.shape for chips in pixels))


def check_shapes(spec: ModelSpec) -> tuple[tuple[int, int, int, int], ...]:
    """Return what is compared: two small oblong chips, and one as large as the model's, but for a limit.

    The small ones are odd multiples of the stride, which are the hardest to get right.
    """
    stride, bands = spec.stride_px, len(spec.bands)
    odd = 2 * math.ceil(SMALLEST_CHECK_PX / stride / 2) + 1
    large = max(odd, min(spec.chip_px, LARGEST_CHECK_PX) // stride) * stride
    return (2, bands, odd * stride, (odd + 2) * stride), (1, bands, large, large)


def _noise(spec: ModelSpec, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return independent whole pixel values from the model's whole range."""
    return np.random.default_rng(0).integers(0, int(spec.pixel_max), shape, endpoint=True).astype(np.float32)


def _scene(spec: ModelSpec, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return ground that varies slowly, with bright rectangles that throw a shadow, as roofs do."""
    rng = np.random.default_rng(1)
    n, bands, height, width = shape
    coarse = torch.from_numpy(rng.random((n, bands, 5, 5), np.float32))
    ground = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").numpy() * 0.4 + 0.2
    for y, x in rng.integers(0, (height - 12, width - 12), (max(4, height * width // 4000), 2)):
        ground[:, :, y + 2 : y + 12, x + 2 : x + 12] *= 0.5
        ground[:, :, y : y + 10, x : x + 10] = rng.uniform(0.5, 1, (n, bands, 1, 1))
    return np.round(ground * spec.pixel_max).astype(np.float32)
