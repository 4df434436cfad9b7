"""The space that a search looks through: for each dotted recipe key a range of numbers, or a list of values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import RecipeError, UsageError
from geoseg.training.library import read_table, toml_value

__all__ = ["Choice", "Dimension", "Range", "parse_dimension", "read_space"]

if TYPE_CHECKING:
    from optuna.trial import Trial

_NUMBER = r"[+-]?[\d_]*\.?\d+(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(:log)?\s*")

_PART = re.compile(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,\[{"'])+""")
"""What stands between commas; those in brackets and quotes do not count."""

EXAMPLE = "fit.learning_rate=1e-5..1e-2:log, network.options.depth=3..5 or network.encoder=resnet18,resnet50"


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both are whole."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values to check before anything starts."""
        return self.low, self.high

    def suggest(self, trial: "Trial", key: str) -> Any:
        """Let a trial choose."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values, each as a text that `--set` understands."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values to check before anything starts."""
        return self.values

    def suggest(self, trial: "Trial", key: str) -> Any:
        """Let a trial choose."""
        return trial.suggest_categorical(key, self.values)


Dimension = Range | Choice


def read_space(path: Path | None, varied: Sequence[str] = ()) -> dict[str, Dimension]:
    """Read a space from a file, and add what the command line varies.

    Args:
        path: TOML or YAML: `"fit.learning_rate" = {low = 1e-5, high = 1e-2, log = true}`, or a list of values.
        varied: `key=low..high`, `key=low..high:log` or `key=a,b,c`.

    Raises:
        RecipeError: the file cannot be read, or a key is neither a range nor a list.
        UsageError: nothing is varied, or a text says neither.
    """
    space: dict[str, Dimension] = {}
    for key, value in _flat(read_table(path) if path else {}).items():
        if isinstance(value, list) and value:
            space[key] = Choice(tuple(v if isinstance(v, str) else toml_value(v) for v in value))
        elif isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {"low", "high", "log"}:
            space[key] = _range(key, value["low"], value["high"], log=bool(value.get("log")))
        else:
            raise RecipeError(f"space: {key} = {value!r}; expected {{low = 1e-5, high = 1e-2, log = true}} or a list")
    space |= dict(map(parse_dimension, varied))
    if not space:
        raise UsageError(f"Nothing is varied. Give `vary`, such as {EXAMPLE}, or `space=FILE`.")
    return space


def _flat(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return values by dotted key; a table of `low` and `high` is a value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}.{key}".lstrip(".")
        found |= _flat(value, name) if isinstance(value, Mapping) and "low" not in value else {name: value}
    return found


def parse_dimension(text: str) -> tuple[str, Dimension]:
    """Read `key=low..high`, `key=low..high:log` or `key=a,b,c`; commas inside brackets and quotes do not part.

    Raises:
        UsageError: it is neither.
        RecipeError: the range is empty.
    """
    key, sign, values = (part.strip() for part in text.partition("="))
    if not key or not sign or not values:
        raise UsageError(f"`vary={text}` is not a key and values. Give for example {EXAMPLE}.")
    match = _RANGE.fullmatch(values)
    if match:
        return key, _range(key, _number(match[1]), _number(match[2]), log=bool(match[3]))
    parts = tuple(part.strip() for part in _PART.findall(values) if part.strip())
    if len(parts) < 2:
        raise UsageError(
            f"`vary={text}` has one value. Set the key in the recipe, or give a range or several: {EXAMPLE}."
        )
    return key, Choice(parts)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _range(key: str, low: Any, high: Any, *, log: bool) -> Range:
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or low >= high or (log and low <= 0):
        above = ", above 0 for a logarithmic range" if log else ""
        raise RecipeError(f"{key} goes from {low!r} to {high!r}; expected two numbers, the smaller first{above}")
    return Range(low, high, log)
