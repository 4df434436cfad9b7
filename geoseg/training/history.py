"""The table of a training run, with a row per validation."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoseg.io.aside import write_aside

__all__ = ["read_history", "write_row"]

log = logging.getLogger(__name__)


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
