"""`unet-plain`: the U-Net from scratch, its depth, widths and convolutions all settings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.networks.decoder import check_attention, gate_skip, initialize, refine_features
from geoseg.networks.registry import register_network

__all__ = ["PlainUnet"]

UPSAMPLINGS = ("transposed", "interpolated")


@register_network("unet-plain", stride_px=lambda options: int(2 ** options["depth"]))
class PlainUnet(nn.Module):
    """U-Net of Ronneberger, Fischer and Brox (2015), with 'same' padding and, by default, batch normalization.

    A contracting path of 3x3 convolutions with ReLU and 2x2 max-pooling, widths doubling at each level; an expanding
    path of 2x2 up-convolutions (or bilinear enlarging and 1x1), each concatenated with the skip of its level; a 1x1
    head. With `attention="gate"` it is the Attention U-Net of Oktay et al. (2018); "scse" is that of Roy et al. (2018).
    """

    def __init__(
        self,
        *,
        bands: int = 3,
        classes: int = 1,
        depth: int = 4,
        filters: int | Sequence[int] = 64,
        convolutions: int = 2,
        upsampling: str = "transposed",
        norm: bool = True,
        dropout: float = 0.0,
        attention: str | None = None,
    ) -> None:
        """Build the network; sides of its input must be multiples of 2**depth.

        Args:
            bands: Input bands.
            classes: Output channels.
            depth: Poolings, and as many skips; 0 to 8.
            filters: Width of the first level, doubled at each deeper one; or the depth + 1 widths.
            convolutions: 3x3 convolutions per level and path.
            upsampling: "transposed" (2x2 convolution, stride 2) or "interpolated" (1x1, then bilinear).
            norm: Batch normalization between convolution and ReLU.
            dropout: Share of channels dropped after each level of the contracting path, in training.
            attention: "gate" (on the skips), "scse" (after each level of the expanding path), or none.

        Raises:
            ValueError: If an option has a value that is not allowed.
        """
        super().__init__()
        if not 0 <= depth <= 8:
            raise ValueError(f"found depth {depth}; expected 0 to 8")
        widths = [filters * 2**level for level in range(depth + 1)] if isinstance(filters, int) else list(filters)
        if len(widths) != depth + 1 or min(widths) < 1:
            raise ValueError(f"found filters {widths} with depth {depth}; expected {depth + 1} widths of 1 or more")
        if upsampling not in UPSAMPLINGS:
            raise ValueError(f"found upsampling {upsampling!r}; expected one of {', '.join(UPSAMPLINGS)}")
        if convolutions < 1:
            raise ValueError(f"found {convolutions} convolutions per level; expected 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"found dropout {dropout}; expected a share from 0 to below 1")
        kind = check_attention(attention)
        ways = zip([bands, *widths[:-1]], widths, strict=True)
        self.down = nn.ModuleList(_level(a, b, convolutions, norm, dropout) for a, b in ways)
        climbs = list(zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True))
        self.up = nn.ModuleList(_enlarge(a, b, upsampling) for a, b in climbs)
        self.gates = nn.ModuleList(gate_skip(kind, b, b) or nn.Identity() for _, b in climbs)
        self.merge = nn.ModuleList(
            nn.Sequential(_level(2 * b, b, convolutions, norm, 0.0), refine_features(kind, b)) for _, b in climbs
        )
        self.is_gated = kind == "gate"
        self.stride_px = 2**depth
        self.head = nn.Conv2d(widths[0], classes, 1)
        initialize(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, class, y, x) of normalized pixels (n, band, y, x)."""
        features: Tensor = self.down[0](pixels)
        skips = []
        for level in list(self.down)[1:]:
            skips.append(features)
            features = level(F.max_pool2d(features, 2))
        for up, gate, merge, skip in zip(self.up, self.gates, self.merge, reversed(skips), strict=True):
            features = up(features)
            kept = gate(features, skip) if self.is_gated else skip
            features = merge(torch.cat([features, kept], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _level(channels: int, width: int, convolutions: int, norm: bool, dropout: float) -> nn.Sequential:
    """Make a level's convolutions."""
    layers: list[nn.Module] = []
    for size in [channels] + [width] * (convolutions - 1):
        layers.append(nn.Conv2d(size, width, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers, *([nn.Dropout2d(dropout)] if dropout else []))


def _enlarge(channels: int, width: int, upsampling: str) -> nn.Module:
    """Make the step from a level to twice its size."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(channels, width, 2, stride=2)
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.Upsample(scale_factor=2.0, mode="bilinear"))
