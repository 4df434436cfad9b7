"""Pictures of training: samples of the data, predictions beside their labels, and curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.bundle import choose_colors
from geoseg.datasets.coding import class_indices
from geoseg.datasets.labels import IGNORED, UNSURE, Labels
from geoseg.io.aside import write_aside
from geoseg.training.folder import read_history
from geoseg.training.scores import target_probability

__all__ = ["Example", "collect_examples", "draw_curves", "draw_predictions", "draw_samples"]

_UNKNOWN = "#808080"
_POSITIVE, _FALSE_ALARM, _MISS = "#ffffff", "#e66100", "#5d9bff"  # distinct for color-blind readers too
_DARK, _PALE, _WRONG = "#000000", "#d9d9d9", "#000000"
_UNLABELED, _UNSURE = "#FF00FF", "#7F7F7F"
"""Of samples, whose classes may have any other color."""

_TINT = 0.45
_INCH = 2.6
_LOOKED_AT = 48

_UNDRAWN = {"step", "epoch", "progress", "minutes"}
_PARTS = {"train": "training", "validation": "validation"}


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One chip with its labels and its prediction.

    Attributes:
        name: Its source.
        image: (band, y, x) pixels.
        truth: (y, x) uint8 class index (of one class: 0 and 1); `UNSURE` and `IGNORED` are unknown.
        predicted: (y, x) uint8 class index.
    """

    name: str
    image: NDArray[Any]
    truth: Labels
    predicted: Labels


def collect_examples(
    chips: Dataset[Mapping[str, Tensor]],
    predict: Callable[[Tensor], Tensor],
    *,
    names: Sequence[str] = (),
    count: int = 6,
    threshold: float = 0.5,
    target: int = 0,
) -> list[Example]:
    """Choose chips with many classes and labels from all sources, the same ones each time, and predict them.

    Context without labels around a chip is cut off.

    Args:
        chips: Samples of `image` (band, y, x), `mask` (y, x) and `source`.
        predict: From images (1, band, y, x) to logits (1, class, y, x).
        names: The sources' names, by the number in `source`.
        count: How many, at most.
        threshold: Of the target's probability, for one or two classes.
        target: The target's channel.
    """
    with torch.inference_mode():
        found = []
        for sample in _choose(chips, count):
            logits = predict(sample["image"][None]).float().cpu()
            if logits.shape[1] > 2:
                classes = logits.argmax(dim=1)[0].to(torch.uint8)
            else:
                value = target if logits.shape[1] == 2 else 1
                is_target = target_probability(logits, target)[0] >= threshold
                classes = torch.where(is_target, value, 1 - value).to(torch.uint8)
            source = int(sample["source"]) if "source" in sample else -1
            name = names[source] if 0 <= source < len(names) else ""
            image, truth = sample["image"].cpu().numpy(), sample["mask"].cpu().numpy()
            edges = [np.flatnonzero((truth < UNSURE).any(axis=axis)) for axis in (1, 0)]
            inner = tuple(slice(edge[0], edge[-1] + 1) if edge.size else slice(None) for edge in edges)
            found.append(Example(name, image[:, *inner], truth[inner], classes.numpy()[inner]))
    return found


def _choose(chips: Dataset[Mapping[str, Tensor]], count: int) -> list[Mapping[str, Tensor]]:
    """Look at some chips, evenly spread, and take the best of every source in turn.

    A chip's worth is its number of classes (the exponential of their entropy) times its share of labeled pixels.
    """
    total = len(chips)  # type: ignore[arg-type]
    numbers = sorted({round(n) for n in np.linspace(0, total - 1, min(total, _LOOKED_AT))}) if total else []
    by_source: dict[int, list[tuple[float, int]]] = {}
    for number in numbers:
        sample = chips[number]
        mask = sample["mask"].numpy()
        known = mask[mask < UNSURE]
        shares = np.unique(known, return_counts=True)[1] / max(1, known.size)
        worth = float(np.exp(-(shares * np.log(shares)).sum()) * known.size / mask.size)
        by_source.setdefault(int(sample.get("source", 0)), []).append((worth, number))
    ranks = [sorted(ranked, key=lambda entry: (-entry[0], entry[1])) for ranked in by_source.values()]
    in_turn = [rank[n][1] for n in range(len(numbers)) for rank in ranks if n < len(rank)]
    return [chips[number] for number in sorted(in_turn[:count])]


