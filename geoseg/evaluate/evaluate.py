"""Score models, runs and files of other tools on scenes with labels, and report the scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg._version import __version__
from geoseg.bundle import DEFAULT_MODEL, choose_colors, load_bundle
from geoseg.datasets.coding import IGNORED
from geoseg.engines import usable_cores
from geoseg.errors import ExistingResultError, GeosegError, LabelError, ScoredFileError, UsageError
from geoseg.evaluate.calibration import measure_confidence
from geoseg.evaluate.labels import open_labels, plan_labels
from geoseg.evaluate.polygons import outline_buildings
from geoseg.evaluate.prediction import Prediction, ScoredFiles, ScoredModel, ScoredRun, is_run_folder
from geoseg.evaluate.scores import SceneScores, Stack, boundary_width, pool, score_scene
from geoseg.evaluate.settings import EvaluateSettings
from geoseg.inference import read_aoi
from geoseg.io.aside import check_folder, reported, write_record
from geoseg.io.datum import collect_shifts
from geoseg.io.pairs import find_labels
from geoseg.io.suffixes import is_raster
from geoseg.io.tables import write_table
from geoseg.scene import Paths, close_readers, list_files
from geoseg.sources import Found, choose_names, identity

log = logging.getLogger(__name__)

METRICS_FILE, PICTURES = "metrics.json", "pictures"
UNLABELLED = ("unlabelled", "unlabeled")
"""Classes excluded from means by default."""

FIGURES = {"IoU": "iou", "Dice": "dice", "precision": "precision", "recall": "recall"}
"""Columns of a table, and their keys in `metrics.json`; likewise below."""

CLASS = FIGURES | {"boundary IoU": "boundary_iou", "Mpx": "pixels"}
TWO_CLASSES = FIGURES | {
    "boundary IoU": "boundary_iou",
    "accuracy": "pixel_accuracy",
    "ECE": "calibration_error",
    "Mpx": "pixels",
}
SEVERAL_CLASSES = {
    "mean IoU": "mean_iou",
    "mean Dice": "mean_dice",
    "accuracy": "pixel_accuracy",
    "mean boundary IoU": "mean_boundary_iou",
    "Mpx": "pixels",
}
BUILDINGS = {
    "truth": "truth",
    "found": "predicted",
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
    "F1, 95 %": "f1_interval",
    "AP50": "ap50",
    "AP": "ap",
    "count error": "count_error",
    "PoLiS": "polis",
    "C-IoU": "c_iou",
    "vertex ratio": "vertex_ratio",
}
SHAPES = {
    "right corners": "orthogonality",
    "right, truth": "true_orthogonality",
    "shared walls": "shared_edges",
    "shared, truth": "true_shared_edges",
    "hole F1": "hole_f1",
    "PoLiS, px": "polis_px",
    "gap area": "gap_area",
    "overlap area": "overlap_area",
    "slivers": "slivers",
    "invalid": "invalid",
}

FEW_BUILDINGS = 1000
"""Number of true buildings below which the table shows how far F1 may be off."""

CURVE_STEP = 0.05
"""Distance of the thresholds in the table of the curve."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of all scenes.

    Attributes:
        scenes: Scores by name of the scene.
        facts: What was scored, by name of the scene: model or files, threshold, boundary width.
        curve: Scores of all scenes together at every threshold; empty unless asked for.
    """

    scenes: dict[str, SceneScores]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def total(self) -> SceneScores:
        """Scores of all scenes together."""
        return pool(list(self.scenes.values()))

    @property
    def threshold(self) -> float | None:
        """The threshold, if all scenes have the same."""
        found = {facts.get("threshold") for facts in self.facts.values()}
        return found.pop() if len(found) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `metrics.json`."""
        first = next(iter(self.facts.values()), {})
        common = {key: first.get(key) for key in ("model", "key", "inference_precision", "tta")}
        total = self.total
        scenes = {name: self.facts.get(name, {}) | scores.metrics() for name, scores in self.scenes.items()}
        return {
            "geoseg": __version__,
            **common,
            "threshold": self.threshold,
            "classes": list(total.confusion.classes),
            "target": total.target,
            "unscored": list(total.unscored),
            "scenes": scenes,
            "total": total.metrics(),
            "curve": self.curve,
        }

    def table(self) -> str:
        """Return Markdown tables of the scores: per scene and of all, per class, of buildings, per threshold."""
        total, rows = self.total, {name: scores.metrics() for name, scores in self.scenes.items()}
        figures = total.metrics()
        if len(rows) > 1:
            rows["all"] = figures
        if len(total.confusion.classes) > 2:
            classes = figures["classes"].items()
            per_class = {f"{name}{' (not in the mean)' * (name in total.unscored)}": found for name, found in classes}
            parts = [_table("scene", SEVERAL_CLASSES, rows), _table("class", CLASS, per_class)]
        else:
            parts = [_table("scene", TWO_CLASSES, rows)]
        buildings = {name: found["buildings"] for name, found in rows.items() if "buildings" in found}
        if buildings:
            few = {name: found | {"f1_interval": _interval(found)} for name, found in buildings.items()}
            parts += [_table("buildings", BUILDINGS, few), _table("shapes", SHAPES, buildings)]
        if self.curve:
            parts.append(_curve_table(self.curve))
        return "\n\n".join(parts)


