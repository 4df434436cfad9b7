"""`unet-atrous`: a U-Net whose decoder looks far without losing pixels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.networks.decoder import EncoderUnet, convolve
from geoseg.networks.registry import encoder_stride_px, register_network

__all__ = ["AtrousBlock", "AtrousUnet"]


class AtrousBlock(nn.Module):
    """Four parallel convolutions, a quarter of the width each, concatenated.

    By default dilation rates 1, 6, 12, 18 and kernels 1, 3, 3, 3: the branches of atrous spatial pyramid pooling (Chen
    et al., Rethinking Atrous Convolution, 2017; DeepLabv3+, 2018) without its image pooling, so that a pixel's result
    depends on its neighborhood alone. As there, a 1x1 convolution may squeeze the channels first: three 3x3 kernels
    on a concatenated skip are what such a decoder costs.
    """

    def __init__(self, channels: int, width: int, *, dilations: Sequence[int], squeeze: int) -> None:
        """Lead `channels`, divided by `squeeze`, to `width`; the first branch is 1x1, the others 3x3."""
        super().__init__()
        if width % len(dilations):
            raise ValueError(f"found a decoder width of {width}; expected a multiple of {len(dilations)} branches")
        part, between = width // len(dilations), max(1, channels // squeeze)
        self.squeeze = convolve(channels, between, 1) if squeeze > 1 else nn.Identity()
        wide = (convolve(between, part, 3, dilation=rate) for rate in dilations[1:])
        self.branches = nn.ModuleList([convolve(between, part, 1), *wide])

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, width, y, x) of (n, channel, y, x)."""
        squeezed = self.squeeze(features)
        return torch.cat([branch(squeezed) for branch in self.branches], dim=1)


@register_network("unet-atrous", stride_px=encoder_stride_px)
class AtrousUnet(EncoderUnet):
    """U-Net (Ronneberger et al. 2015) with a bridge and atrous blocks (Chen et al. 2017, 2018) in its decoder.

    With ResNet-50, the stages of 1024, 512, 256 and 64 channels are as wide as the skips that they take: 1/16, 1/8,
    1/4 and 1/2 of the input's size. Each enlarges the features below twice, concatenates its skip, and applies an
    atrous block. The last one is followed by the 1x1 convolution, and the logits of 1/2 size are enlarged.
    """

    def __init__(
        self,
        encoder_name: str = "resnet50",
        *,
        bands: int = 3,
        classes: int = 1,
        encoder_depth: int = 5,
        encoder_options: dict[str, Any] | None = None,
        decoder_channels: Sequence[int] = (1024, 512, 256, 64),
        dilations: Sequence[int] = (1, 6, 12, 18),
        squeeze: int = 4,
        attention: str | None = None,
    ) -> None:
        """Build the network.

        Args:
            encoder_name: Encoder of segmentation-models-pytorch, or "tu-" and a timm model.
            bands: Input bands.
            classes: Output channels.
            encoder_depth: How often the encoder halves its input.
            encoder_options: Further arguments of a timm encoder.
            decoder_channels: Width of each stage, deepest first; multiples of the number of dilations; one per halving,
                or fewer.
            dilations: Dilation of each parallel convolution; the first is the 1x1's, where it has no effect.
            squeeze: The dilated convolutions read 1/squeeze of a stage's channels; 1: all of them, as published, for
                about twice the operations.
            attention: "scse", "gate", or none.
        """

        def block(channels: int, width: int) -> nn.Module:
            return AtrousBlock(channels, width, dilations=dilations, squeeze=squeeze)

        def bridge(channels: int, width: int) -> nn.Module:
            return nn.Sequential(convolve(channels, width, 1), convolve(width, width, 3))

        super().__init__(
            encoder_name,
            bands=bands,
            classes=classes,
            encoder_depth=encoder_depth,
            decoder_channels=decoder_channels,
            block=block,
            bridge=bridge,
            attention=attention,
            encoder_options=encoder_options,
        )
