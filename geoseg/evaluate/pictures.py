"""Pictures of an evaluation: errors on the map, reliability, confusion and the curve of thresholds."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluate.pixels import Confusion, Levels
from geoseg.evaluate.rasters import STRIP_PIXELS
from geoseg.evaluate.reliability import Bin, calibration_error
from geoseg.evaluate.scores import Stack
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA
from geoseg.outputs.picture import NODATA_GRAY, draw_image
from geoseg.scene import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

Colors = NDArray[np.uint8]
"""`(y, x, 3)`."""

LONGEST_PX = 2048
"""Maximum side of a picture."""

SMALLEST_PX = 256
"""Panels of small scenes are enlarged to about this side."""

TITLE_PX, GAP_PX, LEGEND_PX = 28, 8, 30
DPI = 100

UNKNOWN = (NODATA_GRAY,) * 3
DARK = (38, 38, 38)
WHITE = (255, 255, 255)
FALSE_ALARM, MISS = (213, 94, 0), (86, 180, 233)
"""Vermilion and sky blue, distinguishable by color-blind people (Okabe and Ito, "Color universal design", 2008)."""


def scored_window(stack: Stack) -> Window:
    """Return the bounding window of the scored pixels."""
    height, width = stack.prediction.grid.shape
    rows, cols = np.zeros(height, bool), np.zeros(width, bool)
    for window in stack.windows():
        _, _, known = stack.read(window)
        rows[window.rows] |= known.any(axis=1)
        cols[window.cols] |= known.any(axis=0)
    (top, bottom), (left, right) = (np.flatnonzero(side)[[0, -1]].tolist() for side in (rows, cols))
    return Window(top, left, bottom - top + 1, right - left + 1)


def draw_scene(path: Path, stack: Stack, window: Window, *, colors: Sequence[str] = ()) -> Path:
    """Draw image, truth, prediction and errors of a window.

    Panels are side by side for tall scenes, below each other for wide ones, and two by two otherwise.

    Args:
        path: Path of the PNG.
        stack: Truth and prediction; the image is drawn if the prediction has one.
        window: The window to draw.
        colors: `#RRGGBB` of every class; by default the target is white and others are dark.
    """
    image = stack.prediction.image
    count = 3 if image is None else 4
    ratio = window.width / window.height
    columns = 1 if ratio > 2 else count if ratio < 0.5 else 2
    rows = math.ceil(count / columns)
    # Pixels of the grid per pixel of the picture, along an axis.
    width, height = LONGEST_PX / columns - GAP_PX, (LONGEST_PX - LEGEND_PX) / rows - GAP_PX - TITLE_PX
    factor = max(1, math.ceil(max(window.width / width, window.height / height)))
    panels = _panels(stack, window, factor, colors)
    if image is not None and _covers(image, stack.prediction.grid):
        height, width = (max(1, round(n / factor)) for n in stack.prediction.grid.shape)
        place = Window(window.row // factor, window.col // factor, *panels["truth"].shape[:2])
        panels = {"image": draw_image(image, (height, width), place)} | panels
    return _save(_lay_out(panels, columns, _legend(stack, colors)), path)


def _panels(stack: Stack, window: Window, factor: int, colors: Sequence[str]) -> dict[str, Colors]:
    """Draw truth, prediction and errors, strip by strip; each pixel is the mean color of the pixels it covers."""
    table = _color_table(stack, colors)
    drawn: dict[str, list[Colors]] = {"truth": [], "prediction": [], "errors": []}
    rows = max(1, STRIP_PIXELS // 8 // (window.width * factor)) * factor  # whole rows of the picture
    for row in range(0, window.height, rows):
        strip = Window(window.row + row, window.col, min(rows, window.height - row), window.width)
        predicted, truth, known = stack.read(strip)
        drawn["truth"].append(_average(table[np.where(known, truth, NODATA)], factor))
        drawn["prediction"].append(_average(table[np.where(known, predicted, NODATA)], factor))
        drawn["errors"].append(_average(_errors(stack, predicted, truth, known), factor))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def _color_table(stack: Stack, colors: Sequence[str]) -> Colors:
    table = np.full((256, 3), UNKNOWN, np.uint8)
    table[: len(stack.prediction.classes)] = DARK
    table[stack.prediction.target] = WHITE
    for index, color in enumerate(colors):
        table[index] = tuple(bytes.fromhex(color.removeprefix("#")))
    return table


def _errors(stack: Stack, predicted: NDArray[Any], truth: NDArray[Any], known: NDArray[np.bool_]) -> Colors:
    """Color the errors: false positives and negatives of two classes, every wrong pixel of several."""
    out = np.full((*known.shape, 3), UNKNOWN, np.uint8)
    out[known] = DARK
    if len(stack.prediction.classes) > 2:
        out[known & (predicted != truth)] = FALSE_ALARM
        return out
    target = stack.prediction.target
    found, true = known & (predicted == target), known & (truth == target)
    out[found & true], out[found & ~true], out[true & ~found] = WHITE, FALSE_ALARM, MISS
    return out


def _average(pixels: Colors, factor: int) -> Colors:
    """Shrink `(y, x, 3)` colors by an integer factor; the last rows and columns are repeated if needed."""
    if factor == 1:
        return pixels
    pad = [(0, -n % factor) for n in pixels.shape[:2]]
    padded = np.pad(pixels, (*pad, (0, 0)), mode="edge")
    height, width = (n // factor for n in padded.shape[:2])
    mean = padded.reshape(height, factor, width, factor, 3).mean(axis=(1, 3), dtype=np.float32)
    return np.asarray(mean.round(), np.uint8)


def _covers(image: Scene, grid: Grid) -> bool:
    """Return True if image and grid have the same extent, to half a pixel."""
    step = max(abs(grid.transform.a), abs(grid.transform.b))
    corners = zip(image.grid.corners, grid.corners, strict=True)
    same = all(abs(a - b) < step / 2 for one, other in corners for a, b in zip(one, other, strict=True))
    if not same:
        log.info("The picture will not show the image: the extent of %s is not that of the scored pixels", image.name)
    return same


def _legend(stack: Stack, colors: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    classes = stack.prediction.classes
    if len(classes) > 2:
        table = _color_table(stack, colors)
        named = [(name, tuple(table[i].tolist())) for i, name in enumerate(classes)]
        return [*named, ("wrong", FALSE_ALARM), ("not scored", UNKNOWN)]
    return [
        (f"{classes[stack.prediction.target]}, found", WHITE),
        ("false alarm", FALSE_ALARM),
        ("missed", MISS),
        ("neither", DARK),
        ("not scored", UNKNOWN),
    ]


def _lay_out(panels: dict[str, Colors], columns: int, legend: list[tuple[str, tuple[int, ...]]]) -> "Figure":
    """Lay out panels with titles, pixel for pixel, and a legend below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    first = next(iter(panels.values()))
    zoom = max(1, round(SMALLEST_PX / max(first.shape[:2])))
    h, w = first.shape[0] * zoom, first.shape[1] * zoom
    rows = math.ceil(len(panels) / columns)
    width, height = columns * (w + GAP_PX), rows * (h + TITLE_PX + GAP_PX) + LEGEND_PX
    width = max(width, 560)  # for the legend
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for index, (title, pixels) in enumerate(panels.items()):
        row, col = divmod(index, columns)
        x, y = col * (w + GAP_PX) + GAP_PX / 2, height - row * (h + TITLE_PX + GAP_PX) - TITLE_PX
        axes = figure.add_axes((x / width, (y - h) / height, w / width, h / height))
        axes.imshow(pixels, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        figure.text(x / width, (y + 6) / height, title, fontsize=10)
    patches = [Patch(facecolor="#{:02X}{:02X}{:02X}".format(*rgb), edgecolor="0.5", label=name) for name, rgb in legend]
    entries = max(1, min(len(patches), width // 110))
    figure.legend(
        handles=patches, loc="lower left", ncols=entries, fontsize=8, frameon=False, borderpad=0, handlelength=1.2
    )
    return figure


def draw_reliability(path: Path, levels: Levels, target: str) -> Path:
    """Draw the share of target pixels against their mean probability, and a histogram of the probabilities."""
    found, expected = f"share of {target} pixels", f"probability of {target}"
    return _draw_bins(path, levels.bins(), levels.calibration_error(), labels=(expected, found, "pixels"))


def draw_building_reliability(path: Path, bins: Sequence[Bin]) -> Path:
    """Draw the share of predicted buildings that match a true one against their mean confidence, and a histogram."""
    labels = ("confidence", "share that matches a true building", "buildings")
    return _draw_bins(path, bins, calibration_error(bins), labels=labels)


def _draw_bins(path: Path, bins: Sequence[Bin], error: float, *, labels: tuple[str, str, str]) -> Path:
    """Draw a reliability table; labels of what is expected, of what is found, and of what is counted."""
    from matplotlib.figure import Figure

    expected, found, counted = labels
    bins = [b for b in bins if b.count]
    figure = Figure(figsize=(5, 6), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfect")
    upper.plot([b.confidence for b in bins], [b.frequency for b in bins], marker="o", color="#0072B2", label="found")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel=found)
    upper.set_title(f"expected calibration error {error:.4f}", fontsize=10)
    upper.legend(frameon=False)
    lower.bar([b.low for b in bins], [b.count for b in bins], width=[b.high - b.low for b in bins], align="edge")
    lower.set(xlabel=expected, ylabel=counted, yscale="log")
    return _save(figure, path)


def draw_confusion(path: Path, confusion: Confusion) -> Path:
    """Draw the share of each predicted class among the pixels of each true class."""
    from matplotlib.figure import Figure

    rows = confusion.counts.sum(axis=1, keepdims=True)
    share = confusion.counts / np.maximum(rows, 1)
    count = len(confusion.classes)
    figure = Figure(figsize=(2.2 + 0.75 * count, 1.6 + 0.65 * count), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for i, j in np.ndindex(count, count):
        color = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, f"{share[i, j]:.1%}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(count), confusion.classes, rotation=45, ha="right")
    axes.set_yticks(range(count), confusion.classes)
    axes.set(xlabel="predicted", ylabel="true")
    return _save(figure, path)


def draw_curve(path: Path, curve: list[dict[str, float]], threshold: float | None) -> Path:
    """Draw IoU, precision and recall against the threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for key in ("iou", "precision", "recall"):
        axes.plot([row["threshold"] for row in curve], [row[key] for row in curve], label=key)
    if threshold is not None:
        axes.axvline(threshold, color="0.6", linewidth=1, linestyle="--", label=f"used: {threshold:g}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="threshold")
    axes.legend(frameon=False)
    return _save(figure, path)


def _save(figure: "Figure", path: Path) -> Path:
    from geoseg.io.aside import reported, write_aside

    with write_aside(path) as aside, reported(path):
        figure.savefig(aside)
    return path
