"""Where a bottleneck ResNet halves its input."""

from typing import Any

from torch import nn

__all__ = ["STRIDES_AT", "move_strides"]

STRIDES_AT = ("conv1", "conv2")


def move_strides(encoder: nn.Module, at: str) -> None:
    """Put the strides of an encoder's bottlenecks on their first 1x1 or on their 3x3 convolution, in place.

    He et al. (2015) and the weights of Caffe and Keras have them on the 1x1 ("conv1"); torchvision and timm on the 3x3
    ("conv2", "ResNet V1.5"). Weights of one form fit the other in every shape, and are worth little there. Stages that
    were dilated have no stride left to move, so the order of the two makes no difference.

    Args:
        encoder: an encoder with ResNet bottlenecks: `conv1` 1x1, `conv2` 3x3, `conv3` 1x1.
        at: "conv1" or "conv2".

    Raises:
        ValueError: `at` is neither, or the encoder has no such bottlenecks.
    """
    if at not in STRIDES_AT:
        raise ValueError(f"found encoder_stride_at {at!r}; expected one of {', '.join(STRIDES_AT)}")
    blocks = [module for module in encoder.modules() if _is_bottleneck(module)]
    if not blocks:
        raise ValueError("encoder_stride_at moves the strides of ResNet bottlenecks; this encoder has none")
    for block in blocks:
        _move(block, at)


def _is_bottleneck(module: Any) -> bool:
    convs = [getattr(module, name, None) for name in ("conv1", "conv2", "conv3")]
    kernels = [conv.kernel_size for conv in convs if isinstance(conv, nn.Conv2d)]
    return kernels == [(1, 1), (3, 3), (1, 1)]


def _move(block: Any, at: str) -> None:
    one, three = block.conv1.stride, block.conv2.stride
    stride = max(one, three)
    block.conv1.stride, block.conv2.stride = (stride, (1, 1)) if at == "conv1" else ((1, 1), stride)
