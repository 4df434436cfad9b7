"""How much memory a process takes: little, and no more for a larger scene."""

import ctypes
import gc
import os
import sys
from pathlib import Path

GDAL_CACHE_MB = "64"
"""GDAL otherwise keeps 5 % of the machine's memory of decoded pixels that geoseg reads once."""

RTREE_BYTES = str(32 << 20)
"""GDAL otherwise keeps the spatial index of a GeoPackage in memory: some 40 MB per million footprints."""

ARROWS_POOL = "system"
"""pyarrow otherwise has a heap of its own, which keeps what was freed: 70 MB while footprints are written."""

ARENAS = 2
"""glibc otherwise gives every thread heaps of its own, which keep what was freed."""

PYTHONS_OWN = (700, 2000)
"""Objects made before Python looks for garbage, as it comes: to 3.12, and later."""

SELDOM = (50_000, 20, 100)

DASKS_TRIM_THRESHOLD = "65536"
"""What dask's nannies set for their workers. With it every large array is asked of the system and given back, page by
page: half as much time again for blocks, and no smaller peak."""

TRIM_BYTES, MMAP_BYTES = 256 << 20, 32 << 20
"""Instead: what may lie free, and how large an array is before it is asked of the system. glibc's own upper bounds."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Numbers of glibc's malloc.h."""


def limit_memory() -> None:
    """Keep caches and heaps small that grow with the scene or the threads, unless the user chose their size."""
    os.environ.setdefault("GDAL_CACHEMAX", GDAL_CACHE_MB)
    os.environ.setdefault("OGR_GPKG_MAX_RAM_USAGE_RTREE", RTREE_BYTES)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", ARROWS_POOL)  # heard where pyarrow is not imported yet
    libc = _glibc()
    if libc is None:
        return
    if "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(M_ARENA_MAX, ARENAS)
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") == DASKS_TRIM_THRESHOLD:
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def collect_seldom() -> None:
    """Let Python look for cyclic garbage less often, unless the user chose how often.

    A block makes thousands of polygons, none of them in a cycle, and every look goes through all of torch's objects
    with Python's lock held: a quarter of the time of blocks without a network.
    """
    if gc.get_threshold()[0] in PYTHONS_OWN:
        gc.set_threshold(*SELDOM)


def release_memory() -> None:
    """Give back to the system what was freed: the heaps of the blocks before the results are made."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process, which holds every worker thread; None where unknown.

    Linux's `getrusage` would tell the peak of the process that started this one, where that was larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return round(int(lines["VmHWM"].split()[0]) * 1024 / 1e6, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library where it is glibc: others have neither call."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
