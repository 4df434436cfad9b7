"""Score models, runs and other tools' files on scenes with labels."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geoseg._version import __version__
from geoseg.bundle import choose_colours
from geoseg.datasets.coding import Coding
from geoseg.engines import usable_cores
from geoseg.errors import ExistingResultError, UsageError
from geoseg.evaluate.jobs import Job, plan_jobs
from geoseg.evaluate.layers import Stack
from geoseg.evaluate.outlines import outline_buildings
from geoseg.evaluate.prediction import Prediction
from geoseg.evaluate.score import boundary_width, score_scene
from geoseg.evaluate.scores import SceneScores, pool
from geoseg.evaluate.settings import EvaluateSettings
from geoseg.evaluate.table import building_table, class_table, curve_table, pixel_table, several_table
from geoseg.evaluate.truth import Truth, open_truth, plan_labels
from geoseg.evaluate.vectors import Footprints
from geoseg.inference import read_aoi
from geoseg.scene import Paths, close_readers

log = logging.getLogger(__name__)

METRICS_FILE, PICTURES = "metrics.json", "pictures"
UNLABELLED = ("unlabelled", "unlabeled")
"""Classes that means leave out unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Counts per scene, and how they were made.

    Attributes:
        scenes: Counts by name of the scene.
        facts: What was scored, by name of the scene: model or files, threshold, width of the boundary.
        curve: Figures at every threshold, over all scenes; empty unless asked for.
    """

    scenes: dict[str, SceneScores]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def total(self) -> SceneScores:
        """All scenes' pixels and buildings pooled."""
        return pool(list(self.scenes.values()))

    @property
    def threshold(self) -> float | None:
        """The threshold, where all scenes have the same."""
        found = {facts.get("threshold") for facts in self.facts.values()}
        return found.pop() if len(found) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything for `metrics.json`."""
        first = next(iter(self.facts.values()), {})
        common = {key: first.get(key) for key in ("model", "key")}
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
        """Return Markdown tables: a row of pixel figures per scene and one for all, classes, buildings, thresholds."""
        metrics = {name: scores.metrics() for name, scores in self.scenes.items()}
        total = self.total
        rows = metrics | ({"all": total.metrics()} if len(metrics) > 1 else {})
        if len(total.confusion.classes) > 2:
            parts = [several_table(rows), class_table(total.metrics(), total.unscored)]
        else:
            parts = [pixel_table(rows)]
        parts += [building_table(rows)] if any("buildings" in m for m in rows.values()) else []
        parts += [curve_table(self.curve)] if self.curve else []
        return "\n\n".join(parts)


def evaluate_scenes(paths: Paths, settings: EvaluateSettings) -> Evaluation:
    """Score a model on scenes, or finished runs, or the files of any tool.

    Args:
        paths: Rasters, URLs or folders; or result folders of `geoseg run`. With a folder of labels every file is a
            scene of its own; with one label file all files are one scene.
        settings: See `EvaluateSettings`.

    Raises:
        LabelError: If labels are missing or do not fit.
        GeosegError: If scene, model, files or area do not fit.
    """
    _check_out(settings)
    jobs = plan_jobs([paths] if isinstance(paths, str | Path) else list(paths), settings)
    found = {job.name: _evaluate_scene(job, settings) for job in jobs}
    evaluation = Evaluation(
        {name: scores for name, (scores, _) in found.items()}, {name: facts for name, (_, facts) in found.items()}
    )
    if settings.curve:
        evaluation = Evaluation(evaluation.scenes, evaluation.facts, _curve(evaluation.total))
    if settings.out is not None:
        _write(evaluation, settings.out, settings.pictures)
    return evaluation


def _curve(total: SceneScores) -> list[dict[str, float]]:
    if total.levels is None:
        raise UsageError("--curve needs probabilities, which what is scored has not. Score a model.")
    return total.levels.curve()


def _check_out(settings: EvaluateSettings) -> None:
    if settings.out is not None and (settings.out / METRICS_FILE).exists() and not settings.overwrite:
        raise ExistingResultError(
            f"{settings.out / METRICS_FILE} is already there. Choose another folder with --out, "
            "or replace it with --overwrite."
        )


def _evaluate_scene(job: Job, settings: EvaluateSettings) -> tuple[SceneScores, dict[str, Any]]:
    with TemporaryDirectory(prefix="geoseg-evaluate-", ignore_cleanup_errors=True) as folder:
        prediction = job.open(Path(folder))
        truth = _open_truth(job, prediction, settings, Path(folder))
        stack = _stack(job, prediction, truth, settings)
        width_px = boundary_width(stack.grid, settings.boundary_m, settings.boundary_px)
        scores = score_scene(
            stack,
            _buildings(prediction, truth) if settings.buildings else None,
            width_px=width_px,
            unscored=_unscored(prediction, settings),
            threads=settings.threads or usable_cores(),
            labels=str(job.labels),
        )
        if settings.out is not None and settings.pictures:
            _draw(stack, prediction, settings, settings.out, job.name)
        close_readers()
    return scores, prediction.facts | {"labels": str(job.labels)} | _lengths(stack, width_px)


def _lengths(stack: Stack, width_px: int) -> dict[str, Any]:
    """Return the width of the boundary, and the unit of lengths between outlines."""
    gsd_m = stack.grid.gsd_m
    width_m = width_px * (gsd_m[0] * gsd_m[1]) ** 0.5 if gsd_m else None
    return {"boundary_px": width_px, "boundary_m": width_m, "gsd_m": gsd_m, "unit": "m" if gsd_m else "px"}


def _open_truth(job: Job, prediction: Prediction, settings: EvaluateSettings, folder: Path) -> Truth:
    coding = _coding(prediction, settings)
    scratch = folder / "truth"
    return open_truth(job.labels, prediction.grid, prediction.native, coding, settings.label_settings, scratch)


def _coding(prediction: Prediction, settings: EvaluateSettings) -> Coding:
    target = prediction.classes[prediction.target]
    return plan_labels(prediction.classes, target, settings.label_settings.codes, prediction.colours)


def _stack(job: Job, prediction: Prediction, truth: Truth, settings: EvaluateSettings) -> Stack:
    area = read_aoi(settings.area, prediction.grid, where=settings.where) if settings.area is not None else None
    return Stack(
        name=job.name,
        grid=prediction.grid,
        classes=prediction.classes,
        target=prediction.target,
        predicted=prediction.predicted,
        truth=truth.layer,
        probability=prediction.probability,
        area=area,
    )


def _buildings(prediction: Prediction, truth: Truth) -> tuple[Footprints, Footprints]:
    """Return true and predicted buildings; those of a raster are outlined."""
    true = truth.footprints or outline_buildings(truth.layer, prediction.grid, prediction.target)
    return true, prediction.outline()


def _unscored(prediction: Prediction, settings: EvaluateSettings) -> tuple[str, ...]:
    """Return the classes that means leave out: as asked, else the model's, else those called unlabelled."""
    asked = settings.unscored
    strange = [name for name in asked or () if name not in prediction.classes]
    if strange:
        raise UsageError(f"--unscored {strange[0]} is none of the classes {', '.join(prediction.classes)}.")
    if asked is not None:
        return asked
    usual = (*prediction.unscored, *UNLABELLED)
    return tuple(name for name in prediction.classes if name in usual)


