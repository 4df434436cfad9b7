"""One client per run folder; the dead are told from the living, and those who come back do no harm."""

import json
import logging
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from geoseg.errors import BusyError
from geoseg.io.store import LocalStore
from geoseg.run import lease
from geoseg.sources.files import RUN_FOLDER

BLOCK_PX = 64


@pytest.fixture
def working(stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]) -> Callable[..., Any]:
    """Start a client, and wait until it has done a few blocks."""

    def start(**hooks: Any) -> Any:
        own = {"log": str(tmp_path / "log"), "pause_s": 0.5, **hooks}
        client = stage.start(
            "client", scene=place.scene, out=tmp_path / "out", settings={"block_px": BLOCK_PX}, hooks=own
        )
        until(lambda: client.wait(0) is not None or len(parts(tmp_path)) > 2)
        assert client.code is None, client.story()
        return client

    return start


def parts(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob(f"out/{RUN_FOLDER}/*/parts/r*.npz")}


def test_a_second_client_is_told_who_works_there(
    stage: Any, place: Any, tmp_path: Path, working: Callable[..., Any]
) -> None:
    client, out = working(), tmp_path / "out"
    holder = json.loads((out / RUN_FOLDER / "lock").read_text())
    said = f"process {client.pid} of {holder['user']} on {holder['host']}, since {holder['since'][:10]}"
    with pytest.raises(BusyError, match=said):
        place.run(out)
    with pytest.raises(BusyError):
        place.run(out, threshold=0.3, overwrite=True)
    second = stage.start("client", scene=place.scene, out=out, settings={})
    assert second.wait(30) == 2
    assert said in second.said.read_text()
    assert client.wait(180) == 0, client.story()
    place.assert_same(out)


def test_a_killed_clients_lock_keeps_nobody_out(
    place: Any, blocks: Any, tmp_path: Path, working: Callable[..., Any]
) -> None:
    working().kill()
    done = parts(tmp_path)
    assert (tmp_path / "out" / RUN_FOLDER / "lock").exists()
    began = time.monotonic()
    place.run(tmp_path / "out")
    assert time.monotonic() - began < lease.LEASE_S / 2
    assert not done & set(blocks.take())
    place.assert_same(tmp_path / "out")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[int], None]:
    """Write the lock and the beat of a client on another machine, as after so many beats."""
    store = LocalStore(tmp_path / "out" / RUN_FOLDER)
    owner = {"token": "other", "host": "far-away", "pid": 1, "started": 0.0, "user": "ann", "since": "2026-01-01"}
    store.create("lock", json.dumps(owner).encode())
    return lambda beat: store.write("beat-other", str(beat).encode())


def test_another_machines_client_is_left_alone_while_its_heart_beats(
    place: Any, tmp_path: Path, elsewhere: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 5.0)
    elsewhere(0)
    beat = threading.Timer(0.7, elsewhere, [1])
    beat.start()
    with pytest.raises(BusyError, match="process 1 of ann on far-away, since 2026-01-01"):
        place.run(tmp_path / "out")
    beat.join()
    assert json.loads((tmp_path / "out" / RUN_FOLDER / "lock").read_text())["token"] == "other"


def test_a_finished_result_is_not_tidied_up_around_a_client_on_another_machine(place: Any, tmp_path: Path) -> None:
    """It may be about to finish, too: whether it lives nobody can tell from here."""
    place.run(tmp_path / "out")
    lock = tmp_path / "out" / RUN_FOLDER / "lock"
    lock.parent.mkdir()
    lock.write_text('{"token": "other", "host": "far-away", "pid": 1, "started": 0.0}')
    assert not place.run(tmp_path / "out").is_new
    assert lock.exists()


