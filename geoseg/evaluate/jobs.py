"""Which scenes are scored, each with its labels: decided from names, before anything is opened."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.bundle import DEFAULT_MODEL, load_bundle
from geoseg.errors import LabelError, UsageError
from geoseg.evaluate.prediction import Prediction, grid_of, is_run_folder, open_files, open_run, predict_bundle
from geoseg.evaluate.settings import EvaluateSettings
from geoseg.inference import InferenceOptions
from geoseg.io.suffixes import RASTER_SUFFIXES, SCENE_SUFFIXES, VECTOR_SUFFIXES, is_raster
from geoseg.scene import list_files, open_scene

LABEL_ENDINGS = ("", "_label", "_labels", "_mask")
"""What may follow a scene's name in the name of its labels."""


@dataclass(frozen=True, slots=True)
class Job:
    """One scene.

    Attributes:
        name: Name of the scene, unique among all.
        labels: Its labels.
        open: Gives the prediction; its argument is a folder to keep pixels in.
    """

    name: str
    labels: Path
    open: Callable[[Path], Prediction]


def plan_jobs(paths: Sequence[str | Path], settings: EvaluateSettings) -> list[Job]:
    """Find out what is scored, and pair it with its labels.

    Args:
        paths: Scenes, or result folders of `geoseg run`; may be empty where a mask or footprints are scored.
        settings: See `EvaluateSettings`.

    Raises:
        UsageError: If the options contradict each other.
        LabelError: If a scene has no labels.
    """
    if settings.has_files:
        return _file_jobs(paths, settings)
    if not paths:
        raise UsageError("Nothing to score was named. Name a scene, a result folder, or --mask or --footprints.")
    runs = [folder for path in paths for folder in _run_folders(Path(path))]
    if runs and any(not _run_folders(Path(path)) for path in paths):
        raise UsageError("Some of what was named are result folders and some are scenes. Score them one by one.")
    return _run_jobs(runs, settings) if runs else _model_jobs(paths, settings)


def _run_folders(path: Path) -> list[Path]:
    """Return a path that is a result folder, or the result folders in it."""
    if is_run_folder(path):
        return [path]
    return sorted(inner for inner in path.iterdir() if is_run_folder(inner)) if path.is_dir() else []


def _run_jobs(folders: list[Path], settings: EvaluateSettings) -> list[Job]:
    if settings.model is not None:
        raise UsageError(f"{folders[0]} is a finished run with its own model. Leave out --model, or name the scene.")

    def job(name: str, folder: Path) -> Job:
        labels = _labels_of(str(folder), settings.labels)

        def opened(scratch: Path) -> Prediction:
            return open_run(folder, threshold=settings.threshold, target_only=_scores_target_only(labels, settings))

        return Job(name, labels, opened)

    return [job(name, folder) for name, folder in zip(_names(list(map(str, folders))), folders, strict=True)]


def _model_jobs(paths: Sequence[str | Path], settings: EvaluateSettings) -> list[Job]:
    bundle, files = load_bundle(settings.model or DEFAULT_MODEL), list_files(paths)
    groups = [[file] for file in files] if settings.labels.is_dir() else [files]

    def job(name: str, group: list[str]) -> Job:
        labels = _labels_of(group[0], settings.labels)

        def opened(scratch: Path) -> Prediction:
            return predict_bundle(
                group,
                bundle,
                scratch,
                InferenceOptions(
                    aoi=settings.area,
                    aoi_where=settings.where,
                    blend=settings.blend,
                    device=settings.device,
                    threads=settings.threads,
                    crs=settings.crs,
                    chip_px=settings.chip_px,
                    halo_px=settings.halo_px,
                ),
                threshold=settings.threshold,
                target_only=_scores_target_only(labels, settings),
            )

        return Job(name, labels, opened)

    names = _names([group[0] for group in groups])
    return [job(name, group) for name, group in zip(names, groups, strict=True)]


def _scores_target_only(labels: Path, settings: EvaluateSettings) -> bool:
    """Return True where that is asked, or labels are polygons that do not say their class: they are the target."""
    return settings.target_only or not (is_raster(labels) or settings.label_settings.column)


def _file_jobs(paths: Sequence[str | Path], settings: EvaluateSettings) -> list[Job]:
    masks = list_files([settings.mask]) if settings.mask is not None else []
    images = list_files(list(paths)) if paths else []
    if len(masks) > 1 and settings.footprints is not None:
        raise UsageError(f"{settings.mask} holds {len(masks)} masks, --footprints is one file. Score them one by one.")
    scored = masks or [str(settings.footprints)]

    def job(name: str, file: str) -> Job:
        labels = _labels_of(file, settings.labels)
        beside = images if len(scored) == 1 else [image for image in images if Path(image).stem == Path(file).stem]

        def opened(scratch: Path) -> Prediction:
            return open_files(
                Path(file) if masks else None,
                settings.footprints,
                open_scene(beside, crs=settings.crs) if beside else None,
                scratch,
                classes=settings.classes,
                target=settings.target,
                codes=settings.mask_codes,
                confidence=settings.confidence,
                target_only=_scores_target_only(labels, settings),
                grid=grid_of(labels) if not masks and not beside and is_raster(labels) else None,
            )

        return Job(name, labels, opened)

    return [job(name, file) for name, file in zip(_names(scored), scored, strict=True)]


def _names(files: Sequence[str]) -> list[str]:
    """Return the stem of every file; with what tells their folders apart where stems are the same."""
    stems = [Path(file).stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    common = Path(os.path.commonpath([str(Path(file).parent.absolute()) for file in files]))
    return ["_".join(Path(file).absolute().relative_to(common).with_suffix("").parts) for file in files]


def _labels_of(scene: str, labels: Path) -> Path:
    """Return the labels of a scene: the one file of all scenes, or that of the scene's name in a folder.

    Raises:
        LabelError: If there is none, or several that are as near.
    """
    if not labels.is_dir():
        return labels
    name = Path(scene).name.removesuffix("_geoseg")
    stem = Path(name).stem if Path(name).suffix.lower() in SCENE_SUFFIXES else name
    wanted = [f"{stem}{ending}{suffix}" for ending in LABEL_ENDINGS for suffix in (*RASTER_SUFFIXES, *VECTOR_SUFFIXES)]
    for candidate in [name, *wanted]:
        if (labels / candidate).is_file():
            return labels / candidate
    return _nearest(scene, labels, set(wanted))


def _nearest(scene: str, labels: Path, wanted: set[str]) -> Path:
    """Return the labels in a folder below that share the longest path with the scene."""
    own = Path(scene).absolute()
    found = [path for path in sorted(labels.rglob("*")) if path.name in wanted and path.absolute().parent != own.parent]
    if not found:
        raise LabelError(
            f"{labels} holds no labels for {own.name}. Expected {own.stem}.tif there, or another raster or vector file "
            "of this name."
        )
    shared = [len(Path(os.path.commonpath([own, path.absolute()])).parts) for path in found]
    best = [path for path, length in zip(found, shared, strict=True) if length == max(shared)]
    if len(best) > 1:
        raise LabelError(f"{best[0]} and {best[1]} may both be the labels of {own.name}. Name a folder with one.")
    return best[0]
