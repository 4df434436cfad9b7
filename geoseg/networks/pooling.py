"""Pooling to a fixed number of parts that exports to ONNX at any size."""

from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPBlock
from torch import Tensor, nn

__all__ = ["PartsPool", "PyramidBranch", "replace_pools"]


class PartsPool(nn.Module):
    """`nn.AdaptiveAvgPool2d` to several parts; traced for ONNX, which has no such operator, as two matrix products."""

    def __init__(self, parts: int) -> None:
        """Pool y and x to `parts` means each."""
        super().__init__()
        self.parts = parts

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, channel, parts, parts) of (n, channel, y, x)."""
        if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return F.adaptive_avg_pool2d(features, self.parts)
        rows, columns = (_share(features, axis, self.parts) for axis in (2, 3))
        return torch.matmul(torch.matmul(rows, features), columns.transpose(0, 1))


def _share(features: Tensor, axis: int, parts: int) -> Tensor:
    """Return the share (part, position) of each position in each part's mean; parts may overlap by one."""
    length = features.shape[axis]
    position, part = torch.arange(length)[None, :], torch.arange(parts)[:, None]
    first = torch.div(part * length, parts, rounding_mode="floor")
    past = torch.div((part + 1) * length + parts - 1, parts, rounding_mode="floor")
    inside = ((position >= first) & (position < past)).to(features.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


class PyramidBranch(nn.Module):
    """One branch of PSPNet's pyramid (Zhao et al. 2017): pooled to parts, convolved, enlarged to what it was.

    The same as segmentation-models-pytorch's block, whose own workaround can be exported only at fixed sizes.
    """

    def __init__(self, pool: nn.Module) -> None:
        """Wrap the block's pooling and convolution, under the name that its weights have."""
        super().__init__()
        self.pool = pool

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, branch, y, x) of (n, channel, y, x)."""
        return F.interpolate(self.pool(features), size=features.shape[2:], mode="bilinear", align_corners=True)


def replace_pools(network: nn.Module) -> None:
    """Replace adaptive pooling to several parts with pooling that can be exported; weights keep their names."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size: Any = child.output_size
                parts = {size} if isinstance(size, int) else set(size)
                if len(parts) == 1 and (number := int(parts.pop() or 0)) > 1:
                    setattr(parent, name, PartsPool(number))
            elif isinstance(child, PSPBlock):
                setattr(parent, name, PyramidBranch(child.get_submodule("pool")))
