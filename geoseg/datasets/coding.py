"""The class indices of a mask's numbers and colors, by the tables of a recipe."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import RecipeError, UnknownLabelError
from geoseg.io.tables import name_some

__all__ = ["BINARY", "IGNORED", "UNKNOWN", "Coding", "UNSURE", "class_indices", "plan_coding"]

IGNORED = 255
"""No label: outside the labeled area, nodata, or a mask's own unknown value."""

UNSURE = 254
"""Background of incomplete labels, which may be a building."""

UNKNOWN = "unknown"
"""The name in `values` and `also` for pixels without a label."""


@dataclass(frozen=True, slots=True)
class Coding:
    """The classes of a mask's numbers and colors.

    Attributes:
        indices: Index of every class by name, and of `unknown`.
        values: Index of each number of a mask of one band; other numbers are refused.
        colors: Index of each color `0xRRGGBB` of a mask in colors; empty if masks have numbers only.
        target: Index of polygons, and in two classes that of everything else.
        explicit: Whether `values` were given.
        instances: Whether numbers without an entry in `values` are those of single buildings, of the target class.
    """

    indices: Mapping[str, int]
    values: Mapping[int, int]
    colors: Mapping[int, int] = field(default_factory=dict)
    target: tuple[int, int] = (1, 0)
    explicit: bool = False
    instances: bool = False

    @property
    def is_binary(self) -> bool:
        """True where the truth is 0 and 1."""
        return set(self.indices.values()) == {0, 1, IGNORED}

    def of_values(self, values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Turn a mask's `(y, x)` numbers into `(y, x)` class indices, `IGNORED` where `known` (y, x) is False.

        Raises:
            UnknownLabelError: Some numbers have no class, or of single buildings, are not whole or below 0.
        """
        if not self.instances:
            return _translate(values, known, self.values, "{:g}".format)
        coded = np.isin(values, list(self.values))
        buildings = known & ~coded & (values > 0) & (values == np.floor(values))
        found = _translate(values, known & ~buildings, self.values, "{:g}".format, "or whole numbers above 0")
        return np.where(buildings, np.uint8(self.target[0]), found)

    def of_colors(self, rgb: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Turn a mask's `(3, y, x)` colors into class indices; otherwise as `of_values`."""
        red, green, blue = rgb.astype(np.uint32)
        return _translate(red << 16 | green << 8 | blue, known, self.colors, "#{:06X}".format)


def _translate(
    values: NDArray[Any], known: NDArray[np.bool_], table: Mapping[int, int], name: Callable[[Any], str], more: str = ""
) -> NDArray[np.uint8]:
    out = np.full(values.shape, IGNORED, np.uint8)
    left = known.copy()
    for value, index in table.items():
        here = left & (values == value)
        out[here] = index
        left &= ~here
    if left.any():
        found, counts = np.unique(values[left], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        listed = name_some([f"{name(found[i])} ({counts[i]} px)" for i in order], most=5)
        raise UnknownLabelError(f"has {listed}; expected {', '.join(map(name, table))}{' ' * bool(more)}{more}")
    return out


def class_indices(classes: Sequence[str]) -> dict[str, int]:
    """Return the index of each class in a label raster; one class alone is 1, against `background`."""
    names = ("background", *classes) if len(classes) == 1 else tuple(classes)
    return {name: index for index, name in enumerate(names)} | {UNKNOWN: IGNORED}


def plan_coding(
    classes: Sequence[str],
    *,
    target: str = "",
    colors: Mapping[str, str] | None = None,
    also: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    instances: bool = False,
    where: str = "",
) -> Coding:
    """Check a recipe's tables of colors and values, and make a coding of them.

    Args:
        classes: The network's classes.
        target: The class of polygons; `building` or the last class by default.
        colors: Class name to "#RRGGBB".
        also: Further "#RRGGBB" to class name, or to "unknown".
        values: Number, as text, to class name, or to "unknown"; by default the class indices, and 255 unknown.
        instances: Numbers are those of single buildings, 0 is the background; `values` are exceptions.
        where: The recipe's table, for messages.

    Raises:
        RecipeError: A color, number or class cannot be used, or instances are given of more than two classes.
    """
    indices = class_indices(classes)
    is_binary = len(indices) == 3

    def index_of(name: str, key: str) -> int:
        if name not in indices:
            raise RecipeError(f"{where}{key}: there is no class {name!r}; expected one of {', '.join(indices)}")
        return indices[name]

    named = [(text, name, "colors") for name, text in (colors or {}).items()]
    named += [(text, name, "also") for text, name in (also or {}).items()]
    meant: dict[int, str] = {}
    of_colors: dict[int, int] = {}
    for text, name, key in named:
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
            raise RecipeError(f'{where}{key}: {text!r} is not a color; expected "#RRGGBB", such as "#3C1098"')
        color = int(text[1:], 16)
        if meant.setdefault(color, name) != name:
            raise RecipeError(f"{where}{key}: the color {text} is that of {meant[color]} and of {name}")
        of_colors[color] = index_of(name, key)

    if instances and not is_binary:
        raise RecipeError(f"{where}instances: buildings have no class, and the classes are {', '.join(classes)}")
    table: dict[int, int] = {} if values or instances else {index: index for index in indices.values()}
    for text, name in (values or {}).items():
        try:
            number = int(text)
        except ValueError:
            raise RecipeError(f'{where}values: {text!r} is not a whole number; expected one such as "255"') from None
        table[number] = index_of(name, "values")
    burnt = indices[target or ("building" if "building" in classes else classes[-1])]
    other = 0 if burnt else 1
    table = ({0: other if instances else 0} if is_binary and 0 not in table else {}) | table
    return Coding(indices, table, of_colors, (burnt, other), bool(values), instances)


BINARY = plan_coding(["building"])
"""Masks of 0 and 1, 255 unknown."""
