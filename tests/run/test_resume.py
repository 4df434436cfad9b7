"""A run that was stopped goes on where it was, and never as another run."""

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from geoseg.cli import main
from geoseg.errors import BusyError, ExistingResultError, OutputError, ReadError, UnfinishedError
from geoseg.run import ledger, results, run
from geoseg.run.report import FINISHED, STOPPED, read_status
from geoseg.sources.files import RUN_FOLDER

BLOCK_PX = 64
RASTERS = ("probability.tif", "probability.qml", "mask.tif", "mask.qml")
RESULTS = (*RASTERS, "buildings.gpkg", "buildings.parquet", "project.qgz", "index.html", "item.json", "run.json")


@pytest.fixture
def stopped(place: Any, blocks: Any, tmp_path: Path, until: Callable[..., None]) -> Callable[..., Path]:
    """Begin a run and stop it before its n-th block."""

    def stop(at: int = 7, out: Path = tmp_path / "out", **settings: Any) -> Path:
        def fail(_: str) -> None:
            if len(blocks.begun) >= at:
                raise OutputError("the disk is gone")

        blocks.before = fail
        with pytest.raises(OutputError, match="the disk is gone"):
            place.run(out, **{"block_px": BLOCK_PX, **settings})
        until(place.is_idle)  # the cluster is the test's and outlives the run
        blocks.before = lambda _: None
        blocks.take()
        return out

    return stop


def parts(out: Path) -> list[Path]:
    return sorted(out.glob(f"{RUN_FOLDER}/*/parts/r*.npz"))


def files(out: Path) -> dict[str, bytes]:
    """Return the files of a result."""
    return {name: (out / name).read_bytes() for name in RESULTS}


def test_what_was_done_is_not_done_again_and_the_rest_is(place: Any, blocks: Any, stopped: Callable[..., Path]) -> None:
    out = stopped()
    done = {path.stem for path in parts(out)}
    assert 3 <= len(done) < 20
    result = place.run(out, block_px=BLOCK_PX)
    assert sorted(blocks.take()) == sorted(set(place.names(BLOCK_PX)) - done)
    assert result.report["counts"]["blocks_done_before"] == len(done)
    place.assert_same(out)
    assert not place.run(out).is_new
    assert blocks.take() == []


def test_other_blocks_threads_and_pictures_are_no_other_run(
    place: Any, blocks: Any, stopped: Callable[..., Path]
) -> None:
    out = stopped()
    done = {path.stem for path in parts(out)}
    place.run(out, block_px=100, threads=1, device="cpu", errors="nodata")
    assert set(blocks.take()) == set(place.names(BLOCK_PX)) - done
    place.assert_same(out)
    assert not place.run(out, block_px=77, threads=2, errors="stop").is_new


