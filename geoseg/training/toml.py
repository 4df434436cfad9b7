"""Recipes as TOML text: what a command worked out is written so that a person can read, change and train it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from geoseg.training.recipe import Recipe

__all__ = ["recipe_text", "toml_value"]


def recipe_text(recipe: Recipe | Mapping[str, Any]) -> str:
    """Return a recipe, or a table of its keys, as TOML that `load_recipe` reads."""
    table = dict(asdict(recipe)) if isinstance(recipe, Recipe) else dict(recipe)
    return "\n".join(_lines(table, "")).lstrip("\n") + "\n"


def _lines(table: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the plain keys of a table, then its tables; below the first level tables stay on one line."""
    inner = {key: value for key, value in table.items() if not where and _is_nested(value)}
    yield from (f"{_key(key)} = {toml_value(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            yield f"\n[[{_key(key)}]]" if one is not value else f"\n[{_key(key)}]"
            yield from _lines(one, key)


def _is_nested(value: Any) -> bool:
    tables = value if isinstance(value, list | tuple) else [value]
    return bool(tables) and all(isinstance(table, Mapping) for table in tables)


def toml_value(value: Any) -> str:
    """Return a text, number, truth value, list or table as a TOML value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)  # TOML writes texts, numbers and truth values as JSON does


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
