"""Train networks from recipes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg.training.fit import train_plan, train_recipe
    from geoseg.training.library import load_recipe
    from geoseg.training.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "train_plan", "train_recipe"]

_HOMES = {"Recipe": "recipe", "load_recipe": "library", "train_plan": "fit", "train_recipe": "fit"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a misspelt recipe should not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
