"""Search: what varies, what is kept between calls, what the best becomes."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoseg.bundle import load_bundle
from geoseg.errors import MissingPackageError, RecipeError, TrainingError, UsageError
from geoseg.training import load_recipe
from geoseg.training.search import (
    Choice,
    Range,
    Search,
    SearchSettings,
    parse_dimension,
    read_space,
    search_recipe,
)
from geoseg.training.source_files import find_names, split_names

WriteRecipe = Callable[..., Path]

FIGURES = {"step": 2, "steps": 6, "best_threshold": 0.4}
"""Of a trial that was best long before its end."""

SHORT = {"fit.steps": 2, "fit.validate_every": 2, "fit.batch": 2}


def run(recipe: Path, world: Path, *varied: str, trials: int = 2, **changes: Any) -> Search:
    settings: dict[str, Any] = {"data": world, "out": world.parent / "search", "overrides": SHORT, **changes}
    return search_recipe(recipe, SearchSettings(space=read_space(None, varied), trials=trials, **settings))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a trial's figure be a function of its learning rate; return the rates in order."""
    seen: list[float] = []

    def train_plan(plan: Any, *, folder: Path, **kwargs: Any) -> Path:
        seen.append(plan.fit.learning_rate)
        if plan.fit.learning_rate > 0.5:
            raise TrainingError("the loss is nan")
        folder.mkdir(parents=True, exist_ok=True)
        headline = 1 - abs(plan.fit.learning_rate - 0.01)
        (folder / "metrics.json").write_text(json.dumps(FIGURES | {"headline": headline}))
        return folder / "model.safetensors"

    monkeypatch.setattr("geoseg.training.fit.train_plan", train_plan)
    return seen


def test_the_best_trial_becomes_a_recipe_and_a_model_of_all_the_data(write_script: WriteRecipe, world: Path) -> None:
    found = run(write_script(), world, "fit.learning_rate=1e-4..1e-2:log", "fit.average_decay=0.5,0.9", retrain=True)
    plan = load_recipe(found.recipe)
    assert plan.fit.learning_rate == found.best.values["fit.learning_rate"]
    assert plan.fit.average_decay == float(found.best.values["fit.average_decay"])
    assert found.bundle is not None
    spec = load_bundle(found.bundle).spec
    assert "iou" not in spec.metrics["validation"]
    prepared = world.parent / "search" / "prepared" / "streets"
    assert {path.name[0] for path in prepared.glob("*-train-*.npy")} == {"a", "b", "c"}
    steps = json.loads((world.parent / "search" / found.best.folder / "metrics.json").read_text())["step"]
    assert load_recipe(world.parent / "search" / "retrained.toml").fit.steps == steps


def test_a_search_continues_and_repeats_no_trial(
    write_recipe: WriteRecipe, world: Path, no_training: list[float]
) -> None:
    first = run(write_recipe(), world, "fit.learning_rate=1e-4..1e-1:log", trials=3)
    second = run(write_recipe(), world, "fit.learning_rate=1e-4..1e-1:log", trials=5)
    assert second.trials[:3] == first.trials
    assert len(no_training) == len(set(no_training)) == 5
    assert all(1e-4 <= rate <= 1e-1 for rate in no_training)
    assert second.best.value == max(1 - abs(rate - 0.01) for rate in no_training)
    kept = json.loads((world.parent / "search" / "search.json").read_text())
    assert kept["best"]["values"] == second.best.values
    assert len(kept["trials"]) == 5


