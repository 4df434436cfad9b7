"""What a recipe's data look like before anything is trained: counts per source and split, and pictures of samples."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import choose_colors
from geoseg.datasets.coding import class_indices
from geoseg.datasets.labels import IGNORED, UNSURE, count_outside
from geoseg.datasets.prepared import NO_PIXEL, PreparedScene, sampling_boxes
from geoseg.datasets.splits import PARTS
from geoseg.errors import OutputError
from geoseg.grid import Window
from geoseg.io.aside import write_aside, write_json
from geoseg.io.tables import write_table
from geoseg.scene import open_scene
from geoseg.training.library import load_recipe
from geoseg.training.recipe import Recipe, Source
from geoseg.training.sources import prepare_sources, quiet_scenes

__all__ = ["Survey", "survey_data"]

log = logging.getLogger(__name__)

_SAMPLES = 4
_SAMPLE_PX = 512
_LOOKED_AT = 64
_INCH = 3.0
_UNKNOWN, _UNSURE = "#FF00FF", "#7F7F7F"
_TINT = 0.45


class Survey:
    """What was found, and where it is written."""

    def __init__(self, facts: dict[str, Any], paths: Sequence[Path]) -> None:
        """Keep the facts of `data.json` and the files that were written."""
        self.facts, self.paths = facts, tuple(paths)

    def table(self) -> str:
        """Return the counts as a Markdown table, a row per source and split."""
        rows = [row for source in self.facts["sources"] for row in _rows(source)]
        names = list(rows[0]) if rows else []
        return write_table(names, [[row[name] for name in names] for row in rows], align=True)


def survey_data(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    over: Sequence[str | Path] = (),
) -> Survey:
    """Prepare a recipe's data, count them, and draw samples with their masks.

    What is prepared is what `geoseg train` with the same `out` will use.

    Args:
        recipe: path of a recipe, or name of one that comes with geoseg.
        data: folder that the recipe's paths start from; `data` in the current folder by default.
        out: folder of `data.json` and the pictures; `<recipe's name>_training` by default.
        overrides: dotted recipe keys and the values to use instead.
        over: more recipes, or names of some, whose keys replace the first's.

    Raises:
        RecipeError: the recipe, or a file that it names, cannot be used.
        LabelError: labels are missing, do not fit, hold unknown values, or lack a class.
        OutputError: the folder cannot be written.
    """
    plan = load_recipe(recipe, overrides, over=over)
    folder = Path(out) if out is not None else Path(f"{plan.name}_training")
    root = Path(data) if data is not None else Path("data")
    sources = prepare_sources(plan, data=root, cache=folder / "prepared", test=True)
    found = []
    for source, prepared in zip(plan.sources, sources, strict=True):
        abouts = {
            part: [json.loads(path.with_suffix(".json").read_text()) for path in getattr(prepared, part)]
            for part in PARTS
        }
        splits = {part: _sum_up(own) for part, own in abouts.items() if own}
        polygons = _polygons(source, [about for own in abouts.values() for about in own])
        found.append({"name": source.name, "weight": source.weight, "splits": splits, "polygons": polygons})
    facts = {"recipe": plan.name, "gsd_m": plan.gsd_m, "classes": list(plan.network.classes), "sources": found}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        path = folder / "data.json"
        raise OutputError(f"{path} cannot be written ({err.strerror}); choose another folder with `out`") from err
    paths = [write_json(folder / "data.json", facts)]
    for prepared in sources:
        files = [path for part in PARTS for path in getattr(prepared, part)]
        evenly = np.unique(np.linspace(0, len(files) - 1, min(_SAMPLES, len(files))).round().astype(int))
        scenes = [PreparedScene(files[i]) for i in evenly]
        paths.append(_draw_source(plan, scenes, folder / f"data-{prepared.name}.png"))
    return Survey(facts, paths)


def _sum_up(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up the prepared files of one split."""
    counts = {name: sum(about["counts"][name] for about in abouts) for name in abouts[0]["counts"]}
    sizes = sorted({tuple(about["file_shape"]) for about in abouts}, key=lambda shape: shape[0] * shape[1])
    gsds = [max(about["file_gsd_m"]) for about in abouts if about["file_gsd_m"]]
    return {
        "files": len(abouts),
        "smallest_px": list(sizes[0]),
        "largest_px": list(sizes[-1]),
        "bands": sorted({about["bands"] for about in abouts}),
        "dtypes": sorted({about["dtype"] for about in abouts}),
        "file_gsd_m": [min(gsds), max(gsds)] if gsds else None,
        "counts": counts,
        **{key: sum(about[key] for about in abouts) for key in ("unsure", "unknown", "nodata")},
    }


