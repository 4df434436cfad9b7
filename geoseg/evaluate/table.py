"""Figures as Markdown tables, for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.io.tables import write_table

PIXELS = ("IoU", "Dice", "precision", "recall", "boundary IoU", "accuracy", "ECE", "Mpx")
SEVERAL = ("mean IoU", "mean Dice", "accuracy", "mean boundary IoU", "Mpx")
CLASS = ("IoU", "Dice", "precision", "recall", "boundary IoU", "Mpx")
BUILDINGS = (
    *("truth", "found", "precision", "recall", "F1", "AP50", "AP", "count error"),
    *("PoLiS", "C-IoU", "vertex ratio"),
)
OUTLINES = ("polis", "c_iou", "vertex_ratio")
CURVE_STEP = 0.05


def pixel_table(scenes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row of pixel figures per scene, for two classes."""
    keys = ("iou", "dice", "precision", "recall", "boundary_iou", "pixel_accuracy", "calibration_error")
    rows = [[name, *(m.get(key, float("nan")) for key in keys), _mpx(m)] for name, m in scenes.items()]
    return write_table(("scene", *PIXELS), rows)


def several_table(scenes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row of means per scene, for several classes."""
    keys = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_boundary_iou")
    return write_table(("scene", *SEVERAL), [[name, *(m[key] for key in keys), _mpx(m)] for name, m in scenes.items()])


def class_table(metrics: Mapping[str, Any], unscored: Sequence[str]) -> str:
    """Return a row of figures per class."""
    keys = ("iou", "dice", "precision", "recall", "boundary_iou")
    rows = [
        [f"{name} (not in the mean)" if name in unscored else name, *(m[key] for key in keys), _mpx(m)]
        for name, m in metrics["classes"].items()
    ]
    return write_table(("class", *CLASS), rows)


def building_table(scenes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row of building figures per scene."""
    keys = ("truth", "predicted", "precision", "recall", "f1", "ap50", "ap", "count_error", *OUTLINES)
    rows = [[name, *(m["buildings"][key] for key in keys)] for name, m in scenes.items() if "buildings" in m]
    return write_table(("buildings", *BUILDINGS), rows)


def curve_table(curve: Sequence[Mapping[str, float]]) -> str:
    """Return the figures at every twentieth threshold, and at the best: the one of the largest IoU."""
    keys = ("threshold", "iou", "dice", "precision", "recall")
    picked = [min(curve, key=lambda row: abs(row["threshold"] - step * CURVE_STEP)) for step in range(1, 20)]
    best = max(curve, key=lambda row: row["iou"] if row["iou"] == row["iou"] else -1.0)
    shown = sorted([*(row for row in picked if row is not best), best], key=lambda row: row["threshold"])
    rows = [[*(row[key] for key in keys), "best" if row is best else ""] for row in shown]
    return write_table(("threshold", "IoU", "Dice", "precision", "recall", ""), rows)


def _mpx(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['pixels'] / 1e6:.2f}"
