"""How far a run is, as anyone can see who sees its folder."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from geoseg.cli import app
from geoseg.errors import MissingFileError, OutputError, ReadError, UnfinishedError
from geoseg.run import lease
from geoseg.run.report import FAILED, FINISHED, OUTSIDE, STOPPED, WAITING, WORKING, read_status
from geoseg.sources.files import RUN_FOLDER

BLOCK_PX = 64
BLOCKS = 20


def said(out: Path, *options: str) -> list[str]:
    """Return the lines of `geoseg status`."""
    result = CliRunner().invoke(app, ["status", str(out), *options])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def start(stage: Any, place: Any, folder: Path, pause_s: float = 0.5) -> Any:
    hooks = {"log": str(folder / "log"), "pause_s": pause_s, "beat_s": 0.05}
    return stage.start("client", scene=place.scene, out=folder / "out", settings={"block_px": BLOCK_PX}, hooks=hooks)


def test_a_run_that_is_worked_on_and_then_stopped(
    stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    out, client = tmp_path / "out", start(stage, place, tmp_path)
    until(lambda: len(list(out.glob(f"{RUN_FOLDER}/*/parts/r*"))) > 2)
    (working,) = read_status(out)
    assert (working.state, working.blocks, working.failed) == (WORKING, BLOCKS, {})
    assert 2 < working.done < BLOCKS
    assert working.left == BLOCKS - working.done
    assert working.eta_s is not None
    assert 0 < working.eta_s < 120
    assert working.holder is not None
    assert working.holder["pid"] == client.pid
    lines = said(out)
    assert lines[0].startswith("scene: working, ")
    assert lines[0].endswith(" left")
    assert f"client: process {client.pid} on {working.holder['host']}, since" in lines[2]
    client.kill()
    (stopped,) = read_status(out)
    assert (stopped.state, stopped.eta_s) == (STOPPED, None)
    assert stopped.done >= working.done
    lines = said(out)
    assert lines[0] == f"scene: stopped, {stopped.done} of {BLOCKS} blocks done, 0 failed, {stopped.left} left"
    assert lines[-1] == "No client is working on this run. To continue it, run the same command again."
    place.run(out)
    assert read_status(out)[0].state == FINISHED
    assert said(out)[0] == f"scene: finished, {BLOCKS} of {BLOCKS} blocks done, 0 failed, 0 left"


def test_where_there_is_no_run_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no run in .*nothing.*`out`"):
        read_status(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MissingFileError):
        read_status(tmp_path)


def test_no_run_leaves_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from geoseg.cli import main

    monkeypatch.setattr("sys.argv", ["geoseg", "status", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "There is no run in" in capsys.readouterr().err


def test_failed_blocks_are_counted_and_named(place: Any, blocks: Any, tmp_path: Path) -> None:
    out, broken = tmp_path / "out", place.names(BLOCK_PX)[4:6]

    def fail(name: str) -> None:
        if name in broken:
            raise ReadError("bytes are missing")

    blocks.before = fail
    with pytest.raises(UnfinishedError):
        place.run(out, block_px=BLOCK_PX)
    assert said(out)[0] == f"scene: stopped, {BLOCKS - 2} of {BLOCKS} blocks done, 2 failed, 0 left"
    assert said(out)[-2:] == [f"failed: {name}: bytes are missing" for name in sorted(broken)]
    place.run(out, errors="nodata")
    (finished,) = read_status(out)
    assert (finished.state, finished.blocks, finished.done, finished.left) == (FINISHED, BLOCKS, BLOCKS - 2, 0)
    assert set(finished.failed) == set(broken)


def test_many_failed_blocks_are_listed_when_asked(tmp_path: Path) -> None:
    begun(tmp_path, blocks=100, done=10)
    for number in range(30):
        write(
            tmp_path / RUN_FOLDER / "first" / "failed" / f"r{number}_c0.json", {"block": f"r{number}_c0", "error": "x"}
        )
    assert said(tmp_path)[-1] == "and 10 more failed blocks: --all lists them"
    assert len([line for line in said(tmp_path, "--all") if line.startswith("failed: ")]) == 30


def write(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts))


def begun(out: Path, *, blocks: int, done: int) -> None:
    """Make the folder of a run that somebody on another machine began."""
    write(out / RUN_FOLDER / "plan.json", {"run": "first", "name": "accra", "block_px": 64, "blocks": blocks})
    for number in range(done):
        path = out / RUN_FOLDER / "first" / "parts" / f"r{number}_c0.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def heard_of(out: Path, *, ago: float, began: float, before: int) -> None:
    """Write what a client on another machine told at its last beat."""
    now = time.time()
    facts = {"session_began": now - began, "now": now - ago, "done_before": before, "dashboard": "http://a:8787"}
    write(out / RUN_FOLDER / "progress.json", facts)
    write(out / RUN_FOLDER / "lock", {"token": "x", "host": "far-away", "pid": 7, "user": "ann", "since": "2026-01-01"})


def test_the_time_left_is_reckoned_from_what_this_client_has_done(tmp_path: Path) -> None:
    begun(tmp_path, blocks=100, done=40)
    heard_of(tmp_path, ago=2.0, began=60.0, before=10)
    (found,) = read_status(tmp_path)
    assert found.state == WORKING
    assert found.eta_s == pytest.approx(120, rel=0.05)  # 30 in 60 s, 60 left
    assert said(tmp_path)[0] == "accra: working, 40 of 100 blocks done, 0 failed, 60 left, about 2 min left"
    assert "dashboard: http://a:8787" in said(tmp_path)


def test_failed_blocks_are_not_waited_for(tmp_path: Path) -> None:
    begun(tmp_path, blocks=100, done=40)
    for number in range(20):
        write(
            tmp_path / RUN_FOLDER / "first" / "failed" / f"r9{number}_c0.json",
            {"block": f"r9{number}_c0", "error": "x"},
        )
    heard_of(tmp_path, ago=2.0, began=60.0, before=10)
    (found,) = read_status(tmp_path)
    assert found.eta_s == pytest.approx(80, rel=0.05)  # 30 in 60 s, 40 left
    assert found.left == 40


def test_before_the_first_block_nothing_is_guessed(tmp_path: Path) -> None:
    begun(tmp_path, blocks=100, done=40)
    heard_of(tmp_path, ago=2.0, began=60.0, before=40)
    assert read_status(tmp_path)[0].eta_s is None
    assert said(tmp_path)[0].endswith("60 left")


def test_another_machines_client_that_is_not_heard_of_has_stopped(tmp_path: Path) -> None:
    begun(tmp_path, blocks=100, done=40)
    heard_of(tmp_path, ago=lease.LEASE_S + 1, began=60.0, before=10)
    (found,) = read_status(tmp_path)
    assert (found.state, found.eta_s, found.dashboard) == (STOPPED, None, None)


@pytest.fixture
def scenes(place: Any, tmp_path: Path) -> Path:
    """A folder with the same scene four times."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in "abcd":
        shutil.copy(place.scene, folder / f"{name}.tif")
    return folder