def test_another_machines_client_is_replaced_after_its_lease(
    place: Any, tmp_path: Path, elsewhere: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    elsewhere(0)
    began = time.monotonic()
    place.run(tmp_path / "out")
    assert time.monotonic() - began > 1.0
    place.assert_same(tmp_path / "out")


def test_a_result_finished_while_one_waited_is_not_made_again(
    place: Any,
    blocks: Any,
    tmp_path: Path,
    elsewhere: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"

    class Finisher(logging.Handler):
        """Does the other's work as soon as this client says that it waits."""

        def emit(self, record: logging.LogRecord) -> None:
            if "Waiting" in record.getMessage():
                for name in ("lock", "beat-other"):
                    (out / RUN_FOLDER / name).unlink()
                for path in (tmp_path / "direct").iterdir():
                    path.rename(out / path.name)

    place.run(tmp_path / "direct", block_px=4096)
    elsewhere(0)
    blocks.take()
    with caplog.at_level(logging.INFO, "geoseg.run.lease"):
        monkeypatch.setattr(logging.getLogger("geoseg.run.lease"), "handlers", [Finisher()])
        assert not place.run(out, block_px=BLOCK_PX).is_new
    assert blocks.take() == []
    place.assert_same(out)


def test_who_waits_goes_on_as_soon_as_the_other_lets_go(
    place: Any, tmp_path: Path, elsewhere: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        (tmp_path / "out" / RUN_FOLDER / "lock").unlink()

    elsewhere(0)
    with monkeypatch.context() as patch:
        patch.setattr(lease.time, "sleep", wait)
        with lease.hold_lease(LocalStore(tmp_path / "out" / RUN_FOLDER), lambda: None):
            assert len(waited) == 1


def from_afar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on another machine, where only a beat tells who lives."""
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "far-away")
    monkeypatch.setattr(lease, "LEASE_S", 1.0)


def test_a_client_that_was_suspended_too_long_leaves_the_run_to_the_other(
    place: Any, tmp_path: Path, working: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, out = working(beat_s=0.2), tmp_path / "out"
    client.suspend()
    with monkeypatch.context() as patch:
        from_afar(patch)
        place.run(out)
    report = (out / "run.json").read_bytes()
    client.resume()
    assert client.wait(30) == 2, client.story()
    assert "taken over" in client.said.read_text()
    assert (out / "run.json").read_bytes() == report
    place.assert_same(out)


def test_a_client_that_lost_its_run_computes_no_more_of_it(
    place: Any, blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    lock = tmp_path / "out" / RUN_FOLDER / "lock"

    def lose(_: str) -> None:
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"token": "another's"}))
        time.sleep(1.5)  # the client looks every second

    blocks.before = lose
    with pytest.raises(BusyError, match="taken over"):
        place.run(tmp_path / "out", block_px=BLOCK_PX)
    assert len(blocks.take()) < len(place.names(BLOCK_PX))


def test_a_suspended_client_whose_successor_still_works_takes_nothing_from_it(
    place: Any, blocks: Any, tmp_path: Path, working: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the suspended one began the run, and no block was done."""
    client, out = working(beat_s=0.2), tmp_path / "out"
    client.suspend()
    for path in out.glob(f"{RUN_FOLDER}/*/parts/*"):
        path.unlink()

    def wake(_: str) -> None:
        blocks.before = lambda _: None
        client.resume()
        assert client.wait(30) == 2, client.story()

    blocks.before = wake
    with monkeypatch.context() as patch:
        from_afar(patch)
        place.run(out)
    assert client.code == 2
    place.assert_same(out)


@pytest.mark.parametrize(
    "where",
    [
        {"stop_at": "write_rasters"},
        {"stop_at": "require_lease"},
        {"stop_at": "publish"},
        {"stop_writing": "beat", "pause_s": 0.2},
        {"stop_writing": "progress.json"},
    ],
    ids=str,
)
def test_a_client_suspended_at_its_work_does_not_spoil_anothers_result(
    stage: Any,
    place: Any,
    tmp_path: Path,
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    where: dict[str, Any],
) -> None:
    out, hooks = tmp_path / "out", {"log": str(tmp_path / "log"), "beat_s": 0.2, **where}
    client = stage.start("client", scene=place.scene, out=out, settings={"block_px": BLOCK_PX}, hooks=hooks)
    client.await_stop()
    with monkeypatch.context() as patch:
        from_afar(patch)
        place.run(out)
    report = (out / "run.json").read_bytes()
    client.resume()
    assert client.wait(30) == 2, client.story()
    assert "taken over" in client.said.read_text()
    assert (out / "run.json").read_bytes() == report
    place.assert_same(out)


class Slow:
    """A store whose calls take a moment each, so that clients meet in every order."""

    def __init__(self, store: LocalStore, seed: int) -> None:
        self.store, self.rng = store, random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        time.sleep(self.rng.uniform(0, 0.06))
        return getattr(self.store, name)


def rush(folder: Path, *, clients: int = 6, turn: int = 0) -> list[int]:
    """Let clients come at once, and none leave before all have come; return who got in."""
    store, begin, done = LocalStore(folder), threading.Barrier(clients), threading.Barrier(clients)
    won: list[int] = []

    def come(number: int) -> None:
        begin.wait(30)
        try:
            with lease.hold_lease(Slow(store, turn * clients + number), lambda: None):
                won.append(number)
                done.wait(30)
        except BusyError:
            done.wait(30)

    threads = [threading.Thread(target=come, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return won


@pytest.mark.parametrize("left", ["nothing", "a dead client's lock", "and its heir's claim"])
def test_of_many_that_come_at_once_one_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    monkeypatch.setattr(lease, "CLAIM_S", 2.0)  # long enough for a claim of the living on a busy machine

    def win(turn: int) -> int:
        folder = tmp_path / str(turn)
        if left != "nothing":
            dead = {"token": "dead", "host": socket.gethostname(), "pid": 2**30}
            LocalStore(folder).create("lock", json.dumps(dead).encode())
        if left == "and its heir's claim":
            LocalStore(folder).create("claim-dead", b"of one who was killed as well")
        return len(rush(folder, turn=turn))

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(win, range(20))) == [1] * 20
    assert [path for turn in range(20) for path in (tmp_path / str(turn)).iterdir()] == []


def test_a_lock_that_was_written_though_the_answer_was_lost_is_held(tmp_path: Path) -> None:
    """As of a bucket that boto3 asks again, and that finds the lock there."""

    class Lossy(Slow):
        def create(self, name: str, data: bytes) -> bool:
            assert self.store.create(name, data)
            return False

    with lease.hold_lease(Lossy(LocalStore(tmp_path), 0), lambda: None) as held:
        assert held.is_held
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["its number is another's", "it is a zombie", "it is gone"])
def test_a_process_that_only_seems_to_live_keeps_nobody_out(place: Any, tmp_path: Path, how: str) -> None:
    with subprocess.Popen(["true"]) as child:
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)
        owner = {"token": "dead", "host": socket.gethostname(), "pid": child.pid, "user": "ann", "since": "2026"}
        owner["started"] = psutil.Process(child.pid).create_time()
        if how == "its number is another's":
            owner |= {"pid": os.getppid(), "started": psutil.Process(os.getppid()).create_time() - 3600}
        elif how == "it is gone":
            child.wait()
        LocalStore(tmp_path / "out" / RUN_FOLDER).create("lock", json.dumps(owner).encode())
        assert place.run(tmp_path / "out").is_new
    place.assert_same(tmp_path / "out")


def test_moments_are_told_in_utc_wherever_the_clock_is(
    place: Any, blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told = tmp_path / "out", dict[str, str]()

    def look() -> None:
        told["lock"] = json.loads((out / RUN_FOLDER / "lock").read_text())["since"]
        told["plan"] = json.loads((out / RUN_FOLDER / "plan.json").read_text())["begun"]

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        blocks.once(look)
        told["report"] = place.run(out).report["started"]
        assert {datetime.fromisoformat(moment).utcoffset() for moment in told.values()} == {timedelta(0)}
        ago = [datetime.now(UTC) - datetime.fromisoformat(moment) for moment in told.values()]
        assert all(timedelta(0) < each < timedelta(minutes=5) for each in ago)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert len(told) == 3


def test_a_lock_that_says_nothing_is_waited_for_and_taken(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a client killed between making and writing it, where links are not to be had."""
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    LocalStore(tmp_path / "out" / RUN_FOLDER).write("lock", b"")
    place.run(tmp_path / "out")
    place.assert_same(tmp_path / "out")


def test_progress_is_told_with_every_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    beats = threading.Semaphore(0)
    with lease.hold_lease(LocalStore(tmp_path), beats.release):
        assert all(beats.acquire(timeout=10) for _ in range(3))
        assert [int(path.read_text()) >= 2 for path in tmp_path.glob("beat-*")] == [True]
    assert not list(tmp_path.iterdir())
