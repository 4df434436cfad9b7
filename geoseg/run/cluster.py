"""The dask cluster of a run: threads in this process, processes on this machine, or somebody's cluster."""

import importlib.util
import logging
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
            client = stack.enter_context(_connect(settings.scheduler, settings))
        elif settings.workers is not None:
            client = stack.enter_context(_processes(settings, bundle))
        else:
            client = stack.enter_context(_threads(settings, bundle))
        yield client


@contextmanager
def _connect(address: str, settings: RunSettings) -> "Iterator[Client]":
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
        _say_dashboard(client, settings)
        yield client


@contextmanager
def _processes(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    """Start worker processes here, each with a nanny that starts it again; on a machine with GPUs each takes one.

    Each imports torch and torchgeo for itself: forked from one process that has imported them they start in no time and
    share its memory, but libraries start threads when they are imported, and a fork among threads may hang for ever.
    """
    from distributed import Nanny

    count = settings.workers or 1
    threads = settings.threads or max(1, usable_cores() // count)
    is_gpu = choose_device(settings.device, bundle.form) == "cuda"
    own: dict[str, Any] = {"nthreads": worker_threads(settings.device, threads, bundle.form)}
    workers = {
        index: {
            "cls": Nanny,
            "options": own
            | {
                "memory_limit": _memory_share(count),
                "silence_logs": logging.CRITICAL,
                "host": LOOPBACK,  # for its HTTP server too
            }
            | ({"env": {"CUDA_VISIBLE_DEVICES": str(index % _gpu_count())}} if is_gpu else {}),
        }
        for index in range(count)
    }
    with _own_cluster(workers, host=LOOPBACK) as client:
        _say_dashboard(client, settings)
        yield client


@contextmanager
def _threads(settings: RunSettings, bundle: "Bundle") -> "Iterator[Client]":
    from distributed import Worker
    from distributed.comm.inproc import global_manager

    # Nothing of it leaves this process, but asked for an address dask looks for the machine's: it points a socket to
    # 8.8.8.8, and offline it says so and asks a name server for the machine's name.
    global_manager._ip = global_manager._ip or LOOPBACK
    threads = worker_threads(settings.device, settings.threads, bundle.form)
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
        return worker_threads(settings.device, settings.threads, bundle.form)
    return settings.threads


def computing_threads(client: Any, settings: RunSettings, bundle: "Bundle") -> int:
    """Return how many blocks are computed at a time now: a thread per block, without those that only read ahead."""
    here = engine_threads(settings, bundle) if settings.is_in_process else None
    return here or sum(client.nthreads().values())


def dashboard_of(client: Any, settings: RunSettings) -> str | None:
    """Return the address of the cluster's dashboard; None where it has none: a run in one process, or without bokeh."""
    if settings.is_in_process:
        return None
    has_bokeh = settings.scheduler is not None or importlib.util.find_spec("bokeh") is not None
    with suppress(OSError, TimeoutError):  # a scheduler that has just died: what comes next will say so
        services = client.scheduler_info(n_workers=0).get("services", {})
        return str(client.dashboard_link) if has_bokeh and "dashboard" in services else None
    return None


def _say_dashboard(client: Any, settings: RunSettings) -> None:
    address = dashboard_of(client, settings)
    if address is None:
        log.info("Install geoseg[cluster] where the scheduler runs for dask's dashboard.")
    else:
        log.info("Dashboard: %s", address)


def _memory_share(count: int) -> int:
    """Return a worker's share of the machine's memory, bytes."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT / count)


def _gpu_count() -> int:
    import torch

    return max(1, torch.cuda.device_count())
