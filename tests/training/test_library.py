"""Recipes in YAML, laid over one another, with mistakes named."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from geoseg.errors import RecipeError
from geoseg.training import load_recipe
from geoseg.training.library import merge, read_table, show_recipe

WriteRecipe = Callable[..., Path]


def test_a_recipe_in_yaml_is_the_same_recipe(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    toml = write_recipe()
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tomllib.loads(toml.read_text())))
    assert load_recipe(path) == load_recipe(toml)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "name: [", "is not YAML"),
        ("a.yaml", "- 1\n- 2", "is a list; expected a table"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "is not YAML"),
        ("a.toml", "name = ", "is not TOML"),
        ("a.toml", "\x00\x01", "is not TOML"),
        ("a.toml", "\n", "is empty; expected a TOML or YAML file"),
        ("a.yaml", "", "is empty; expected a TOML or YAML file"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_table(path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xff\xfe\x00name")
    for read in (read_table, show_recipe):
        with pytest.raises(RecipeError, match=r"cannot read the recipe .* it is not text"):
            read(path)


def test_an_empty_file_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.touch()
    with pytest.raises(RecipeError, match="is empty"):
        show_recipe(path)


def test_tables_merge_key_by_key_and_lists_are_replaced() -> None:
    below = {"fit": {"steps": 1, "batch": 2}, "sources": [{"name": "a"}, {"name": "b"}]}
    assert merge(below, {"fit": {"steps": 3}, "sources": [{"name": "c"}]}) == {
        "fit": {"steps": 3, "batch": 2},
        "sources": [{"name": "c"}],
    }


def test_data_laid_over_a_recipe_keep_its_network_and_its_description(
    write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    data = tmp_path / "data.toml"
    data.write_text('description = "Data"\ngsd_m = 0.25\n[[sources]]\nname = "other"\nimages = "x"\nlabels = "y"\n')
    settings = tmp_path / "settings.yaml"
    settings.write_text("fit:\n  steps: 77\n")
    recipe = load_recipe(write_recipe(("gsd_m", 'description = "Mine"\ngsd_m')), over=[data, settings])
    assert [source.name for source in recipe.sources] == ["other"]
    assert (recipe.gsd_m, recipe.fit.steps, recipe.description) == (0.25, 77, "Mine")
    assert recipe.network.name == "unet"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fit.schedule", "step", "it should be 'cosine', 'plateau', 'one-cycle' or 'constant'"),
        ("fit.unscored", ["sea"], r"fit\.unscored = \['sea'\]; expected some of building"),
        ("fit.unscored", ["building"], "not all"),
        ("network.target", "roof", r"network\.target = 'roof'; expected one of building"),
        ("network.classes", ["a", "a"], "expected 1 to 250 different names"),
        ("network.colors", {"building": "red"}, r"network\.colors\.building = 'red'; expected a class .* #RRGGBB"),
        ("name", "a/b", "expected letters, digits"),
        ("chip_px", 100, "expected a chip of a multiple of 8"),
        ("fit.crop_px", 68, "expected a crop of a multiple of 8"),
        ("halo_px", 48, "larger than two halos"),
    ],
)
def test_a_value_that_cannot_be_is_named(write_recipe: WriteRecipe, key: str, value: object, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(write_recipe(), {key: value})


def test_a_run_without_an_end_is_refused(write_recipe: WriteRecipe) -> None:
    with pytest.raises(RecipeError, match="fit has no end"):
        load_recipe(write_recipe(), {"fit.steps": 0})


def test_keys_in_British_spelling_are_still_read(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    path = write_recipe()
    text = path.read_text()
    old = tmp_path / "old.toml"
    old.write_text('licence = "CC0-1.0"\n' + text.replace("[fit]", '[fit]\noptimiser = "adam"', 1))
    assert load_recipe(old) == load_recipe(path, {"license": "CC0-1.0", "fit.optimizer": "adam"})
    assert load_recipe(path, {"fit.optimiser": "adam"}).fit.optimizer == "adam"
