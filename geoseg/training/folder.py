"""A training folder: which recipe it belongs to, so that a run is resumed and never mixed with another."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg.bundle import us_spelling
from geoseg.errors import GeosegError, RecipeError
from geoseg.io.aside import write_json
from geoseg.training.recipe import Recipe

__all__ = ["claim_data", "claim_folder", "claim_inputs", "is_finished", "place_of"]

RECIPE_FILE = "recipe.json"
INPUTS_FILE = "inputs.json"

_MAY_CHANGE = {
    "fit.steps",
    "fit.epochs",
    "fit.minutes",
    "fit.early_stopping",
    "fit.threads",
    "fit.workers",
    "fit.device",
    "fit.precision",
    "description",
    "license",
    "version",
    "threshold",
    "min_area_m2",
}
"""Keys that a resumed run may have changed: how long and where it runs, and what is only written into the bundle."""


def claim_folder(plan: Recipe, folder: Path, data: Path) -> None:
    """Write the resolved recipe into a new training folder, or compare it with the one that is there.

    Args:
        plan: the recipe, overrides included.
        folder: where the run keeps its files.
        data: the folder that the recipe's paths start from.

    Raises:
        RecipeError: the folder holds a run of another recipe, and the message names what differs, or of other data.
    """
    path, now = folder / RECIPE_FILE, json.loads(json.dumps(asdict(plan)))
    is_begun = (folder / "checkpoints").is_dir()
    if path.is_file() and is_begun:
        old, new = _flatten(us_spelling(json.loads(path.read_text(encoding="utf-8")))), _flatten(now)
        changed = [key for key in sorted((old.keys() | new.keys()) - _MAY_CHANGE) if old.get(key) != new.get(key)]
        if changed:
            listed = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in changed[:3])
            raise RecipeError(
                f"{folder} holds a run of another recipe: {listed}{'; ...' if len(changed) > 3 else ''}. Continue it "
                "with the same recipe, or choose another folder with `out`."
            )
    if not is_begun:
        (folder / INPUTS_FILE).unlink(missing_ok=True)
    claim_data(folder, data)
    write_json(path, now)


def is_finished(plan: Recipe, folder: Path) -> bool:
    """Return True where a folder holds the figures of a training of this very recipe."""
    path = folder / RECIPE_FILE
    if not path.is_file() or not (folder / "metrics.json").is_file():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(asdict(plan))))


def claim_data(folder: Path, data: Path) -> None:
    """Write which data folder the figures of a folder are of, or compare it with the one that is there.

    Args:
        folder: made where there is none.
        data: the folder that a recipe's paths start from.

    Raises:
        RecipeError: the folder holds results of other data.
    """
    refusal = RecipeError(
        f"{folder} holds results of another data folder than {data}, whose scores are not comparable. Continue it "
        "with the same data (if it was moved, link its old place to it), or choose another folder with `out`."
    )
    claim_inputs(folder, {"data": place_of(data)}, refusal)


def place_of(data: Path) -> str:
    """Return the absolute path of a data folder by its own name: a link is not followed."""
    return os.path.abspath(data)  # noqa: PTH100 - resolve() would follow links


def claim_inputs(folder: Path, inputs: dict[str, Any], refusal: GeosegError) -> None:
    """Write what decides the results of a folder into it, or compare it with what is there.

    Args:
        folder: made where there is none.
        inputs: what decides, in values of JSON.
        refusal: raised where the folder was made from something else.
    """
    path = folder / INPUTS_FILE
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != inputs:
        raise refusal
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, inputs)


def _flatten(value: Any, where: str = "") -> dict[str, Any]:
    """Return the leaves of nested tables and lists by their dotted keys."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and value:
        items = {
            str(item.get("name", n)) if isinstance(item, dict) else str(n): item for n, item in enumerate(value)
        }.items()
    else:
        return {where: value}
    return {k: v for key, item in items for k, v in _flatten(item, f"{where}.{key}".lstrip(".")).items()}
