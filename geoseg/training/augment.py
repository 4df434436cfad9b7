"""Augmentation on the batch, after the crop: each step is one entry of a recipe's `[[augment]]`.

A step is a function here, registered as geometric, of color or of pixels; its keyword arguments are the step's
options. `kornia:NAME` is any image augmentation of kornia, such as `kornia:RandomPlasmaShadow`, with the arguments of
that class as options.

kornia, which comes with torchgeo, has most of these steps one by one; here the geometric ones are combined into one
matrix and one `grid_sample`, the linear color ones into one color matrix per sample. For 8 windows of 384 px on one
thread that takes 40 ms, and kornia 0.9's `AugmentationSequential` with similar steps 180 ms, of a training step of
1.2 s.
"""

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError
from geoseg.io.tables import plural

if TYPE_CHECKING:
    from geoseg.training.recipe import Augmentation

__all__ = ["STEPS", "augment_batch", "check_augmentations", "kornia_step"]

KORNIA = "kornia:"

Step = TypeVar("Step", bound=Callable[..., Any])

_GEOMETRIC: dict[str, Callable[..., Tensor]] = {}
"""From the number of samples to (n, 2, 2) matrices: from an offset in the crop to the offset in its window."""

_COLOR: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {}
"""From the means (n, band, 1) of samples to color matrices (n, band, band) and offsets (n, band, 1)."""

_PIXEL: dict[str, Callable[..., Tensor]] = {}
"""From an image (n, band, y, x) and which samples are chosen (n,) to the image."""


def augment_batch(
    image: Tensor, mask: Tensor, steps: Sequence["Augmentation"], *, crop_px: int
) -> tuple[Tensor, Tensor]:
    """Cut augmented crops out of larger windows; random numbers come from torch's global generator.

    Args:
        image: (n, band, y, x) float32 in [0, 1], at least `crop_px` wide and high.
        mask: (n, y, x) uint8 labels, or (n, plane, y, x) several of them.
        steps: Steps; geometric ones are applied first, then those of color, then the others in their order.
        crop_px: Side of the crops.

    Returns:
        (n, band, crop_px, crop_px) float32 in [0, 1] and labels as given, of `crop_px`, `IGNORED` beyond the window.
    """
    if mask.ndim == 3:
        image, planes = augment_batch(image, mask[:, None], steps, crop_px=crop_px)
        return image, planes[:, 0]
    n, bands = image.shape[:2]
    matrix = torch.eye(2).repeat(n, 1, 1)
    for step in steps:
        if step.step in _GEOMETRIC:
            chosen = _chosen(n, step)[:, None, None]
            matrix = torch.where(chosen, matrix @ _GEOMETRIC[step.step](n, **step.options), matrix)
    image, mask = _warp(image, mask, matrix, crop_px)

    matrix, shift = torch.eye(bands).repeat(n, 1, 1), torch.zeros(n, bands, 1)
    mean = image.mean(dim=(2, 3))[..., None].cpu()
    for step in steps:
        if step.step in _COLOR and (bands == 3 or step.step not in ("saturation", "hue")):
            chosen = _chosen(n, step)[:, None, None]
            turn, add = _COLOR[step.step](mean, **step.options)
            matrix, shift = torch.where(chosen, turn @ matrix, matrix), torch.where(chosen, turn @ shift + add, shift)
    flat = torch.baddbmm(shift.to(image.device), matrix.to(image.device), image.flatten(2))
    image = flat.view_as(image).clamp_(0, 1)

    for step in steps:
        if step.step.startswith(KORNIA):
            image, mask = kornia_step(step.step, step.probability, step.options)(image, mask)
        elif step.step in _PIXEL:
            image = _PIXEL[step.step](image, _chosen(n, step), **step.options)
    return image.clamp_(0, 1), mask


def check_augmentations(steps: Sequence["Augmentation"], *, crop_px: int = 64, bands: int = 3) -> None:
    """Check the names and options of steps; those of kornia are tried on crops of `crop_px` with this many bands.

    Raises:
        RecipeError: Names the key, its value and what is allowed.
    """
    for step in steps:
        if step.step.startswith(KORNIA):
            _try_kornia(step, crop_px, bands)
            continue
        if step.step not in STEPS:
            raise RecipeError(
                f"augment.step = {step.step!r}; expected one of {', '.join(STEPS)}, or {KORNIA}NAME of kornia's "
                "augmentations"
            )
        defaults = STEPS[step.step]
        for option, value in step.options.items():
            key = f"augment.{step.step}.options.{option} = {value!r}"
            if option not in defaults:
                raise RecipeError(f"{key}; expected {', '.join(defaults) or 'no options'}")
            pair = isinstance(defaults[option], tuple)
            numbers = value if pair and isinstance(value, list) else [value]
            fits = len(numbers) == (2 if pair else 1) and isinstance(value, list) == pair
            if not fits or any(isinstance(v, bool) or not isinstance(v, int | float) or v < 0 for v in numbers):
                raise RecipeError(f"{key}; expected {'[low, high]' if pair else 'a number of at least 0'}")
            if pair and not 0 < numbers[0] <= numbers[1]:
                raise RecipeError(f"{key}; expected [low, high] above 0")


