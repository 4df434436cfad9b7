"""Many pictures, one result each: some fail, some were finished before, and the others are done all the same."""

import hashlib
import json
import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import (
    BusyError,
    DeviceError,
    ExistingResultError,
    OutputError,
    ReadError,
    SceneMismatchError,
)
from geoseg.grid import fit_lattice
from geoseg.inference import Plan
from geoseg.run import RunSettings, batch, run_each, run_plan
from geoseg.run.batch import BatchResult
from geoseg.run.report import FAILED, FINISHED, INCOMPLETE, read_status
from geoseg.scene import open_scene

SPEC = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), min_area_m2=0.0)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # pictures have none


class Runs:
    """Stands where the model and the network would be, and writes down what was run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[str] = []  # in the order of their planning, which threads do
        self.bundle = Bundle(SPEC, Path("none"), "0")
        monkeypatch.setattr(batch, "load_bundle", lambda _: self.bundle)
        monkeypatch.setattr(batch, "plan_inference", self.plan)

    def plan(self, files: tuple[str, ...], bundle: Bundle, settings: RunSettings) -> Plan:
        self.files.append(Path(files[0]).name)
        scene = open_scene(files)
        return Plan(scene, fit_lattice(scene.grid.shape, chip_px=64, halo_px=8), ThresholdSegmenter())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def values(seed: int, shape: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (shape[0] // 4, shape[1] // 4))
    return np.kron(coarse, np.ones((4, 4))).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of different sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, (name, shape) in enumerate({"a.png": (40, 60), "b.jpg": (80, 52), "c.png": (48, 48)}.items()):
        Image.fromarray(values(seed, shape)).save(folder / name)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def results(folder: Path) -> list[str]:
    """Return what a batch left, besides its list."""
    left = [path.relative_to(folder).as_posix() for path in (folder / ".geoseg").rglob("*") if path.is_file()]
    assert [Path(path).name for path in left] == ["scenes.json"]
    return [name for name in names(folder) if name not in (".geoseg", "collection.json")]


def test_every_picture_gets_a_result_of_its_own_size(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    result = run_each(pictures, RunSettings(out=tmp_path / "out"), quiet=True)
    assert (result.skipped, result.failed) == ([], {})
    assert [Path(folder).name for folder in result.done] == ["a", "b", "c"]
    for seed, name, shape in ((0, "a", (40, 60)), (2, "c", (48, 48))):
        with rasterio.open(tmp_path / "out" / name / "mask.tif") as mask:
            np.testing.assert_array_equal(mask.read(1), values(seed, shape) >= 128)
            assert mask.transform == Affine(1, 0, 0, 0, -1, 0)
        left, bottom, right, top = geopandas.read_parquet(tmp_path / "out" / name / "buildings.parquet").total_bounds
        assert 0 <= left < right <= shape[1]
        assert -shape[0] <= bottom < top <= 0
    assert results(tmp_path / "out") == ["a", "b", "c"]


def test_results_are_a_static_STAC_collection_that_grows_and_can_be_moved(
    runs: Runs, pictures: Path, tmp_path: Path
) -> None:
    def items(folder: Path) -> list[str]:
        collection = pystac.Collection.from_file(str(folder / "collection.json"))
        JsonSchemaSTACValidator().validate_core(collection.to_dict(), pystac.STACObjectType.COLLECTION, "1.1.0")
        found = list(collection.get_items())
        for item in found:
            for asset in item.assets.values():
                path = Path(str(asset.get_absolute_href()))
                assert path.parent == folder / item.id
                assert path.stat().st_size == asset.extra_fields.get("file:size", path.stat().st_size)
        return [item.id for item in found]

    out = tmp_path / "out"
    run_each([pictures / "a.png", pictures / "c.png"], RunSettings(out=out), quiet=True)
    assert items(out) == ["a", "c"]
    first = (out / "collection.json").read_bytes()
    run_each([pictures / "a.png", pictures / "c.png"], RunSettings(out=out), quiet=True)
    assert (out / "collection.json").read_bytes() == first
    run_each(pictures, RunSettings(out=out), quiet=True)
    out.rename(tmp_path / "moved")
    assert items(tmp_path / "moved") == ["a", "b", "c"]


def test_results_are_listed_in_the_order_of_their_scenes_whichever_ended_first() -> None:
    ended = BatchResult(done=["c", "a"], skipped=["e", "b"], outside=["f"], failed={"g": "why"})
    assert ended.in_order(list("abcde")) == BatchResult(["a", "c"], ["b", "e"], ["f"], {"g": "why"})


def test_without_out_results_lie_in_the_working_folder(
    runs: Runs, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_each(pictures, quiet=True)
    assert names(tmp_path) == ["a_geoseg", "b_geoseg", "c_geoseg", "pictures"]


def test_a_damaged_picture_does_not_stop_the_others(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    (pictures / "b.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:40])
    result = run_each(pictures, RunSettings(out=tmp_path / "out"), quiet=True)
    assert [Path(folder).name for folder in result.done] == ["a", "c"]
    assert list(result.failed) == [str(pictures / "b.jpg")]
    assert "cannot be opened" in result.failed[str(pictures / "b.jpg")]
    assert results(tmp_path / "out") == ["a", "c"]


def test_a_defect_in_one_picture_is_told_in_full_and_does_not_stop_the_others(
    runs: Runs, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def plan(files: tuple[str, ...], bundle: Bundle, settings: RunSettings) -> Plan:
        if files[0].endswith("a.png"):
            raise ZeroDivisionError("oops")
        return runs.plan(files, bundle, settings)

    monkeypatch.setattr(batch, "plan_inference", plan)
    result = run_each(pictures, RunSettings(out=tmp_path / "out"), quiet=True)
    assert result.failed == {str(pictures / "a.png"): "ZeroDivisionError: oops"}
    assert len(result.done) == 2
    assert "Traceback" in caplog.text


def test_finished_pictures_are_skipped_and_failed_ones_tried_again(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    good = (pictures / "b.jpg").read_bytes()
    (pictures / "b.jpg").write_bytes(good[:40])
    run_each(pictures, RunSettings(out=tmp_path / "out"), quiet=True)
    before = (tmp_path / "out" / "a" / "run.json").read_text()
    (pictures / "b.jpg").write_bytes(good)
    runs.files.clear()
    again = run_each(pictures, RunSettings(out=tmp_path / "out", threads=1, block_px=64), quiet=True)
    assert runs.files == ["b.jpg"]
    assert [Path(folder).name for folder in again.skipped] == ["a", "c"]
    assert [Path(folder).name for folder in again.done] == ["b"]
    assert (tmp_path / "out" / "a" / "run.json").read_text() == before


def test_results_of_another_model_setting_or_picture_are_not_taken_for_these(
    runs: Runs, pictures: Path, tmp_path: Path
) -> None:
    run_each(pictures / "a.png", RunSettings(out=tmp_path / "out"), quiet=True)
    other = run_each(pictures / "a.png", RunSettings(out=tmp_path / "out", threshold=0.7), quiet=True)
    assert "`threshold`: the model's before, 0.7 now" in other.failed[str(pictures / "a.png")]
    Image.fromarray(values(9, (40, 60))).save(pictures / "a.png")
    assert run_each(pictures / "a.png", RunSettings(out=tmp_path / "out"), quiet=True).failed
    runs.bundle = Bundle(SPEC, Path("none"), "1")
    assert run_each(pictures / "a.png", RunSettings(out=tmp_path / "out"), quiet=True).failed
    replaced = run_each(pictures / "a.png", RunSettings(out=tmp_path / "out", overwrite=True), quiet=True)
    assert (len(replaced.done), replaced.failed) == (1, {})
    report = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    assert report["model"]["key"] == runs.bundle.key


def test_a_finished_result_without_the_picture_asked_for_gets_it(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    run_each(pictures / "a.png", RunSettings(out=tmp_path / "out"), quiet=True)
    before = (tmp_path / "out" / "a" / "mask.tif").stat().st_mtime_ns
    again = run_each(pictures / "a.png", RunSettings(out=tmp_path / "out", picture=True), quiet=True)
    assert (again.skipped, again.failed) == ([str(tmp_path / "out" / "a")], {})
    assert (tmp_path / "out" / "a" / "preview.png").is_file()
    assert (tmp_path / "out" / "a" / "mask.tif").stat().st_mtime_ns == before


def test_what_is_true_of_all_pictures_is_said_once(
    runs: Runs, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "geoseg"):
        run_each(pictures, RunSettings(out=tmp_path / "out"), quiet=True)

    def said() -> list[str]:  # by geoseg: asyncio warns too, on a busy machine
        return [record.getMessage() for record in caplog.records if record.name.startswith("geoseg")]

    assert len(said()) == 2
    assert said()[0].startswith("a has no CRS")
    assert said()[1].startswith("2 more scenes like this: a has no CRS")
    open_scene(pictures / "b.jpg")
    assert len(said()) == 3


def test_a_folder_that_cannot_be_made_is_refused(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="`out`"):
        run_each(pictures, RunSettings(out=pictures / "a.png" / "out"), quiet=True)
    with pytest.raises(OutputError, match="`out`"):
        run_each(pictures, RunSettings(out=pictures / "a.png"), quiet=True)


def test_the_folder_of_a_single_run_takes_no_batch_unless_asked(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    single = run_each(pictures / "a.png", RunSettings(out=tmp_path), quiet=True).done
    before = names(tmp_path / "a")
    with pytest.raises(ExistingResultError, match=r"single run \(run\.json\).*`out`.*`overwrite=True`"):
        run_each(pictures, RunSettings(out=single[0]), quiet=True)
    assert names(tmp_path / "a") == before
    assert len(run_each(pictures, RunSettings(out=single[0], overwrite=True), quiet=True).done) == 3
    assert results(tmp_path / "a") == ["a", "b", "c"]


def test_the_folder_of_a_batch_takes_no_single_run(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    settings = RunSettings(out=tmp_path / "out", overwrite=True)
    run_each(pictures, settings, quiet=True)
    with pytest.raises(ExistingResultError, match=r"a batch of 3 scenes.*such as .*out/a\."):
        run_plan(runs.plan((str(pictures / "a.png"),), runs.bundle, settings), runs.bundle, settings, quiet=True)
    assert results(tmp_path / "out") == ["a", "b", "c"]


def test_two_clients_on_one_scene_are_not_let_in_together(
    runs: Runs, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, refused = RunSettings(out=tmp_path / "out"), []

    def plan(files: tuple[str, ...], bundle: Bundle, own: RunSettings) -> Plan:
        monkeypatch.setattr(batch, "plan_inference", runs.plan)
        for others in ("a.png", "b.jpg", "c.png"), ("a.png",), ("c.png", "b.jpg"):
            with pytest.raises(BusyError, match=rf"working on {settings.out}: process {os.getpid()} ") as found:
                run_each([pictures / name for name in others], settings, quiet=True)
            refused.append(found)
        return runs.plan(files, bundle, own)

    monkeypatch.setattr(batch, "plan_inference", plan)
    result = run_each(pictures, settings, quiet=True)
    assert (len(refused), len(result.done)) == (3, 3)
    assert results(tmp_path / "out") == ["a", "b", "c"]
    run_each(pictures / "b.jpg", settings, quiet=True)  # its list takes the place of the older one
    assert {one.name: one.is_listed for one in read_status(tmp_path / "out")} == {"a": False, "b": True, "c": False}


def test_where_all_fail_nothing_but_the_list_of_them_is_left(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("none")
    assert len(run_each(tmp_path / "a.tif", RunSettings(out=tmp_path / "out"), quiet=True).failed) == 1
    assert results(tmp_path / "out") == []
    (found,) = read_status(tmp_path / "out")
    assert (found.name, found.state) == ("a", FAILED)
    assert found.error is not None
    assert "cannot be opened" in found.error


def test_a_batch_that_cannot_begin_leaves_nothing(
    runs: Runs, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DeviceError("no such device")

    monkeypatch.setattr(batch, "open_client", fail)
    with pytest.raises(DeviceError):
        run_each(pictures, RunSettings(out=tmp_path / "out"), quiet=True)
    assert names(tmp_path) == ["pictures"]


def test_a_scene_keeps_its_name_when_another_of_its_name_is_added(runs: Runs, pictures: Path, tmp_path: Path) -> None:
    settings = RunSettings(out=tmp_path / "out")
    run_each(pictures, settings, quiet=True)
    Image.fromarray(values(3, (40, 40))).save(pictures / "b.png")
    again = run_each(pictures, settings, quiet=True)
    assert [Path(folder).name for folder in (*again.skipped, *again.done)] == ["a", "b", "c", "b_png"]
    (pictures / "b.jpg").unlink()
    assert len(run_each(pictures, settings, quiet=True).skipped) == 3
    assert results(tmp_path / "out") == ["a", "b", "b_png", "c"]


def test_a_file_that_is_gone_or_empty_is_made_again_and_a_changed_one_is_refused(
    runs: Runs, pictures: Path, tmp_path: Path
) -> None:
    settings = RunSettings(out=tmp_path / "out")
    (folder,) = map(Path, run_each(pictures / "a.png", settings, quiet=True).done)
    made = {name: (folder / name).read_bytes() for name in ("buildings.parquet", "mask.tif", "probability.tif")}
    assert json.loads((folder / "run.json").read_text())["files"]["mask.tif"] == {
        "bytes": len(made["mask.tif"]),
        "sha256": hashlib.sha256(made["mask.tif"]).hexdigest(),
    }
    (folder / "buildings.parquet").unlink()
    (folder / "mask.tif").write_bytes(b"")
    (found,) = read_status(tmp_path / "out")
    assert (found.state, set(found.damage)) == (INCOMPLETE, {"buildings.parquet is missing", "mask.tif is empty"})
    assert run_each(pictures / "a.png", settings, quiet=True).failed == {}
    assert {name: (folder / name).read_bytes() for name in made} == made
    (folder / "probability.tif").unlink()
    assert len(run_each(pictures / "a.png", settings, quiet=True).done) == 1
    assert {name: (folder / name).read_bytes() for name in made} == made
    assert [one.state for one in read_status(tmp_path / "out")] == [FINISHED]
    whole = made["mask.tif"]
    (folder / "mask.tif").write_bytes(whole[:-7])
    (refused,) = run_each(pictures / "a.png", settings, quiet=True).failed.values()
    assert f"mask.tif has {len(whole) - 7:,} bytes instead of {len(whole):,}. Put the file back" in refused
    (folder / "mask.tif").write_bytes(whole)
    with closing(sqlite3.connect(folder / "buildings.gpkg")) as database:
        database.execute("CREATE TABLE notes (text)")
    assert len(run_each(pictures / "a.png", settings, quiet=True).skipped) == 1
    (folder / "buildings.gpkg").write_bytes((folder / "buildings.gpkg").read_bytes()[:-8192])
    assert len(run_each(pictures / "a.png", settings, quiet=True).failed) == 1


def test_pictures_as_one_scene_are_refused_with_the_way_out(pictures: Path) -> None:
    with pytest.raises(SceneMismatchError, match="without `mosaic`"):
        open_scene(pictures)


def test_blocks_that_are_lost_are_counted_by_result(
    runs: Runs, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreadable(ThresholdSegmenter):
        def predict(self, chips: np.ndarray) -> np.ndarray:
            raise ReadError("no bytes")

    def plan(files: tuple[str, ...], bundle: Bundle, own: RunSettings) -> Plan:
        found = runs.plan(files, bundle, own)
        return replace(found, engine=Unreadable()) if files[0].endswith("b.jpg") else found

    monkeypatch.setattr(batch, "plan_inference", plan)
    settings = RunSettings(out=tmp_path / "out", errors="nodata", block_px=256)
    for _ in range(2):  # made, and found to be finished
        result = run_each([pictures / "a.png", pictures / "b.jpg"], settings, quiet=True)
        assert result.lost_blocks == {str(tmp_path / "out" / "b"): 1}
