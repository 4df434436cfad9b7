"""Mixed precision where it is faster: where the hardware has it, and not in depthwise convolutions on a CPU."""

from types import MethodType

import torch
from torch import Tensor, nn

from geoseg.errors import RecipeError

__all__ = ["check_device", "choose_precision", "keep_depthwise_full"]


def keep_depthwise_full(network: nn.Module) -> nn.Module:
    """Run the depthwise convolutions of `network` in float32 under a CPU's autocast.

    oneDNN's backward pass of a depthwise 5x5 convolution takes three to five times longer in bfloat16 than in float32
    (torch 2.15, Xeon with AMX); the whole training step of a U-Net on EfficientNet-Lite2 becomes a quarter shorter.
    The names of the weights stay.

    Args:
        network: changed in place.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
            module.forward = MethodType(_forward_full, module)  # type: ignore[method-assign]
    return network


def _forward_full(self: nn.Conv2d, image: Tensor) -> Tensor:
    if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return type(self).forward(self, image)
    with torch.autocast("cpu", enabled=False):
        return type(self).forward(self, image.float()).to(image.dtype)


def choose_precision(precision: str, device: str) -> str:
    """Return the precision to train in: `auto` is bfloat16 where the hardware multiplies it, else float32.

    Args:
        precision: of a recipe's `fit.precision`.
        device: of a recipe's `fit.device`.
    """
    if precision != "auto":
        return precision
    on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if (torch.cuda.is_bf16_supported() if on_gpu else _cpu_has_bfloat16(device)) else "32-true"


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Args:
        device: of a recipe's `fit.device`.

    Raises:
        RecipeError: There is none.
    """
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device, False):
        raise RecipeError(f'fit.device = {device!r}, which this machine does not have; expected "auto" or "cpu"')


def _cpu_has_bfloat16(device: str) -> bool:
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return False
    tests = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(test() for test in tests if test is not None)