def _try_kornia(step: "Augmentation", crop_px: int, bands: int) -> None:
    """Refuse a step of kornia that fails, or changes the size of crops; torch's random numbers go on as before."""
    kornia_step(step.step, step.probability, step.options)
    with torch.random.fork_rng(devices=[]):
        image, mask = torch.rand(2, bands, crop_px, crop_px), torch.zeros(2, crop_px, crop_px, dtype=torch.uint8)
        try:
            kornia_step(step.step, 1.0, step.options)(image, mask)
        except RecipeError:
            raise
        except Exception as err:  # kornia and torch raise errors of many kinds
            cause = (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")
            raise RecipeError(
                f"augment.{step.step} fails on crops of {crop_px} px with {plural(bands, 'band')}: {cause}. Change its "
                "options, or leave it out"
            ) from err


def _chosen(n: int, step: "Augmentation") -> Tensor:
    return torch.rand(n) < step.probability


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high)


def _warp(image: Tensor, mask: Tensor, matrix: Tensor, crop_px: int) -> tuple[Tensor, Tensor]:
    """Sample crops around the windows' centers: bilinear for the image, nearest for the label."""
    height, width = image.shape[-2:]
    # a crop and its window of the same parity share their center; else the crop is half a pixel up and left
    lean = torch.tensor([((width - crop_px) % 2) / 2, ((height - crop_px) % 2) / 2])
    offset = torch.arange(crop_px) - (crop_px - 1) / 2
    x, y = torch.meshgrid(offset, offset, indexing="xy")
    where = torch.einsum("nij,yxj->nyxi", matrix, torch.stack([x, y], dim=-1)) - lean
    where = (where * torch.tensor([2 / width, 2 / height])).to(image.device)
    pixels = functional.grid_sample(image, where, mode="bilinear", padding_mode="reflection", align_corners=False)
    shifted = mask.float() - IGNORED
    labels = functional.grid_sample(shifted, where, mode="nearest", padding_mode="zeros", align_corners=False)
    return pixels, (labels + IGNORED).round().to(torch.uint8)


def _step(kind: dict[str, Callable[..., Any]]) -> Callable[[Step], Step]:
    """Register a function as the step of its name."""

    def register(function: Step) -> Step:
        kind[function.__name__] = function
        return function

    return register


@_step(_GEOMETRIC)
def flip(n: int) -> Tensor:
    """Mirror left to right."""
    return torch.diag(torch.tensor([-1.0, 1.0])).repeat(n, 1, 1)


@_step(_GEOMETRIC)
def dihedral(n: int) -> Tensor:
    """Flip and rotate by multiples of 90 degrees."""
    turn = _rotation(torch.randint(4, (n,)) * (math.pi / 2)).round()
    mirror = torch.diag_embed(torch.stack([torch.randint(2, (n,)) * 2.0 - 1.0, torch.ones(n)], dim=1))
    return turn @ mirror


@_step(_GEOMETRIC)
def affine(n: int, *, rotate_deg: float = 180.0, scale: Sequence[float] = (0.7, 1.5)) -> Tensor:
    """Rotate by up to `rotate_deg` either way and magnify by `scale`."""
    turn = _rotation(_uniform(n, -math.radians(rotate_deg), math.radians(rotate_deg)))
    return turn / _uniform(n, math.log(scale[0]), math.log(scale[1])).exp()[:, None, None]


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


@_step(_COLOR)
def brightness(mean: Tensor, *, amount: float = 0.15) -> tuple[Tensor, Tensor]:
    """Add up to +- `amount` of the full range."""
    n, bands = mean.shape[:2]
    return torch.eye(bands).repeat(n, 1, 1), _uniform(n, -amount, amount)[:, None, None].expand(n, bands, 1)


@_step(_COLOR)
def contrast(mean: Tensor, *, amount: float = 0.25) -> tuple[Tensor, Tensor]:
    """Scale by 1 +- `amount` about the sample's mean of each band."""
    n, bands = mean.shape[:2]
    factor = 1 + _uniform(n, -amount, amount)[:, None, None]
    return torch.eye(bands) * factor, mean * (1 - factor)


@_step(_COLOR)
def saturation(mean: Tensor, *, amount: float = 0.4) -> tuple[Tensor, Tensor]:
    """Scale the distance from gray by 1 +- `amount`."""
    factor = 1 + _uniform(len(mean), -amount, amount)[:, None, None]
    gray = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    return gray + factor * (torch.eye(3) - gray), torch.zeros_like(mean)


