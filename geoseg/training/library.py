"""Recipes by name: those that come with geoseg."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import RecipeError
from geoseg.training.schema import read_table

if TYPE_CHECKING:
    from geoseg.training.recipe import Recipe

__all__ = ["describe_recipes", "find_recipe", "list_recipes", "open_recipe", "show_recipe"]

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "pipelines" / "recipes")
"""Where an installed geoseg keeps them, and where a checkout does."""

_SUFFIXES = {".toml", ".yaml", ".yml"}


def list_recipes() -> dict[str, Path]:
    """Return the recipes that come with geoseg, by name."""
    files = (path for folder in reversed(_FOLDERS) for path in sorted(folder.glob("*.*")))
    return {path.stem: path for path in files if path.suffix in _SUFFIXES}


def describe_recipes() -> dict[str, str]:
    """Return what each recipe that comes with geoseg is, by name; data to be laid over others included."""
    return {name: str(read_table(path).get("description", "")) for name, path in sorted(list_recipes().items())}


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        recipe: path of a TOML or YAML file, or name of a recipe that comes with geoseg.

    Raises:
        RecipeError: there is neither.
    """
    if Path(recipe).is_file():
        return Path(recipe)
    known = list_recipes()
    if str(recipe) not in known:
        raise RecipeError(
            f"There is no recipe {str(recipe)!r}: neither a file nor one that comes with geoseg. "
            f"These do: {', '.join(sorted(known)) or 'none'}. Give one of these names or the path of a file."
        )
    return known[str(recipe)]


def open_recipe(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, *, over: Sequence[str | Path] = ()
) -> "Recipe":
    """Read a recipe by name or path, with others by name or path laid over it; see `load_recipe`."""
    from geoseg.training.recipe import load_recipe

    return load_recipe(find_recipe(recipe), overrides, over=[find_recipe(o) for o in over])


def show_recipe(
    recipe: str | Path,
    *,
    over: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    resolved: bool = False,
) -> str:
    """Return a recipe's own text, or as JSON what it comes to with its defaults.

    Args:
        recipe: as for `find_recipe`.
        over: more recipes that are laid over it.
        overrides: dotted keys and their values.
        resolved: JSON even without `over` and `overrides`.
    """
    path = find_recipe(recipe)
    if not (over or overrides or resolved):
        return path.read_text(encoding="utf-8")
    return json.dumps(asdict(open_recipe(path, overrides, over=over)), indent=2)
