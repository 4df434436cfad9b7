"""Tasks on the cluster: few at a time, tried again where that may help, and never waited for in silence."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed.scheduler import KilledWorker

from geoseg.errors import ClusterError, InstallationError, OutputError, ReadError, UnfinishedError, UsageError
from geoseg.run import RunSettings, schedule
from geoseg.run.cluster import LOCAL_CONFIG, open_client
from geoseg.run.schedule import ATTEMPTS, Task, map_tasks, run_tasks


def given(tasks: "Iterator[Task] | list[Task]") -> Callable[[], Task | None]:
    todo = iter(tasks)
    return lambda: next(todo, None)


def doubled(shared: Any, number: int) -> int:
    return shared * number


CALLS: list[int] = []
"""Arguments of the calls of `flaky`, in their order."""


@dataclass(frozen=True)
class Failing:
    """What makes `flaky` fail: an error, for the first so many calls of an argument."""

    error: Exception
    times: int
    only: int | None = None


def flaky(failing: Failing, number: int) -> int:
    CALLS.append(number)
    if CALLS.count(number) <= failing.times and failing.only in (None, number):
        raise failing.error
    return number


ACTIVE: list[int] = []
"""Calls of `deadly` that go on."""

AGAIN: list[tuple[int, int]] = []
"""Second and later calls of `deadly`: their argument, and how many calls went on beside them."""


def deadly(guilty: int, number: int) -> int:
    """Kill the worker, and take the next task with it where both are at work at once."""
    CALLS.append(number)
    if CALLS.count(number) > 1:
        AGAIN.append((number, len(ACTIVE)))
    ACTIVE.append(number)
    time.sleep(0.01)
    ACTIVE.remove(number)
    is_first = CALLS.count(number) == 1
    if number == guilty or (number == guilty + 1 and is_first):
        raise KilledWorker(str(number), SimpleNamespace(address="tcp://lost"), 0)
    return number


def wait_for_it(event: str, _: int) -> None:
    EVENTS[event].wait(10)


EVENTS: dict[str, threading.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    ACTIVE.clear()
    AGAIN.clear()


def outcomes(client: Any, function: Any, shared: Any, count: int = 3) -> list[Any]:
    tasks = [Task(f"task-{number}", function, shared, number) for number in range(count)]
    return sorted(run_tasks(client, given(tasks)), key=lambda outcome: outcome.task.argument)


def test_many_tasks_are_never_on_the_cluster_at_once(threads: Any) -> None:
    scheduler, most, shared = threads.cluster.scheduler, [0, 0], 2

    def tasks() -> Iterator[Task]:
        for number in range(500):
            waiting = len(scheduler.tasks)
            most[:] = max(most[0], waiting), max(most[1], len(threads.futures))
            yield Task(f"task-{number}", doubled, shared, number)

    results = [outcome.result for outcome in run_tasks(threads, given(tasks()))]
    assert sorted(results) == [2 * number for number in range(500)]
    bound = max(schedule.AT_LEAST, schedule.PER_THREAD * sum(threads.nthreads().values()))
    assert max(most) <= 4 * bound  # those that have ended are forgotten a moment later


@pytest.mark.parametrize("error", [ReadError("no bytes"), ConnectionResetError("gone")])
def test_what_may_pass_is_tried_again(threads: Any, error: Exception) -> None:
    assert [each.result for each in outcomes(threads, flaky, Failing(error, ATTEMPTS - 1))] == [0, 1, 2]
    assert set(Counter(CALLS).values()) == {ATTEMPTS}


def test_what_does_not_pass_ends_after_bounded_attempts(threads: Any) -> None:
    failed = outcomes(threads, flaky, Failing(ReadError("no bytes"), 99))
    assert [str(each.error) for each in failed] == ["no bytes"] * 3
    assert set(Counter(CALLS).values()) == {ATTEMPTS}


def test_a_defect_is_not_tried_again(threads: Any) -> None:
    failed = outcomes(threads, flaky, Failing(ZeroDivisionError("oops"), 99))
    assert [type(each.error) for each in failed] == [ZeroDivisionError] * 3
    assert set(Counter(CALLS).values()) == {1}


def test_calls_for_all_arguments_give_results_or_the_error_of_one(threads: Any) -> None:
    failing = Failing(ReadError("no bytes"), ATTEMPTS - 1)
    assert sorted(map_tasks(threads, flaky, failing, range(9), name="outline")) == list(range(9))
    with pytest.raises(ReadError, match="no bytes"):
        list(map_tasks(threads, flaky, Failing(ReadError("no bytes"), 99, only=20), range(15, 24), name="outline"))
    with pytest.raises(ClusterError, match=r"3 workers died with the task outline-2\. .* with more memory"):
        list(map_tasks(threads, deadly, 2, range(9), name="outline"))


def test_tasks_that_are_tried_again_come_after_the_others(threads: Any) -> None:
    outcomes(threads, flaky, Failing(ReadError("later"), 1, only=0), count=30)
    assert CALLS.count(0) == 2
    assert CALLS[-1] == 0


def test_tasks_whose_worker_died_are_tried_again_one_by_one(threads: Any) -> None:
    """dask blames every task that a dead worker held: alone, only the one that kills workers fails again."""
    done = outcomes(threads, deadly, 3, count=30)
    assert [each.task.argument for each in done if each.error is not None] == [3]
    assert all(beside == 0 for _, beside in AGAIN)
    assert Counter(number for number, _ in AGAIN) == {3: ATTEMPTS - 1, 4: 1}


def test_what_a_check_raises_ends_the_run_and_nothing_stays_on_the_cluster(
    threads: Any, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setattr(schedule, "LOOK_EVERY_S", 0.05)
    EVENTS["go on"] = threading.Event()

    def check() -> None:
        raise OutputError("taken over")

    tasks = [Task(f"task-{number}", wait_for_it, "go on", number) for number in range(50)]
    with pytest.raises(OutputError, match="taken over"):
        list(run_tasks(threads, given(tasks), check=check))
    EVENTS["go on"].set()
    until(lambda: not threads.cluster.scheduler.tasks)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of this process without workers yet."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set(LOCAL_CONFIG),
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        yield client


def test_a_cluster_without_workers_is_told_and_waited_for(
    cluster: Any, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schedule, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(schedule, "NO_WORKERS_S", 0.2)
    arrival = threading.Timer(0.8, cluster.scale, [1])
    arrival.start()
    assert [outcome.result for outcome in outcomes(client, doubled, "shared")] == ["", "shared", "sharedshared"]
    arrival.join()
    assert "has had no worker" in caplog.text
    assert caplog.text.count("has had no worker") < 8


def test_what_is_shared_comes_back_after_its_only_holder_died(cluster: Any, client: Any) -> None:
    cluster.scale(1)
    client.wait_for_workers(1)
    first = next(iter(cluster.workers.values()))

    def tasks() -> Iterator[Task]:
        for number in range(40):
            if number == 20:
                cluster.scale(2)
                client.wait_for_workers(2)
                cluster.sync(first.close)  # with all it held
            yield Task(f"task-{number}", slowly, "shared", number)

    assert sorted(outcome.result for outcome in run_tasks(client, given(tasks()))) == list(range(40))


def slowly(_: Any, number: int) -> int:
    time.sleep(0.01)
    return number


def run_on(stage: Any, place: Any, folder: Path, until: Callable[..., None], **hooks: Any) -> Any:
    """Run on a scheduler that blames a task for the first death; replace workers that die."""
    file = folder / "scheduler.json"
    stage.start("scheduler", file=file, deaths=0)
    until(file.exists)
    own = {"log": str(folder / "log"), **hooks}

    def worker() -> Any:
        return stage.start("worker", file=file, folder=folder, hooks=own)

    workers = [worker(), worker()]
    client = stage.start(
        "client", scene=place.scene, out=folder / "out", settings={"scheduler": str(file), "block_px": 64}
    )
    while client.wait(0.02) is None:
        workers = [each if each.wait(0) is None else worker() for each in workers]
    return client


def test_a_block_whose_worker_died_is_tried_on_another(
    stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    once = tmp_path / "once"
    client = run_on(stage, place, tmp_path, until, deadly=place.names(64)[5], once=str(once))
    assert client.code == 0, client.story()
    assert once.exists()
    place.assert_same(tmp_path / "out")


def test_a_block_that_kills_every_worker_is_given_up_and_the_others_are_done(
    stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    names, out = place.names(64), tmp_path / "out"
    client = run_on(stage, place, tmp_path, until, deadly=names[5])
    assert client.code == 3, client.story()
    assert f"{names[5]}: KilledWorker" in client.said.read_text()
    begun = Counter((tmp_path / "log").read_text().splitlines())
    assert begun[f"begin {names[5]}"] == ATTEMPTS
    assert {path.stem for path in out.glob(".geoseg/*/parts/*")} == set(names) - {names[5]}
    failed = [json.loads(path.read_text())["block"] for path in out.glob(".geoseg/*/failed/*")]
    assert failed == [names[5]]
    place.run(out)
    place.assert_same(out)


def test_no_scheduler_is_said_with_the_way_out(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.run.cluster.CONNECT_S", 0.3)
    for address, error, said in (
        ("nowhere.json", UsageError, "neither an address nor an existing file"),
        ("tcp://127.0.0.1:9", ClusterError, "does not answer"),
    ):
        settings = RunSettings(scheduler=address)
        with pytest.raises(error, match=said), open_client(settings, place.actors.make_bundle()):
            pass


def test_a_worker_that_does_not_see_the_run_folder_says_so(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg.run import job

    monkeypatch.setattr(job, "read_json", lambda *_: None)  # as on a machine with another /data
    with pytest.raises(ClusterError, match=r"worker on .* finds no run in .*out.*s3://"):
        place.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unfinished_is_not_told_as_a_defect(place: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "scene.tif").write_bytes(place.scene.read_bytes())
    plan = place.plan(tmp_path / "scene.tif")
    (tmp_path / "scene.tif").unlink()
    with caplog.at_level(logging.WARNING), pytest.raises(UnfinishedError, match="20 of 20 blocks"):
        place.run(tmp_path / "out", plan=plan, block_px=64)
    assert "Traceback" not in caplog.text


SITES = {
    "temporary-directory": "/proc/1/x",
    "distributed.comm.require-encryption": True,
    "distributed.dashboard.link": "{JUPYTERHUB_SERVICE_PREFIX}proxy/{port}/status",
}
"""Settings of a site's dask configuration, with each of which workers of this process did not start."""


