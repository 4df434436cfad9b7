"""A training folder: the recipe and data that it belongs to, and the history of its training."""

import csv
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg.bundle import us_spelling
from geoseg.errors import GeosegError, RecipeError
from geoseg.io.aside import write_aside, write_json
from geoseg.training.recipe import Recipe

__all__ = [
    "claim_data",
    "claim_folder",
    "claim_inputs",
    "is_finished",
    "place_of",
    "read_history",
    "write_row",
]

log = logging.getLogger(__name__)

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
    "split_depth",
}
"""Keys that may differ in a resumed run: its length, its device, and what is only written into the bundle."""


def claim_folder(plan: Recipe, folder: Path, data: Path) -> None:
    """Write the recipe into a new training folder, or compare it with the one that is there.

    Args:
        plan: The recipe.
        folder: Folder of the run.
        data: Folder that the recipe's paths are relative to.

    Raises:
        RecipeError: The folder has a run of another recipe, and the message names the differences, or of other data.
    """
    path, now = folder / RECIPE_FILE, json.loads(json.dumps(asdict(plan)))
    is_begun = (folder / "checkpoints").is_dir()
    if path.is_file() and is_begun:
        old, new = _flatten(us_spelling(json.loads(path.read_text(encoding="utf-8")))), _flatten(now)
        changed = [key for key in sorted((old.keys() | new.keys()) - _MAY_CHANGE) if old.get(key) != new.get(key)]
        if changed:
            listed = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in changed[:3])
            raise RecipeError(
                f"{folder} has a run of another recipe: {listed}{'; ...' if len(changed) > 3 else ''}. Continue it "
                "with the same recipe, or choose another folder with `out`."
            )
    if not is_begun:
        (folder / INPUTS_FILE).unlink(missing_ok=True)
    claim_data(folder, data)
    write_json(path, now)


def is_finished(plan: Recipe, folder: Path) -> bool:
    """Return True if a folder has the results of a training of exactly this recipe."""
    path = folder / RECIPE_FILE
    if not path.is_file() or not (folder / "metrics.json").is_file():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(asdict(plan))))


def claim_data(folder: Path, data: Path) -> None:
    """Record the data folder that the results of a folder are of, or compare it with the recorded one.

    Raises:
        RecipeError: The folder has results of other data.
    """
    refusal = RecipeError(
        f"{folder} has results of another data folder than {data}, whose scores are not comparable. Continue it "
        "with the same data (if it was moved, link its old place to it), or choose another folder with `out`."
    )
    claim_inputs(folder, {"data": place_of(data)}, refusal)


def place_of(data: Path) -> str:
    """Return the absolute path of a data folder; links are not followed."""
    return os.path.abspath(data)  # noqa: PTH100 - resolve() would follow links


def claim_inputs(folder: Path, inputs: dict[str, Any], refusal: GeosegError) -> None:
    """Record the inputs that decide the results of a folder, made if missing, or compare them with the recorded ones.

    Raises:
        GeosegError: `refusal`, if they differ.
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


def write_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a row to a CSV table, written aside and renamed.

    A resumed run continues the table, and replaces the rows of steps that it repeats. A table with other columns is
    kept beside it under the next free name (`history-1.csv`).

    Args:
        path: The table.
        row: Values by column, with `step`.
    """
    kept = _rows(path)
    if kept and list(kept[0]) != list(row):
        number = 1
        while (aside := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
            number += 1
        log.warning("%s has the columns %s: kept as %s, starting a new table", path, ", ".join(kept[0]), aside.name)
        path.replace(aside)
        kept = []
    kept = [old for old in kept if float(old["step"]) < row["step"]]
    with write_aside(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(row)
        writer.writerows(old.values() for old in kept)
        writer.writerow(f"{value:.6g}" if value % 1 else f"{value:.0f}" for value in row.values())


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a table that `write_row` wrote; none if there is no table yet."""
    rows = _rows(path)
    return {key: [float(row[key]) for row in rows] for key in rows[0]} if rows else {}


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a table; one that was cut short ends with half a row."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[Any, Any]] = list(csv.DictReader(file))
    whole = [row for row in rows if None not in row and None not in row.values()]
    if len(whole) < len(rows):
        log.warning("%s: %d of %d rows are incomplete and left out", path, len(rows) - len(whole), len(rows))
    return whole
