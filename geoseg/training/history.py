"""What a training run leaves to read: a table with a row per validation, and its curves.

Columns of the table are the caller's. The curves know `step`, `learning_rate`, `train_<term>` and `validation_<term>`
(the loss and its terms; `loss` alone is the training's), and take everything that begins with `iou` as IoU, the mean
over classes too where `iou` itself is not there; `progress` and `minutes` are not drawn, other columns are scores.
"""

import csv
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoseg.io.aside import write_aside

__all__ = ["draw_curves", "read_history", "write_row"]

log = logging.getLogger(__name__)

_ABSCISSA = "step"
_UNDRAWN = {_ABSCISSA, "epoch", "progress", "minutes"}
_PARTS = {"train": "training", "validation": "validation"}


def write_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a row to a CSV table, written aside and renamed: a kill leaves the table of before.

    A resumed run continues the table, and replaces the rows of steps that it repeats. A table with other columns is
    kept beside it under the next free name (`history-1.csv`), and a new one begins.

    Args:
        path: the table.
        row: values by column, `step` among them.
    """
    kept = _rows(path)
    if kept and list(kept[0]) != list(row):
        number = 1
        while (aside := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
            number += 1
        log.warning("%s has the columns %s: kept as %s, a new table begins", path, ", ".join(kept[0]), aside.name)
        path.replace(aside)
        kept = []
    kept = [old for old in kept if float(old[_ABSCISSA]) < row[_ABSCISSA]]
    with write_aside(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(row)
        writer.writerows(old.values() for old in kept)
        writer.writerow(f"{value:.6g}" if value % 1 else f"{value:.0f}" for value in row.values())


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a table that `write_row` wrote; none where there is no table yet."""
    rows = _rows(path)
    return {key: [float(row[key]) for row in rows] for key in rows[0]} if rows else {}


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the whole rows of a table; one that was cut short ends with half a row."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[Any, Any]] = list(csv.DictReader(file))
    whole = [row for row in rows if None not in row and None not in row.values()]
    if len(whole) < len(rows):
        log.warning("%s: %d of %d rows are cut short and left out", path, len(rows) - len(whole), len(rows))
    return whole


def draw_curves(table: Path, picture: Path) -> Path:
    """Draw the loss and each of its terms, IoU, other scores and the learning rate over the steps.

    Args:
        table: what `write_row` wrote.
        picture: the PNG to write, aside and then renamed.

    Returns:
        `picture`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = read_history(table)
    panels: dict[str, dict[str, str]] = {}
    for name in columns:
        if name not in _UNDRAWN:
            title, label = _place(name)
            title = "IoU" if name == "mean_iou" and "iou" not in columns else title
            panels.setdefault(title, {})[name] = label
    order = {"loss": 0, "IoU": 2, "scores": 3, "learning rate": 4}
    titles = sorted(panels, key=lambda title: order.get(title, 1))

    across = min(3, max(1, len(panels)))
    down = math.ceil(max(1, len(panels)) / across)
    figure = Figure(figsize=(4.5 * across, 3.2 * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    steps = columns.get(_ABSCISSA, [])
    for axis, title in zip(axes, titles, strict=False):
        for name, label in panels[title].items():
            mean = title == "IoU" and name in ("iou", "mean_iou")
            style: dict[str, Any] = {"color": "black", "linewidth": 2} if mean else {"linewidth": 1.3}
            axis.plot(steps, columns[name], label=label, marker="." if len(steps) < 30 else "", **style)
        axis.set(title=title, xlabel=_ABSCISSA)
        axis.grid(alpha=0.3)
        if title in ("IoU", "scores"):
            axis.set_ylim(0, 1)
        if title != "learning rate":
            axis.legend(fontsize="small", ncols=2 if len(panels[title]) > 6 else 1)
        elif all(rate > 0 for name in panels[title] for rate in columns[name]):
            axis.set_yscale("log")
    with write_aside(picture) as part:
        figure.savefig(part, dpi=110, format="png")
    return picture


def _place(name: str) -> tuple[str, str]:
    """Return the title of a column's panel, and the column's label there."""
    part, _, term = name.partition("_")
    if part in _PARTS and term:
        return ("loss" if term == "loss" else f"loss: {term}"), _PARTS[part]
    if name == "loss":
        return "loss", _PARTS["train"]
    if name == "learning_rate":
        return "learning rate", "learning rate"
    if name == "mean_iou":
        return "scores", "mean of classes"
    if name.startswith("iou"):
        return "IoU", "mean" if name == "iou" else name.removeprefix("iou_").replace("_", " ")
    return "scores", name.replace("_", " ")
