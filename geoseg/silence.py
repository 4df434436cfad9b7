"""Silence about warnings that concern no user, in programs of several threads.

Python keeps its warning filters for the whole process, and `warnings.catch_warnings` puts back what it found: of two
threads that use it, one may bring back what the other wanted silenced, or leave it silenced for ever. Here the first
who comes keeps the filters, the last who leaves puts them back. Nobody waits for another.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Silence:
    """Keeps the filters while anyone wants silence."""

    def __init__(self) -> None:
        self.lock, self.wanted_by, self.filters = threading.Lock(), 0, warnings.catch_warnings()

    def enter(self, category: type[Warning], message: str) -> None:
        with self.lock:
            if self.wanted_by == 0:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
            self.wanted_by += 1
            warnings.filterwarnings("ignore", message, category)

    def leave(self) -> None:
        with self.lock:
            self.wanted_by -= 1
            if self.wanted_by == 0:
                self.filters.__exit__(None, None, None)


_silence = _Silence()


@contextmanager
def quiet(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """Ignore warnings of a category whose text begins as given, at least while the block runs.

    Args:
        category: Which warnings.
        message: Regular expression that matches the beginning of their text.
    """
    _silence.enter(category, message)
    try:
        yield
    finally:
        _silence.leave()


@contextmanager
def quiet_georeference() -> Iterator[None]:
    """Silence rasterio about rasters without georeference: geoseg says it once, when it opens a scene."""
    from rasterio.errors import NotGeoreferencedWarning

    with quiet(NotGeoreferencedWarning):
        yield