def test_a_trial_that_was_cut_short_comes_first_when_the_search_continues(
    write_recipe: WriteRecipe, world: Path, no_training: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr("geoseg.training.fit.train_plan", stop)
        with pytest.raises(KeyboardInterrupt):
            run(write_recipe(), world, "fit.learning_rate=1e-4..1e-1", trials=3)
    found = run(write_recipe(), world, "fit.learning_rate=1e-4..1e-1", trials=3)
    assert len(found.trials) == len(no_training) == 3
    assert no_training[0] == STOPPED.pop()
    assert [trial.values["fit.learning_rate"] for trial in found.trials] == no_training


def test_the_last_training_has_as_many_steps_as_were_best_and_the_best_threshold(
    write_script: WriteRecipe, world: Path, no_training: list[float]
) -> None:
    found = run(write_script(), world, "fit.learning_rate=0.01,0.02", retrain=True)
    retrained = load_recipe(world.parent / "search" / "retrained.toml")
    assert (retrained.fit.steps, retrained.threshold) == (FIGURES["step"], FIGURES["best_threshold"])
    assert no_training[-1] == retrained.fit.learning_rate == float(found.best.values["fit.learning_rate"])


def test_the_last_training_leaves_out_what_was_split_off_for_testing(
    write_script: WriteRecipe, world: Path, no_training: list[float]
) -> None:
    for folder in ("images", "labels"):
        shutil.copy(world / folder / "a.tif", world / folder / "d.tif")
    recipe = write_script(('validate_scenes = ["b"]', "split = [0.34, 0.33, 0.33]"))
    assert run(recipe, world, "fit.learning_rate=0.01,0.02", retrain=True).bundle is not None
    (source,), plan, out = (
        load_recipe(world.parent / "search" / "retrained.toml").sources,
        load_recipe(recipe),
        world.parent,
    )
    names = find_names(plan.sources[0], world)
    split = split_names(plan.sources[0], names, data=world, results=out / "search", seed=plan.fit.seed)
    assert split["test"]
    assert {*split["test"]} <= {*source.test_scenes}


STOPPED: list[float] = []


def stop(plan: Any, **kwargs: Any) -> Path:
    """Be interrupted in the middle of a training."""
    STOPPED.append(plan.fit.learning_rate)
    raise KeyboardInterrupt


def test_the_log_and_the_table_count_trials_from_one(
    write_recipe: WriteRecipe, world: Path, no_training: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = run(write_recipe(), world, "fit.learning_rate=1e-4..1e-1", trials=2)
    for number, trial in enumerate(found.trials, 1):
        rate = f"{trial.values['fit.learning_rate']:.4g}"
        assert f"trial {number} of 2: fit.learning_rate = {rate}" in caplog.text
        assert f"| {number} | {trial.value:.4g} | {rate} |" in found.table()


def test_failed_trials_are_listed_and_the_others_count(
    write_recipe: WriteRecipe, world: Path, no_training: list[float]
) -> None:
    found = run(write_recipe(), world, "fit.learning_rate=0.01,0.9", trials=8)
    failed = [trial for trial in found.trials if trial.value is None]
    assert 0 < len(failed) < 8
    assert all("loss is nan" in trial.error for trial in failed)
    assert found.best.values == {"fit.learning_rate": "0.01"}
    assert found.table().count("failed: the loss is nan") == len(failed)


def test_a_search_of_nothing_but_failures_says_why(
    write_recipe: WriteRecipe, world: Path, no_training: list[float]
) -> None:
    with pytest.raises(TrainingError, match="all 2 trials failed; the first: the loss is nan"):
        run(write_recipe(), world, "fit.learning_rate=0.8,0.9")


def test_another_space_or_other_data_in_the_same_folder_are_refused(
    write_recipe: WriteRecipe, world: Path, no_training: list[float]
) -> None:
    run(write_recipe(), world, "fit.learning_rate=0.01,0.02", trials=1)
    with pytest.raises(RecipeError, match="`out`"):
        run(write_recipe(), world, "fit.learning_rate=0.01,0.03", trials=1)
    os.utime(world / "labels" / "a.tif", ns=(1, 1))  # mended between two calls
    with pytest.raises(RecipeError, match=r"a\.tif has changed since.*`out`"):
        run(write_recipe(), world, "fit.learning_rate=0.01,0.02", trials=2)


def test_a_key_that_no_recipe_has_is_named_before_anything_is_trained(write_recipe: WriteRecipe, world: Path) -> None:
    with pytest.raises(RecipeError, match=r"fit\.learning_speed"):
        run(write_recipe(), world, "fit.learning_speed=1..2")
    assert not (world.parent / "search").exists()


def test_a_search_without_optuna_says_how_to_install_it(
    write_recipe: WriteRecipe, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"geoseg\[search\]"):
        run(write_recipe(), world, "fit.learning_rate=0.01,0.02")


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("a.b=1..4", Range(1, 4)),
        ("a.b=1e-5..1e-2:log", Range(1e-5, 1e-2, log=True)),
        ("a.b=0.5..2", Range(0.5, 2)),
        ("a.b=resnet18, resnet50", Choice(("resnet18", "resnet50"))),
        ("a.b=[32, 16],[64, 32]", Choice(("[32, 16]", "[64, 32]"))),
        ("a.b={x = 1, y = 2},{}", Choice(("{x = 1, y = 2}", "{}"))),
    ],
)
def test_what_varies_is_read_from_text(text: str, dimension: Any) -> None:
    assert parse_dimension(text) == ("a.b", dimension)


SPACE = """
[fit]
learning_rate = {low = 1e-5, high = 1e-2, log = true}
batch = [4, 8]

[network.options]
depth = {low = 3, high = 5}
"""


def test_a_file_says_the_same_as_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    assert read_space(tmp_path / "space.toml", ["fit.batch=2,4"]) == {
        "fit.learning_rate": Range(1e-5, 1e-2, log=True),
        "fit.batch": Choice(("2", "4")),
        "network.options.depth": Range(3, 5),
    }


@pytest.mark.parametrize("text", ["a", "a=", "a=1", "=1,2"])
def test_text_that_varies_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`vary"):
        parse_dimension(text)


@pytest.mark.parametrize("text", ["a=4..1", "a=0..1:log"])
def test_an_empty_range_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="smaller first"):
        parse_dimension(text)


def test_a_recipe_written_as_toml_reads_back_as_it_was(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    from geoseg.training.library import recipe_text

    values = ('labels = "labels"', 'labels = "labels"\nvalues = {"255" = "building", "0" = "unknown"}')
    plan = load_recipe(write_recipe(values))
    (tmp_path / "again.toml").write_text(recipe_text(plan))
    assert load_recipe(tmp_path / "again.toml") == plan