def _draw(stack: Stack, prediction: Prediction, settings: EvaluateSettings, out: Path, name: str) -> None:
    from geoseg.evaluate.pictures import draw_scene, scored_window

    folder = out / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    several = len(stack.classes) > 2
    colours = choose_colours(stack.classes, prediction.colours or _named_colours(settings)) if several else ()
    draw_scene(folder / f"{name}.png", stack, scored_window(stack), image=prediction.image, colours=colours)


def _named_colours(settings: EvaluateSettings) -> dict[str, str]:
    """Return the first colour that the labels' codes give each class."""
    pairs = reversed(settings.label_settings.codes)
    return {name: key for key, name in pairs if key.startswith("#")}


def _write(evaluation: Evaluation, out: Path, pictures: bool) -> None:
    from geoseg.outputs import write_run_json

    out.mkdir(parents=True, exist_ok=True)
    if pictures:
        _draw_figures(evaluation, out)
    write_run_json(out / METRICS_FILE, evaluation.to_dict())
    log.info("%s", out / METRICS_FILE)


def _draw_figures(evaluation: Evaluation, out: Path) -> None:
    from geoseg.evaluate.pictures import draw_confusion, draw_curve, draw_reliability

    total = evaluation.total
    if total.levels is not None:
        draw_reliability(out / "reliability.png", total.levels, total.target)
    if len(total.confusion.classes) > 2:
        draw_confusion(out / "confusion.png", total.confusion)
    if evaluation.curve:
        draw_curve(out / "curve.png", evaluation.curve, evaluation.threshold)
