"""Blocks as dask tasks on a cluster sized to this machine."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def local_client(threads: int) -> "Iterator[Client]":
    """Give a dask client of one worker in this process with as many threads as the engine wants.

    Threads, not processes: reading, the network and the writing release Python's lock, and one process holds the
    network and torch once instead of once per core.
    """
    import dask

    # distributed configures its loggers when it is imported, and again from these names.
    dask.config.set({"logging.distributed": "error"})
    from distributed import Client, LocalCluster

    for name in ("distributed", "distributed.client", "distributed.http"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with (
        dask.config.set({"distributed.admin.tick.limit": "60s", "distributed.scheduler.allowed-failures": 0}),
        LocalCluster(  # type: ignore[no-untyped-call]  # distributed is partly annotated
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


def run_tasks(client: "Client", function: Callable[[Task], Result], tasks: Sequence[Task]) -> "Iterable[Result]":
    """Run tasks and yield their results as they come; the first failure ends the others and is raised here."""
    from distributed import as_completed

    futures = client.map(function, tasks, pure=False, retries=0)
    try:
        for _, result in as_completed(futures, with_results=True):  # type: ignore[no-untyped-call]
            yield result
    finally:
        client.cancel([f for f in futures if not f.done()])  # type: ignore[no-untyped-call]
