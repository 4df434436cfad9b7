"""The U-Net around any encoder: skips, attention, stages from the deepest features to the pixels, and a head.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), with the
contracting path replaced by a classifier's trunk.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AttentionGate",
    "ChannelSpatialAttention",
    "DecoderStage",
    "EncoderUnet",
    "check_attention",
    "convolve",
    "gate_skip",
    "initialize",
    "refine_features",
]

ATTENTIONS = ("gate", "scse")

Block = Callable[[int, int], nn.Module]
"""Makes a block of convolutions from its numbers of input and output channels."""


def convolve(channels: int, width: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    """Make a convolution that keeps the size, batch normalization and ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def initialize(module: nn.Module) -> None:
    """Draw the convolutions' weights for ReLU: He et al., Delving Deep into Rectifiers (2015), equation 10."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ChannelSpatialAttention(nn.Module):
    """Concurrent spatial and channel squeeze and excitation: scSE of Roy, Navab and Wachinger (2018), summed.

    The channel half averages over the whole input, so a pixel's result depends on all of the chip.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        """Attend to `channels`; the channel half squeezes them by `reduction`."""
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1)
        )
        self.spatial = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Weight features (n, channel, y, x) by channel and by pixel."""
        weights: Tensor = self.channel(features).sigmoid() + self.spatial(features).sigmoid()
        return features * weights


class AttentionGate(nn.Module):
    """Additive attention gate on a skip: Oktay et al., Attention U-Net (2018), equations 1 and 2.

    A skip's pixels are weighted in [0, 1] by what the deeper level, enlarged to the skip's size, sees there.
    """

    def __init__(self, deep_channels: int, skip_channels: int) -> None:
        """Gate a skip by the deeper features."""
        super().__init__()
        between = max(1, skip_channels // 2)
        self.deep = nn.Conv2d(deep_channels, between, 1)
        self.skip = nn.Conv2d(skip_channels, between, 1, bias=False)
        self.psi = nn.Conv2d(between, 1, 1)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Weight skip (n, channel, y, x) by deep (n, deep channel, y, x)."""
        weight: Tensor = self.psi(torch.relu(self.deep(deep) + self.skip(skip))).sigmoid()
        return skip * weight


def check_attention(attention: str | None) -> str | None:
    """Return the attention's name, None for "" and "none" too.

    Raises:
        ValueError: If there is no attention of this name.
    """
    if attention in (None, "", "none"):
        return None
    if attention not in ATTENTIONS:
        raise ValueError(f"found attention {attention!r}; expected one of {', '.join(ATTENTIONS)}, none")
    return attention


def gate_skip(attention: str | None, deep_channels: int, skip_channels: int) -> AttentionGate | None:
    """Make the gate of a skip; None if there is no skip or no gate is wanted."""
    return AttentionGate(deep_channels, skip_channels) if attention == "gate" and skip_channels else None


def refine_features(attention: str | None, channels: int) -> nn.Module:
    """Make what follows a decoder's block: scSE or nothing."""
    return ChannelSpatialAttention(channels) if attention == "scse" else nn.Identity()


class DecoderStage(nn.Module):
    """One step up: enlarge twice, concatenate the skip, convolve, attend."""

    def __init__(self, channels: int, skip_channels: int, width: int, *, block: Block, attention: str | None) -> None:
        """Lead `channels` from below and `skip_channels` (0: no skip) to `width`, by the block that `block` makes."""
        super().__init__()
        self.gate = gate_skip(attention, channels, skip_channels)
        self.block = block(channels + skip_channels, width)
        self.refine = refine_features(attention, width)

    def forward(self, deep: Tensor, skip: Tensor | None) -> Tensor:
        """Join deep (n, channel, y, x) and skip (n, channel, 2y, 2x) to (n, width, 2y, 2x)."""
        features = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        if skip is not None:
            features = torch.cat([features, self.gate(features, skip) if self.gate is not None else skip], dim=1)
        refined: Tensor = self.refine(self.block(features))
        return refined


class EncoderUnet(nn.Module):
    """An encoder of segmentation-models-pytorch or timm, a bridge, decoder stages, and a 1x1 head.

    There are at most as many stages as the encoder halves its input. With fewer, the logits are enlarged bilinearly
    at the end, which for a 1x1 head is the same as enlarging its features.
    """

    def __init__(
        self,
        encoder_name: str,
        *,
        bands: int,
        classes: int,
        encoder_depth: int,
        decoder_channels: Sequence[int],
        block: Block,
        bridge: Block | None = None,
        attention: str | None = None,
        encoder_options: dict[str, Any] | None = None,
    ) -> None:
        """Build around the encoder `encoder_name`; `block` and `bridge` make the decoder's blocks of convolutions."""
        from segmentation_models_pytorch.encoders import get_encoder

        super().__init__()
        if not 1 <= len(decoder_channels) <= encoder_depth:
            raise ValueError(
                f"found {len(decoder_channels)} decoder_channels with encoder_depth {encoder_depth}; expected 1 to "
                f"{encoder_depth}, from the deepest stage up"
            )
        self.encoder = get_encoder(
            encoder_name, in_channels=bands, depth=encoder_depth, weights=None, **(encoder_options or {})
        )
        *skips, deepest = self.encoder.out_channels[1:]
        self.skip_channels = [*reversed(skips), 0][: len(decoder_channels)]
        start = decoder_channels[0] if bridge else deepest
        self.bridge = bridge(deepest, start) if bridge else nn.Identity()
        ways = zip([start, *decoder_channels[:-1]], self.skip_channels, decoder_channels, strict=True)
        kind = check_attention(attention)
        self.stages = nn.ModuleList(DecoderStage(*way, block=block, attention=kind) for way in ways)
        self.head = nn.Conv2d(decoder_channels[-1], classes, 1)
        self.stride_px = 2**encoder_depth
        self.enlarge = float(2 ** (encoder_depth - len(decoder_channels)))
        for part in (self.bridge, self.stages, self.head):
            initialize(part)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, class, y, x) of normalized pixels (n, band, y, x)."""
        *skips, deep = self.encoder(pixels)[1:]
        deep = self.bridge(deep)
        padded = [*reversed(skips), None]
        for stage, skip, channels in zip(self.stages, padded, self.skip_channels, strict=False):
            deep = stage(deep, skip if channels else None)
        logits: Tensor = self.head(deep)
        return logits if self.enlarge == 1 else F.interpolate(logits, scale_factor=self.enlarge, mode="bilinear")
