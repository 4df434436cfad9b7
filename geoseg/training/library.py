"""Recipes by name: those that come with geoseg."""

from pathlib import Path

import geoseg
from geoseg.errors import RecipeError

__all__ = ["find_recipe", "list_recipes"]

_PACKAGE = Path(geoseg.__file__).parent
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "pipelines" / "recipes")
"""Where an installed geoseg keeps them, and where a checkout does."""


def list_recipes() -> dict[str, Path]:
    """Return the recipes that come with geoseg, by name."""
    return {path.stem: path for folder in reversed(_FOLDERS) for path in sorted(folder.glob("*.toml"))}


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        recipe: path of a TOML file, or name of a recipe that comes with geoseg.

    Raises:
        RecipeError: there is neither.
    """
    if Path(recipe).is_file():
        return Path(recipe)
    known = list_recipes()
    if str(recipe) not in known:
        raise RecipeError(
            f"There is no recipe {str(recipe)!r}: neither a file nor one that comes with geoseg. "
            f"These do: {', '.join(sorted(known)) or 'none'}. Give one of these names or the path of a TOML file."
        )
    return known[str(recipe)]
