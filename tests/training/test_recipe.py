"""Recipes: what is wrong is named by key, value and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import RecipeError
from geoseg.training import load_recipe
from geoseg.training.recipe import Source, check_source

WriteRecipe = Callable[..., Path]

PLAIN = {"images": "i/*.tif", "labels": "l"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gsd_m = 0.5", "gsd = 0.5", r"unknown key gsd = 0\.5; expected among name, .*gsd_m"),
        ("gsd_m = 0.5", "", "the key gsd_m is missing"),
        ("gsd_m = 0.5", 'gsd_m = "fine"', "gsd_m = 'fine'; it should be a valid number"),
        ("batch = 4", "batch = true", "fit.batch = True; it should be a valid integer"),
        ("batch = 4", "batch = 0", "fit.batch = 0; it should be greater than or equal to 1"),
        ("batch = 4", 'optimizer = "sgd"', "fit.optimizer = 'sgd'; it should be 'adamw' or 'adam'"),
        ("crop_px = 64", "crop_px = 70", "fit.crop_px = 70"),
        ("window_px = 80", "window_px = 32", "fit.window_px = 32"),
        ('name = "unet"', 'name = "unnet"', "network.name = 'unnet'; expected one of .*unet"),
        ("mean = [0.4, 0.45, 0.5]", "mean = [0.5]", "network.mean has 1"),
        ("mean = [0.4, 0.45, 0.5]", "mean = 0.5", "network.mean = 0.5; it should be a valid array"),
        ("dice = 1.0", "dise = 1.0", "unknown key loss.dise"),
        ('step = "dihedral"', 'step = "turn"', "augment.step = 'turn'; expected one of flip, dihedral"),
        ('labels = "labels"', "", "sources.squares.labels is missing"),
        ('labels = "labels"', "paint_seeds = [1, 3]", "needs one of .*; it has images and paint_seeds"),
        ('validate_scenes = ["c"]', "weight = -1", r"sources\[0\].weight = -1"),
        ("[fit]", "[fitt]", "unknown key fitt"),
        (
            'encoder = "mob',
            'auxiliary = ["wall"]\nencoder = "mob',
            r"auxiliary = \['wall'\]; .* among edge, contact, dist",
        ),
        ('encoder = "mob', 'auxiliary = ["edge", "edge"]\nencoder = "mob', "expected different names"),
        ("[loss]", "[auxiliary]\nedge_m = 0.0\n[loss]", "auxiliary.edge_m = 0.0; it should be greater"),
        ("[loss]", "[auxiliary]\nedge = 0.5\n[loss]", "unknown key auxiliary.edge = 0.5; expected among edge_m"),
        ("[loss]", "[auxiliary]\nweights = { edge = 1 }\n[loss]", "auxiliary.weights.edge; .*there is none"),
        ('labels = "labels"', 'labels = "labels"\ninstances = 1', r"instances = 1; it should be a valid boolean"),
    ],
)
def test_a_mistake_is_named(write_recipe: WriteRecipe, old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(write_recipe((old, new)))


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml"):
        load_recipe(tmp_path / "none.toml")


def test_overrides_reach_tables_and_named_list_elements(write_recipe: WriteRecipe) -> None:
    overrides = {
        "fit.steps": "12",
        "sources.squares.weight": 0.5,
        "augment.dihedral.probability": "0.25",
        "network.encoder_weights": "imagenet",
    }
    recipe = load_recipe(write_recipe(), overrides)
    assert recipe.fit.steps == 12
    assert recipe.sources[0].weight == 0.5
    assert recipe.augment[0].probability == 0.25
    assert recipe.network.encoder_weights == "imagenet"


@pytest.mark.parametrize(
    ("key", "said"), [("fit.stepps", "unknown key fit.stepps"), ("sources.circles.weight", "no 'circles'")]
)
def test_an_override_of_nothing_is_named(write_recipe: WriteRecipe, key: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(write_recipe(), {key: "1"})


def test_the_shipped_recipe_trains_on_no_test_area(repository: Path) -> None:
    recipe = load_recipe(repository / "pipelines" / "recipes" / "buildings-30cm.toml")
    by_name = {source.name: source for source in recipe.sources}
    assert by_name["massachusetts"].exclude == ("2357*", "2372*", "2387*")
    assert not any("test" in source.train + source.validate for source in recipe.sources)


def test_background_is_nobodys_target(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(("bce = 1.0", "ce = 1.0")), {"network.classes": ["background", "rooftop"]})
    assert recipe.network.target_class == "rooftop"


@pytest.mark.parametrize(
    "keys",
    [
        PLAIN,
        {"layout": "areas", "root": "dubai"},
        {"images": "{area}/i/{name}.jpg", "labels": "{area}/m/{name}.png", "split": (0.9, 0.05, 0.05)},
        {**PLAIN, "split_file": "split.json", "split": (0.8, 0.2)},
        {**PLAIN, "areas": "a.geojson", "train": ("train",)},
        {**PLAIN, "fold": (0, 5)},
        {"paint_seeds": (1, 3)},
        {"paint_seeds": (1, 3), "paint_kind": "dense"},
        {**PLAIN, "instances": True, "values": {"9": "unknown"}},
        {**PLAIN, "validate_west": 0.2},
    ],
)
def test_a_recipe_may_have_keys_that_go_together(keys: dict[str, Any], write_recipe: WriteRecipe) -> None:
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
    (source,) = load_recipe(write_recipe(), {"sources": [{"name": "s", **given}]}).sources
    assert source == Source(name="s", **keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "needs one of images, layout and paint_seeds; it has none"),
        ({"images": "i/*.tif"}, "labels is missing"),
        ({"layout": "area"}, "layout = 'area'; expected one of split-folders, suffix, paired, numbered, areas"),
        ({"layout": "areas", "labels": "l"}, "labels = 'l' has no effect: layout says"),
        ({"images": "i/*.tif", "labels": "l/{name}.tif"}, "is a template; expected one in images too"),
        ({"paint_seeds": (1,)}, r"paint_seeds = \[1\]"),
        ({**PLAIN, "paint_kind": "dense"}, r"paint_kind = 'dense' has no effect without paint_seeds"),
        ({**PLAIN, "bands": (0, 1)}, r"bands = \[0, 1\]; expected band numbers from 1"),
        ({**PLAIN, "split": (0.9, 0.2)}, r"split = \[0\.9, 0\.2\]; expected two or three shares"),
        ({**PLAIN, "split": (0.5, 0.5), "fold": (0, 2)}, "is split by fold and by split; expected one"),
        ({**PLAIN, "areas": "a.gpkg", "train": ("t",), "split_file": "s.json"}, "by areas and by split"),
        ({**PLAIN, "fold": (1, 2, 3)}, r"fold = \[1, 2, 3\]"),
        ({**PLAIN, "areas": "a.gpkg"}, "train and validate name none of them"),
        ({**PLAIN, "train": ("train",)}, "areas is missing"),
        ({**PLAIN, "validate_east": 0.2, "fold": (0, 2)}, "validate_east takes .* expected no fold as well"),
        ({**PLAIN, "validate_west": 0.2, "split": (0.8, 0.2)}, "validate_west takes .* expected no split as well"),
        ({**PLAIN, "validate_west": 0.2, "validate_east": 0.2}, "validate_east takes .* expected no validate_west as"),
        ({**PLAIN, "instances": True, "label_column": "use"}, "instances = true, and label_column is given"),
        ({"instances": True, "paint_seeds": (1, 3)}, "instances = true, and paint_seeds is given"),
    ],
)
def test_keys_that_do_not_go_together_are_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=rf"sources\.s.*{said}"):
        check_source(Source(name="s", **keys))


def test_auxiliary_channels_have_weights_of_their_own_and_a_class_may_not_be_named_as_one(
    write_recipe: WriteRecipe,
) -> None:
    keys = {"network.auxiliary": ["contact", "edge"], "auxiliary.weights": {"edge": 0.25}}
    recipe = load_recipe(write_recipe(), keys)
    assert recipe.network.channels == ("building", "contact", "edge")
    assert recipe.losses == {"bce": 1.0, "dice": 1.0, "contact": 0.5, "edge": 0.25}
    with pytest.raises(RecipeError, match="not those of classes"):
        load_recipe(write_recipe(("bce = 1.0", "ce = 1.0")), {**keys, "network.classes": ["ground", "edge"]})
