"""Keys of a source that do not go together are named before any file is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import RecipeError
from geoseg.training import load_recipe
from geoseg.training.recipe import Source
from geoseg.training.rules import check_source

PLAIN = {"images": "i/*.tif", "labels": "l"}


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
    ],
)
def test_a_recipe_may_have_keys_that_go_together(keys: dict[str, Any], write_recipe: Callable[..., Path]) -> None:
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
    (source,) = load_recipe(write_recipe(), {"sources": [{"name": "s", **given}]}).sources
    assert source == Source(name="s", **keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "needs one of images, layout and paint_seeds; it has none"),
        ({"images": "i/*.tif"}, "labels is missing"),
        ({"layout": "area"}, "layout = 'area'; expected one of split-folders, suffix, paired, numbered, areas"),
        ({"layout": "areas", "labels": "l"}, "labels = 'l' is of no use: layout says"),
        ({"images": "i/*.tif", "labels": "l/{name}.tif"}, "is a template; expected one in images too"),
        ({"paint_seeds": (1,)}, r"paint_seeds = \[1\]"),
        ({**PLAIN, "bands": (0, 1)}, r"bands = \[0, 1\]; expected band numbers from 1"),
        ({**PLAIN, "split": (0.9, 0.2)}, r"split = \[0\.9, 0\.2\]; expected two or three shares"),
        ({**PLAIN, "split": (0.5, 0.5), "fold": (0, 2)}, "is split by fold and by split; expected one"),
        ({**PLAIN, "areas": "a.gpkg", "train": ("t",), "split_file": "s.json"}, "by areas and by split"),
        ({**PLAIN, "fold": (1, 2, 3)}, r"fold = \[1, 2, 3\]"),
        ({**PLAIN, "areas": "a.gpkg"}, "train and validate name none of them"),
        ({**PLAIN, "train": ("train",)}, "areas is missing"),
        ({**PLAIN, "validate_east": 0.2, "fold": (0, 2)}, "validate_east takes .* expected no fold beside it"),
    ],
)
def test_keys_that_do_not_go_together_are_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=rf"sources\.s.*{said}"):
        check_source(Source(name="s", **keys))