def draw_predictions(
    samples: Sequence[Example],
    path: Path,
    *,
    classes: Sequence[str],
    colors: Mapping[str, str] | None = None,
    target: str = "",
    bands: Sequence[str] = (),
    title: str = "",
) -> Path:
    """Draw a row for every sample: image, labels, prediction, and the pixels where the two differ.

    Of one or two classes the target is white on black, and the last picture shows it where it was found (white),
    where it was found wrongly, and where it was missed. More classes have their colors and a legend. Unknown pixels
    are hatched gray.

    Args:
        samples: Result of `collect_examples`; at least one.
        path: The PNG to write, aside and then renamed.
        classes: The network's classes.
        colors: Class name to "#RRGGBB"; `geoseg.bundle.choose_colors` chooses the others.
        target: The target of two classes.
        bands: Names of the image's bands: red, green and blue are shown if they are there, else the first three.
        title: Title of the picture.
    """
    from matplotlib.patches import Patch

    palette = _Palette.of(classes, colors or {}, target)
    wanted = ("red", "green", "blue")
    shown = [list(bands).index(name) for name in wanted] if set(wanted) <= set(bands) else None
    rows = [
        (
            _visible(sample.image if shown is None else sample.image[shown]),
            palette.paint(sample.truth),
            palette.paint(sample.predicted),
            palette.compare(sample.truth, sample.predicted),
        )
        for sample in samples
    ]
    legend = [Patch(facecolor=color, edgecolor="black", label=name) for name, color in palette.legend().items()]
    if any((sample.truth >= UNSURE).any() for sample in samples):
        legend.append(Patch(facecolor=_UNKNOWN, edgecolor="black", hatch="////", label="unknown"))
    heads = ("image", "truth", "prediction", "difference")
    figure, axes = _draw_rows(rows, heads, [sample.name for sample in samples], legend)
    for row, sample in zip(axes, samples, strict=True):
        unknown = sample.truth >= UNSURE
        for axis in (row[1], row[3]) if unknown.any() else ():
            axis.contourf(unknown, levels=[0.5, 1.5], colors="none", hatches=["////"])
    if title:
        figure.suptitle(title)
    return _save(figure, path)


def draw_samples(
    samples: Sequence[tuple[str, NDArray[Any], Labels]],
    path: Path,
    *,
    classes: Sequence[str],
    colors: Mapping[str, str] | None = None,
) -> Path:
    """Draw a row for every sample: image, mask and both together, with the colors of the classes.

    Args:
        samples: Name, image (band, y, x) and mask (y, x) of each.
        path: The PNG to write, aside and then renamed.
        classes: The network's classes.
        colors: Class name to "#RRGGBB"; `geoseg.bundle.choose_colors` chooses the others.
    """
    from matplotlib.patches import Patch

    indices = {name: index for name, index in class_indices(classes).items() if index != IGNORED}
    chosen = choose_colors(list(indices), colors or {})
    entries = {name: (indices[name], color) for name, color in zip(indices, chosen, strict=True)}
    entries |= {"unsure": (UNSURE, _UNSURE), "unknown": (IGNORED, _UNLABELED)}
    palette = _Palette(entries, None)
    rows = []
    for _, pixels, mask in samples:
        image, painted = _visible(pixels), palette.paint(mask)
        both = np.where((mask == IGNORED)[..., None], image, (1 - _TINT) * image + _TINT * painted).astype(np.uint8)
        rows.append((image, painted, both))
    legend = [Patch(facecolor=color, edgecolor="black", label=name) for name, (_, color) in entries.items()]
    figure, _ = _draw_rows(rows, ("image", "mask", "both"), [name for name, _, _ in samples], legend)
    return _save(figure, path)


