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
from geoseg.errors import ClusterError, InstallationError, UsageError
from geoseg.io.tables import name_some
from geoseg.run.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client

    from geoseg.bundle import Bundle

log = logging.getLogger(__name__)

CONNECT_S = 30
NO_ANSWER = (
    "The dask scheduler does not answer. Finished blocks are kept: run the same command again when it is available."
)

LOOPBACK = "127.0.0.1"
HTTP = f"{LOOPBACK}:0"
"""Address of the HTTP servers that dask starts even without a dashboard."""

READING_THREADS = 1
"""Task threads in addition to the engine's: one block is read while the others are in the network."""

LOCAL_CONFIG = {
    "distributed.admin.tick.limit": "60s",  # a block may hold Python's lock for long
    "distributed.worker.memory.target": False,  # results of tasks are a few numbers, nothing to spill ...
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # ... and a paused worker would wait forever
    "distributed.worker.memory.terminate": 0.95,
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
    "distributed.worker.profile.enabled": False,  # samples every thread a hundred times a second
    "distributed.diagnostics.nvml": False,  # takes a second at every start
    "temporary-directory": None,  # nothing is spilled; that of a site may not exist here
}

ENCRYPTION = "distributed.comm.require-encryption"
"""Setting of a site's dask configuration that leaves no unencrypted connection between processes."""

GDAL_CACHE_MB = "64"
"""GDAL otherwise caches decoded pixels in 5 % of the machine's memory, although geoseg reads them once."""

RTREE_BYTES = str(32 << 20)
"""GDAL otherwise holds the spatial index of a GeoPackage in memory: about 40 MB per million footprints."""

ARROWS_POOL = "system"
"""pyarrow otherwise has its own allocator, which keeps freed memory: 70 MB while footprints are written."""

ARENAS = 2
"""glibc otherwise gives every thread its own heap, which keeps freed memory."""

PYTHONS_OWN = (700, 2000)
"""Python's default threshold of garbage collection: up to 3.12, and later."""

SELDOM = (50_000, 20, 100)

DASKS_TRIM_THRESHOLD = "65536"
"""Setting of dask's nannies for their workers. With it every large array is allocated from the system and returned,
page by page: blocks take 1.5 times as long, and peak memory is no lower."""

TRIM_BYTES, MMAP_BYTES = 256 << 20, 32 << 20
"""Used instead: how much memory may lie free, and from which size on arrays are allocated from the system."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameter numbers in glibc's malloc.h."""


