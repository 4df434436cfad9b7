"""Score a model on scenes with labels, block by block."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.bundle import Bundle, load_bundle
from geoseg.datasets.labels import IGNORED, Labels, read_labels
from geoseg.errors import ExistingResultError, LabelError
from geoseg.evaluate.confusion import Confusion
from geoseg.grid import Block
from geoseg.inference import NODATA, Plan, plan_inference, predict_block, stored_threshold
from geoseg.scene import list_files

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to score, and on what.

    Attributes:
        model: Name of a shipped model, or path of a bundle.
        labels: Raster or vector file of buildings, or a folder of rasters named like the scenes.
        area: Vector file with the area to score; everywhere by default.
        where: OGR attribute filter on it.
        threshold: Probability from which a pixel is a building; the model's by default.
        out: Folder for `metrics.json`.
        blend: Blend chips over their halos.
        device: `auto`, `cpu`, `cuda` or `mps`.
        threads: CPU threads in all.
        overwrite: Replace an existing `metrics.json`.
        chip_px: Another chip size than the model's.
        halo_px: Another halo than the model's.
    """

    model: str | Path
    labels: Path
    area: Path | None = None
    where: str | None = None
    threshold: float | None = None
    out: Path | None = None
    blend: bool = False
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False
    chip_px: int | None = None
    halo_px: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Counts per scene, and the threshold they were made with."""

    scenes: dict[str, Confusion]
    threshold: float

    @property
    def total(self) -> Confusion:
        """All scenes' pixels pooled."""
        return sum(self.scenes.values(), Confusion())

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics for `metrics.json`."""
        scenes = {name: counts.metrics() for name, counts in self.scenes.items()}
        return {"threshold": self.threshold, "scenes": scenes, "total": self.total.metrics()}

    def table(self) -> str:
        """Return the metrics as a Markdown table, a row per scene and one for all."""
        rows = dict(self.scenes) | ({"all": self.total} if len(self.scenes) > 1 else {})
        head = "| scene | IoU | Dice | precision | recall | Mpx |\n| --- | --- | --- | --- | --- | --- |"
        return "\n".join([head, *(_row(name, counts.metrics()) for name, counts in rows.items())])


def _row(name: str, metrics: dict[str, Any]) -> str:
    figures = " | ".join(f"{metrics[key]:.4f}" for key in ("iou", "dice", "precision", "recall"))
    return f"| {name} | {figures} | {metrics['pixels'] / 1e6:.2f} |"


def evaluate_scenes(paths: Sequence[str | Path], settings: EvaluateSettings) -> Evaluation:
    """Score a model on one scene, or on several against a folder of labels.

    Args:
        paths: Rasters, URLs or folders. With a folder of labels every file is a scene of its own; with one label file
            all files are one scene.
        settings: See `EvaluateSettings`.

    Raises:
        LabelError: If labels are missing or do not fit.
        GeosegError: If scene, model or area do not fit.
    """
    bundle = load_bundle(settings.model)
    threshold = bundle.spec.threshold if settings.threshold is None else settings.threshold
    _check_out(settings)
    counts = {
        name: _evaluate_scene(files, labels, bundle, settings, threshold)
        for name, files, labels in _pairs(paths, settings.labels)
    }
    evaluation = Evaluation(counts, threshold)
    if settings.out is not None:
        from geoseg.outputs import write_run_json

        settings.out.mkdir(parents=True, exist_ok=True)
        write_run_json(
            settings.out / METRICS_FILE, {"model": bundle.spec.name, "key": bundle.key} | evaluation.to_dict()
        )
    return evaluation


def _check_out(settings: EvaluateSettings) -> None:
    if settings.out is not None and (settings.out / METRICS_FILE).exists() and not settings.overwrite:
        raise ExistingResultError(
            f"{settings.out / METRICS_FILE} is already there. Choose another folder with --out, "
            "or replace it with --overwrite."
        )


def _pairs(paths: Sequence[str | Path], labels: Path) -> list[tuple[str, list[str], Path]]:
    """Return (name, files, labels) of every scene."""
    files = list_files(paths)
    if not labels.is_dir():
        return [(Path(files[0]).stem, files, labels)]
    pairs = [(Path(file).stem, [file], _label_beside(Path(file), labels)) for file in files]
    return pairs


def _label_beside(file: Path, folder: Path) -> Path:
    found = [path for path in (folder / file.name, folder / f"{file.stem}.tif") if path.is_file()]
    if not found:
        raise LabelError(f"{folder} holds no labels for {file.name}. Expected {file.name} or {file.stem}.tif there.")
    return found[0]


def _evaluate_scene(
    files: list[str], labels: Path, bundle: Bundle, settings: EvaluateSettings, threshold: float
) -> Confusion:
    from dask.base import compute
    from dask.delayed import delayed

    plan = plan_inference(
        files,
        bundle,
        aoi=settings.area,
        aoi_where=settings.where,
        blend=settings.blend,
        device=settings.device,
        threads=settings.threads,
        chip_px=settings.chip_px,
        halo_px=settings.halo_px,
    )
    truth = read_labels(labels, plan.scene.grid)
    value = stored_threshold(threshold)
    threads = plan.open_engine().threads
    blocks = plan.blocks(plan.choose_block_px(threads))
    tasks = [delayed(_score_block)(plan, block, truth[block.window.slices], value) for block in blocks]
    counts = compute(*tasks, scheduler="threads", num_workers=threads)  # type: ignore[no-untyped-call]
    total = sum(counts, Confusion())
    if total.pixels == 0:
        raise LabelError(
            f"No pixel of {plan.scene.name} has data, a label of {labels} and lies in the area asked for. "
            "Check that labels and scene show the same place."
        )
    if total.hits + total.misses == 0:
        log.warning("%s: %s has no building in the area that is scored. Is it of this place?", plan.scene.name, labels)
    return total


def _score_block(plan: Plan, block: Block, truth: Labels, value: int) -> Confusion:
    probability = predict_block(plan, block).probability
    known = (probability != NODATA) & (truth != IGNORED)
    return Confusion.count(np.asarray(probability >= value), np.asarray(truth == 1), np.asarray(known))
