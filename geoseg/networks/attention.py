"""Attention for decoders: where to look (gates on skips) and what to look at (squeeze and excitation)."""

import torch
from torch import Tensor, nn

__all__ = ["ATTENTIONS", "AttentionGate", "ChannelSpatialAttention", "check_attention", "gate_skip", "refine_features"]

ATTENTIONS = ("gate", "scse")


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
        """Weigh features (n, channel, y, x) by channel and by pixel."""
        weights: Tensor = self.channel(features).sigmoid() + self.spatial(features).sigmoid()
        return features * weights


class AttentionGate(nn.Module):
    """Additive attention gate on a skip: Oktay et al., Attention U-Net (2018), equations 1 and 2.

    A skip's pixels are weighed in [0, 1] by what the deeper level, enlarged to the skip's size, sees there.
    """

    def __init__(self, deep_channels: int, skip_channels: int) -> None:
        """Gate a skip by the deeper features."""
        super().__init__()
        between = max(1, skip_channels // 2)
        self.deep = nn.Conv2d(deep_channels, between, 1)
        self.skip = nn.Conv2d(skip_channels, between, 1, bias=False)
        self.psi = nn.Conv2d(between, 1, 1)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Weigh skip (n, channel, y, x) by deep (n, deep channel, y, x)."""
        weight: Tensor = self.psi(torch.relu(self.deep(deep) + self.skip(skip))).sigmoid()
        return skip * weight


def check_attention(attention: str | None) -> str | None:
    """Give the attention's name, None for "" and "none" too.

    Raises:
        ValueError: nothing has this name.
    """
    if attention in (None, "", "none"):
        return None
    if attention not in ATTENTIONS:
        raise ValueError(f"found attention {attention!r}; expected one of {', '.join(ATTENTIONS)}, none")
    return attention


def gate_skip(attention: str | None, deep_channels: int, skip_channels: int) -> AttentionGate | None:
    """Make the gate of a skip, where there is a skip and gates are asked for."""
    return AttentionGate(deep_channels, skip_channels) if attention == "gate" and skip_channels else None


def refine_features(attention: str | None, channels: int) -> nn.Module:
    """Make what follows a decoder's block: scSE where it is asked for."""
    return ChannelSpatialAttention(channels) if attention == "scse" else nn.Identity()
