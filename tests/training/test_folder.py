"""A training folder: it belongs to one recipe; the table of its history."""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from geoseg.errors import OutputError, RecipeError
from geoseg.training import load_recipe, train_recipe
from geoseg.training.crossval import cross_validate
from geoseg.training.finetune import FinetuneSettings, finetune
from geoseg.training.folder import check_scenes, claim_folder, read_history, record_scenes, write_row
from geoseg.training.recipe import Recipe
from geoseg.training.search import Choice, SearchSettings, search_recipe
from geoseg.training.source_files import find_parts, fingerprint_scenes
from geoseg.training.survey import survey_data

WriteRecipe = Callable[..., Path]


@pytest.fixture
def plan(write_recipe: WriteRecipe) -> Recipe:
    return load_recipe(write_recipe())


def begin(plan: Recipe, folder: Path) -> None:
    claim_folder(plan, folder)
    (folder / "checkpoints").mkdir()


def test_a_new_folder_keeps_every_key_of_the_recipe(plan: Recipe, tmp_path: Path) -> None:
    claim_folder(plan, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert kept["fit"]["learning_rate"] == plan.fit.learning_rate
    assert kept["sources"][0]["name"] == "squares"
    assert not list((tmp_path / "out").glob("*.part"))


def test_another_recipe_is_refused_and_the_difference_named(plan: Recipe, tmp_path: Path) -> None:
    begin(plan, tmp_path / "out")
    other = dataclasses.replace(plan, fit=dataclasses.replace(plan.fit, learning_rate=0.5))
    with pytest.raises(RecipeError, match=r"fit\.learning_rate was 0\.005 and is 0\.5.*`out`"):
        claim_folder(other, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["fit"]["learning_rate"] == 0.005


def test_another_source_is_refused_by_its_name(plan: Recipe, tmp_path: Path) -> None:
    begin(plan, tmp_path / "out")
    other = dataclasses.replace(plan, sources=(dataclasses.replace(plan.sources[0], weight=0.5),))
    with pytest.raises(RecipeError, match=r"sources\.squares\.weight was 1\.0 and is 0\.5"):
        claim_folder(other, tmp_path / "out")


def test_a_longer_run_on_another_device_is_the_same_run(plan: Recipe, tmp_path: Path) -> None:
    begin(plan, tmp_path / "out")
    longer = dataclasses.replace(plan.fit, steps=10**6, minutes=5.0, threads=1, device="cpu")
    claim_folder(dataclasses.replace(plan, fit=longer, threshold=0.6), tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert kept["threshold"] == 0.6
    assert kept["fit"] == json.loads(json.dumps(dataclasses.asdict(longer)))


def test_data_that_were_moved_are_the_same_and_changed_ones_are_refused_by_name(
    play: Callable[..., Path], tmp_path: Path
) -> None:
    out = play()
    before = (out / "recipe.json").read_text()
    (tmp_path / "data").rename(tmp_path / "moved")
    prepared = {path: path.stat().st_mtime_ns for path in (out / "prepared").rglob("*.npy")}
    play(data=tmp_path / "moved", fit__steps=2)
    assert {path: path.stat().st_mtime_ns for path in (out / "prepared").rglob("*.npy")} == prepared
    labels = tmp_path / "moved" / "labels" / "a.tif"
    kept = labels.stat()
    os.utime(labels, ns=(1, kept.st_mtime_ns + 1))
    with pytest.raises(RecipeError, match=r"other data.*: sources\.streets: labels a\.tif has changed since\..*`out`"):
        play(data=tmp_path / "moved", fit__steps=3)
    os.utime(labels, ns=(1, kept.st_mtime_ns))
    labels.with_name("a.tif.msk").write_bytes(b"mask")
    with pytest.raises(RecipeError, match=r"a\.tif\.msk is new"):
        play(data=tmp_path / "moved", fit__steps=3)
    labels.with_name("a.tif.msk").unlink()
    assert json.loads((out / "recipe.json").read_text())["fit"]["steps"] == json.loads(before)["fit"]["steps"] + 1


def test_pictures_that_come_later_are_named_and_neither_train_nor_validate(
    play: Callable[..., Path], tmp_path: Path, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    out = play()
    for name in ("c", "d"):
        kit.write_tif(tmp_path / "data" / "images" / f"{name}.tif", kit.street()[0])
        kit.write_tif(tmp_path / "data" / "labels" / f"{name}.tif", kit.street()[1][None])
    play(fit__steps=2)
    assert "2 images are new since" in caplog.text
    assert "left out: c, d." in caplog.text
    assert {path.name[:2] for path in (out / "prepared").rglob("*.npy")} == {"a-", "b-"}
    play("other")
    assert {path.name[:2] for path in (tmp_path / "other" / "prepared").rglob("*.npy")} == {"a-", "b-", "c-", "d-"}


def test_a_split_is_drawn_once(write_recipe: WriteRecipe, world: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    plan = load_recipe(write_recipe(('validate_scenes = ["c"]', "split = [0.5, 0.25, 0.25]")))

    def add(*names: str) -> None:
        for name in names:
            for folder in ("images", "labels"):
                shutil.copy(world / folder / "a.tif", world / folder / f"{name}.tif")

    def drawn(out: Path) -> dict[tuple[str, str], bool]:
        parts = find_parts(plan.sources[0], data=world, results=out, seed=3)
        return {(part.part, part.name): True for part in parts}

    add("d", "e", "f", "g", "h")
    record_scenes(tmp_path / "out", fingerprint_scenes(plan, data=world, results=tmp_path / "out"))
    (tmp_path / "out" / "checkpoints").mkdir()
    before = drawn(tmp_path / "out")
    add("i", "j", "k", "l")
    check_scenes(tmp_path / "out", fingerprint_scenes(plan, data=world, results=tmp_path / "out"))
    assert drawn(tmp_path / "out") == before
    assert len(drawn(tmp_path / "another")) == len(before) + 4


def test_a_run_that_never_kept_a_checkpoint_may_begin_anew(plan: Recipe, tmp_path: Path) -> None:
    claim_folder(plan, tmp_path / "out")
    claim_folder(dataclasses.replace(plan, gsd_m=1.0), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["gsd_m"] == 1.0


ROW = {"step": 1, "minutes": 0.5, "learning_rate": 1e-3, "train_loss": 1.0, "validation_loss": 1.1, "iou": 0.5}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "history.csv"


def test_rows_come_back_as_columns_also_after_a_resumed_run(table: Path) -> None:
    for step in (10, 20):
        write_row(table, {"step": step, "loss": 1 / step, "iou_a": 0.5})
    assert read_history(table) == {"step": [10, 20], "loss": [0.1, 0.05], "iou_a": [0.5, 0.5]}


def test_a_resumed_run_replaces_the_rows_that_it_repeats(table: Path) -> None:
    for step, loss in ((10, 1.0), (20, 0.9), (30, 0.8), (20, 0.7)):
        write_row(table, {"step": step, "loss": loss})
    assert read_history(table) == {"step": [10, 20], "loss": [1.0, 0.7]}


def test_a_table_with_other_columns_is_kept_aside_and_not_mixed(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    for names in ("ab", "cd", "ef"):
        write_row(table, {"step": 1, **dict.fromkeys(names, 0.0)})
    assert list(read_history(table)) == ["step", "e", "f"]
    assert list(read_history(table.with_name("history-1.csv"))) == ["step", "a", "b"]
    assert list(read_history(table.with_name("history-2.csv"))) == ["step", "c", "d"]
    assert "kept as history-2.csv" in caplog.text


def test_large_step_numbers_are_kept_to_the_unit(table: Path) -> None:
    write_row(table, {"step": 12_345_678, "loss": 0.1234567891})
    assert read_history(table) == {"step": [12_345_678], "loss": [0.123457]}


def test_a_kill_while_a_row_is_written_leaves_the_table_of_before(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_row(table, ROW)
    before = table.read_bytes()

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_row(table, {**ROW, "step": 2})
    assert table.read_bytes() == before


def test_a_row_that_was_cut_short_is_left_out_aloud(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    table.write_text("step,loss,iou\n1,0.5,0.6\n2,0.4")
    assert read_history(table) == {"step": [1], "loss": [0.5], "iou": [0.6]}
    assert "1 of 2 rows are incomplete" in caplog.text


def test_a_figure_that_does_not_exist_stays_none(table: Path) -> None:
    write_row(table, {**ROW, "iou": math.nan})
    assert math.isnan(read_history(table)["iou"][0])


def test_there_is_no_history_before_the_first_row(table: Path) -> None:
    assert read_history(table) == {}


def test_results_in_a_place_that_cannot_be_written_are_refused_by_every_command(
    write_recipe: WriteRecipe, world: Path, tmp_path: Path
) -> None:
    recipe, out = write_recipe(), tmp_path / "file" / "out"
    out.parent.write_text("not a folder")
    space = {"fit.learning_rate": Choice(("1e-3", "1e-2"))}
    calls: list[Callable[[], object]] = [
        lambda: train_recipe(recipe, data=world, out=out),
        lambda: survey_data(recipe, data=world, out=out),
        lambda: cross_validate(recipe, folds=2, data=world, out=out),
        lambda: search_recipe(recipe, SearchSettings(space=space, data=world, out=out)),
        lambda: finetune(world / "images", FinetuneSettings(labels=world / "labels", out=out)),
    ]
    for call in calls:
        with pytest.raises(OutputError, match="Choose another with `out`"):
            call()
