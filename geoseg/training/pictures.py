"""Pictures of a network at work: image, truth, prediction and what is wrong, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.bundle import choose_colors
from geoseg.datasets.labels import UNSURE, Labels
from geoseg.io.aside import write_aside
from geoseg.training.scores import target_probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Example", "collect_examples", "draw_predictions"]

_UNKNOWN = "#808080"
_RIGHT, _FALSE, _MISSED = "#ffffff", "#e66100", "#5d9bff"  # told apart by color-blind readers too
_DARK, _PALE, _WRONG = "#000000", "#d9d9d9", "#000000"
_INCH = 2.6
_LOOKED_AT = 48


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One chip with its truth and what the network makes of it.

    Attributes:
        name: What stands beside it, such as its source.
        image: (band, y, x) pixels.
        truth: (y, x) uint8 class index (of one class: 0 and 1); `UNSURE` and `IGNORED` are unknown.
        predicted: (y, x) uint8 in the same words, known everywhere.
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
    """Choose chips that show as many classes and as much truth as can be had, from all sources, and predict them.

    Context without truth about a chip is cut off.

    Args:
        chips: samples of `image` (band, y, x), `mask` (y, x) and `source`; the same ones are chosen each time.
        predict: from images (1, band, y, x) to logits (1, class, y, x).
        names: the sources' names, by the number in `source`.
        count: how many, at most.
        threshold: of the target's probability, for one or two classes.
        target: the target's channel.
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
            inner = _hull(truth < UNSURE)
            found.append(Example(name, image[:, *inner], truth[inner], classes.numpy()[inner]))
    return found


def _choose(chips: Dataset[Mapping[str, Tensor]], count: int) -> list[Mapping[str, Tensor]]:
    """Look at some chips, evenly spread, and keep of every source in turn those that show most, in their order.

    A chip shows its classes, counted by how evenly they share it (the exponential of their entropy), times its share
    of pixels with truth.
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


def _hull(known: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns that hold all that is known; all of them where nothing is."""
    rows, cols = (np.flatnonzero(known.any(axis=axis)) for axis in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)) if rows.size else (slice(None), slice(None))


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
    """Draw a row for every sample: image, truth, prediction, and the pixels where the two differ.

    Of one or two classes the target is white on black, and the last picture shows it where it was found (white),
    where it was found wrongly, and where it was missed. More classes have their colors and a legend. Unknown pixels
    are hatched gray.

    Args:
        samples: what `collect_examples` gave; at least one.
        path: the PNG to write, aside and then renamed.
        classes: the network's classes.
        colors: class name to "#RRGGBB"; `geoseg.bundle.choose_colors` chooses the others.
        target: the class that is looked for, of two.
        bands: names of the image's bands: red, green and blue are shown where they are there, else the first three.
        title: stands above all.

    Returns:
        `path`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    palette = _Palette.of(classes, colors or {}, target)
    figure = Figure(figsize=(4 * _INCH, len(samples) * _INCH + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(samples), 4, squeeze=False)
    for row, sample in zip(axes, samples, strict=True):
        _draw_row(row, sample, palette, _shown(bands, len(sample.image)))
    for axis, word in zip(axes[0], ("image", "truth", "prediction", "difference"), strict=True):
        axis.set_title(word)
    if title:
        figure.suptitle(title)
    _add_legend(figure, palette, samples)
    with write_aside(path) as part:
        figure.savefig(part, dpi=150, format="png")
    return path


@dataclass(frozen=True, slots=True)
class _Palette:
    """Colors of class indices; a binary palette is of the target's value against the other."""

    entries: dict[str, tuple[int, str]]
    target: int | None

    @classmethod
    def of(cls, classes: Sequence[str], colors: Mapping[str, str], target: str) -> "_Palette":
        if len(classes) == 1:
            return cls({classes[0]: (1, _RIGHT)}, 1)
        if len(classes) == 2:
            index = classes.index(target) if target in classes else 1
            return cls({classes[index]: (index, _RIGHT)}, index)
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
        """Return (y, x, 3) colors: what is right, what is false, what is missed; unknown truth is gray."""
        painted = np.empty((*truth.shape, 3), np.uint8)
        if self.target is None:
            painted[:] = _rgb(_PALE)
            painted[truth != predicted] = _rgb(_WRONG)
        else:
            true, found = truth == self.target, predicted == self.target
            painted[:] = _rgb(_DARK)
            painted[true & found], painted[found & ~true], painted[true & ~found] = map(_rgb, (_RIGHT, _FALSE, _MISSED))
        painted[truth >= UNSURE] = _rgb(_UNKNOWN)
        return painted

    def legend(self) -> dict[str, str]:
        """Return the colors by what they mean."""
        names = {name: color for name, (_, color) in self.entries.items()}
        return names | ({"wrong": _WRONG} if self.target is None else {"false": _FALSE, "missed": _MISSED})


def _rgb(color: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(color.removeprefix("#")), np.uint8)


def _draw_row(row: "Sequence[Axes]", sample: Example, palette: _Palette, bands: Sequence[int]) -> None:
    pictures = (
        _visible(sample.image[list(bands)]),
        palette.paint(sample.truth),
        palette.paint(sample.predicted),
        palette.compare(sample.truth, sample.predicted),
    )
    unknown = sample.truth >= UNSURE
    for axis, picture in zip(row, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in (row[1], row[3]):
        if unknown.any():
            axis.contourf(unknown, levels=[0.5, 1.5], colors="none", hatches=["////"])
    row[0].set_ylabel(sample.name)


def _shown(bands: Sequence[str], count: int) -> list[int]:
    """Return the three bands that are shown as red, green and blue; one band is gray."""
    wanted = ("red", "green", "blue")
    if all(name in bands for name in wanted):
        return [list(bands).index(name) for name in wanted]
    return [0, 1, 2] if count >= 3 else [0, 0, 0]


def _visible(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (y, x, 3) 8-bit colors of (3, y, x) pixels; other types are stretched, 2nd to 98th percentile."""
    if image.dtype == np.uint8:
        return np.moveaxis(image, 0, -1)
    low, high = np.nanpercentile(image.astype(np.float64), (2, 98))
    scaled = np.nan_to_num((image - low) / max(high - low, 1e-9)).clip(0, 1)
    return np.moveaxis((scaled * 255).round().astype(np.uint8), 0, -1)


def _add_legend(figure: "Figure", palette: _Palette, samples: Sequence[Example]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=color, edgecolor="black", label=name) for name, color in palette.legend().items()]
    if any((sample.truth >= UNSURE).any() for sample in samples):
        handles.append(Patch(facecolor=_UNKNOWN, edgecolor="black", hatch="////", label="unknown"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize="small")
