"""One client per run folder; the dead are told from the living, and those who come back do no harm."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import BusyError
from geoseg.run import lease
from geoseg.run.ledger import WORK
from geoseg.store import LocalStore

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
    return {path.stem for path in folder.glob(f"out/{WORK}/*/parts/*.npz")}


def test_a_second_client_is_told_who_works_there(
    stage: Any, place: Any, tmp_path: Path, working: Callable[..., Any]
) -> None:
    client, out = working(), tmp_path / "out"
    holder = json.loads((out / WORK / "lock").read_text())
    said = f"process {client.pid} of {holder['user']} on {holder['host']} since {holder['since'][:10]}"
    with pytest.raises(BusyError, match=said):
        place.run(out)
    with pytest.raises(BusyError):
        place.run(out, threshold=0.3, overwrite=True)
    second = stage.start("client", scene=place.scene, out=out, settings={})
    assert second.wait(30) == 2
    assert said in second.said.read_text()
    assert client.wait(60) == 0, client.story()
    place.assert_same(out)


def test_a_killed_clients_lock_keeps_nobody_out(
    place: Any, blocks: Any, tmp_path: Path, working: Callable[..., Any]
) -> None:
    working().kill()
    done = parts(tmp_path)
    assert (tmp_path / "out" / WORK / "lock").exists()
    began = time.monotonic()
    place.run(tmp_path / "out")
    assert time.monotonic() - began < lease.LEASE_S / 2
    assert not done & set(blocks.take())
    place.assert_same(tmp_path / "out")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[int], None]:
    """Write the lock and the beat of a client on another machine, as after so many beats."""
    store = LocalStore(tmp_path / "out" / WORK)
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
    with pytest.raises(BusyError, match="process 1 of ann on far-away since 2026-01-01"):
        place.run(tmp_path / "out")
    beat.join()
    assert json.loads((tmp_path / "out" / WORK / "lock").read_text())["token"] == "other"


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
    place: Any, blocks: Any, tmp_path: Path, elsewhere: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def finished_meanwhile(*_: object) -> bool:
        monkeypatch.undo()
        place.run(tmp_path / "direct", block_px=4096)
        for name in ("lock", "beat-other"):
            (out / WORK / name).unlink()
        for path in (tmp_path / "direct").iterdir():
            path.rename(out / path.name)
        return False

    elsewhere(0)
    monkeypatch.setattr(lease, "_beats_on", finished_meanwhile)
    assert not place.run(out, block_px=BLOCK_PX).is_new
    place.assert_same(out)


def from_afar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on another machine, where only a beat tells who lives."""
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "far-away")
    monkeypatch.setattr(lease, "LEASE_S", 1.0)


def test_a_client_that_was_suspended_too_long_leaves_the_run_to_the_other(
    place: Any, tmp_path: Path, working: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, out = working(beat_s=0.2), tmp_path / "out"
    os.kill(client.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        from_afar(patch)
        place.run(out)
    report = (out / "run.json").read_bytes()
    os.kill(client.pid, signal.SIGCONT)
    assert client.wait(30) == 2, client.story()
    assert "taken over" in client.said.read_text()
    assert (out / "run.json").read_bytes() == report
    place.assert_same(out)


def test_a_suspended_client_whose_successor_still_works_takes_nothing_from_it(
    place: Any, blocks: Any, tmp_path: Path, working: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the suspended one began the run, and no block was done."""
    client, out = working(beat_s=0.2), tmp_path / "out"
    os.kill(client.pid, signal.SIGSTOP)
    for path in out.glob(f"{WORK}/*/parts/*"):
        path.unlink()

    def wake(_: str) -> None:
        blocks.before = lambda _: None
        os.kill(client.pid, signal.SIGCONT)
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
        {"stop_at": "_make"},
        {"stop_at": "_check_lease"},
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
    state = Path(f"/proc/{client.pid}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", 60)
    with monkeypatch.context() as patch:
        from_afar(patch)
        place.run(out)
    report = (out / "run.json").read_bytes()
    os.kill(client.pid, signal.SIGCONT)
    assert client.wait(30) == 2, client.story()
    assert "taken over" in client.said.read_text()
    assert (out / "run.json").read_bytes() == report
    place.assert_same(out)


def test_of_many_that_come_at_once_one_gets_in(tmp_path: Path) -> None:
    store, begin, done = LocalStore(tmp_path), threading.Barrier(8), threading.Barrier(8)
    won: list[int] = []

    def come(number: int) -> None:
        begin.wait()
        try:
            with lease.hold(store, lambda: None):
                won.append(number)
                done.wait()
        except BusyError:
            done.wait()

    clients = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(won) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_says_nothing_is_waited_for_and_taken(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a client killed between making and writing it, where links are not to be had."""
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    LocalStore(tmp_path / "out" / WORK).write("lock", b"")
    place.run(tmp_path / "out")
    place.assert_same(tmp_path / "out")


def test_progress_is_told_with_every_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    beats = threading.Semaphore(0)
    with lease.hold(LocalStore(tmp_path), beats.release):
        assert all(beats.acquire(timeout=10) for _ in range(3))
        assert [int(path.read_text()) >= 2 for path in tmp_path.glob("beat-*")] == [True]
    assert not list(tmp_path.iterdir())
