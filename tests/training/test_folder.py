"""A training folder belongs to one recipe."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from geoseg.errors import RecipeError
from geoseg.training import load_recipe
from geoseg.training.folder import claim_folder
from geoseg.training.recipe import Recipe

WriteRecipe = Callable[..., Path]
DATA = Path("data")


@pytest.fixture
def plan(write_recipe: WriteRecipe) -> Recipe:
    return load_recipe(write_recipe())


def begin(plan: Recipe, folder: Path) -> None:
    claim_folder(plan, folder, DATA)
    (folder / "checkpoints").mkdir()


def test_a_new_folder_keeps_every_key_of_the_recipe(plan: Recipe, tmp_path: Path) -> None:
    claim_folder(plan, tmp_path / "out", DATA)
    kept = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert kept["fit"]["learning_rate"] == plan.fit.learning_rate
    assert kept["sources"][0]["name"] == "squares"
    assert not list((tmp_path / "out").glob("*.part"))


def test_another_recipe_is_refused_and_the_difference_named(plan: Recipe, tmp_path: Path) -> None:
    begin(plan, tmp_path / "out")
    other = dataclasses.replace(plan, fit=dataclasses.replace(plan.fit, learning_rate=0.5))
    with pytest.raises(RecipeError, match=r"fit\.learning_rate was 0\.005 and is 0\.5.*`out`"):
        claim_folder(other, tmp_path / "out", DATA)
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["fit"]["learning_rate"] == 0.005


def test_another_source_is_refused_by_its_name(plan: Recipe, tmp_path: Path) -> None:
    begin(plan, tmp_path / "out")
    other = dataclasses.replace(plan, sources=(dataclasses.replace(plan.sources[0], weight=0.5),))
    with pytest.raises(RecipeError, match=r"sources\.squares\.weight was 1\.0 and is 0\.5"):
        claim_folder(other, tmp_path / "out", DATA)


def test_a_longer_run_on_another_device_is_the_same_run(plan: Recipe, tmp_path: Path) -> None:
    begin(plan, tmp_path / "out")
    longer = dataclasses.replace(plan.fit, steps=10**6, minutes=5.0, threads=1, device="cpu")
    claim_folder(dataclasses.replace(plan, fit=longer, threshold=0.6), tmp_path / "out", DATA.absolute())
    kept = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert kept["threshold"] == 0.6
    assert kept["fit"] == json.loads(json.dumps(dataclasses.asdict(longer)))


def test_other_data_is_refused(play: Callable[..., Path], tmp_path: Path) -> None:
    out = play()
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    before = (out / "recipe.json").read_text()
    with pytest.raises(RecipeError, match=r"another data folder than .*copy.*`out`"):
        play(data=tmp_path / "copy", threshold=0.6)
    assert (out / "recipe.json").read_text() == before
    play(data=tmp_path / "copy" / ".." / "data", fit__steps=2)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to(tmp_path / "moved")
    play(fit__steps=3)


def test_a_run_that_never_kept_a_checkpoint_may_begin_anew(plan: Recipe, tmp_path: Path) -> None:
    claim_folder(plan, tmp_path / "out", DATA)
    claim_folder(dataclasses.replace(plan, gsd_m=1.0), tmp_path / "out", Path("other"))
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["gsd_m"] == 1.0
