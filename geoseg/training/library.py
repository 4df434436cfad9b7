"""Recipes by name, from files, and as text."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg.bundle import US_SPELLING, us_spelling
from geoseg.errors import RecipeError
from geoseg.training.recipe import Recipe, build_recipe, check_recipe

__all__ = [
    "describe_recipes",
    "find_recipe",
    "list_recipes",
    "load_recipe",
    "merge",
    "override",
    "read_table",
    "recipe_text",
    "show_recipe",
    "toml_value",
]

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "pipelines" / "recipes")
"""Of an installed geoseg, and of a checkout."""

_YAML = (".yaml", ".yml")

MOST_LEVELS, MOST_VALUES = 32, 100_000
"""Tables within tables, and values in all, of a recipe."""


def list_recipes() -> dict[str, Path]:
    """Return the recipes that come with geoseg, by name."""
    files = (path for folder in reversed(_FOLDERS) for path in sorted(folder.glob("*.*")))
    return {path.stem: path for path in files if path.suffix in (".toml", *_YAML)}


def describe_recipes() -> dict[str, str]:
    """Return the descriptions of the recipes that come with geoseg, by name."""
    return {name: str(read_table(path).get("description", "")) for name, path in sorted(list_recipes().items())}


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe: a TOML or YAML file, or the name of a recipe that comes with geoseg.

    Raises:
        RecipeError: There is neither.
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


def load_recipe(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, *, over: Sequence[str | Path] = ()
) -> Recipe:
    """Read a recipe, apply `over` and `overrides`, and check it.

    Args:
        recipe: As for `find_recipe`.
        overrides: Values by dotted key; an element of a list is addressed by its `name` or `step`, as in
            `sources.accra.weight`. A text is read as TOML if possible.
        over: More recipes, whose keys override those before, such as the `[[sources]]` of other data.

    Raises:
        RecipeError: A file does not exist or cannot be read, a key does not exist, or a value is not allowed.
    """
    table = read_table(find_recipe(recipe))
    for upper in over:
        description = table.get("description")
        table = merge(table, read_table(find_recipe(upper))) | ({"description": description} if description else {})
    for key, value in (overrides or {}).items():
        override(table, key, value)
    made = build_recipe(table)
    check_recipe(made)
    return made


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a YAML file (`.yaml`, `.yml`) safely.

    Raises:
        RecipeError: The file cannot be read or parsed.
    """
    import yaml

    text = _read_text(path)
    try:
        table = yaml.safe_load(text) if path.suffix.lower() in _YAML else tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise RecipeError(f"{path} is not TOML: {err}") from err
    except yaml.YAMLError as err:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    except RecursionError as err:
        raise RecipeError(f"{path} is nested too deeply; expected tables of keys, and lists of them") from err
    except ValueError as err:  # yaml makes dates and numbers itself
        raise RecipeError(f"{path} has a value that cannot be read: {err}") from err
    if not isinstance(table, dict):
        raise RecipeError(f"{path} is a {type(table).__name__}; expected a table of keys")
    _check_size(table, path)
    renamed: dict[str, Any] = us_spelling(table)
    return renamed


def _check_size(table: Mapping[str, Any], path: Path) -> None:
    """Refuse a table that is absurdly large or deep; in YAML, a few lines of aliases make billions of values."""
    pending: list[tuple[int, Any]] = [(0, table)]
    count = 0
    while pending:
        depth, value = pending.pop()
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        count += len(inner)
        if depth > MOST_LEVELS or count > MOST_VALUES:
            raise RecipeError(
                f"{path} has more than {MOST_LEVELS} levels or {MOST_VALUES:,} values; expected a few tables of keys"
            )
        pending += [(depth + 1, one) for one in inner]


def _read_text(path: Path) -> str:
    """Return the text of a file that is not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise RecipeError(f"cannot read the recipe {path}: {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        raise RecipeError(f"cannot read the recipe {path}: it is not text; expected a TOML or YAML file") from err
    if not text.strip():
        raise RecipeError(f"{path} is empty; expected a TOML or YAML file. Check the path, or write the file again")
    return text


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Override keys of one table with those of another: tables key by key; everything else, lists included, whole."""
    both = {k: merge(table[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(table.get(k), dict)}
    return {**table, **over, **both}


def override(table: Any, key: str, value: Any) -> None:
    """Set a dotted key of a table, as `overrides` of `load_recipe`.

    Raises:
        RecipeError: There is no such table.
    """
    *parents, last = (US_SPELLING.get(name, name) for name in key.split("."))
    for name in parents:
        if isinstance(table, dict):
            table = table.setdefault(name, {})
            continue
        items = table if isinstance(table, list) else []
        named = [item for item in items if name in (item.get("name"), item.get("step"))]
        if not named:
            raise RecipeError(f"cannot set {key!r}: the recipe has no {name!r} there")
        table = named[0]
    if not isinstance(table, dict):
        raise RecipeError(f"cannot set {key!r}: there is no such table in the recipe")
    if isinstance(value, str):
        with suppress(tomllib.TOMLDecodeError):  # a text without quotes stays one
            value = tomllib.loads(f"value = {value}")["value"]
    table[last] = value


def show_recipe(
    recipe: str | Path,
    *,
    over: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    resolved: bool = False,
) -> str:
    """Return the text of a recipe's file; or, if `resolved` or changed, all of its keys as JSON.

    Other arguments as for `load_recipe`.

    Raises:
        RecipeError: As `load_recipe`; a file alone is refused if it is empty or not text.
    """
    if over or overrides or resolved:
        return json.dumps(asdict(load_recipe(recipe, overrides, over=over)), indent=2)
    return _read_text(find_recipe(recipe))


def recipe_text(recipe: Recipe | Mapping[str, Any]) -> str:
    """Return a recipe, or a table of its keys, as TOML that `load_recipe` reads."""
    table = asdict(recipe) if isinstance(recipe, Recipe) else recipe
    return "\n".join(_lines(table, "")).lstrip("\n") + "\n"


def _lines(table: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the plain keys of a table, then its tables; those of lower levels are on one line."""
    inner: dict[str, list[Mapping[str, Any]]] = {}
    for key, value in table.items():
        if value is None:  # TOML has no word for it: a key that is missing has its default
            continue
        tables = list(value) if isinstance(value, list | tuple) else [value]
        if not where and tables and all(isinstance(one, Mapping) for one in tables):
            inner[key] = tables
        else:
            yield f"{_key(key)} = {toml_value(value)}"
    for key, tables in inner.items():
        for one in tables:
            yield f"\n[{_key(key)}]" if one is table[key] else f"\n[[{_key(key)}]]"
            yield from _lines(one, key)


def toml_value(value: Any) -> str:
    """Return a text, number, truth value, list or table as a TOML value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)  # TOML writes texts, numbers and truth values as JSON does


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