def states(out: Path) -> dict[str, str]:
    return {found.name: found.state for found in read_status(out)}


def test_a_batch_is_told_scene_by_scene_and_goes_on_after_a_kill(
    stage: Any, place: Any, scenes: Path, tmp_path: Path, until: Callable[..., None]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    given = {"scenes": scenes, "out": out, "settings": {"block_px": BLOCK_PX, "threads": 1}}
    batch = stage.start("batch", **given, hooks={"log": str(log), "pause_s": 0.1})
    until(lambda: batch.wait(0) is not None or (out / "a" / "run.json").exists(), 60)
    assert batch.code is None, batch.story()
    batch.kill()
    found = states(out)
    assert list(found) == list("abcd")
    assert found["a"] == FINISHED
    assert found["d"] == WAITING
    lines = said(out)
    assert lines[0].startswith("4 scenes: 1 finished")
    assert lines[1].endswith("blocks done in the scenes that have been started")
    before = {scene: {p.stem for p in out.glob(f"{scene}/{RUN_FOLDER}/*/parts/r*")} for scene in "bcd"}
    report = (out / "a" / "run.json").read_bytes()
    position = log.stat().st_size
    again = stage.start("batch", **given, hooks={"log": str(log)})
    assert again.wait(180) == 0, again.story()
    assert states(out) == dict.fromkeys("abcd", FINISHED)
    assert said(out)[0] == "4 scenes: 4 finished"
    for scene in "abcd":
        place.assert_same(out / scene)
    begun = log.read_bytes()[position:].decode().count("begin")
    assert begun == 3 * BLOCKS - sum(map(len, before.values()))
    assert (out / "a" / "run.json").read_bytes() == report
    assert sorted(path.name for path in out.iterdir()) == sorted([RUN_FOLDER, "collection.json", *"abcd"])
    assert [path.name for path in out.glob(f"{RUN_FOLDER}/batches/*/*")] == ["scenes.json"]


def test_in_a_batch_one_scene_fails_and_the_others_are_finished(
    stage: Any, place: Any, scenes: Path, tmp_path: Path
) -> None:
    whole = (scenes / "b.tif").read_bytes()
    (scenes / "b.tif").write_bytes(whole[:100])
    out, given = tmp_path / "out", {"scenes": scenes, "out": tmp_path / "out", "settings": {"threads": 1}}
    batch = stage.start("batch", **given)
    assert batch.wait(180) == 3, batch.story()
    assert states(out) == {"a": FINISHED, "b": FAILED, "c": FINISHED, "d": FINISHED}
    lines = said(out)
    assert lines[0] == "4 scenes: 1 failed, 3 finished"
    assert lines[-2] == "b: failed"
    assert "b.tif" in lines[-1]
    for scene in "acd":
        place.assert_same(out / scene)
    (scenes / "b.tif").write_bytes(whole)
    again = stage.start("batch", **given)
    assert again.wait(180) == 0, again.story()
    place.assert_same(out / "b")
    assert said(out)[0] == "4 scenes: 4 finished"


def test_scenes_outside_the_aoi_are_counted_and_are_no_failure(
    place: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg.errors import OutsideAOIError
    from geoseg.run import RunSettings, batch, run_each

    def plan(paths: tuple[str, ...], *_: object) -> Any:
        if Path(paths[0]).stem in "bd":
            raise OutsideAOIError("no common ground")
        return place.plan(paths[0])

    monkeypatch.setattr(batch, "load_bundle", lambda _: place.actors.make_bundle())
    monkeypatch.setattr(batch, "plan_inference", plan)
    result = run_each(scenes, RunSettings(out=tmp_path / "out"), quiet=True)
    assert (result.outside, result.failed) == (["b", "d"], {})
    assert states(tmp_path / "out") == {"a": FINISHED, "b": OUTSIDE, "c": FINISHED, "d": OUTSIDE}
    assert said(tmp_path / "out")[0] == "4 scenes: 2 finished, 2 outside the AOI"


def test_a_batch_with_no_scene_in_the_aoi_is_refused_and_leaves_nothing(
    place: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg.errors import OutsideAOIError
    from geoseg.run import RunSettings, batch, run_each

    def plan(*_: object) -> Any:
        raise OutsideAOIError("no common ground")

    monkeypatch.setattr(batch, "load_bundle", lambda _: place.actors.make_bundle())
    monkeypatch.setattr(batch, "plan_inference", plan)
    with pytest.raises(OutsideAOIError, match=r"None of the 4 scenes meets the AOI aoi\.gpkg; nothing was written"):
        run_each(scenes, RunSettings(out=tmp_path / "out", aoi="aoi.gpkg"), quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").touch()
    with pytest.raises(MissingFileError, match=r"scene\.tif is a file; a run folder is expected"):
        read_status(tmp_path / "scene.tif")


def test_a_full_disk_ends_a_batch_and_keeps_what_is_done(
    place: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: Any
) -> None:
    from geoseg.run import RunSettings, batch, run_each

    def fail(_: str) -> None:
        if len(blocks.begun) > BLOCKS + 5:
            raise OutputError("no room")

    monkeypatch.setattr(batch, "load_bundle", lambda _: place.actors.make_bundle())
    monkeypatch.setattr(batch, "plan_inference", lambda paths, *_: place.plan(paths[0]))
    blocks.before = fail
    settings = RunSettings(out=tmp_path / "out", block_px=BLOCK_PX, threads=1)
    with pytest.raises(OutputError, match="no room"):
        run_each(scenes, settings, quiet=True)
    blocks.before = lambda _: None
    done = len(list((tmp_path / "out").glob(f"*/{RUN_FOLDER}/*/parts/r*")))
    finished = len(list((tmp_path / "out").glob("*/run.json")))
    blocks.take()
    result = run_each(scenes, settings, quiet=True)
    assert len(result.skipped) == finished
    assert len(blocks.take()) == (4 - finished) * BLOCKS - done
    for scene in "abcd":
        place.assert_same(tmp_path / "out" / scene)


def test_batches_that_share_a_folder_are_told_of_together_until_each_ends(
    place: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is given for a and b; while it plans a, another for c and d is given and fails."""
    from geoseg.run import RunSettings, batch, run_each

    out, settings = tmp_path / "out", RunSettings(out=tmp_path / "out", threads=1)
    told: list[dict[str, str]] = []

    def plan(paths: tuple[str, ...], *_: object) -> Any:
        name = Path(paths[0]).stem
        if name == "b":
            return place.plan(paths[0])
        if name == "a" and not told:
            told.append(states(out))
            run_each([scenes / "c.tif", scenes / "d.tif"], settings, quiet=True)
            told.append(states(out))
        else:
            told.append(states(out))
        raise ReadError("no bytes")

    monkeypatch.setattr(batch, "load_bundle", lambda _: place.actors.make_bundle())
    monkeypatch.setattr(batch, "plan_inference", plan)
    result = run_each([scenes / "a.tif", scenes / "b.tif"], settings, quiet=True)
    failed = dict.fromkeys("cd", FAILED)
    assert told[0] == dict.fromkeys("ab", WAITING)
    assert told[1] == dict.fromkeys("abcd", WAITING)
    assert told[-1] == dict.fromkeys("ab", WAITING) | failed
    assert [Path(folder).name for folder in result.done] == ["b"]
    assert states(out) == {"a": FAILED, "b": FINISHED} | failed


def test_a_disk_that_damages_every_part_ends_its_scene_of_a_batch(
    scenes: Path, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: Any
) -> None:
    from geoseg.io.store import LocalStore
    from geoseg.run import RunSettings, batch, run_each, session

    write = LocalStore.write

    def damage(store: LocalStore, name: str, data: bytes) -> None:
        is_bad = name.endswith(".npz") and "/b/" in store.url
        write(store, name, data[: len(data) // 2] if is_bad else data)

    monkeypatch.setattr(LocalStore, "write", damage)
    monkeypatch.setattr(batch, "load_bundle", lambda _: place.actors.make_bundle())
    monkeypatch.setattr(batch, "plan_inference", lambda paths, *_: place.plan(paths[0]))
    result = run_each(scenes, RunSettings(out=tmp_path / "out", block_px=BLOCK_PX), quiet=True)
    assert [Path(path).stem for path in result.failed] == ["b"]
    assert "is damaged" in next(iter(result.failed.values()))
    assert len(blocks.take()) == (3 + session.RECOMPUTATIONS + 1) * BLOCKS
