"""Mixed precision where it is faster: everywhere but in depthwise convolutions on a CPU."""

from types import MethodType

import torch
from torch import Tensor, nn

__all__ = ["keep_depthwise_full"]


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
