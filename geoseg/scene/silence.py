"""Silence about rasters without georeference, which geoseg speaks of once, when it opens one."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.errors import NotGeoreferencedWarning


class _Silence:
    """Keeps rasterio quiet about missing georeference while anyone wants it.

    Python keeps its warning filters for the whole process: the first who comes changes them, the last who leaves puts
    them back. Nobody waits for another, as opening remote files takes its time.
    """

    def __init__(self) -> None:
        self.lock, self.wanted_by, self.filters = threading.Lock(), 0, warnings.catch_warnings()

    def enter(self) -> None:
        with self.lock:
            self.wanted_by += 1
            if self.wanted_by == 1:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.simplefilter("ignore", NotGeoreferencedWarning)

    def leave(self) -> None:
        with self.lock:
            self.wanted_by -= 1
            if self.wanted_by == 0:
                self.filters.__exit__(None, None, None)


_silence = _Silence()


@contextmanager
def quiet_georeference() -> Iterator[None]:
    """Silence rasterio about rasters without georeference: geoseg says it once, in `_grid_of`."""
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()