@contextmanager
def open_client(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    """Open the dask client that the settings ask for.

    By default, one worker with threads in this process: reading, the network and writing release Python's lock, and a
    single process holds the network and torch only once.

    Raises:
        ClusterError: If a scheduler does not answer.
        InstallationError: If the cluster cannot be started with the dask configuration of this machine.
    """
    import dask

    # distributed configures its loggers when it is imported; this setting keeps them quiet.
    dask.config.set({"logging.distributed": "error"})
    import distributed  # noqa: F401  # loggers first

    for name in ("distributed", "distributed.http"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("distributed.worker", "distributed.client", "tornado.application"):  # geoseg reports these itself
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
            log.info("For dask's dashboard, install geoseg[cluster] on the machine of the scheduler")
        yield client


@contextmanager
def _connect(address: str) -> "Iterator[Client]":
    """Connect to a running scheduler by its address or scheduler file."""
    from distributed import Client

    if "://" not in address and not Path(address).is_file():
        raise UsageError(
            f"`scheduler={address!r}` is neither an address nor an existing file. Give an address such as "
            "tcp://10.0.0.1:8786, or the file that `dask scheduler --scheduler-file` wrote."
        )
    where = {"address": address} if "://" in address else {"scheduler_file": address}
    try:
        client = Client(**where, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as err:
        said = str(err) or type(err).__name__
        raise UsageError(
            f"`scheduler={address!r}` is not the address of a scheduler, nor a file with one ({said}). Give an address "
            "such as tcp://10.0.0.1:8786, or the file that `dask scheduler --scheduler-file` wrote."
        ) from err
    except OSError as err:
        raise ClusterError(
            f"The dask scheduler at {address} does not answer ({err}). Check that it is running, and that this machine "
            "can reach its port."
        ) from err
    with _closed_quietly(client):
        yield client


@contextmanager
def _processes(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    """Start worker processes on this machine, each with a nanny that restarts it and, if there are any, its own GPU.

    Each process imports torch and torchgeo itself. Forks of a process that has imported them would start faster and
    share memory, but these libraries start threads when they are imported, and forking with threads may hang.
    """
    import dask
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
    if dask.config.get(ENCRYPTION, default=None):
        raise InstallationError(
            f"The dask configuration requires encryption ({ENCRYPTION}), for which worker processes need certificates. "
            "Run in one process, without `workers`; connect to a scheduler of yours with `scheduler`; or turn it off."
        )
    with _own_cluster(workers, host=LOOPBACK) as client:
        yield client


@contextmanager
def _threads(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    import dask
    from distributed import Worker
    from distributed.comm.inproc import global_manager

    # Nothing leaves this process, but dask would look up the address of the machine: it connects a socket to 8.8.8.8
    # and, offline, logs a warning and resolves the machine's name.
    global_manager._ip = global_manager._ip or LOOPBACK
    threads = worker_threads(settings.device, settings.threads, bundle.format)
    options = {
        "nthreads": threads + READING_THREADS,
        "memory_limit": 0,
        "silence_logs": logging.ERROR,
        "dashboard_address": HTTP,
    }
    # No dashboard: importing bokeh takes a second at every start.
    with (
        dask.config.set({ENCRYPTION: None}),
        _own_cluster({0: {"cls": Worker, "options": options}}, protocol="inproc://", dashboard=False) as client,
    ):
        yield client


@contextmanager
def _own_cluster(workers: dict[int, dict[str, Any]], **options: Any) -> "Iterator[Client]":
    """Start workers and, with the given options, a scheduler that only this machine can reach.

    Raises:
        InstallationError: If they do not start.
    """
    from distributed import Client, Scheduler, SpecCluster

    scheduler = {"cls": Scheduler, "options": {"dashboard_address": HTTP} | options}
    with ExitStack() as stack:
        try:
            cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)  # type: ignore[no-untyped-call]  # distributed is partly annotated
            stack.enter_context(_closed_quietly(cluster))
            client = Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]
            stack.enter_context(_closed_quietly(client))
        except (RuntimeError, OSError, TimeoutError, ValueError, TypeError) as err:
            cause: BaseException = err
            while cause.__cause__ is not None:  # dask says no more than that a worker failed
                cause = cause.__cause__
            raise InstallationError(
                f"dask cannot start its workers on this machine ({cause}). Check its configuration: the environment "
                f"variables {name_some(sorted(key for key in os.environ if key.startswith('DASK_'))) or 'DASK_*'} "
                "and the files in ~/.config/dask and /etc/dask."
            ) from err
        with suppress(ImportError):
            from distributed.gc import disable_gc_diagnosis

            disable_gc_diagnosis(force=True)  # type: ignore[no-untyped-call]  # a Ctrl-C in its callback would be ignored
        yield client


@contextmanager
def _closed_quietly(opened: Any) -> Iterator[None]:
    """Close a client or a cluster; what fails then is only logged, as everything it was for is done or has failed.

    dask closes its connections with a time limit, and tornado's `TimeoutError` is not Python's
    (https://www.tornadoweb.org/en/stable/gen.html#tornado.gen.with_timeout), so that it can pass through.
    """
    opened.__enter__()
    try:
        yield
    finally:
        try:
            opened.__exit__(None, None, None)
        except Exception as err:  # noqa: BLE001 - whatever dask raises
            log.info("dask did not close as it should (%s: %s); nothing is lost", type(err).__name__, err)


def engine_threads(settings: RunSettings, bundle: "Bundle") -> int | None:
    """Return the threads of a worker's engine; None for as many as the worker has."""
    if settings.is_in_process:
        return worker_threads(settings.device, settings.threads, bundle.format)
    return settings.threads


def computing_threads(client: Any, settings: RunSettings, bundle: "Bundle") -> int:
    """Return how many blocks are computed at a time: one per thread, without threads that only read ahead.

    Raises:
        ClusterError: If the scheduler does not answer.
    """
    here = engine_threads(settings, bundle) if settings.is_in_process else None
    try:
        return here or sum(client.nthreads().values())
    except (OSError, TimeoutError) as err:
        raise ClusterError(NO_ANSWER) from err


def dashboard_of(client: Any, settings: RunSettings) -> str | None:
    """Return the address of the cluster's dashboard; None in a single process or without bokeh."""
    if settings.is_in_process:
        return None
    has_bokeh = settings.scheduler is not None or importlib.util.find_spec("bokeh") is not None
    with suppress(OSError, TimeoutError):  # a lost scheduler is reported by what comes next
        services = client.scheduler_info(n_workers=0).get("services", {})
        return str(client.dashboard_link) if has_bokeh and "dashboard" in services else None
    return None


def limit_memory() -> None:
    """Limit caches and heaps that grow with the scene or the threads, unless the user has set their size."""
    os.environ.setdefault("GDAL_CACHEMAX", GDAL_CACHE_MB)
    os.environ.setdefault("OGR_GPKG_MAX_RAM_USAGE_RTREE", RTREE_BYTES)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", ARROWS_POOL)  # has an effect if pyarrow is not imported yet
    libc = _glibc()
    if libc is None:
        return
    if "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(M_ARENA_MAX, ARENAS)
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") == DASKS_TRIM_THRESHOLD:
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def collect_seldom() -> None:
    """Make Python's garbage collection less frequent, unless the user has set its threshold.

    A block makes thousands of polygons, none of them in a cycle, and every collection visits all objects of torch with
    Python's lock held: a quarter of the time of blocks without a network.
    """
    if gc.get_threshold()[0] in PYTHONS_OWN:
        gc.set_threshold(*SELDOM)


def release_memory() -> None:
    """Return freed memory to the system, such as the heaps of the blocks before the results are made."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process; None if unknown.

    On Linux, `getrusage` would return the peak of the process that started this one, if that was larger.
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
    """Return the C library if it is glibc; others lack these calls."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
