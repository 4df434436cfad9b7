"""The learning rate as a function of progress, and progress as the larger of steps done and time used."""

import math
import time
from dataclasses import dataclass, field

__all__ = ["Progress", "learning_rate_factor"]


def learning_rate_factor(progress: float, *, warm_up: float, last: float) -> float:
    """Rise in a straight line over `warm_up`, then fall along a cosine to `last`.

    Args:
        progress: 0 at the start, 1 at the end.
        warm_up: share of the run spent rising.
        last: factor at the end.
    """
    if progress < warm_up:
        return max(progress / warm_up, 1e-3)
    done = min(1.0, (progress - warm_up) / max(1e-9, 1 - warm_up))
    return last + (1 - last) * (1 + math.cos(math.pi * done)) / 2


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
        """Progress in [0, 1]."""
        return min(1.0, max(self.step / self.steps, self.used_s / (60 * self.minutes)))