@_step(_COLOR)
def gain(mean: Tensor, *, amount: float = 0.12) -> tuple[Tensor, Tensor]:
    """Scale every band by a 1 +- `amount` of its own: a color cast."""
    n, bands = mean.shape[:2]
    return torch.diag_embed(1 + _uniform(n * bands, -amount, amount).view(n, bands)), torch.zeros_like(mean)


@_step(_COLOR)
def hue(mean: Tensor, *, degrees: float = 10.0) -> tuple[Tensor, Tensor]:
    """Rotate colors by up to +- `degrees` about the gray axis (Rodrigues' formula)."""
    angle = _uniform(len(mean), -math.radians(degrees), math.radians(degrees))[:, None, None]
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) / 3
    return turn, torch.zeros_like(mean)


@_step(_PIXEL)
def gamma(image: Tensor, chosen: Tensor, *, amount: float = 0.3) -> Tensor:
    """Raise to an exponent of e^(+-`amount`)."""
    exponent = torch.where(chosen, _uniform(len(image), -amount, amount), 0.0).exp()
    return image.clamp_min(1e-4).pow(exponent[:, None, None, None].to(image.device))


@_step(_PIXEL)
def soften(image: Tensor, chosen: Tensor, *, factor: float = 3.5) -> Tensor:
    """Lose detail as if the pixels were up to `factor` times larger."""
    size = image.shape[-2:]
    for i in chosen.nonzero().flatten().tolist():
        loss = float(_uniform(1, 1.0, max(1.0, factor)))
        small = [max(1, round(px / loss)) for px in size]
        coarse = functional.interpolate(image[i : i + 1], small, mode="area")
        image[i : i + 1] = functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return image


@_step(_PIXEL)
def noise(image: Tensor, chosen: Tensor, *, sigma: float = 0.02) -> Tensor:
    """Add Gaussian noise of a standard deviation of up to `sigma`."""
    for i in chosen.nonzero().flatten().tolist():
        image[i] += torch.randn_like(image[i]) * float(_uniform(1, 0.0, sigma))
    return image


STEPS: dict[str, dict[str, Any]] = {
    name: dict(step.__kwdefaults__ or {}) for name, step in {**_GEOMETRIC, **_COLOR, **_PIXEL}.items()
}
"""The steps and the options that each takes, with their defaults."""


def kornia_step(
    step: str, probability: float, options: Mapping[str, Any]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a function of images (n, band, y, x) in [0, 1] and masks (n, y, x) or (n, plane, y, x) uint8.

    Args:
        step: `kornia:` and the name of a geometric or intensity augmentation of `kornia.augmentation`. Geometric ones
            are applied to the mask too, which is `IGNORED` where it is empty.
        probability: Share of the images that are changed.
        options: Keyword arguments of the class.

    Raises:
        RecipeError: There is no such class, or it does not accept these options.
    """
    return _open_kornia(step.removeprefix(KORNIA), probability, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=64)
def _open_kornia(name: str, probability: float, options: str) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    import kornia.augmentation as library
    from kornia.augmentation import AugmentationSequential, IntensityAugmentationBase2D
    from kornia.constants import DataKey

    bases = (IntensityAugmentationBase2D, library.GeometricAugmentationBase2D)
    kinds: dict[str, Any] = {
        n: k for n, k in vars(library).items() if inspect.isclass(k) and issubclass(k, bases) and k not in bases
    }
    if name not in kinds:
        raise RecipeError(f"augment.step = {KORNIA + name!r}; expected one of {', '.join(sorted(kinds))} of kornia")
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(options).items()}
    try:
        augmentation = kinds[name](**given, p=probability)
    except Exception as err:  # kornia checks its arguments with errors of many kinds
        raise RecipeError(
            f"augment.{KORNIA}{name}.options = {given}; expected kornia's arguments, "
            f"{inspect.signature(kinds[name])}: {err}"
        ) from err
    nearest: dict[Any, Any] = {DataKey.MASK: {"resample": "nearest", "align_corners": False}}

    def apply(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        sequence = AugmentationSequential(augmentation, data_keys=["input", "mask"], extra_args=nearest)
        planes = mask.view(len(mask), -1, *mask.shape[-2:])
        changed, moved = sequence(image, planes.float() - IGNORED)
        if changed.shape != image.shape:
            raise RecipeError(
                f"augment.{KORNIA}{name}.options = {given} makes crops of {changed.shape[-1]} x {changed.shape[-2]} px "
                f"of those of {image.shape[-1]} x {image.shape[-2]}; expected a step that keeps their size, fit.crop_px"
            )
        return changed, (moved + IGNORED).round().to(mask.dtype).view_as(mask)

    return apply
