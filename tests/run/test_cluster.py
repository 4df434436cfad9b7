"""Workers over their memory limit: killed by their nanny, started again, and blamed only for what kills them always."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import UnfinishedError
from geoseg.run import schedule
from geoseg.run.cluster import LOCAL_CONFIG, open_client
from geoseg.run.settings import RunSettings

BLOCK_PX = 100
LIMIT = 2_200_000_000
"""Bytes: a worker with torch and torchgeo takes one billion, the hungry block three more."""

pytestmark = pytest.mark.slow


@pytest.fixture
def limited(place: Any, tmp_path: Path) -> Callable[..., Any]:
    """Give a client of one worker with a nanny that holds it to its limit; a task is blamed for the first death."""

    @contextmanager
    def start(**hooks: Any) -> Iterator[Any]:
        import dask
        from distributed import Client, Nanny, Scheduler, SpecCluster

        own = json.dumps({"log": str(tmp_path / "log"), **hooks})
        options = {
            "nthreads": 1,
            "memory_limit": LIMIT,
            "preload": [place.actors.__file__],
            "env": {place.actors.HOOKS: own},
            "local_directory": str(tmp_path),
            "dashboard_address": "127.0.0.1:0",
        }
        scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
        with (
            dask.config.set(LOCAL_CONFIG | {"distributed.scheduler.allowed-failures": 0}),
            SpecCluster(workers={0: {"cls": Nanny, "options": options}}, scheduler=scheduler) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client

    return start


def begun(folder: Path) -> Counter[str]:
    lines = (folder / "log").read_text().splitlines()
    return Counter(line.removeprefix("begin ") for line in lines if line.startswith("begin"))


def test_a_block_that_took_too_much_once_is_computed_again(
    place: Any, limited: Callable[..., Any], tmp_path: Path
) -> None:
    names, once = place.names(BLOCK_PX), tmp_path / "once"
    with limited(hungry=names[4], once=str(once)) as client:
        place.run(tmp_path / "out", client=client, block_px=BLOCK_PX)
    assert once.exists()
    assert begun(tmp_path) == dict.fromkeys(names, 1) | {names[4]: 2}
    place.assert_same(tmp_path / "out")


def test_a_block_that_always_takes_too_much_is_given_up_and_the_others_are_done(
    place: Any, limited: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "ATTEMPTS", 2)  # a worker takes ten seconds to start
    names, out = place.names(BLOCK_PX), tmp_path / "out"
    with limited(hungry=names[4]) as client, pytest.raises(UnfinishedError, match=f"1 of 12 blocks(.|\n)*{names[4]}"):
        place.run(out, client=client, block_px=BLOCK_PX)
    assert begun(tmp_path)[names[4]] == 2
    assert {path.stem for path in out.glob(".geoseg/*/parts/*")} == set(names) - {names[4]}
    place.run(out)
    place.assert_same(out)


def test_worker_processes_give_the_same_bytes_though_one_is_killed(place: Any, tmp_path: Path) -> None:
    with open_client(RunSettings(workers=2, threads=1, device="cpu"), place.actors.make_bundle()) as client:
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        place.run(tmp_path / "out", client=client, block_px=BLOCK_PX)
    place.assert_same(tmp_path / "out")
