"""The dask cluster of a run (threads, local processes or a running scheduler), and the memory its processes take."""

import ctypes
import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.engines import choose_device, usable_cores, worker_threads
from geoseg.errors import ClusterError, UsageError
from geoseg.run.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client

    from geoseg.bundle import Bundle

log = logging.getLogger(__name__)

CONNECT_S = 30
NO_ANSWER = "The dask scheduler does not answer. What is done is kept: run the same command again when it is there."

LOOPBACK = "127.0.0.1"
HTTP = f"{LOOPBACK}:0"
"""Where the HTTP servers listen that dask starts even without a dashboard."""
READING_THREADS = 1
"""Task threads beyond the engine's: one block is read while the others are in the network."""

LOCAL_CONFIG = {
    "distributed.admin.tick.limit": "60s",  # a block holds Python's lock for as long as it likes
    "distributed.worker.memory.target": False,  # results of tasks are a few numbers: nothing to spill, ...
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # ... and a paused worker would wait for ever
    "distributed.worker.memory.terminate": 0.95,
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
    "distributed.worker.profile.enabled": False,  # looks at every thread a hundred times a second
    "distributed.diagnostics.nvml": False,  # the dashboard's look at GPUs takes a second of every start
}

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


@contextmanager
def open_client(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    """Give the dask client that the settings ask for.

    By default one worker with threads in this process: reading, the network and the writing release Python's lock, and
    one process holds the network and torch once.

    Raises:
        ClusterError: If a scheduler does not answer.
    """
    import dask

    # distributed configures its loggers when it is imported, and again from these names.
    dask.config.set({"logging.distributed": "error"})
    import distributed  # noqa: F401  # loggers first

    for name in ("distributed", "distributed.http"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("distributed.worker", "distributed.client", "tornado.application"):  # what geoseg itself tells
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(LOCAL_CONFIG), ExitStack() as stack:
        if settings.scheduler is not None:
            client = stack.enter_context(_connect(settings.scheduler))
        elif settings.workers is not None:
            client = stack.enter_context(_processes(settings, bundle))
        else:
            client = stack.enter_context(_threads(settings, bundle))
        address = dashboard_of(client, settings)
        if address is not None:
            log.info("Dashboard: %s", address)
        elif not settings.is_in_process:
            log.info("Install geoseg[cluster] where the scheduler runs for dask's dashboard.")
        yield client


@contextmanager
def _connect(address: str) -> "Iterator[Client]":
    """Connect to a running scheduler, by its address or by the file that it wrote."""
    from distributed import Client

    if "://" not in address and not Path(address).is_file():
        raise UsageError(
            f"--scheduler {address} is neither an address nor a file that is there. Give one such as "
            "tcp://10.0.0.1:8786, or the file that `dask scheduler --scheduler-file` wrote."
        )
    where = {"address": address} if "://" in address else {"scheduler_file": address}
    try:
        client = Client(**where, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as err:
        raise ClusterError(
            f"The dask scheduler at {address} does not answer ({err}). Check that it runs, and that this machine "
            "reaches its port."
        ) from err
    with client:
        yield client


@contextmanager
def _processes(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    """Start worker processes here, each with a nanny that starts it again; on a machine with GPUs each takes one.

    Each imports torch and torchgeo for itself: forked from one process that has imported them they start in no time and
    share its memory, but libraries start threads when they are imported, and a fork among threads may hang for ever.
    """
    from distributed import Nanny
    from distributed.system import MEMORY_LIMIT

    count, gpus = settings.workers or 1, 0
    threads = settings.threads or max(1, usable_cores() // count)
    if choose_device(settings.device, bundle.format) == "cuda":
        import torch

        gpus = max(1, torch.cuda.device_count())
    workers: dict[int, dict[str, Any]] = {}
    for index in range(count):
        options: dict[str, Any] = {
            "nthreads": worker_threads(settings.device, threads, bundle.format),
            "memory_limit": int(MEMORY_LIMIT / count),
            "silence_logs": logging.CRITICAL,
            "host": LOOPBACK,  # for its HTTP server too
        }
        if gpus:
            options["env"] = {"CUDA_VISIBLE_DEVICES": str(index % gpus)}
        workers[index] = {"cls": Nanny, "options": options}
    with _own_cluster(workers, host=LOOPBACK) as client:
        yield client


@contextmanager
def _threads(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    from distributed import Worker
    from distributed.comm.inproc import global_manager

    # Nothing of it leaves this process, but asked for an address dask looks for the machine's: it points a socket to
    # 8.8.8.8, and offline it says so and asks a name server for the machine's name.
    global_manager._ip = global_manager._ip or LOOPBACK
    threads = worker_threads(settings.device, settings.threads, bundle.format)
    options = {
        "nthreads": threads + READING_THREADS,
        "memory_limit": 0,
        "silence_logs": logging.ERROR,
        "dashboard_address": HTTP,
    }
    # A dashboard's bokeh would take a second of every start.
    with _own_cluster({0: {"cls": Worker, "options": options}}, protocol="inproc://", dashboard=False) as client:
        yield client


@contextmanager
def _own_cluster(workers: dict[int, dict[str, Any]], **options: Any) -> "Iterator[Client]":
    """Start workers, and a scheduler with the options given, which nobody but this machine reaches."""
    from distributed import Client, Scheduler, SpecCluster

    scheduler = {"cls": Scheduler, "options": {"dashboard_address": HTTP} | options}
    with (
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,  # type: ignore[no-untyped-call]  # distributed is partly annotated
        Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


def engine_threads(settings: RunSettings, bundle: "Bundle") -> int | None:
    """Return the threads of a worker's engine; None where it is as many as the worker has threads."""
    if settings.is_in_process:
        return worker_threads(settings.device, settings.threads, bundle.format)
    return settings.threads


def computing_threads(client: Any, settings: RunSettings, bundle: "Bundle") -> int:
    """Return how many blocks are computed at a time now: a thread per block, without those that only read ahead.

    Raises:
        ClusterError: If the scheduler has just died.
    """
    here = engine_threads(settings, bundle) if settings.is_in_process else None
    try:
        return here or sum(client.nthreads().values())
    except (OSError, TimeoutError) as err:
        raise ClusterError(NO_ANSWER) from err


def dashboard_of(client: Any, settings: RunSettings) -> str | None:
    """Return the address of the cluster's dashboard; None where it has none: a run in one process, or without bokeh."""
    if settings.is_in_process:
        return None
    has_bokeh = settings.scheduler is not None or importlib.util.find_spec("bokeh") is not None
    with suppress(OSError, TimeoutError):  # a scheduler that has just died: what comes next will say so
        services = client.scheduler_info(n_workers=0).get("services", {})
        return str(client.dashboard_link) if has_bokeh and "dashboard" in services else None
    return None


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
