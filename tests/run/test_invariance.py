"""The same bytes, however the work is cut, spread, ordered and interrupted."""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import OutputError
from geoseg.run import job, results, run
from geoseg.run.schedule import Outcome, Task

NUMBERS = itertools.count()


class Shuffled:
    """Stands where the cluster would be: all tasks one by one, in any order, the disk gone before the n-th."""

    def __init__(self, rng: random.Random, stop: int | None) -> None:
        self.rng, self.stop = rng, stop

    def __call__(
        self, _: object, next_task: Callable[[], Task | None], *, check: Callable[[], None]
    ) -> Iterator[Outcome]:
        tasks = list(iter(next_task, None))
        self.rng.shuffle(tasks)
        for number, task in enumerate(tasks):
            if number == self.stop:
                raise OutputError("the disk is gone")
            yield Outcome(task, task.function(task.shared, task.argument))


@settings(max_examples=8)
@given(
    block_px=st.integers(1, 330),
    stops=st.lists(st.integers(0, 30), max_size=3),
    rng=st.randoms(use_true_random=False),
)
def test_blocks_their_order_and_interruptions_change_no_byte(
    place: Any, tmp_path_factory: pytest.TempPathFactory, block_px: int, stops: list[int], rng: random.Random
) -> None:
    out = tmp_path_factory.mktemp("shuffled") / f"out{next(NUMBERS)}"
    for stop in (*stops, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "run_tasks", Shuffled(rng, stop))
            try:
                place.run(out, block_px=block_px)
            except OutputError:
                continue
            break
    place.assert_same(out)


@pytest.mark.parametrize(("block_px", "count"), [(37, 1), (90, 2), (150, 5)])
def test_threads_and_the_order_of_their_ends_change_no_byte(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_px: int, count: int
) -> None:
    predict_block = job.predict_block

    def predict(plan: Any, block: Any) -> Any:
        time.sleep(random.uniform(0, 0.05))
        return predict_block(plan, block)

    monkeypatch.setattr(job, "predict_block", predict)
    from geoseg.run import RunSettings, run_plan

    settings = RunSettings(out=tmp_path / "out", block_px=block_px, threads=count)
    run_plan(place.plan(), place.actors.make_bundle(), settings, quiet=True)
    place.assert_same(tmp_path / "out")


def test_buildings_are_outlined_on_the_workers_of_a_cluster_and_no_byte_changes(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, keys = place.client.submit, []

    def note(*given: Any, key: str, **options: Any) -> Any:
        keys.append(key)
        return submit(*given, key=key, **options)

    monkeypatch.setattr(place.client, "submit", note)
    monkeypatch.setattr(results, "WINDOW_PX", 64)
    place.run(tmp_path / "here", block_px=100)
    assert not [key for key in keys if key.startswith("outline")]
    place.run(tmp_path / "there", block_px=100, scheduler="tcp://somewhere:8786")
    assert len([key for key in keys if key.startswith("outline")]) > 10
    for out in (tmp_path / "here", tmp_path / "there"):
        place.assert_same(out)


def test_an_external_scheduler_and_its_workers_change_no_byte(
    stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    file = tmp_path / "scheduler.json"
    stage.start("scheduler", file=file)
    until(file.exists)
    for _ in range(3):
        hooks = {"log": str(tmp_path / "log"), "pause_s": 0.05}
        stage.start("worker", file=file, folder=tmp_path, hooks=hooks)
    address = json.loads(file.read_text())["address"]
    for number, where in enumerate((str(file), address)):
        out = tmp_path / f"out{number}"
        client = stage.start("client", scene=place.scene, out=out, settings={"scheduler": where, "block_px": 50})
        assert client.wait(180) == 0, client.story()
        place.assert_same(out)


@pytest.mark.slow
def test_worker_processes_change_no_byte_and_end_with_a_killed_client(
    stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    import psutil

    out, given_to = tmp_path / "out", {"workers": 2, "threads": 1, "block_px": 33}
    hooks = {"log": str(tmp_path / "log")}
    client = stage.start("client", scene=place.scene, out=out, settings=given_to, hooks=hooks)
    until(lambda: client.wait(0) is not None or len(list(out.glob(".geoseg/*/parts/r*"))) > 5, 300)
    assert client.code is None, client.story()
    children = psutil.Process(client.pid).children(recursive=True)
    assert len(children) >= 2
    client.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    done = len(list(out.glob(".geoseg/*/parts/r*")))
    client = stage.start("client", scene=place.scene, out=out, settings=given_to, hooks=hooks)
    assert client.wait(300) == 0, client.story()
    assert json.loads((out / "run.json").read_text())["counts"]["blocks_done_before"] == done > 5
    place.assert_same(out)
