"""The learning rate as a function of progress, and progress as the larger of steps done and time used."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Plateau", "Progress", "learning_rate_factor"]

_RISE = 0.3
"""Share of a one-cycle run that rises: Smith 2018, https://arxiv.org/abs/1803.09820, and torch's OneCycleLR."""


def learning_rate_factor(progress: float, *, schedule: str, warm_up: float, last: float) -> float:
    """Rise in a straight line over `warm_up`, then follow the schedule to `last`.

    Args:
        progress: 0 at the start, 1 at the end.
        schedule: `cosine` falls; `one-cycle` rises over the first 30 %, then falls; `constant` and `plateau` stay
            (a plateau's own factor is `Plateau.factor`).
        warm_up: share of the run spent rising.
        last: factor at the end.
    """
    if progress < warm_up:
        return max(progress / warm_up, 1e-3)
    done = min(1.0, (progress - warm_up) / max(1e-9, 1 - warm_up))
    if schedule == "cosine":
        return _cosine(1.0, last, done)
    if schedule == "one-cycle":
        return _cosine(last, 1.0, done / _RISE) if done < _RISE else _cosine(1.0, last, (done - _RISE) / (1 - _RISE))
    return 1.0


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class Plateau:
    """Lowers the learning rate when the validation loss no longer falls, as torch's ReduceLROnPlateau.

    Attributes:
        shrink: What the factor is multiplied by.
        patience: Epochs without a lower loss that are borne.
        last: Lowest factor.
        factor: The factor now.
    """

    shrink: float
    patience: int
    last: float
    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> None:
        """Take note of an epoch's validation loss; less than a ten-thousandth better is no better."""
        if loss < self.best * (1 - 1e-4):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = max(self.last, self.factor * self.shrink), 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {key: asdict(self)[key] for key in ("factor", "best", "waited")}


@dataclass
class Progress:
    """How far a run is, in [0, 1]: the larger of `step / steps` and time used of `minutes`, earlier tries included."""

    steps: int
    minutes: float
    step: int = 0
    used_s: float = 0.0
    _since: float = field(default_factory=lambda: time.monotonic())

    def advance(self) -> None:
        """Count one step, and the time since the last."""
        now = time.monotonic()
        self.step, self.used_s, self._since = self.step + 1, self.used_s + now - self._since, now

    def start(self) -> None:
        """Begin to count time, after loading."""
        self._since = time.monotonic()

    @property
    def done(self) -> float:
        """Progress in [0, 1]; `steps` of 0 are no limit."""
        return min(1.0, max(self.step / self.steps if self.steps else 0.0, self.used_s / (60 * self.minutes)))
