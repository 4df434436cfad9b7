"""Run tasks on a dask cluster, submitting only as many at a time as its workers will need next."""

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from geoseg.errors import ClusterError, ReadError
from geoseg.io.tables import plural
from geoseg.run.cluster import NO_ANSWER

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a task is tried before it has failed."""

PER_THREAD, AT_LEAST = 2, 4
"""Tasks on the cluster at a time: two per thread, so that no thread waits for the client."""

LOOK_EVERY_S = 1.0
ANSWER_S = 5.0
NO_WORKERS_S = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """A call on a worker: `function(shared, argument)`.

    Attributes:
        name: Name for dask's dashboard.
        function: A function of a module, so that it pickles by name.
        shared: Object that many tasks share, such as a job; sent to each worker once.
        argument: Argument of this task.
        attempt: Number of this attempt, from 1.
    """

    name: str
    function: Callable[[Any, Any], Any]
    shared: Any
    argument: Any
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a task, or the error with which it failed after all attempts."""

    task: Task
    result: Any = None
    error: Exception | None = None


def run_tasks(
    client: "Client", next_task: Callable[[], Task | None], *, check: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Keep the cluster busy and yield outcomes as they arrive.

    A task that could not read its pixels or whose worker died is tried `ATTEMPTS` times, at the end of the queue. After
    a worker has died, each of its tasks is tried alone on the cluster, as dask blames all of them.

    Args:
        client: Client of the cluster.
        next_task: Returns a task, or None if there is none now; called again after every outcome.
        check: Called about every second; an exception from it ends the run.

    Raises:
        ClusterError: If the scheduler is lost.
    """
    flight = _Flight(client)
    try:
        while flight.fill(next_task):
            yield from flight.wait(check)
    finally:
        flight.cancel()


def map_tasks(
    client: "Client",
    function: Callable[[Any, Any], Any],
    shared: Any,
    arguments: Iterable[Any],
    *,
    name: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Any]:
    """Call a function on the cluster for each argument, and yield the results as they arrive.

    Raises:
        Exception: The error of a task that failed after all attempts.
        ClusterError: If the scheduler is lost, or every worker with a task died.
    """
    from distributed.scheduler import KilledWorker

    tasks = (Task(f"{name}-{number}", function, shared, argument) for number, argument in enumerate(arguments))
    for outcome in run_tasks(client, lambda: next(tasks, None), check=check):
        if isinstance(outcome.error, KilledWorker):
            raise ClusterError(
                f"{plural(ATTEMPTS, 'worker')} died with the task {outcome.task.name}. What is finished is kept: run "
                "the same command again, with more memory for each worker, or without `scheduler` and `workers`."
            )
        if outcome.error is not None:
            raise outcome.error
        yield outcome.result


class _Flight:
    """The tasks that are on the cluster, and those that will be tried again."""

    def __init__(self, client: "Client") -> None:
        from distributed import as_completed

        self.client: Any = client  # distributed is partly annotated
        self.completed: Any = as_completed(with_results=True, raise_errors=False, loop=client.loop)  # type: ignore[no-untyped-call]
        self.tasks: dict[Future[Any], Task] = {}
        self.again: deque[Task] = deque()
        self.suspects: deque[Task] = deque()
        self.shared: dict[int, tuple[Any, Future[Any]]] = {}
        self.threads, self.looked = 0, 0.0
        self.alone_since: float | None = None

    def fill(self, next_task: Callable[[], Task | None]) -> bool:
        """Submit as many tasks as fit; return False if there is nothing to wait for."""
        self._look()
        while len(self.tasks) < max(AT_LEAST, PER_THREAD * self.threads):
            task = next_task() or (self.again.popleft() if self.again else None)
            if task is None:
                break
            self._submit(task)
        if self.suspects and not self.tasks:
            self._submit(self.suspects.popleft())
        return bool(self.tasks)

    def wait(self, check: Callable[[], None]) -> Iterator[Outcome]:
        """Wait for the next tasks to end; yield final outcomes."""
        while not self.completed.has_ready():
            with self.completed.thread_condition:
                self.completed.thread_condition.wait(timeout=LOOK_EVERY_S)
            check()
            self._look()
            now = time.monotonic()
            if self.threads or self.alone_since is None:
                self.alone_since = now
            elif now - self.alone_since > NO_WORKERS_S:  # nothing happens, and nothing else reports it
                log.warning("The cluster has had no worker for %.0f s; waiting for one", NO_WORKERS_S)
                self.alone_since = now
        for future, result in self.completed.next_batch(block=False):
            task = self.tasks.pop(future)
            used = {id(each.shared) for each in (*self.tasks.values(), *self.again, *self.suspects)}
            for key in [key for key in list(self.shared)[:-1] if key not in used]:
                del self.shared[key]  # release on the cluster what no task shares any longer, except the last
            outcome = self._judge(task, future, result)
            if outcome is not None:
                yield outcome

    def cancel(self) -> None:
        """Cancel the tasks that are still on the cluster."""
        futures = [*self.tasks, *(future for _, future in self.shared.values())]
        self.tasks.clear()
        self.shared.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures)

    def _judge(self, task: Task, future: Any, result: Any) -> Outcome | None:
        """Turn a finished future into an outcome; None if its task is tried again."""
        from distributed.scheduler import KilledWorker

        if future.cancelled() or isinstance(result, BaseException):
            raise ClusterError(
                "The dask scheduler stopped or cancelled the tasks. Finished blocks are kept: run the same command "
                "again when the scheduler is available."
            )
        if future.status != "error":
            return Outcome(task, result)
        error = result[1] if isinstance(result, tuple) else result
        # A retry may help after a read over a network, an error of dask between machines, or a killed worker.
        if task.attempt >= ATTEMPTS or not isinstance(error, ReadError | OSError | KilledWorker):
            return Outcome(task, error=error)
        log.info("%s failed (%s); retrying", task.name, error)
        again = replace(task, attempt=task.attempt + 1)
        if isinstance(error, KilledWorker):
            self.suspects.append(again)
            self.shared.pop(id(task.shared), None)  # sent again
        else:
            self.again.append(again)
        return None

    def _submit(self, task: Task) -> None:
        """Submit a task. Its shared object is the result of a task too, so that dask restores it if its worker dies."""
        if id(task.shared) not in self.shared:
            shared = self.client.submit(_itself, task.shared, key=f"plan-{uuid.uuid4().hex[:12]}", pure=False)
            self.shared[id(task.shared)] = (task.shared, shared)
        future = self.client.submit(
            task.function,
            self.shared[id(task.shared)][1],
            task.argument,
            key=f"{task.name}-{uuid.uuid4().hex[:12]}",
            pure=False,
            retries=0,
        )
        self.tasks[future] = task
        self.completed.add(future)

    def _look(self) -> None:
        """Count the threads of all workers about every second; keep the last count if a busy scheduler does not answer.

        Raises:
            ClusterError: If the connection is lost. dask itself would look for the scheduler for `CONNECT_S`.
        """
        now = time.monotonic()
        if self.looked and now - self.looked < LOOK_EVERY_S:
            return
        self.looked = now
        with suppress(OSError, TimeoutError):
            if self.client.status == "running":
                self.threads = sum(self.client.sync(self.client.scheduler.ncores, callback_timeout=ANSWER_S).values())
                return
        if self.client.status != "running":
            raise ClusterError(NO_ANSWER)


def _itself(shared: Any) -> Any:
    return shared
