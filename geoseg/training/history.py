"""What a training run leaves to read: a table with a row per validation, and its curves."""

import csv
from collections.abc import Mapping
from pathlib import Path

__all__ = ["draw_curves", "read_history", "write_row"]


def write_row(path: Path, row: Mapping[str, float]) -> None:
    """Append a row to a CSV table, which a resumed run continues.

    Args:
        path: the table; the header comes with its first row.
        row: values by column.
    """
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow(f"{value:.6g}" for value in row.values())


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a table that `write_row` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in rows[0]} if rows else {}


def draw_curves(table: Path, picture: Path) -> bool:
    """Draw loss and validation IoU over the steps.

    Args:
        table: what `write_row` wrote.
        picture: the PNG to write.

    Returns:
        False where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    columns = read_history(table)
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, iou = figure.subplots(1, 2)
    loss.plot(columns["step"], columns["loss"])
    loss.set(xlabel="step", ylabel="training loss")
    for name in (key for key in columns if key.startswith("iou")):
        iou.plot(columns["step"], columns[name], label=name.removeprefix("iou_"))
    iou.set(xlabel="step", ylabel="validation IoU", ylim=(0, 1))
    iou.legend(fontsize="small")
    figure.savefig(picture, dpi=120)
    return True
