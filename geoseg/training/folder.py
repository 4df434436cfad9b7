"""A folder of results: the recipe and the data that they belong to, and the history of a training.

`inputs.json` lists the scenes that the first training in the folder found, with the fingerprint of each. Whatever
trains there later is of these scenes: a split or folds that are drawn again from the same names are the same.
"""

import csv
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg.bundle import us_spelling
from geoseg.errors import GeosegError, RecipeError
from geoseg.io.aside import write_aside, write_json
from geoseg.io.fingerprint import Fingerprint, name_changes
from geoseg.io.tables import name_some, plural
from geoseg.training.recipe import Recipe

__all__ = [
    "Scenes",
    "claim_folder",
    "claim_inputs",
    "check_scenes",
    "is_finished",
    "kept_scenes",
    "read_history",
    "record_scenes",
    "write_row",
]

log = logging.getLogger(__name__)

RECIPE_FILE = "recipe.json"
INPUTS_FILE = "inputs.json"

Scenes = dict[str, dict[str, Fingerprint]]
"""Of each source its scenes by name; under "" what all of them share: areas, a split."""

SHOWN = 3
"""Maximum number of changes that an error lists."""

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


def claim_folder(plan: Recipe, folder: Path) -> None:
    """Write the recipe into a new training folder, or compare it with the one that is there.

    Args:
        plan: The recipe.
        folder: Folder of the run.

    Raises:
        RecipeError: The folder has a run of another recipe, and the message names the differences.
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
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def is_finished(plan: Recipe, folder: Path) -> bool:
    """Return True if a folder has the results of a training of exactly this recipe."""
    path = folder / RECIPE_FILE
    if not path.is_file() or not (folder / "metrics.json").is_file():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(asdict(plan))))


def claim_inputs(folder: Path, inputs: dict[str, Any], refuse: Callable[[Mapping[str, Any]], GeosegError]) -> None:
    """Record the inputs that decide the results of a folder, made if missing, or compare them with the recorded ones.

    Raises:
        GeosegError: If they differ: what `refuse` makes of the recorded ones.
    """
    kept = _read_inputs(folder)
    if any(kept.get(name, value) != value for name, value in inputs.items()):
        raise refuse(kept)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INPUTS_FILE, kept | inputs)


def record_scenes(folder: Path, scenes: Scenes) -> None:
    """Record the scenes that the results of a folder will be of, unless its trainings have begun with others."""
    if kept_scenes(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / INPUTS_FILE, _read_inputs(folder) | {"scenes": scenes})


def check_scenes(folder: Path, scenes: Scenes) -> None:
    """Compare scenes with those that the results of a folder are of, if its trainings have begun.

    New ones are named, and `kept_scenes` lacks them: they would change which scenes train and which validate.

    Raises:
        RecipeError: A file of a scene has changed since, or is missing.
    """
    kept, changes = kept_scenes(folder), []
    if kept is None:
        return
    for source, own in kept.items():
        now = scenes.get(source, {})
        for name, found in own.items():
            there = f"sources.{source}: " if source else ""
            if name in now:
                changes += [f"{there}{change}" for change in name_changes(found, now[name])]
            else:
                changes.append(f"{there}{name} is missing now")
    if changes:
        more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise RecipeError(
            f"{folder} has results of other data, whose scores are not comparable: {'; '.join(changes[:SHOWN])}{more}. "
            "Continue it with the data of before, or choose another folder with `out`."
        )
    for source, own in scenes.items():
        new = [name for name in own if name not in kept.get(source, {})]
        if new:
            log.warning(
                "sources.%s: %s new since %s was begun, and left out: %s. They wait for a training in another folder.",
                source,
                "1 image is" if len(new) == 1 else f"{plural(len(new), 'image')} are",
                folder,
                name_some(new),
            )


def kept_scenes(folder: Path) -> Scenes | None:
    """Return the scenes that the trainings in a folder are of; None if none of them has a checkpoint."""
    scenes: Scenes | None = _read_inputs(folder).get("scenes")
    signs = ("checkpoints", "*/checkpoints", "*/metrics.json")
    return scenes if any(next(folder.glob(sign), None) is not None for sign in signs) else None


def _read_inputs(folder: Path) -> dict[str, Any]:
    path = folder / INPUTS_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


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