@pytest.mark.parametrize("name", SITES)
def test_a_run_in_one_process_does_not_depend_on_the_dask_configuration_of_a_site(place: Any, name: str) -> None:
    import dask

    with (
        dask.config.set({name: SITES[name]}),
        open_client(RunSettings(threads=1, device="cpu"), place.actors.make_bundle()) as client,
    ):
        assert client.submit(abs, -1).result() == 1


def test_a_site_that_requires_encryption_is_told_how_to_go_on(place: Any) -> None:
    import dask

    settings = RunSettings(workers=1, device="cpu")
    with (
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(InstallationError, match=r"requires encryption .*without `workers`"),
        open_client(settings, place.actors.make_bundle()),
    ):
        pass


def test_workers_that_do_not_start_are_one_line(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Worker

    async def refuse(self: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Worker, "start_unsafe", refuse)
    monkeypatch.setenv("DASK_EXAMPLE", "1")
    with (
        pytest.raises(InstallationError, match=r"cannot start its workers .*no room.*DASK_EXAMPLE"),
        open_client(RunSettings(threads=1, device="cpu"), place.actors.make_bundle()),
    ):
        pass


@pytest.mark.parametrize("closing", ["Client", "SpecCluster"])
def test_a_cluster_that_does_not_close_is_a_log_line_and_no_error(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, closing: str
) -> None:
    import distributed
    from tornado.util import TimeoutError as TornadosTimeoutError

    close = getattr(distributed, closing).close

    def fail(self: object, *args: object, **options: object) -> None:
        close(self, *args, **options)
        if not options.get("asynchronous"):
            raise TornadosTimeoutError("Timeout")

    settings = RunSettings(threads=1, device="cpu")
    with caplog.at_level(logging.INFO), open_client(settings, place.actors.make_bundle()) as client:
        assert client.submit(abs, -1).result() == 1
        monkeypatch.setattr(getattr(distributed, closing), "close", fail)
    assert "dask did not close as it should (TimeoutError: Timeout); nothing is lost" in caplog.text


def test_the_error_of_a_run_is_told_although_the_cluster_does_not_close(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    close = distributed.Client.close

    def fail(self: object, *args: object, **options: object) -> None:
        close(self, *args, **options)
        raise RuntimeError("IOLoop is closed")

    monkeypatch.setattr(distributed.Client, "close", fail)
    with (
        pytest.raises(UsageError, match="the run's own"),
        open_client(RunSettings(threads=1, device="cpu"), place.actors.make_bundle()),
    ):
        raise UsageError("the run's own")