def test_another_geoseg_does_not_go_on_but_may_begin_again(
    place: Any, blocks: Any, stopped: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stopped()
    monkeypatch.setattr(ledger, "__version__", "99.0")
    with pytest.raises(ExistingResultError, match=r"started with geoseg .*this is geoseg 99\.0.*`overwrite=True`"):
        place.run(out)
    place.run(out, block_px=BLOCK_PX, overwrite=True)
    assert set(blocks.take()) == set(place.names(BLOCK_PX))  # one may be the stopped run's last, still under way
    assert (out / "mask.tif").read_bytes() == (place.expected / "mask.tif").read_bytes()


def test_an_overwritten_run_leaves_nothing_to_the_new_one(
    place: Any, blocks: Any, stopped: Callable[..., Path], tmp_path: Path
) -> None:
    out, late = stopped(threshold=0.4), list[str]()
    (old,) = out.glob(f"{RUN_FOLDER}/2*")

    def look() -> None:
        late.extend(path.name for path in out.glob(f"{RUN_FOLDER}/*/parts"))
        shutil.copytree(place.expected, old / "parts")  # a lost worker of the old run still writes

    blocks.once(look)
    place.run(out, block_px=BLOCK_PX, overwrite=True)
    assert late == []
    assert sorted(blocks.take()) == sorted(place.names(BLOCK_PX))
    place.assert_same(out)


def test_an_old_result_is_there_until_the_new_one_is_complete(
    place: Any, blocks: Any, stopped: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    place.run(out, block_px=BLOCK_PX)
    before = files(out)
    blocks.take()
    other: dict[str, Any] = {"threshold": 0.4, "grid": "scene"}  # another grid: the network is needed again
    stopped(**other, overwrite=True)
    assert files(out) == before
    assert read_status(out)[0].state == STOPPED
    done = {path.stem for path in parts(out)}
    place.run(out, **other, overwrite=True)
    assert not done & set(blocks.take())
    place.run(tmp_path / "direct", **other)
    for name in ("probability.tif", "mask.tif", "buildings.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()
    assert (out / "mask.tif").read_bytes() != before["mask.tif"]


def test_a_client_killed_while_it_replaces_a_result_leaves_the_old_one(
    stage: Any, place: Any, blocks: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    out = tmp_path / "out"
    place.run(out)
    before = files(out)
    settings = {"overwrite": True, "threshold": 0.4, "grid": "scene", "block_px": BLOCK_PX}
    client = stage.start(
        "client",
        scene=place.scene,
        out=out,
        settings=settings,
        hooks={"log": str(tmp_path / "log"), "pause_s": 1.0},
    )
    until(lambda: len(parts(out)) > 1)
    client.kill()
    assert files(out) == before
    blocks.take()
    done = {path.stem for path in parts(out)}
    place.run(out, **settings)
    assert not done & set(blocks.take())
    assert (out / "mask.tif").read_bytes() != before["mask.tif"]


def test_a_result_that_another_program_has_open_is_not_replaced_and_its_journal_goes_with_it(
    place: Any, tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", {"overwrite": True, "grid": "scene"}
    place.run(out, threshold=0.4)
    table = out / "buildings.gpkg"
    with closing(sqlite3.connect(table, isolation_level=None)) as program:
        program.execute("PRAGMA journal_mode = WAL")
        program.execute("DELETE FROM gpkg_ogr_contents")
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        assert {"buildings.gpkg-wal", "buildings.gpkg-shm"} < set(before)
        with pytest.raises(BusyError, match=rf"has {table} open.* Close the file there"):
            place.run(out, **settings)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    for name, data in before.items():  # as a program leaves it that crashes
        (out / name).write_bytes(data)
    (out / "mask.tif.aux.xml").write_text("<PAMDataset/>")
    place.run(out, **settings)
    assert not [path.name for path in out.iterdir() if "buildings.gpkg-" in path.name or path.suffix == ".xml"]
    place.assert_same(out)


def test_killed_between_any_two_files_of_a_result_the_older_one_is_not_taken_for_it(
    stage: Any, place: Any, blocks: Any, tmp_path: Path
) -> None:
    """The older report goes before the first new file comes, and the new one comes last."""
    older = tmp_path / "older"
    place.run(older, threshold=0.4, grid="scene", picture=True)
    before, new = files(older), files(place.expected)
    for uploads in range(len(RESULTS)):
        out = tmp_path / f"out{uploads}"
        shutil.copytree(older, out)
        hooks, settings = {"log": str(tmp_path / "log"), "uploads": uploads}, {"overwrite": True, "threads": 1}
        client = stage.start(
            "client", scene=place.scene, out=out, settings=settings | {"block_px": BLOCK_PX}, hooks=hooks
        )
        assert client.wait(180) == -9, client.story()
        assert not (out / "run.json").exists()
        for number, name in enumerate(RASTERS):
            assert (out / name).read_bytes() == (new if number < uploads else before)[name]
        assert read_status(out)[0].state == STOPPED
        with pytest.raises(ExistingResultError, match=r"`threshold`: the model's before, 0\.4 now"):
            place.run(out, threshold=0.4)
        blocks.take()
        place.run(out, overwrite=uploads % 2 == 0)
        assert blocks.take() == []
        assert sorted(path.name for path in out.iterdir()) == sorted(RESULTS)
        place.assert_same(out)


def test_killed_after_the_last_file_of_the_result_it_is_finished(
    place: Any, blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    class Killed(BaseException):
        pass

    def publish(*args: Any) -> None:
        published(*args)
        shutil.copytree(out / RUN_FOLDER, tmp_path / "work")
        raise Killed

    published = results.publish
    monkeypatch.setattr(results, "publish", publish)
    with pytest.raises(Killed):
        place.run(out)
    shutil.rmtree(out / RUN_FOLDER, ignore_errors=True)
    shutil.move(tmp_path / "work", out / RUN_FOLDER)  # as a killed client leaves it
    (out / RUN_FOLDER / "lock").unlink()
    blocks.take()
    assert read_status(out)[0].state == FINISHED
    assert not place.run(out).is_new
    place.assert_same(out)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(1, len(data))])


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_damaged_parts_are_computed_again_and_no_others(
    place: Any, blocks: Any, stopped: Callable[..., Path], damage: Callable[..., None]
) -> None:
    out, rng = stopped(at=12), random.Random(5)
    done = parts(out)
    damaged = rng.sample(done, 3)
    for path in damaged:
        damage(path, rng)
    place.run(out)
    begun = blocks.take()
    assert len(begun) == len(set(begun))
    assert not set(begun) & {path.stem for path in set(done) - set(damaged)}
    if damage is not flip:  # one bit of a ZIP archive may say nothing
        assert set(begun) >= {path.stem for path in damaged}
    place.assert_same(out)


def test_a_part_that_vanishes_is_computed_again_and_not_taken_for_nodata(
    place: Any, blocks: Any, stopped: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, finish_run = stopped(), run.finish_run

    def lose(*args: Any) -> Any:
        monkeypatch.setattr(run, "finish_run", finish_run)
        parts(out)[4].unlink()
        return finish_run(*args)

    monkeypatch.setattr(run, "finish_run", lose)
    place.run(out)
    place.assert_same(out)


@pytest.fixture
def broken(blocks: Any) -> list[str]:
    """Name the blocks that cannot be read in this list."""
    names: list[str] = []

    def fail(name: str) -> None:
        if name in names:
            raise ReadError(f"{name} cannot be read")

    blocks.before = fail
    return names


def test_blocks_that_fail_are_listed_and_the_rest_is_kept(
    place: Any, blocks: Any, broken: list[str], tmp_path: Path
) -> None:
    out, names = tmp_path / "out", place.names(BLOCK_PX)
    broken += [names[3], names[8]]
    with pytest.raises(UnfinishedError) as caught:
        place.run(out, block_px=BLOCK_PX)
    for name in broken:
        assert f"{name}: {name} cannot be read" in str(caught.value)
    assert [blocks.begun.count(name) for name in names] == [3 if name in broken else 1 for name in names]
    assert {path.stem for path in parts(out)} == set(names) - set(broken)
    failed = broken.copy()
    broken.clear()
    blocks.take()
    place.run(out)
    assert sorted(blocks.take()) == sorted(failed)
    place.assert_same(out)


def test_why_a_block_failed_is_forgotten_when_it_is_tried_again(
    place: Any, blocks: Any, broken: list[str], tmp_path: Path
) -> None:
    out, (first, second) = tmp_path / "out", place.names(BLOCK_PX)[3:5]
    broken += [first, second]
    with pytest.raises(UnfinishedError):
        place.run(out, block_px=BLOCK_PX)
    assert read_status(out)[0].failed.keys() == {first, second}
    blocks.take()

    def fail(name: str) -> None:
        if name == second:
            raise OutputError("the disk is gone")

    blocks.before = fail
    with pytest.raises(OutputError):
        place.run(out, threads=1)
    (found,) = read_status(out)
    assert (found.failed, found.left) == ({}, 20 - found.done)


def test_failed_blocks_are_what_nodata_would_be_and_only_where_asked_for(
    place: Any, broken: list[str], tmp_path: Path
) -> None:
    """The result equals that of a scene with nodata in their place: rasters, polygons, and which are at the edge."""
    out, chosen = tmp_path / "out", [place.plan().blocks(BLOCK_PX)[i] for i in (6, 12, 13)]
    broken += [block.name for block in chosen]
    with pytest.raises(UnfinishedError, match="`errors='nodata'`"):
        place.run(out, block_px=BLOCK_PX)
    result = place.run(out, errors="nodata")
    assert [entry["block"] for entry in result.report["failed_blocks"]] == broken
    broken.clear()
    holes = tmp_path / "holes.tif"
    with rasterio.open(place.scene) as scene, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        pixels, valid, profile = scene.read(), scene.dataset_mask(), scene.profile
        for block in chosen:
            valid[block.window.slices] = 0
        with rasterio.open(holes, "w", **profile) as file:
            file.write(pixels)
            file.write_mask(valid)
    place.run(tmp_path / "direct", plan=place.plan(holes))
    for name in ("probability.tif", "mask.tif"):
        assert (out / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()
    found, expected = (geopandas.read_parquet(folder / "buildings.parquet") for folder in (out, tmp_path / "direct"))
    assert found.geometry.to_wkb().tolist() == expected.geometry.to_wkb().tolist()
    for column in ("edge", "area_m2", "confidence"):
        np.testing.assert_array_equal(found[column], expected[column])
    with pytest.raises(ExistingResultError, match="without 3 blocks"):
        place.run(out)
    assert not place.run(out, errors="nodata").is_new


def test_a_building_beside_a_failed_block_is_at_the_edge(place: Any, broken: list[str], tmp_path: Path) -> None:
    plan, out = place.plan(), tmp_path / "out"
    block = plan.blocks(BLOCK_PX)[7]
    broken.append(block.name)
    place.run(out, block_px=BLOCK_PX, outline="raw", errors="nodata")
    broken.clear()
    place.run(tmp_path / "whole", outline="raw")
    window, transform = block.window, plan.scene.grid.transform
    corners = transform @ (window.cols.start, window.rows.stop), transform @ (window.cols.stop, window.rows.start)
    hole = shapely.box(*corners[0], *corners[1])
    found = geopandas.read_parquet(out / "buildings.parquet")
    beside = found[shapely.length(shapely.intersection(found.geometry.values, hole)) > 0.01]
    assert len(beside) > 3
    assert beside["edge"].all()
    whole = geopandas.read_parquet(tmp_path / "whole" / "buildings.parquet")
    inside = ~whole[whole.intersects(hole)]["edge"]
    assert inside.any()  # not at the edge but for the block
    assert not found["edge"].all()


def test_the_command_line_lists_the_blocks_of_a_damaged_file_and_leaves_with_3(
    place: Any, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, out = tmp_path / "scene.tif", tmp_path / "out"
    with rasterio.open(place.scene) as telling:
        layout = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
        with rasterio.open(scene, "w", **telling.profile | layout) as file:
            file.write(telling.read())
    with rasterio.open(scene) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data = bytearray(scene.read_bytes())
    data[offset : offset + 40] = bytes(40)
    scene.write_bytes(bytes(data))
    monkeypatch.setenv("GEOSEG_CACHE_DIR", str(tmp_path / "cache"))
    given = ["run", str(scene), "--out", str(out), "--model", str(models / "model.safetensors"), "--quiet"]

    def geoseg(*options: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["geoseg", *given, "--block-px", "96", *options])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), capsys.readouterr().err

    code, said = geoseg()
    assert code == 3
    assert "1 of 12 blocks failed" in said
    assert "r0_c0: " in said
    assert "Traceback" not in said
    assert not (out / "run.json").exists()
    assert geoseg("--errors", "nodata")[0] == 0
    report = json.loads((out / "run.json").read_text())
    assert report["failed_blocks"][0]["block"] == "r0_c0"
    assert report["counts"]["blocks_done_before"] == report["counts"]["blocks"] == 11
    with rasterio.open(out / "mask.tif") as mask:
        values = mask.read(1)
    failed = np.zeros(values.shape, bool)
    failed[slice(*report["failed_blocks"][0]["rows"]), slice(*report["failed_blocks"][0]["cols"])] = True
    np.testing.assert_array_equal(values == 255, failed)
