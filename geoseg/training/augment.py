"""Augmentation on the batch, after the crop: each step is one entry of a recipe's `[[augment]]`.

kornia, which comes with torchgeo, has most of these steps one by one; here the geometric ones are multiplied into one
matrix and one `grid_sample` (no second interpolation, and the label goes along without one), the linear colour ones
into one colour matrix per sample. For 8 windows of 384 px on one thread that takes 40 ms, and kornia 0.9's
`AugmentationSequential` with like steps 180 ms, of a training step of 1.2 s.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError
from geoseg.training.kornia_steps import KORNIA, open_step

if TYPE_CHECKING:
    from geoseg.training.recipe import Augmentation

__all__ = ["STEPS", "augment_batch", "check_augmentations"]

STEPS: dict[str, dict[str, Any]] = {
    "flip": {},
    "dihedral": {},
    "affine": {"rotate_deg": 180.0, "scale": [0.7, 1.5]},
    "brightness": {"amount": 0.15},
    "contrast": {"amount": 0.25},
    "saturation": {"amount": 0.4},
    "gain": {"amount": 0.12},
    "hue": {"degrees": 10.0},
    "gamma": {"amount": 0.3},
    "soften": {"factor": 3.5},
    "noise": {"sigma": 0.02},
}
"""The steps and the options that each takes, with their defaults.

`flip` mirrors left to right; `dihedral` flips and turns by 90 degrees; `affine` turns by up to `rotate_deg` and
magnifies by `scale`; `brightness` adds up to `amount` of the full range; `contrast` and `saturation` scale by
1 +- `amount`; `gain` does so for every band by itself (a colour cast); `hue` turns colours about the grey axis; `gamma`
has exponents e^(+-`amount`); `soften` loses detail as if the pixels were up to `factor` times larger; `noise` is
Gaussian. Besides, `kornia:NAME` is any image augmentation of kornia, such as `kornia:RandomPlasmaShadow`, with that
class' own arguments as options.
"""

_COLOUR_ONLY = {"saturation", "hue"}
_GREY = torch.tensor([0.299, 0.587, 0.114])


def check_augmentations(steps: Sequence["Augmentation"]) -> None:
    """Refuse unknown steps and options.

    Raises:
        RecipeError: naming the key, its value and what is allowed.
    """
    for step in steps:
        if step.step.startswith(KORNIA):
            open_step(step.step, step.probability, step.options)
            continue
        if step.step not in STEPS:
            raise RecipeError(
                f"augment.step = {step.step!r}; expected one of {', '.join(STEPS)}, or {KORNIA}NAME of kornia's "
                "augmentations"
            )
        for key, value in step.options.items():
            default = STEPS[step.step].get(key)
            if default is None:
                allowed = ", ".join(STEPS[step.step]) or "no options"
                raise RecipeError(f"augment.{step.step}.options.{key} = {value!r}; expected {allowed}")
            _check_option(f"augment.{step.step}.options.{key}", value, default)


def _check_option(key: str, value: Any, default: Any) -> None:
    pair = isinstance(default, list)
    numbers = value if pair and isinstance(value, list) else [value]
    fits = len(numbers) == (2 if pair else 1) and isinstance(value, list) == pair
    if not fits or any(isinstance(v, bool) or not isinstance(v, int | float) or v < 0 for v in numbers):
        raise RecipeError(f"{key} = {value!r}; expected {'[low, high]' if pair else 'a number of at least 0'}")
    if pair and not 0 < numbers[0] <= numbers[1]:
        raise RecipeError(f"{key} = {value!r}; expected [low, high] above 0")


def augment_batch(
    image: Tensor, mask: Tensor, steps: Sequence["Augmentation"], *, crop_px: int
) -> tuple[Tensor, Tensor]:
    """Cut crops out of larger windows, augmented; random numbers come from torch's global generator.

    Args:
        image: (n, band, y, x) float32 in [0, 1], at least `crop_px` wide and high.
        mask: (n, y, x) uint8 labels.
        steps: what is done: geometry first, then colours, then the others in their order.
        crop_px: side of the crops.

    Returns:
        (n, band, crop_px, crop_px) float32 in [0, 1] and (n, crop_px, crop_px) uint8, `IGNORED` where a crop reaches
        over its window.
    """
    image, mask = _warp(image, mask, _geometry(len(image), steps), crop_px)
    image = _recolour(image, steps)
    for step in steps:
        if step.step.startswith(KORNIA):
            image, mask = open_step(step.step, step.probability, step.options)(image, mask)
        elif step.step in _PIXEL_STEPS:
            chosen = _chosen(len(image), step)
            image = _PIXEL_STEPS[step.step](image, chosen, **{**STEPS[step.step], **step.options})
    return image.clamp_(0, 1), mask


def _chosen(n: int, step: "Augmentation") -> Tensor:
    return torch.rand(n) < step.probability


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high)


def _geometry(n: int, steps: Sequence["Augmentation"]) -> Tensor:
    """Multiply the geometric steps into (n, 2, 2): from an offset in the crop to the offset in its window."""
    matrix = torch.eye(2).repeat(n, 1, 1)
    for step in steps:
        if step.step in _GEOMETRIC_STEPS:
            chosen = _chosen(n, step)[:, None, None]
            move = _GEOMETRIC_STEPS[step.step](n, **{**STEPS[step.step], **step.options})
            matrix = torch.where(chosen, matrix @ move, matrix)
    return matrix


def _dihedral(n: int) -> Tensor:
    turn = _rotation(torch.randint(4, (n,)) * (math.pi / 2)).round()
    flip = torch.diag_embed(torch.stack([torch.randint(2, (n,)) * 2.0 - 1.0, torch.ones(n)], dim=1))
    return turn @ flip


def _flip(n: int) -> Tensor:
    return torch.diag(torch.tensor([-1.0, 1.0])).repeat(n, 1, 1)


def _affine(n: int, *, rotate_deg: float, scale: Sequence[float]) -> Tensor:
    turn = _rotation(_uniform(n, -math.radians(rotate_deg), math.radians(rotate_deg)))
    return turn / _uniform(n, math.log(scale[0]), math.log(scale[1])).exp()[:, None, None]


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


_GEOMETRIC_STEPS: dict[str, Callable[..., Tensor]] = {"flip": _flip, "dihedral": _dihedral, "affine": _affine}


def _warp(image: Tensor, mask: Tensor, matrix: Tensor, crop_px: int) -> tuple[Tensor, Tensor]:
    """Sample crops about the windows' centres: bilinear for the image, nearest for the label."""
    height, width = image.shape[-2:]
    # a crop and its window of one parity share their centre; else the crop lies half a pixel up and left
    lean = torch.tensor([((width - crop_px) % 2) / 2, ((height - crop_px) % 2) / 2])
    offset = torch.arange(crop_px) - (crop_px - 1) / 2
    x, y = torch.meshgrid(offset, offset, indexing="xy")
    where = torch.einsum("nij,yxj->nyxi", matrix, torch.stack([x, y], dim=-1)) - lean
    where = (where * torch.tensor([2 / width, 2 / height])).to(image.device)
    pixels = functional.grid_sample(image, where, mode="bilinear", padding_mode="reflection", align_corners=False)
    shifted = mask[:, None].float() - IGNORED
    labels = functional.grid_sample(shifted, where, mode="nearest", padding_mode="zeros", align_corners=False)
    return pixels, (labels[:, 0] + IGNORED).round().to(torch.uint8)


