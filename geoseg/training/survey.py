"""A survey of a recipe's data before training: counts per source and split, and pictures of samples."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.datasets.labels import IGNORED, count_outside
from geoseg.datasets.prepared import NO_PIXEL, PreparedScene, sampling_boxes
from geoseg.datasets.splits import PARTS
from geoseg.grid import Window
from geoseg.io.aside import check_folder, reported, write_json
from geoseg.io.tables import write_table
from geoseg.scene import open_scene
from geoseg.training.library import load_recipe
from geoseg.training.pictures import draw_samples
from geoseg.training.recipe import Source
from geoseg.training.sources import prepare_sources, quiet_scenes

__all__ = ["Survey", "survey_data"]

log = logging.getLogger(__name__)

_SAMPLES = 4
_SAMPLE_PX = 512
_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Survey:
    """The content of `data.json`, and the files that were written."""

    facts: dict[str, Any]
    paths: tuple[Path, ...]

    def table(self) -> str:
        """Return the counts as a Markdown table, a row per source and split."""

        def percent(count: int, total: int) -> str:
            return f"{100 * count / max(1, total):.2f}"

        def span(ends: Iterable[str]) -> str:
            return " to ".join(dict.fromkeys(ends)) or "-"

        rows = []
        for source in self.facts["sources"]:
            polygons = source["polygons"]
            for part, found in source["splits"].items():
                pixels = sum(found["counts"].values()) + found["unsure"] + found["unknown"]
                known = pixels - found["unknown"]
                sizes = (found["smallest_px"], found["largest_px"])
                row = {
                    "source": source["name"],
                    "split": part,
                    "files": f"{found['files']}",
                    "width x height": span(f"{width} x {height}" for height, width in sizes),
                    "bands": ", ".join(map(str, found["bands"])),
                    "type": ", ".join(found["dtypes"]),
                    "GSD m": span(f"{gsd_m:.3g}" for gsd_m in found["file_gsd_m"] or ()),
                    "Mpx": f"{pixels / 1e6:.2f}",
                    "unknown %": percent(found["unknown"], pixels),
                    **{f"{name} %": percent(n, known) for name, n in found["counts"].items()},
                    "unsure %": percent(found["unsure"], known),
                    "polygons outside": f"{polygons['outside']} of {polygons['all']}" if polygons else "-",
                }
                rows.append(row)
        return write_table(list(rows[0]) if rows else [], [[*row.values()] for row in rows], align=True)


def survey_data(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    over: Sequence[str | Path] = (),
) -> Survey:
    """Prepare a recipe's data, count them, and draw samples with their masks.

    `geoseg train` with the same `out` uses the prepared data.

    Args:
        recipe: As for `train_recipe`, like `data`, `overrides` and `over`.
        data: Folder that the recipe's paths are relative to.
        out: Folder of `data.json` and the pictures; `<recipe's name>_training` by default.
        overrides: Values by dotted key of the recipe.
        over: More recipes, whose keys override the first's.

    Raises:
        RecipeError: The recipe, or a file that it names, cannot be used.
        LabelError: Labels are missing, do not fit, have unknown values, or lack a class.
        OutputError: The folder cannot be written.
    """
    plan = load_recipe(recipe, overrides, over=over)
    folder = Path(out or f"{plan.name}_training")
    check_folder(folder)
    sources = prepare_sources(plan, data=Path(data or "data"), cache=folder / "prepared", test=True)
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
    with reported(folder / "data.json"):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [write_json(folder / "data.json", facts)]
    for prepared in sources:
        files = [path for part in PARTS for path in getattr(prepared, part)]
        evenly = np.unique(np.linspace(0, len(files) - 1, min(_SAMPLES, len(files))).round().astype(int))
        samples = []
        for scene in (PreparedScene(files[i]) for i in evenly):
            sample = scene.read(_telling_window(scene))
            name = f"{scene.about['scene']} ({scene.about['part']})"
            samples.append((name, sample["image"].numpy(), sample["mask"].numpy()))
        path = folder / f"data-{prepared.name}.png"
        paths.append(draw_samples(samples, path, classes=plan.network.classes, colors=plan.network.colors))
    return Survey(facts, tuple(paths))


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
    """Count the polygons of vector labels, and those that touch no image."""
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


def _telling_window(scene: PreparedScene) -> Window:
    """Return the window of a scene that shows most of its classes: the highest entropy of its labels."""
    size = min(_SAMPLE_PX, *scene.window.shape)
    truth = scene.pixels[..., -1]

    def entropy(window: Window) -> float:
        counts = np.bincount(np.asarray(truth[window.slices][::4, ::4], np.uint8).ravel(), minlength=256)
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum() - counts[[NO_PIXEL, IGNORED]].sum() / counts.sum())

    boxes = sampling_boxes(truth, size, 0.5) or sampling_boxes(truth, size, 0.0)
    windows = [Window(box.row, box.col, size, size) for box in boxes[:: max(1, len(boxes) // _LOOKED_AT)]]
    return max(windows, key=entropy)
