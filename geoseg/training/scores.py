"""Intersection over union of the building class, at every threshold at once, per source."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geoseg.datasets.labels import IGNORED, UNSURE

__all__ = ["IouCurve"]

_BINS = 256


class IouCurve:
    """Counts of probability (in 256 bins) by truth, from which IoU at any threshold follows."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Start counting for `sources`."""
        self.sources = tuple(sources)
        self.counts = torch.zeros(len(self.sources), 2, _BINS, dtype=torch.int64)

    def update(self, probability: Tensor, mask: Tensor, source: Tensor) -> None:
        """Count a batch.

        Args:
            probability: (n, y, x) float in [0, 1].
            mask: (n, y, x) of 0, 1, `UNSURE` and `IGNORED`; only 0 and 1 count.
            source: (n,) numbers of the samples' sources.
        """
        bins = (probability * (_BINS - 1)).round().long().clamp_(0, _BINS - 1)
        key = (source[:, None, None].long() * 2 + (mask == 1)) * _BINS + bins
        known = (mask != IGNORED) & (mask != UNSURE)
        flat = torch.bincount(key[known].flatten(), minlength=self.counts.numel())
        self.counts += flat.view_as(self.counts).to(self.counts.device)

    def iou(self, threshold: float = 0.5) -> dict[str, float]:
        """Return IoU by source, of pixels whose probability is at least `threshold`."""
        first = min(_BINS - 1, max(0, int(torch.tensor(threshold * (_BINS - 1)).ceil())))
        hit = self.counts[..., first:].sum(-1).double()
        union = hit[:, 0] + self.counts[:, 1].sum(-1)
        return {n: float(hit[i, 1] / union[i].clamp_min(1)) for i, n in enumerate(self.sources)}

    def mean_iou(self, threshold: float = 0.5) -> float:
        """Return the mean of the sources' IoU, each counting the same."""
        values = self.iou(threshold).values()
        return sum(values) / max(1, len(values))

    def best_threshold(self) -> float:
        """Return the threshold of the highest mean IoU."""
        return max((i / 100 for i in range(5, 96)), key=self.mean_iou)
