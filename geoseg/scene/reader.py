"""Open rasters, kept by each thread: GDAL's datasets are not thread-safe."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import rasterio

from geoseg.scene.files import stamp_of
from geoseg.scene.remote import gdal_env
from geoseg.scene.silence import quiet_georeference

OPEN_READERS = 8

_readers = threading.local()


def open_reader(source: str, level: int | None = None, *, files: Sequence[str] = ()) -> rasterio.DatasetReader:
    """Open a raster once per thread and keep the last few open; a file that was replaced is opened anew.

    Args:
        source: Path, URL or VRT.
        level: Overview to read instead of the full resolution, from 0.
        files: The files behind the source; the source itself by default.
    """
    cache: OrderedDict[tuple[object, ...], rasterio.DatasetReader] = _readers.__dict__.setdefault(
        "cache", OrderedDict()
    )
    files = files or (source,)
    key = (source, level, *map(stamp_of, files))
    if key not in cache:
        with gdal_env(files), quiet_georeference():
            cache[key] = rasterio.open(source) if level is None else rasterio.open(source, overview_level=level)
        while len(cache) > OPEN_READERS:
            cache.popitem(last=False)[1].close()
    cache.move_to_end(key)
    return cache[key]


def close_readers() -> None:
    """Close the calling thread's open rasters, so that the files may be replaced or removed."""
    for reader in _readers.__dict__.pop("cache", {}).values():
        reader.close()
