"""Open rasters, kept by each thread, as GDAL's datasets are not thread-safe; remote TIFF tiles, fetched by one."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

import rasterio

from geoseg.gdal import GDAL_ERRORS, forget_failed_sources
from geoseg.io.remote import is_remote
from geoseg.scene.files import gdal_env, open_raster
from geoseg.third_party import allow_no_georeference

OPEN_READERS = 8

MANY_FILES = 16
STAMPS_KEPT_S = 1.0
"""Seconds for which the stamps of many files are reused: checking a thousand takes longer than reading a strip."""

Stamp = tuple[int, int] | None
"""Time and size of a local file."""

KNOWN_TILES = 1 << 16
"""Most TIFF tiles remembered as fetched: a few megabytes."""

Tile = tuple[object, ...]


class _Cache(OrderedDict[tuple[object, ...], rasterio.DatasetReader]):
    """The open rasters of a thread, the most recently used last; its lock is held while one of them is read."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # by identity, for the WeakSet

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()

    def close(self) -> None:
        """Close them all."""
        with self.lock:
            while self:
                self.popitem()[1].close()


_readers = threading.local()
_caches: WeakSet[_Cache] = WeakSet()
"""The caches of all threads."""


@contextmanager
def open_reader(
    source: str, level: int | None = None, *, files: Sequence[str] = ()
) -> Iterator[rasterio.DatasetReader]:
    """Yield an open raster: opened once per thread, reopened if its file was replaced; the last few stay open.

    What failed in it is forgotten, so that it is tried again, and fails again with an error.

    Args:
        source: Path, URL or VRT.
        level: Overview to read instead of the full resolution, from 0.
        files: The files behind the source; the source itself by default.
    """
    cache = _own_cache()
    files = files or (source,)
    key = (source, level, *_stamps(tuple(files)))
    with cache.lock, gdal_env(files):
        try:
            if key not in cache:
                with allow_no_georeference():
                    cache[key] = open_raster(source, **({} if level is None else {"overview_level": level}))
                while len(cache) > OPEN_READERS:
                    cache.popitem(last=False)[1].close()
            cache.move_to_end(key)
            yield cache[key]
        except GDAL_ERRORS:
            forget_failed_sources()  # with the error that GDAL left behind, which rasterio would raise at the next call
            raise


def _own_cache() -> _Cache:
    if "cache" not in _readers.__dict__:
        _readers.cache = _Cache()
        _caches.add(_readers.cache)
    cache: _Cache = _readers.cache
    return cache


def _stamps(files: tuple[str, ...]) -> tuple[Stamp, ...]:
    """Return the time and size of each file; of many, as they were up to a second ago."""
    if len(files) <= MANY_FILES:
        return tuple(map(stamp_of, files))
    kept: dict[tuple[str, ...], tuple[float, tuple[Stamp, ...]]] = _readers.__dict__.setdefault("stamps", {})
    now = time.monotonic()
    if files not in kept or now - kept[files][0] > STAMPS_KEPT_S:
        kept.pop(files, None)
        kept[files] = now, tuple(map(stamp_of, files))
        while len(kept) > OPEN_READERS:
            kept.pop(next(iter(kept)))
    return kept[files][1]


def stamp_of(path: str) -> Stamp:
    """Return a local file's time and size."""
    if path.startswith("<") or is_remote(path):
        return None
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def close_readers() -> None:
    """Close the calling thread's open rasters, so that the files may be replaced or removed."""
    _readers.__dict__.pop("stamps", None)
    _own_cache().close()


def close_idle_readers() -> None:
    """Close the open rasters of every thread that is not reading, with what GDAL has cached of them."""
    for cache in list(_caches):
        if cache.lock.acquire(blocking=False):
            try:
                cache.close()
            finally:
                cache.lock.release()


class Fetches:
    """TIFF tiles that are being fetched: a thread that needs one waits for it, instead of fetching it too."""

    def __init__(self) -> None:
        """Start without any tile."""
        self._changed = threading.Condition()
        self._in_flight: set[Tile] = set()
        self._fetched: set[Tile] = set()

    @contextmanager
    def claim(self, tiles: set[Tile]) -> Iterator[None]:
        """Wait until no other thread fetches any of these tiles; those fetched before are in GDAL's cache."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight.isdisjoint(tiles))
            mine = tiles - self._fetched
            self._in_flight |= mine
        try:
            yield
            with self._changed:
                if len(self._fetched) + len(mine) > KNOWN_TILES:
                    self._fetched.clear()
                self._fetched |= mine
        finally:
            with self._changed:
                self._in_flight -= mine
                self._changed.notify_all()


fetches = Fetches()
"""The fetches of this process."""
