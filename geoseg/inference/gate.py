"""How many networks run at once in a process, so that the other threads read meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Semaphore
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoseg.engines import Engine


@contextmanager
def engine_gate(engine: "Engine") -> Iterator[float]:
    """Let as many threads of this process through at once as an engine wants.

    Yields:
        Seconds waited; 0 where there was room.
    """
    gate = _gate_of(engine.name, engine.threads)
    waited = 0.0
    if not gate.acquire(blocking=False):
        start = time.perf_counter()
        gate.acquire()
        waited = time.perf_counter() - start
    try:
        yield waited
    finally:
        gate.release()


@lru_cache(maxsize=16)
def _gate_of(name: str, threads: int) -> Semaphore:
    """Return the gate of an engine; by its name, as small engines travel with their task and are many objects."""
    return Semaphore(max(1, threads))
