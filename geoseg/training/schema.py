"""Frozen dataclasses from TOML or YAML: keys, types and ranges checked; errors name the key and what is allowed."""

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import RecipeError

__all__ = ["build", "merge", "one_of", "override", "read_table", "within"]


def within(low: float, high: float, default: Any = MISSING) -> Any:
    """Declare a number from `low` to `high`."""
    return field(default=default, metadata={"within": (low, high)})


def one_of(*allowed: str, default: Any = MISSING) -> Any:
    """Declare a text that is one of `allowed`."""
    return field(default=default, metadata={"one_of": allowed})


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a YAML file (`.yaml`, `.yml`) safely.

    Raises:
        RecipeError: the file cannot be read, or is not what its name says.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise RecipeError(f"cannot read the recipe {path}: {getattr(err, 'strerror', None) or err}") from err
    return _read_yaml(path, text) if path.suffix.lower() in (".yaml", ".yml") else _read_toml(path, text)


def _read_toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise RecipeError(f"{path} is not TOML: {err}") from err


def _read_yaml(path: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(table, dict):
        raise RecipeError(f"{path} holds {type(table).__name__}; expected a table of keys")
    return table


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another: tables key by key, everything else, lists included, replaced."""
    both = {k: merge(table[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(table.get(k), dict)}
    return {**table, **over, **both}


def override(table: Any, key: str, value: Any) -> None:
    """Set a dotted key; an element of a list goes by its `name` or `step`. A text is read as TOML where it can be.

    Raises:
        RecipeError: there is no such table.
    """
    *parents, last = key.split(".")
    for parent in parents:
        table = _child(table, parent, key)
    if not isinstance(table, dict):
        raise RecipeError(f"cannot set {key!r}: there is no such table in the recipe")
    table[last] = _parse(value) if isinstance(value, str) else value


def _child(table: Any, name: str, key: str) -> Any:
    if isinstance(table, dict):
        return table.setdefault(name, {})
    named = [item for item in table if name in (item.get("name"), item.get("step"))] if isinstance(table, list) else []
    if not named:
        raise RecipeError(f"cannot set {key!r}: the recipe has no {name!r} there")
    return named[0]


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build(cls: type[Any], table: Any, where: str) -> Any:
    """Make `cls` of a table, checking keys, types and ranges; `where` is its dotted name.

    Raises:
        RecipeError: naming the key, the value and what is allowed.
    """
    if not isinstance(table, dict):
        raise RecipeError(f"{where or 'the recipe'} is {table!r}; expected a table")
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise RecipeError(
            f"unknown key {where}{unknown[0]!s} = {table[unknown[0]]!r}; expected among {', '.join(known)}"
        )
    required = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        hint = "" if where else "; a file of data or settings alone is laid over a recipe with --with"
        raise RecipeError(f"the key {where}{missing[0]} is missing from the recipe{hint}")
    hints = typing.get_type_hints(cls)
    return cls(**{k: _value(v, hints[k], known[k], f"{where}{k}") for k, v in table.items()})


def _value(value: Any, hint: Any, spec: Field[Any], where: str) -> Any:
    made = _typed(value, hint, where)
    if "one_of" in spec.metadata and made not in spec.metadata["one_of"]:
        raise RecipeError(f"{where} = {value!r}; expected one of {', '.join(spec.metadata['one_of'])}")
    low, high = spec.metadata.get("within", (None, None))
    if low is not None and not low <= made <= high:
        raise RecipeError(f"{where} = {value!r}; expected a number from {low:g} to {high:g}")
    return made


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return build(typing.cast(type[Any], hint), value, f"{where}.")
    if origin is tuple:
        return tuple(_typed(v, args[0], f"{where}[{i}]") for i, v in enumerate(_as(list, value, where)))
    if origin is dict:
        return {k: _typed(v, args[1], f"{where}.{k}") for k, v in _as(dict, value, where).items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if hint is Any else _as(hint, value, where)


def _as(kind: type[Any] | types.UnionType, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"{where} = {value!r}; expected {getattr(kind, '__name__', kind)}")
    return value
