"""Augmentations of kornia as steps of a recipe: `kornia:NAME` with the arguments of that class as options."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError

__all__ = ["KORNIA", "open_step"]

KORNIA = "kornia:"

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def open_step(step: str, probability: float, options: Mapping[str, Any]) -> Step:
    """Return what changes images (n, band, y, x) in [0, 1] and masks (n, y, x) uint8.

    Args:
        step: `kornia:` and the name of a class of `kornia.augmentation`, geometric (the mask goes along, `IGNORED`
            where it is empty) or of intensity (the mask stays).
        probability: how often an image is changed.
        options: the class' keyword arguments.

    Raises:
        RecipeError: there is no such class, or it does not take these options.
    """
    return _open(step, probability, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=64)
def _open(step: str, probability: float, options: str) -> Step:
    kind = _find(step.removeprefix(KORNIA))
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(options).items()}
    try:
        augmentation = kind(**given, p=probability)
    except Exception as err:  # kornia checks its arguments with errors of many kinds
        raise RecipeError(
            f"augment.{step}.options = {given}; expected what kornia takes, {inspect.signature(kind)}: {err}"
        ) from err

    def apply(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        from kornia.augmentation import AugmentationSequential
        from kornia.constants import DataKey

        sequence = AugmentationSequential(augmentation, data_keys=["input", "mask"], extra_args=_nearest(DataKey.MASK))
        changed, moved = sequence(image, mask[:, None].float() - IGNORED)
        return changed, (moved[:, 0] + IGNORED).round().to(mask.dtype)

    return apply


def _nearest(key: Any) -> dict[Any, dict[str, Any]]:
    return {key: {"resample": "nearest", "align_corners": False}}


def _find(name: str) -> Any:
    import kornia.augmentation as library
    from kornia.augmentation import IntensityAugmentationBase2D

    bases = (IntensityAugmentationBase2D, library.GeometricAugmentationBase2D)
    found = {n: k for n, k in vars(library).items() if inspect.isclass(k) and issubclass(k, bases) and k not in bases}
    if name not in found:
        raise RecipeError(f"augment.step = {KORNIA + name!r}; expected one of {', '.join(sorted(found))} of kornia")
    return found[name]
