"""`unet-inception`: a U-Net whose decoder looks at several sizes at once."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.networks.decoder import EncoderUnet, convolve
from geoseg.networks.registry import encoder_stride_px, register_network

__all__ = ["InceptionBlock", "InceptionUnet"]


class InceptionBlock(nn.Module):
    """Four parallel branches, a quarter of the width each, concatenated.

    - 1x1
    - 1x1, then 3x3
    - 1x1, then 5x5 as two 3x3
    - 3x3 average pooling, then 1x1

    Branches and 1x1 reductions: Szegedy et al., Going Deeper with Convolutions (2015), figure 2b. Two 3x3 for one 5x5
    and batch normalization: Szegedy et al., Rethinking the Inception Architecture (2016), figure 5.

    The four 1x1 convolutions read the same input, so they are one convolution here, split afterwards; the pooled
    branch pools after its 1x1, which is the same (both are linear) for fewer channels.
    """

    def __init__(self, channels: int, width: int) -> None:
        """Lead `channels` to `width`, a multiple of 4."""
        super().__init__()
        if width % 4:
            raise ValueError(f"found a decoder width of {width}; expected a multiple of 4, one part per branch")
        part = width // 4
        self.part = part
        self.entry = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.three = convolve(part, part, 3)
        self.five = nn.Sequential(convolve(part, part, 3), convolve(part, part, 3))

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, width, y, x) of (n, channel, y, x)."""
        reduced, pooled = torch.split(self.entry(features), [3 * self.part, self.part], dim=1)
        pooled = F.avg_pool2d(pooled, 3, stride=1, padding=1, count_include_pad=False)
        reduced = torch.relu(self.norm(torch.cat([reduced, pooled], dim=1)))
        one, three, five, pooled = torch.split(reduced, self.part, dim=1)
        return torch.cat([one, self.three(three), self.five(five), pooled], dim=1)


@register_network("unet-inception", stride_px=encoder_stride_px)
class InceptionUnet(EncoderUnet):
    """U-Net (Ronneberger et al. 2015) with a decoder of inception blocks (Szegedy et al. 2015, 2016).

    Small houses and large complexes stand in one picture: the branches see 1, 3 and 5 pixels of every level.
    """

    def __init__(
        self,
        encoder_name: str = "efficientnet-b3",
        *,
        bands: int = 3,
        classes: int = 1,
        encoder_depth: int = 5,
        encoder_options: dict[str, Any] | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 32),
        decoder_blocks: int = 2,
        attention: str | None = None,
    ) -> None:
        """Build the network.

        Args:
            encoder_name: Encoder of segmentation-models-pytorch, or "tu-" and a timm model.
            bands: Input bands.
            classes: Output channels.
            encoder_depth: How often the encoder halves its input.
            encoder_options: Further arguments of a timm encoder.
            decoder_channels: Width of each stage, deepest first; multiples of 4; one per halving, or fewer.
            decoder_blocks: Inception blocks per stage.
            attention: "scse", "gate", or none.
        """

        def block(channels: int, width: int) -> nn.Module:
            inputs = [channels] + [width] * (decoder_blocks - 1)
            return nn.Sequential(*(InceptionBlock(size, width) for size in inputs))

        super().__init__(
            encoder_name,
            bands=bands,
            classes=classes,
            encoder_depth=encoder_depth,
            decoder_channels=decoder_channels,
            block=block,
            attention=attention,
            encoder_options=encoder_options,
        )
