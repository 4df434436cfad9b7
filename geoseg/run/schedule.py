"""Tasks on a dask cluster, a window at a time: the graph never holds more than the workers are about to need."""

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from geoseg.errors import ClusterError, ReadError
from geoseg.run.cluster import NO_ANSWER

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a task is given to the cluster before it has failed for good."""

PER_THREAD, AT_LEAST = 2, 4
"""Tasks on the cluster at a time: two per thread, so that none waits for the client."""

LOOK_EVERY_S = 1.0
ANSWER_S = 5.0
NO_WORKERS_S = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """A call for a worker: `function(shared, argument)`.

    Attributes:
        name: What dask's dashboard shows.
        function: The function; a module's own, so that it pickles by name.
        shared: What many tasks share (the plan); sent to each worker once.
        argument: What this task has for itself.
        attempt: How often it was tried.
    """

    name: str
    function: Callable[[Any, Any], Any]
    shared: Any
    argument: Any
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: its result, or why it failed for good."""

    task: Task
    result: Any = None
    error: Exception | None = None


def run_tasks(
    client: "Client", next_task: Callable[[], Task | None], *, check: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Keep the cluster busy and yield outcomes as they come.

    A task whose pixels could not be read, or whose worker died, is tried `ATTEMPTS` times, at the end of the queue; one
    whose worker died alone on the cluster, as dask blames all tasks of a dead worker alike.

    Args:
        client: The cluster.
        next_task: Gives a task, or None where there is none now; asked again after every outcome.
        check: Called about every second; what it raises ends the run.

    Raises:
        ClusterError: If the scheduler is gone.
    """
    flight = _Flight(client)
    try:
        while flight.fill(next_task):
            yield from flight.wait(check)
    finally:
        flight.cancel()


class _Flight:
    """The tasks that are on the cluster now."""

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
        """Submit as many tasks as fit; return False where nothing is left to wait for."""
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
        """Wait for the next tasks to end; yield the outcomes that are final."""
        while not self.completed.has_ready():
            with self.completed.thread_condition:
                self.completed.thread_condition.wait(timeout=LOOK_EVERY_S)
            check()
            self._look()
            now = time.monotonic()
            if self.threads or self.alone_since is None:
                self.alone_since = now
            elif now - self.alone_since > NO_WORKERS_S:  # nothing goes on, and nothing else would say so
                log.warning("The cluster has had no worker for %.0f s; waiting for one.", NO_WORKERS_S)
                self.alone_since = now
        for future, result in self.completed.next_batch(block=False):
            task = self.tasks.pop(future)
            used = {id(each.shared) for each in (*self.tasks.values(), *self.again, *self.suspects)}
            for key in [key for key in list(self.shared)[:-1] if key not in used]:
                del self.shared[key]  # the cluster forgets what no task shares any more, but for the last
            outcome = self._judge(task, future, result)
            if outcome is not None:
                yield outcome

    def cancel(self) -> None:
        """Take back what is still on the cluster."""
        futures = [*self.tasks, *(future for _, future in self.shared.values())]
        self.tasks.clear()
        self.shared.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures)

    def _judge(self, task: Task, future: Any, result: Any) -> Outcome | None:
        """Turn a finished future into an outcome; None where its task is tried again."""
        from distributed.scheduler import KilledWorker

        if future.cancelled() or isinstance(result, BaseException):
            raise ClusterError(
                "The dask scheduler went away, or took the tasks back. What is done is kept: give the same command "
                "again when it is there."
            )
        if future.status != "error":
            return Outcome(task, result)
        error = result[1] if isinstance(result, tuple) else result
        # A failure may pass if it is a read over a network, dask's own between machines, or a worker that was killed.
        if task.attempt >= ATTEMPTS or not isinstance(error, ReadError | OSError | KilledWorker):
            return Outcome(task, error=error)
        log.info("%s failed (%s); trying again", task.name, error)
        again = replace(task, attempt=task.attempt + 1)
        if isinstance(error, KilledWorker):
            self.suspects.append(again)
            self.shared.pop(id(task.shared), None)  # sent anew
        else:
            self.again.append(again)
        return None

    def _submit(self, task: Task) -> None:
        """Put a task on the cluster. What it shares is a task too, so that it comes back when its worker dies."""
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
        """Count the threads of all workers about every second; keep the count where a busy scheduler is slow to answer.

        Raises:
            ClusterError: If the connection is lost. dask would look for a dead scheduler for `CONNECT_S`.
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