def _table(first: str, columns: Mapping[str, str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with one row per scene or class."""

    def cell(row: Mapping[str, Any], key: str) -> Any:
        return f"{row[key] / 1e6:.2f}" if key == "pixels" else row.get(key, float("nan"))

    cells = [[name, *(cell(row, key) for key in columns.values())] for name, row in rows.items()]
    return write_table((first, *columns), cells)


def _interval(found: Mapping[str, Any]) -> str | float:
    """Return the interval of F1 where buildings are few, else NaN."""
    low, high = found["f1_low"], found["f1_high"]
    return f"{low:.3f} to {high:.3f}" if found["truth"] < FEW_BUILDINGS and low == low else float("nan")


def _curve_table(curve: Sequence[Mapping[str, float]]) -> str:
    """Return a table with the scores at every twentieth of a threshold, and at the threshold with the largest IoU."""
    picked = [min(curve, key=lambda row: abs(row["threshold"] - step * CURVE_STEP)) for step in range(1, 20)]
    best = max(curve, key=lambda row: row["iou"] if row["iou"] == row["iou"] else -1.0)
    shown = sorted([*(row for row in picked if row is not best), best], key=lambda row: row["threshold"])
    keys = ("threshold", *FIGURES.values())
    rows = [[*(row[key] for key in keys), "best" if row is best else ""] for row in shown]
    return write_table(("threshold", *FIGURES, ""), rows)


def evaluate_scenes(paths: Paths, settings: EvaluateSettings) -> Evaluation:
    """Score a model on scenes, finished runs, or files of any tool.

    Args:
        paths: Rasters, URLs or folders, or result folders of `geoseg run`. If the labels are a folder, every raster is
            a scene; if they are a file, all rasters form one scene.
        settings: See `EvaluateSettings`.

    Raises:
        LabelError: If labels are missing or do not fit.
        ScoredFileError: If a mask or footprints do not fit.
        ExistingResultError: If `out` holds scores, which are not to be replaced.
        OutputError: If the scores cannot be written to `out`.
        GeosegError: If scene, model, files or AOI do not fit.
    """
    out = settings.out
    if out is not None:
        check_folder(out)
        if (out / METRICS_FILE).exists() and not settings.overwrite:
            raise ExistingResultError(
                f"{out / METRICS_FILE} exists. Choose another folder with `out`, or replace it with `overwrite=True`."
            )
    scores: dict[str, SceneScores] = {}
    facts: dict[str, dict[str, Any]] = {}
    for scene in plan_scenes([paths] if isinstance(paths, str | Path) else list(paths), settings):
        scores[scene.name], facts[scene.name] = _evaluate_scene(scene, settings)
    evaluation = Evaluation(scores, facts)
    _check_ground(evaluation.total)
    if settings.curve:
        levels = evaluation.total.levels
        if levels is None:
            raise UsageError("`curve` requires probabilities, and these files have none. Score a model.")
        evaluation = replace(evaluation, curve=levels.curve())
    if out is not None:
        with reported(out):
            out.mkdir(parents=True, exist_ok=True)
        if settings.pictures:
            _draw_diagrams(evaluation, out)
        write_record(out / METRICS_FILE, evaluation.to_dict())
        log.info("%s", out / METRICS_FILE)
    return evaluation


@dataclass(frozen=True, slots=True)
class ScoredScene:
    """A scene to score.

    Attributes:
        name: Unique name of the scene.
        labels: Its labels.
        scored: What is scored.
    """

    name: str
    labels: Path
    scored: ScoredModel | ScoredRun | ScoredFiles


def plan_scenes(paths: Sequence[str | Path], settings: EvaluateSettings) -> list[ScoredScene]:
    """Determine what is scored and pair it with its labels by name, before anything is opened.

    Args:
        paths: Scenes, or result folders of `geoseg run`; may be empty if a mask or footprints are scored.
        settings: See `EvaluateSettings`.

    Raises:
        UsageError: If arguments contradict each other.
        LabelError: If a scene has no labels.
    """
    if not paths and not settings.has_files:
        raise UsageError("There is nothing to score. Give a scene, a result folder, `mask` or `footprints`.")
    runs = [] if settings.has_files else [_run_folders(Path(path)) for path in paths]
    found: list[tuple[str, ScoredModel | ScoredRun | ScoredFiles]] = []
    if settings.has_files:
        masks = list_files([settings.mask]) if settings.mask is not None else []
        images = list_files(list(paths)) if paths else []
        if len(masks) > 1 and settings.footprints is not None:
            raise UsageError(
                f"{settings.mask} contains {len(masks)} masks, but `footprints` is one file. Score them one by one."
            )
        for file in masks or [str(settings.footprints)]:
            beside = images if len(masks) < 2 else [image for image in images if Path(image).stem == Path(file).stem]
            found.append((file, ScoredFiles(Path(file) if masks else None, tuple(beside))))
    elif any(runs):
        if not all(runs):
            raise UsageError("Some inputs are result folders and some are scenes. Score them separately.")
        folders = [folder for inner in runs for folder in inner]
        if settings.model is not None:
            raise UsageError(f"{folders[0]} is a finished run with its own model. Omit `model`, or give the scene.")
        found = [(str(folder), ScoredRun(folder)) for folder in folders]
    else:
        bundle, files = load_bundle(settings.model or DEFAULT_MODEL), list_files(paths)
        groups = [(file,) for file in files] if settings.labels.is_dir() else [tuple(files)]
        found = [(group[0], ScoredModel(group, bundle)) for group in groups]
    first: dict[str, int] = {}
    found = [one for i, one in enumerate(found) if first.setdefault(identity(one[0]), i) == i]  # each once
    files = [file for file, _ in found]
    labels = find_labels(files, settings.labels)
    of_labels = settings.label_settings
    unused = [key for key, _ in of_labels.codes if not (of_labels.column and key.startswith("#"))]  # colors are drawn
    if unused and labels and all(path.is_file() and not is_raster(path) for path in labels):
        raise UsageError(
            f"`codes` applies to label rasters, but {labels[0]} contains polygons. Omit `codes`, or give a raster."
        )
    return [
        ScoredScene(name, path, scored)
        for name, path, (_, scored) in zip(_name_scenes(found), labels, found, strict=True)
    ]


def _run_folders(path: Path) -> list[Path]:
    """Return the path itself if it is a result folder, or the result folders in it."""
    if is_run_folder(path):
        return [path]
    return sorted(inner for inner in path.iterdir() if is_run_folder(inner)) if path.is_dir() else []


def _name_scenes(scored: Sequence[tuple[str, ScoredModel | ScoredRun | ScoredFiles]]) -> list[str]:
    """Return a name for everything that is scored: the folder of a run, whatever dots it has, or the stem of a file."""
    return choose_names(
        [Found(file, name=Path(file).absolute().name if isinstance(one, ScoredRun) else None) for file, one in scored]
    )


def _evaluate_scene(scene: ScoredScene, settings: EvaluateSettings) -> tuple[SceneScores, dict[str, Any]]:
    with (
        TemporaryDirectory(prefix="geoseg-evaluate-", ignore_cleanup_errors=True) as folder,
        collect_shifts() as shifts,
    ):
        scratch, label_settings = Path(folder), settings.label_settings
        prediction = scene.scored.open(settings, scene.labels, scratch)
        grid, target = prediction.grid, prediction.target
        coding = plan_labels(
            prediction.classes,
            prediction.classes[target],
            label_settings.codes,
            prediction.colors,
            instances=label_settings.instances,
        )
        truth, true_buildings, label_counts = open_labels(
            scene.labels, grid, prediction.native, coding, label_settings, scratch / "truth"
        )
        area = read_aoi(settings.aoi, grid, where=settings.aoi_where) if settings.aoi is not None else None
        stack = Stack(scene.name, prediction, truth, area)
        buildings = None
        if settings.buildings:
            true_buildings = true_buildings or outline_buildings(truth, grid, target)
            buildings = (true_buildings, prediction.outline())
        width_px = boundary_width(grid, settings.boundary_m, settings.boundary_px)
        scores = score_scene(
            stack,
            buildings,
            width_px=width_px,
            unscored=_choose_unscored(prediction, settings.unscored),
            threads=settings.threads or usable_cores(),
            labels=str(scene.labels),
            label_counts=label_counts,
        )
        if settings.out is not None and settings.pictures:
            _draw(stack, settings, settings.out / PICTURES)
        close_readers()
    gsd_m = grid.gsd_m
    return scores, prediction.facts | {
        "labels": str(scene.labels),
        "boundary_px": width_px,
        "boundary_m": width_px * (gsd_m[0] * gsd_m[1]) ** 0.5 if gsd_m else None,
        "gsd_m": gsd_m,
        "unit": "m" if gsd_m else "px",
        "datum_shifts": [shift.describe() for shift in shifts],
    }


def _check_ground(total: SceneScores) -> None:
    """Refuse labels, or a mask, of which all is unknown but the target: nothing could be a false positive, or a miss.

    Raises:
        LabelError: The labels have no other class, but unknown pixels.
        ScoredFileError: The same of a mask.
    """
    classes, target = total.confusion.classes, total.target
    other = classes[1 - classes.index(target)]
    sides: list[tuple[NDArray[np.int64] | None, str, str, str, type[GeosegError]]] = [
        (total.label_counts, "The labels have", "codes", "precision would be 1 for any prediction", LabelError),
        (total.mask_counts, "The mask has", "mask_codes", "recall would be 1 for any labels", ScoredFileError),
    ]
    for counts, what, option, result, error in sides:
        if len(classes) == 2 and counts is not None and counts[IGNORED] and not counts[classes.index(other)]:
            raise error(
                f"{what} no pixel of {other}, only {counts[classes.index(target)]:,} px of {target} and "
                f"{counts[IGNORED]:,} px that are unknown (nodata, alpha or 255): {result}. If these are {other}, say "
                f"which value they have in `{option}`, such as 0={other}; of a file with alpha or a mask band, give a "
                "copy without it (gdal_translate -b 1 -mask none)."
            )


def _choose_unscored(prediction: Prediction, asked: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes excluded from means: as given, or the model's and those called unlabelled."""
    strange = [name for name in asked or () if name not in prediction.classes]
    if strange:
        raise UsageError(f"`unscored={strange[0]!r}` is not one of the classes {', '.join(prediction.classes)}.")
    if asked is not None:
        return asked
    usual = (*prediction.unscored, *UNLABELLED)
    return tuple(name for name in prediction.classes if name in usual)


def _draw(stack: Stack, settings: EvaluateSettings, folder: Path) -> None:
    """Draw a scene; several classes in the colors of the model, or else of the codes of the labels."""
    from geoseg.evaluate.pictures import draw_scene, scored_window

    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    prediction, codes = stack.prediction, settings.label_settings.codes
    colors: Sequence[str] = ()
    if len(prediction.classes) > 2:
        named = {name: key for key, name in reversed(codes) if key.startswith("#")}  # the first of a class
        colors = choose_colors(prediction.classes, prediction.colors or named)
    draw_scene(folder / f"{stack.name}.png", stack, scored_window(stack), colors=colors)


def _draw_diagrams(evaluation: Evaluation, folder: Path) -> None:
    from geoseg.evaluate.pictures import draw_building_reliability, draw_confusion, draw_curve, draw_reliability

    total = evaluation.total
    if total.levels is not None:
        draw_reliability(folder / "reliability.png", total.levels, total.target)
    if total.buildings is not None and (bins := measure_confidence(total.buildings)):
        draw_building_reliability(folder / "building_reliability.png", bins)
    if len(total.confusion.classes) > 2:
        draw_confusion(folder / "confusion.png", total.confusion)
    if evaluation.curve:
        draw_curve(folder / "curve.png", evaluation.curve, evaluation.threshold)
