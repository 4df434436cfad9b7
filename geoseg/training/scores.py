"""Scores on the validation chips, from counts of pixels per source.

Networks of one or two classes are counted by the probability that `geoseg run` would store, so that the scores at any
threshold are known after one pass and are those of the mask that a run would write; networks of more classes by the
most likely class. Scores of several sources are means in which each source has the same weight.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.datasets.auxiliary import FULL
from geoseg.evaluate import Confusion
from geoseg.inference import PROBABILITY_ONE, stored_threshold

__all__ = ["Scores", "target_probability"]

_LEVELS = PROBABILITY_ONE + 1


def target_probability(logits: Tensor, target: int) -> Tensor:
    """Return the target's probability (n, y, x) float32 of logits (n, class, y, x): of one class a sigmoid."""
    logits = logits.float()
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)[:, target]


class Scores:
    """Counts of pixels by source, truth and prediction, on the device of the first batch."""

    def __init__(
        self,
        sources: Sequence[str],
        classes: Sequence[str],
        *,
        target: str,
        unscored: Sequence[str] = (),
        auxiliary: Sequence[str] = (),
    ) -> None:
        """Start counting.

        Args:
            sources: Names of the validation sources.
            classes: The network's classes; one is a sigmoid channel, several are softmax channels.
            target: The target class; of more than two classes all are scored.
            unscored: Classes that means over classes leave out.
            auxiliary: Names of the auxiliary channels, each a sigmoid.
        """
        self.sources, self.classes, self.target, self.unscored = sources, tuple(classes), target, tuple(unscored)
        self.is_binary = len(classes) <= 2
        shape = (2, _LEVELS) if self.is_binary else (len(classes), len(classes))
        self.counts = torch.zeros(len(sources), *shape, dtype=torch.int64)
        self.auxiliary = tuple(auxiliary)
        self.auxiliary_counts = torch.zeros(len(sources), len(auxiliary), 2, 2, dtype=torch.int64)

    @torch.no_grad()
    def update(self, logits: Tensor, mask: Tensor, source: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (n, class, y, x), any float type.
            mask: (n, y, x) uint8 of class indices (one channel: 0 and 1); other values do not count.
            source: (n,) numbers of the samples' sources.
        """
        self.counts = self.counts.to(logits.device)
        truths, values = self.counts.shape[1:]
        if self.is_binary:
            target = 1 if len(self.classes) == 1 else self.classes.index(self.target)
            truth = mask == target
            found = (target_probability(logits, target) * PROBABILITY_ONE).round().long()
        else:
            truth, found = mask, logits.argmax(dim=1)
        key = (source.view(-1, 1, 1).long() * truths + truth.long()) * values + found
        nowhere = self.counts.numel()
        key = key.masked_fill(mask >= max(2, len(self.classes)), nowhere)
        self.counts += torch.bincount(key.flatten(), minlength=nowhere + 1)[:-1].view_as(self.counts)

    @torch.no_grad()
    def update_auxiliary(self, logits: Tensor, targets: Tensor, source: Tensor) -> None:
        """Count where auxiliary channels are at least 0.5, and where they should be.

        Args:
            logits: (n, channel, y, x), any float type.
            targets: (n, channel, y, x) uint8 of `draw_auxiliary`; `distance` is true from one half on.
            source: (n,) numbers of the samples' sources.
        """
        self.auxiliary_counts = counts = self.auxiliary_counts.to(logits.device)
        for number, name in enumerate(self.auxiliary):
            values = targets[:, number]
            truth = values >= (FULL / 2 if name == "distance" else 1)
            key = 2 * truth.long() + (logits[:, number] >= 0).long()
            key = (4 * source.view(-1, 1, 1).long() + key).masked_fill(values > FULL, 4 * len(counts))
            found = torch.bincount(key.flatten(), minlength=4 * len(counts) + 1)[:-1]
            counts[:, number] += found.view(-1, 2, 2)

    def headline(self, threshold: float) -> float:
        """Return the score that chooses the best weights, a mean over sources; 0 if no source has it.

        It is the target's IoU, or of more than two classes the mean IoU over those that are scored. More than two
        classes ignore `threshold`, here and below.
        """
        figure = "iou" if self.is_binary else "mean_iou"
        return _mean([metrics[figure] for metrics in self._metrics(threshold).values()], nothing=0.0)

    def row(self, threshold: float) -> dict[str, float]:
        """Return the columns of `history.csv`, means over the sources; NaN if no source has the score.

        `iou` and `iou_<source>` of the target and its `dice`, or of more than two classes `iou_<class>` of each;
        `pixel_accuracy`, and `mean_iou` over the scored classes (of one class, over it and the background).
        """
        metrics = self._metrics(threshold)
        if self.is_binary:
            by_name = {"iou": self.headline(threshold)} | {f"iou_{name}": m["iou"] for name, m in metrics.items()}
            by_name["dice"] = _mean([m["dice"] for m in metrics.values()])
        else:
            by_name = {
                f"iou_{name}": _mean([m["classes"][name]["iou"] for m in metrics.values()]) for name in self.classes
            }
        by_name |= {key: _mean([m[key] for m in metrics.values()]) for key in ("mean_iou", "pixel_accuracy")}
        for name, scores in self._auxiliary_scores().items():
            by_name |= {f"{name}_{key}": _mean([own[key] for own in scores.values()]) for key in ("iou", "f1")}
        return by_name

    def figures(self, threshold: float) -> dict[str, Any]:
        """Return all scores for `metrics.json`; None where one does not exist.

        `headline`; `mean`, the columns of `row`; `iou`, the target's by source; `sources`, for each the metrics of
        `geoseg.evaluate.Confusion` (per class, and the confusion matrix); `all`, those of all pixels together; of one
        or two classes `threshold`, `best_threshold` and `iou_at_best_threshold` as well.
        """
        metrics, everything = self._metrics(threshold), self._confusion(self.counts.sum(dim=0), threshold)
        found = {
            "headline": self.headline(threshold),
            "mean": self.row(threshold),
            "iou": {name: m["iou"] for name, m in metrics.items()},
            "sources": metrics,
            "all": everything.metrics(target=self.target, unscored=self.unscored),
        }
        if self.is_binary:
            best = self.best_threshold()
            at_best = {name: m["iou"] for name, m in self._metrics(best).items()}
            found |= {"threshold": threshold, "best_threshold": best, "iou_at_best_threshold": at_best}
        if self.auxiliary:
            found["auxiliary"] = self._auxiliary_scores()
        plain: dict[str, Any] = json.loads(json.dumps(found), parse_constant=lambda _: None)
        return plain

    def best_threshold(self) -> float:
        """Return the threshold from 0.05 to 0.95 with the best headline; 0.5 for more than two classes."""
        if not self.is_binary:
            return 0.5
        by_closeness = sorted((i / 100 for i in range(5, 96)), key=lambda threshold: abs(threshold - 0.5))
        return max(by_closeness, key=self.headline)

    def _auxiliary_scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return IoU, F1, precision and recall by channel and source, at 0.5; NaN where there is nothing to score."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for number, name in enumerate(self.auxiliary):
            found[name] = {}
            for source, counts in zip(self.sources, self.auxiliary_counts[:, number].tolist(), strict=True):
                (_, wrong), (missed, both) = counts
                found[name][source] = {
                    "iou": _share(both, both + wrong + missed),
                    "f1": _share(2 * both, 2 * both + wrong + missed),
                    "precision": _share(both, both + wrong),
                    "recall": _share(both, both + missed),
                }
        return found

    def _metrics(self, threshold: float) -> dict[str, dict[str, Any]]:
        confusions = {name: self._confusion(self.counts[n], threshold) for n, name in enumerate(self.sources)}
        return {name: c.metrics(target=self.target, unscored=self.unscored) for name, c in confusions.items()}

    def _confusion(self, counts: Tensor, threshold: float) -> Confusion:
        """Return the counts (truth, prediction) of one source as classes by classes."""
        values: NDArray[np.int64] = counts.cpu().numpy()
        if not self.is_binary:
            return Confusion(values, self.classes)
        first = stored_threshold(threshold)
        folded = np.stack((values[:, :first].sum(axis=1), values[:, first:].sum(axis=1)), axis=1)
        others = [name for name in self.classes if name != self.target] or ["background"]
        return Confusion(folded, (others[0], self.target))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(values: Sequence[float], *, nothing: float = float("nan")) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else nothing
