"""What a network costs, and how far it looks."""

import copy
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["NetworkFacts", "network_facts"]

EFFECTIVE_SHARE = 0.9
"""Share of a pixel's squared gradient within `effective_px`; for the shipped network this gives the halo that was found
by measuring seams (docs/benchmarks.md)."""

_SIDE_PX = 512
_NARROWEST_PX, _WIDEST_PX = 1024, 8192


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a network costs, and how far it looks.

    Distances are in rows or columns of pixels, whichever is more, from an output pixel to an input pixel.

    Attributes:
        parameters: Number of trained values.
        gflop_per_mpx: Billions of floating point operations per million pixels of input, in convolutions, matrix
            products and attention; a multiplication and its addition are two.
        receptive_px: The farthest input pixel that can change an output pixel; None where every pixel of the chip can
            (global pooling, squeeze and excitation, transformers).
        local_px: The same with what is pooled over the whole chip held fixed; None for transformers.
        effective_px: Distance that holds 90 % of the squared gradient, with the network's present weights: Luo et al.,
            Understanding the Effective Receptive Field (2016). Training moves it.
        stride_px: Sides of the input are multiples of this.
    """

    parameters: int
    gflop_per_mpx: float
    receptive_px: int | None
    local_px: int | None
    effective_px: int
    stride_px: int

    @property
    def suggested_halo_px(self) -> int:
        """The effective distance, or the local one if it is shorter, up to the next multiple of the stride."""
        reach = self.effective_px if self.local_px is None else min(self.effective_px, self.local_px)
        return max(1, -(-reach // self.stride_px)) * self.stride_px


def network_facts(network: nn.Module, bands: int = 3) -> NetworkFacts:
    """Measure a network in evaluation mode, on the CPU; it stays as it is.

    Args:
        network: A network of `build_network`, trained where `effective_px` is to count.
        bands: Its input bands.
    """
    stride = int(network.stride_px)  # type: ignore[arg-type]
    measured = copy.deepcopy(network).cpu().float().eval()
    local = _measure_reach(measured, bands, stride)
    return NetworkFacts(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gflop_per_mpx=_count_gflop_per_mpx(measured, bands, stride),
        receptive_px=None if local is None or _sees_beyond(measured, bands, stride, local) else local,
        local_px=local,
        effective_px=_measure_effective(measured, bands, stride),
        stride_px=stride,
    )


def _side(stride: int) -> int:
    return max(2, _SIDE_PX // stride) * stride


def _count_gflop_per_mpx(network: nn.Module, bands: int, stride: int) -> float:
    """Count on tensors without values: shapes alone decide."""
    side = _side(stride)
    shapes = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, bands, side, side, device="meta"))
    return float(counter.get_total_flops()) * 1e-9 / (side * side * 1e-6)


def _measure_effective(network: nn.Module, bands: int, stride: int) -> int:
    """Measure the distance that holds most of the squared gradient of pixels amid noise."""
    side = _side(stride)
    center, reach = side // 2, max(1, stride // 2)
    noise = torch.randn(1, bands, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = network(noise)[:, 0]
    picked = logits[..., center - reach : center + reach : 4, center - reach : center + reach : 4]
    (gradient,) = torch.autograd.grad(picked.sum(), noise)
    away = (torch.arange(side) - center).abs()
    distance = torch.maximum(away[:, None], away[None, :])
    energy = torch.zeros(side).index_add_(0, distance.flatten(), gradient.square().sum(dim=(0, 1)).flatten())
    share = energy.cumsum(0) / energy.sum()
    return int((share < EFFECTIVE_SHARE).sum())


class _NoPooling(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hold fixed what is pooled over the whole chip: NaN stops there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "group_norm" in str(func):
            return (args[0], *out[1:]) if isinstance(out, tuple) else args[0]
        if not args or not isinstance(args[0], Tensor) or not isinstance(out, Tensor):
            return out
        shrinks = args[0].ndim == 4 and args[0].shape[-1] > 1 and out.shape == (*args[0].shape[:2], 1, 1)
        return out.nan_to_num() if shrinks or "adaptive" in str(func) else out


def _measure_reach(network: nn.Module, bands: int, stride: int) -> int | None:
    """Measure how far NaN spreads, to the right and to the left; None if it is everywhere."""
    width = _NARROWEST_PX
    while width <= _WIDEST_PX:
        reaches = [_longest_reach(_spread(network, bands, stride, width, flip), width, stride) for flip in (0, 1)]
        if None not in reaches:
            return max(reach for reach in reaches if reach is not None)
        width *= 2
    return None


@torch.inference_mode()
def _sees_beyond(network: nn.Module, bands: int, stride: int, local_px: int) -> bool:
    """Return True if a pixel is changed by one that is farther away than its convolutions reach."""
    width = (local_px // stride + 4) * stride
    strip = torch.zeros(1, bands, stride, width)
    strip[..., 0] = torch.nan
    return bool(network(strip)[..., local_px + 1 :].isnan().any())


def _spread(network: nn.Module, bands: int, height: int, width: int, flip: int) -> Callable[[int], int]:
    """Make the function from the last dirty input column to the last dirty output column, in a strip of pixels.

    NaN in the columns up to `column` (from the right in a mirrored strip, when `flip`) reaches every output pixel that
    reads one of them, whatever the weights are.
    """

    @torch.inference_mode()
    def last_dirty(column: int) -> int:
        strip = torch.zeros(1, bands, height, width)
        strip[..., : column + 1] = torch.nan
        with _NoPooling():  # type: ignore[no-untyped-call]
            logits = network(strip.flip(-1) if flip else strip)
        dirty = (logits.flip(-1) if flip else logits)[0].isnan().any(dim=0).any(dim=0)
        return int(dirty.nonzero().max())

    return last_dirty


def _longest_reach(last_dirty: Callable[[int], int], width: int, stride: int) -> int | None:
    """Find the largest distance from an input column to an output column that reads it.

    With the last dirty column of the input moving right, that of the output moves in steps. The distance is largest at
    the beginning of a step; all steps of one period of `stride` columns are looked at.
    """
    column = end = width // 2
    reach = 0
    while column > end - stride:
        last = last_dirty(column)
        if last >= width - stride:
            return None
        first = bisect_left(range(column), last, lo=column - stride + 1, key=last_dirty)
        reach = max(reach, last - first)
        column = first - 1
    return reach