@dataclass(frozen=True, slots=True)
class _Palette:
    """Colors of class indices; of two classes the target's value against the other."""

    entries: dict[str, tuple[int, str]]
    target: int | None

    @classmethod
    def of(cls, classes: Sequence[str], colors: Mapping[str, str], target: str) -> "_Palette":
        if len(classes) == 1:
            return cls({classes[0]: (1, _POSITIVE)}, 1)
        if len(classes) == 2:
            index = classes.index(target) if target in classes else 1
            return cls({classes[index]: (index, _POSITIVE)}, index)
        chosen = dict(zip(classes, enumerate(choose_colors(classes, colors)), strict=True))
        return cls(chosen, None)

    def paint(self, values: Labels) -> NDArray[np.uint8]:
        """Return (y, x, 3) colors of class indices; unknown ones are gray."""
        lookup = np.tile(_rgb(_UNKNOWN), (256, 1))
        if self.target is not None:
            lookup[:2] = _rgb(_DARK)
        for value, color in self.entries.values():
            lookup[value] = _rgb(color)
        painted: NDArray[np.uint8] = lookup[values]
        return painted

    def compare(self, truth: Labels, predicted: Labels) -> NDArray[np.uint8]:
        """Return (y, x, 3) colors of correct, false and missed pixels; unknown ones are gray."""
        painted = np.empty((*truth.shape, 3), np.uint8)
        if self.target is None:
            painted[:] = _rgb(_PALE)
            painted[truth != predicted] = _rgb(_WRONG)
        else:
            true, found = truth == self.target, predicted == self.target
            painted[:] = _rgb(_DARK)
            painted[true & found], painted[found & ~true], painted[true & ~found] = map(
                _rgb, (_POSITIVE, _FALSE_ALARM, _MISS)
            )
        painted[truth >= UNSURE] = _rgb(_UNKNOWN)
        return painted

    def legend(self) -> dict[str, str]:
        """Return the colors by what they mean."""
        names = {name: color for name, (_, color) in self.entries.items()}
        return names | ({"wrong": _WRONG} if self.target is None else {"false": _FALSE_ALARM, "missed": _MISS})


def _rgb(color: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(color.removeprefix("#")), np.uint8)


def _visible(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (y, x, 3) 8-bit colors of the first three bands, or of the first; other types are stretched by 2 %."""
    bands = image[[0, 1, 2]] if len(image) >= 3 else image[[0, 0, 0]]
    if bands.dtype == np.uint8:
        return np.moveaxis(bands, 0, -1)
    low, high = np.nanpercentile(bands.astype(np.float64), (2, 98))
    scaled = np.nan_to_num((bands - low) / max(high - low, 1e-9)).clip(0, 1)
    return np.moveaxis((scaled * 255).round().astype(np.uint8), 0, -1)


def _draw_rows(
    rows: Sequence[Sequence[NDArray[np.uint8]]], heads: Sequence[str], names: Sequence[str], legend: Sequence[Any]
) -> tuple[Any, Any]:
    """Lay out rows of pictures with their names and a legend; return the figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(len(heads) * _INCH, len(rows) * _INCH + 0.9), layout="constrained")
    axes: Any = figure.subplots(len(rows), len(heads), squeeze=False)
    for row, pictures, name in zip(axes, rows, names, strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(name)
    for axis, word in zip(axes[0], heads, strict=True):
        axis.set_title(word)
    figure.legend(handles=list(legend), loc="outside lower center", ncols=min(8, len(legend)), fontsize="small")
    return figure, axes


def _save(figure: Any, path: Path, dpi: int = 150) -> Path:
    with write_aside(path) as part:
        figure.savefig(part, dpi=dpi, format="png")
    return path


def draw_curves(table: Path, picture: Path) -> Path:
    """Draw the loss and each of its terms, IoU, other scores and the learning rate over the steps.

    Known columns are `step`, `learning_rate`, `train_<term>` and `validation_<term>` (the loss and its terms; `loss`
    alone is the training's), and those that begin with `iou`, with the mean over classes if there is no `iou` itself;
    `progress` and `minutes` are not drawn, other columns are scores.

    Args:
        table: Written by `write_row`.
        picture: The PNG to write, aside and then renamed.
    """
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
    axes = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    steps = columns.get("step", [])
    for axis, title in zip(axes, titles, strict=False):
        for name, label in panels[title].items():
            mean = title == "IoU" and name in ("iou", "mean_iou")
            style: dict[str, Any] = {"color": "black", "linewidth": 2} if mean else {"linewidth": 1.3}
            axis.plot(steps, columns[name], label=label, marker="." if len(steps) < 30 else "", **style)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if title in ("IoU", "scores"):
            axis.set_ylim(0, 1)
        if title != "learning rate":
            axis.legend(fontsize="small", ncols=2 if len(panels[title]) > 6 else 1)
        elif all(rate > 0 for name in panels[title] for rate in columns[name]):
            axis.set_yscale("log")
    return _save(figure, picture, dpi=110)


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
