"""TensorFlow's "same" padding, which EfficientNets compute anew for every size, made constant."""

from torch import Tensor, nn
from torch.nn import functional as F

SAME_CONVOLUTIONS = ("Conv2dSame", "Conv2dDynamicSamePadding")
"""Of timm and of segmentation-models-pytorch."""


class FixedSame(nn.Module):
    """A convolution with "same" padding for sizes that are multiples of its stride.

    The padding is `max((ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)`, the smaller half
    of it first (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2): without the size where the stride
    divides it, and then nothing is left that torch.export would have to reason about.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        sides = zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
        rows, cols = (max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in sides)
        self.padding = (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pad and convolve `(n, channel, y, x)`."""
        own = self.convolution
        padded = F.pad(pixels, self.padding)
        return F.conv2d(padded, own.weight, own.bias, own.stride, (0, 0), own.dilation, own.groups)


def fix_same_padding(model: nn.Module) -> None:
    """Put `FixedSame` in the place of every convolution with "same" padding, in place."""
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d) and type(child).__name__ in SAME_CONVOLUTIONS:
            setattr(model, name, FixedSame(child))
        else:
            fix_same_padding(child)