def _recolour(image: Tensor, steps: Sequence["Augmentation"]) -> Tensor:
    """Apply the linear colour steps as one matrix and one offset per sample."""
    n, bands = image.shape[:2]
    matrix, shift = torch.eye(bands).repeat(n, 1, 1), torch.zeros(n, bands, 1)
    mean = image.mean(dim=(2, 3))[..., None].cpu()
    for step in steps:
        if step.step not in _COLOUR_STEPS or (bands != 3 and step.step in _COLOUR_ONLY):
            continue
        chosen = _chosen(n, step)[:, None, None]
        turn, add = _COLOUR_STEPS[step.step](mean, **{**STEPS[step.step], **step.options})
        matrix, shift = torch.where(chosen, turn @ matrix, matrix), torch.where(chosen, turn @ shift + add, shift)
    flat = torch.baddbmm(shift.to(image.device), matrix.to(image.device), image.flatten(2))
    return flat.view_as(image).clamp_(0, 1)


Colour = tuple[Tensor, Tensor]


def _brightness(mean: Tensor, *, amount: float) -> Colour:
    n, bands = mean.shape[:2]
    return torch.eye(bands).repeat(n, 1, 1), _uniform(n, -amount, amount)[:, None, None].expand(n, bands, 1)


def _contrast(mean: Tensor, *, amount: float) -> Colour:
    """Scale about the sample's mean of each band."""
    n, bands = mean.shape[:2]
    factor = 1 + _uniform(n, -amount, amount)[:, None, None]
    return torch.eye(bands) * factor, mean * (1 - factor)


def _gain(mean: Tensor, *, amount: float) -> Colour:
    n, bands = mean.shape[:2]
    return torch.diag_embed(1 + _uniform(n * bands, -amount, amount).view(n, bands)), torch.zeros_like(mean)


def _saturation(mean: Tensor, *, amount: float) -> Colour:
    factor = 1 + _uniform(len(mean), -amount, amount)[:, None, None]
    grey = _GREY.expand(3, 3)
    return grey + factor * (torch.eye(3) - grey), torch.zeros_like(mean)


def _hue(mean: Tensor, *, degrees: float) -> Colour:
    """Rotate colours about the grey axis (Rodrigues' formula)."""
    angle = _uniform(len(mean), -math.radians(degrees), math.radians(degrees))[:, None, None]
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) / 3
    return turn, torch.zeros_like(mean)


_COLOUR_STEPS: dict[str, Callable[..., Colour]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "gain": _gain,
    "saturation": _saturation,
    "hue": _hue,
}


def _gamma(image: Tensor, chosen: Tensor, *, amount: float) -> Tensor:
    exponent = torch.where(chosen, _uniform(len(image), -amount, amount), 0.0).exp()
    return image.clamp_min(1e-4).pow(exponent[:, None, None, None].to(image.device))


def _soften(image: Tensor, chosen: Tensor, *, factor: float) -> Tensor:
    size = image.shape[-2:]
    for i in chosen.nonzero().flatten().tolist():
        loss = float(_uniform(1, 1.0, max(1.0, factor)))
        small = [max(1, round(px / loss)) for px in size]
        coarse = functional.interpolate(image[i : i + 1], small, mode="area")
        image[i : i + 1] = functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return image


def _noise(image: Tensor, chosen: Tensor, *, sigma: float) -> Tensor:
    for i in chosen.nonzero().flatten().tolist():
        image[i] += torch.randn_like(image[i]) * float(_uniform(1, 0.0, sigma))
    return image


_PIXEL_STEPS: dict[str, Callable[..., Tensor]] = {"gamma": _gamma, "soften": _soften, "noise": _noise}