def _polygons(source: Source, abouts: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """Count the polygons of vector labels, and those on no image; they may belong to another place."""
    files: dict[str, set[str]] = {}
    for about in abouts:
        if "labels" in about:
            files.setdefault(about["labels"], set()).add(about["image"])
    with quiet_scenes():
        found = [
            count_outside(Path(labels), (open_scene(image).native for image in sorted(images)), layer=source.layer)
            for labels, images in files.items()
        ]
    counted = [count for count in found if count is not None]
    return {"all": sum(n for n, _ in counted), "outside": sum(n for _, n in counted)} if counted else None


def _rows(source: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield a row of the table for each split of a source."""
    polygons = source["polygons"]
    for part, found in source["splits"].items():
        pixels = sum(found["counts"].values()) + found["unsure"] + found["unknown"]
        known = max(1, pixels - found["unknown"])
        yield {
            "source": source["name"],
            "split": part,
            "files": f"{found['files']}",
            "width x height": _span([f"{found[key][1]} x {found[key][0]}" for key in ("smallest_px", "largest_px")]),
            "bands": ", ".join(map(str, found["bands"])),
            "type": ", ".join(found["dtypes"]),
            "GSD m": _span([f"{gsd_m:.3g}" for gsd_m in found["file_gsd_m"] or ()]),
            "Mpx": f"{pixels / 1e6:.2f}",
            "unknown %": _percent(found["unknown"], pixels),
            **{f"{name} %": _percent(n, known) for name, n in found["counts"].items()},
            "unsure %": _percent(found["unsure"], known),
            "polygons outside": f"{polygons['outside']} of {polygons['all']}" if polygons else "-",
        }


def _percent(count: int, total: int) -> str:
    return f"{100 * count / max(1, total):.2f}"


def _span(ends: Sequence[str]) -> str:
    """Return the smallest and the largest of some values for a cell; one where they are equal, "-" without any."""
    return " to ".join(dict.fromkeys(ends)) or "-"


def _draw_source(plan: Recipe, scenes: Sequence[PreparedScene], path: Path) -> Path:
    """Draw a row of image, mask and both for each scene, with the classes below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    indices = class_indices(plan.network.classes)
    names = [name for name, index in indices.items() if index != IGNORED]
    colors = choose_colors(names, plan.network.colors)
    classes = {name: (indices[name], color) for name, color in zip(names, colors, strict=True)}
    classes |= {"unsure": (UNSURE, _UNSURE), "unknown": (IGNORED, _UNKNOWN)}
    palette = np.zeros((256, 3), np.uint8)
    for value, color in classes.values():
        palette[value] = list(bytes.fromhex(color.removeprefix("#")))
    figure = Figure(figsize=(3 * _INCH, (len(scenes) + 0.35) * _INCH), layout="constrained", dpi=110)
    grid: Any = figure.subplots(len(scenes), 3, squeeze=False)
    for axes, scene in zip(grid, scenes, strict=True):
        sample = scene.read(_telling_window(scene))
        image, mask = _visible(sample["image"].numpy()), sample["mask"].numpy()
        painted = palette[mask]
        both = np.where((mask == IGNORED)[..., None], image, (1 - _TINT) * image + _TINT * painted).astype(np.uint8)
        title = f"{scene.about['scene']} ({scene.about['part']})"
        for axis, picture, said in zip(axes, (image, painted, both), (title, "mask", "both"), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(said, fontsize=8)
            axis.set_axis_off()
    patches = [Patch(facecolor=color, label=name) for name, (_, color) in classes.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)), fontsize=8)
    with write_aside(path) as aside:
        figure.savefig(aside, format="png")
    return path


def _telling_window(scene: PreparedScene) -> Window:
    """Return the window of a scene that shows most of its classes: the highest entropy of known truth."""
    size = min(_SAMPLE_PX, *scene.window.shape)
    truth = scene.pixels[..., -1]

    def entropy(window: Window) -> float:
        counts = np.bincount(np.asarray(truth[window.slices][::4, ::4], np.uint8).ravel(), minlength=256)
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum() - counts[[NO_PIXEL, IGNORED]].sum() / counts.sum())

    boxes = sampling_boxes(truth, size, 0.5) or sampling_boxes(truth, size, 0.0)
    windows = [Window(box.row, box.col, size, size) for box in boxes[:: max(1, len(boxes) // _LOOKED_AT)]]
    return max(windows, key=entropy)


def _visible(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (y, x, 3) uint8 of the first three bands, or of the first alone."""
    bands = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
    if bands.dtype != np.uint8:
        low, high = np.percentile(bands, (2, 98))
        bands = np.clip((bands - low) * (255 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(bands.transpose(1, 2, 0))
