"""`geoseg finetune`, `crossval` and `search` on the command line: what is passed on, what is printed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from geoseg.cli import app
from geoseg.training import crossval, finetune, search
from geoseg.training.space import Choice, Range

COMMANDS = ("finetune", "crossval", "search")
FIGURES = {"iou": 0.5, "dice": 0.6, "precision": 0.7, "recall": 0.8, "threshold": 0.5}


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_options_and_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom geoseg.cli import app\n"
        f"result = CliRunner().invoke(app, ['{command}', '--help'])\n"
        "assert result.exit_code == 0 and '--out' in result.output and '--set' in result.output\n"
        "print([name for name in ('torch', 'numpy', 'rasterio', 'optuna', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("better", [True, False])
def test_finetune_prints_both_models_and_the_path_only_if_it_is_better(
    better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(scenes: list[str], settings: finetune.FinetuneSettings) -> finetune.Finetuning:
        asked.extend([scenes, settings])
        new = {**FIGURES, "model": "new", "iou": 0.75 if better else 0.25}
        blocks = {"held": 3, "held_px": 2_000_000}
        bundle = Path("out/new.safetensors") if better else None
        return finetune.Finetuning(Path("out"), bundle, {**FIGURES, "model": "old"}, new, "iou", blocks)

    monkeypatch.setattr(finetune, "finetune", run)
    result = invoke("finetune", "a.tif", "b.tif", "-l", "houses.gpkg", "--code", "255=building", "--set", "fit.batch=4")
    assert result.exit_code == 0
    assert asked[0] == ["a.tif", "b.tif"]
    assert asked[1].labels == Path("houses.gpkg")
    assert asked[1].codes == (("255", "building"),)
    assert asked[1].overrides == {"fit.batch": "4"}
    lines = result.stdout.splitlines()
    assert lines[0].startswith("| held-out blocks | IoU | Dice | precision | recall | threshold |")
    words = ("new is better by 0.2500 IoU on 3 held-out blocks (2.00 Mpx).", "out/new.safetensors")
    assert (lines[-2:] == list(words)) == better
    if not better:
        assert lines[-1].startswith("old is kept: the new weights are not better on 3 held-out blocks (2.00 Mpx)")


def test_crossval_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(recipe: str, **options: Any) -> crossval.CrossValidation:
        asked.update(options, recipe=recipe)
        classes = [{"building": dict.fromkeys(crossval.CLASS_FIGURES, 0.5)}]
        return crossval.CrossValidation(Path("cv"), [{"iou": 0.5}], classes, {})

    monkeypatch.setattr(crossval, "cross_validate", run)
    result = invoke("crossval", "buildings-30cm", "-k", "3", "--data", "d", "--with", "short-run", "-o", "cv")
    assert result.exit_code == 0
    assert asked == {
        "recipe": "buildings-30cm",
        "folds": 3,
        "data": Path("d"),
        "out": Path("cv"),
        "overrides": {},
        "over": ["short-run"],
    }
    assert "| fold 0 | 0.5000 |" in result.stdout
    assert result.stdout.splitlines()[-1] == str(Path("cv/crossval.json"))


def test_search_passes_its_options_on_and_prints_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(recipe: str, settings: search.SearchSettings) -> search.Search:
        asked.extend([recipe, settings])
        trials = [search.TrialResult(0, 0.5, {"fit.batch": "4"}, "", "t"), search.TrialResult(1, None, {}, "bad", "")]
        return search.Search(Path("s"), trials, Path("s/best.toml"))

    monkeypatch.setattr(search, "search_recipe", run)
    varied = ("--vary", "fit.batch=4,8", "--vary", "fit.learning_rate=1e-5..1e-2:log")
    result = invoke("search", "buildings-30cm", *varied, "--trials", "7", "--minutes-per-trial", "2", "--retrain")
    assert result.exit_code == 0
    assert asked[0] == "buildings-30cm"
    assert asked[1].space == {"fit.batch": Choice(("4", "8")), "fit.learning_rate": Range(1e-5, 1e-2, log=True)}
    assert (asked[1].trials, asked[1].minutes, asked[1].retrain) == (7, 2.0, True)
    assert "| 1 | failed: bad | - |" in result.stdout
    assert result.stdout.splitlines()[-1] == str(Path("s/best.toml"))


def test_a_text_that_varies_nothing_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geoseg", "search", "buildings-30cm", "--vary", "fit.batch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --vary fit.batch is no key and values.")
