"""What the commands that train print: tables of figures first, then paths, for a person and for a script."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import geoseg.training
from geoseg.cli import app
from geoseg.training import crossval, finetune, search, survey

FIGURES = {"iou": 0.5, "dice": 0.6, "precision": 0.7, "recall": 0.8, "threshold": 0.5}


def printed(command: str) -> list[str]:
    result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def answer(monkeypatch: pytest.MonkeyPatch, home: Any, call: str, result: object) -> None:
    """Let a public call of a room give `result`."""
    monkeypatch.setitem(vars(home), call, lambda *args, **options: result)


@pytest.mark.parametrize("better", [True, False])
def test_finetune_prints_both_models_and_the_path_only_if_it_is_better(
    better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {**FIGURES, "model": "new", "iou": 0.75 if better else 0.25}
    bundle = Path("out/new.safetensors") if better else None
    blocks = {"held": 3, "held_px": 2_000_000}
    result = finetune.Finetuning(Path("out"), bundle, {**FIGURES, "model": "old"}, new, "iou", blocks)
    answer(monkeypatch, finetune, "finetune", result)
    lines = printed("finetune a.tif -l houses.gpkg")
    assert lines[0].startswith("| held-out blocks | IoU | Dice | precision | recall | threshold |")
    words = ("new is better by 0.2500 IoU on 3 held-out blocks (2.00 Mpx).", "out/new.safetensors")
    assert (lines[-2:] == list(words)) == better
    if not better:
        assert lines[-1].startswith("old is kept: the new weights are not better on 3 held-out blocks (2.00 Mpx)")


def test_crossval_prints_every_fold_and_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [{"building": dict.fromkeys(crossval.CLASS_FIGURES, 0.5)}]
    result = crossval.CrossValidation(Path("cv"), [{"iou": 0.5}], classes, {})
    answer(monkeypatch, crossval, "cross_validate", result)
    lines = printed("crossval buildings-30cm")
    assert "| fold 0 | 0.5000 |" in lines
    assert lines[-1] == str(Path("cv/crossval.json"))


@pytest.mark.parametrize("bundle", [None, Path("s/best.safetensors")])
def test_search_prints_the_trials_the_recipe_and_the_model_that_was_retrained(
    bundle: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [search.TrialResult(1, 0.5, {"fit.batch": "4"}, "", "t"), search.TrialResult(2, None, {}, "no `data`", "")]
    answer(monkeypatch, search, "search_recipe", search.Search(Path("s"), trials, Path("s/best.toml"), bundle))
    lines = printed("search buildings-30cm --vary fit.batch=4,8")
    assert "| 2 | failed: no --data | - |" in lines
    assert lines[-2:] == ([str(Path("s/best.toml")), str(bundle)] if bundle else ["", str(Path("s/best.toml"))])


def test_train_prints_the_bundle_and_data_show_the_counts_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, geoseg.training, "train_recipe", Path("t/a.safetensors"))
    assert printed("train buildings-30cm") == [str(Path("t/a.safetensors"))]
    found = SimpleNamespace(table=lambda: "| files | 3 |", paths=[Path("d/data.json"), Path("d/a.png")])
    answer(monkeypatch, survey, "survey_data", found)
    assert printed("data show buildings-30cm") == ["| files | 3 |", str(Path("d/data.json")), str(Path("d/a.png"))]
