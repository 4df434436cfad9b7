"""What is scored: a model on a scene, the folder of a finished run, or the files of any tool."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from geoseg.bundle import Bundle, ModelSpec
from geoseg.datasets.labels import read_labels
from geoseg.errors import GeosegError, LabelError, ScoredFileError, UsageError
from geoseg.evaluate.layers import Chosen, Layer, RasterLayer, Scratch, Thresholded, fill_scratch
from geoseg.evaluate.outlines import SIMPLIFY_PX, outline_buildings
from geoseg.evaluate.truth import plan_labels
from geoseg.evaluate.vectors import Footprints, read_footprints, say_elsewhere
from geoseg.grid import Block, Grid, Window
from geoseg.inference import InferenceOptions, Plan, plan_inference, predict_block, stored_threshold
from geoseg.scene import Scene, open_scene
from geoseg.silence import quiet_georeference

log = logging.getLogger(__name__)

RUN_RASTERS = ("classes.tif", "mask.tif", "probability.tif")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted for one scene, on its own grid.

    Attributes:
        name: Name of the scene.
        grid: Grid of the layers.
        native: Grid of the scene's own pixels.
        classes: Names of the classes, in the order of their indices.
        target: Index of the class whose buildings and probability are scored.
        predicted: Class indices, 255 where nothing is predicted.
        probability: Stored probability of the target, or None.
        threshold: Probability from which a pixel is the target, or None.
        footprints: Predicted buildings, or None where they are to be outlined.
        min_area_m2: Smallest building where they are.
        simplify_px: Tolerance of their simplification.
        image: The scene, for pictures, or None.
        colours: `#RRGGBB` by class name.
        unscored: Classes that means leave out.
        facts: What it is, for `metrics.json`.
    """

    name: str
    grid: Grid
    native: Grid
    classes: tuple[str, ...]
    target: int
    predicted: Layer
    probability: Layer | None = None
    threshold: float | None = None
    footprints: Footprints | None = None
    min_area_m2: float = 0.0
    simplify_px: float = SIMPLIFY_PX
    image: Scene | None = None
    colours: dict[str, str] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def outline(self) -> Footprints:
        """Return the predicted buildings; outlined from the pixels where there is no file of them."""
        if self.footprints is not None:
            return self.footprints
        layer, target = self._target_layer()
        return outline_buildings(
            layer,
            self.grid,
            target,
            probability=self.probability,
            min_area_m2=self.min_area_m2,
            simplify_px=self.simplify_px,
        )

    def _target_layer(self) -> tuple[Layer, int]:
        """Return what a run outlines: the target's probability at the threshold, where there is one."""
        if self.probability is None or self.threshold is None:
            return self.predicted, self.target
        return Thresholded(self.probability, stored_threshold(self.threshold)), 1


def two_classes(classes: Sequence[str], target: str) -> tuple[str, str]:
    """Return the names of what is not the target and of the target."""
    others = [name for name in classes if name != target]
    return (others[0] if len(others) == 1 else "background", target)


def predict_bundle(
    files: Sequence[str],
    bundle: Bundle,
    scratch: Path,
    options: InferenceOptions,
    *,
    threshold: float | None = None,
    target_only: bool = False,
    simplify_px: float = SIMPLIFY_PX,
) -> Prediction:
    """Run a model on a scene and keep its pixels.

    Args:
        files: The scene.
        bundle: The model.
        scratch: Folder to keep the pixels in.
        options: See `InferenceOptions`.
        threshold: Probability from which a pixel is the target; the model's by default.
        target_only: Score the target alone though the model has several classes.
        simplify_px: Tolerance of the footprints' simplification.

    Raises:
        GeosegError: If scene, model or area do not fit.
    """
    spec, plan = bundle.spec, plan_inference(files, bundle, options)
    threshold = spec.threshold if threshold is None else threshold
    several = plan.has_class_raster and not target_only
    probability, classes = _predict(plan, scratch, several)
    names = spec.classes if several else two_classes(spec.classes, spec.target)
    return Prediction(
        name=plan.scene.name,
        grid=plan.scene.grid,
        native=plan.scene.native,
        classes=names,
        target=names.index(spec.target),
        predicted=classes or Thresholded(probability, stored_threshold(threshold)),
        probability=probability,
        threshold=threshold,
        min_area_m2=spec.min_area_m2,
        simplify_px=simplify_px,
        image=plan.scene,
        colours=_colours(spec) if several else {},
        unscored=tuple(spec.training.get("fit", {}).get("unscored", ())),
        facts={"model": spec.name, "key": bundle.key, "threshold": threshold},
    )


def _colours(spec: ModelSpec) -> dict[str, str]:
    return dict(zip(spec.classes, spec.class_colours, strict=True)) if len(spec.classes) > 2 else {}


def _predict(plan: Plan, scratch: Path, several: bool) -> tuple[Scratch, Scratch | None]:
    from dask.base import compute
    from dask.delayed import delayed

    shape = plan.scene.grid.shape
    probability = Scratch.create(scratch / "probability", shape)
    classes = Scratch.create(scratch / "classes", shape) if several else None
    threads = plan.open_engine().threads
    tasks = [
        delayed(_predict_block)(plan, block, probability, classes)
        for block in plan.blocks(plan.choose_block_px(threads))
    ]
    compute(*tasks, scheduler="threads", num_workers=threads)  # type: ignore[no-untyped-call]
    return probability, classes


def _predict_block(plan: Plan, block: Block, probability: Scratch, classes: Scratch | None) -> None:
    pixels = predict_block(plan, block)
    probability.write(block.window, pixels.probability)
    if classes is not None and pixels.classes is not None:
        classes.write(block.window, pixels.classes)


def is_run_folder(path: str | Path) -> bool:
    """Return True for the result folder of `geoseg run`."""
    folder = Path(path)
    return (folder / "run.json").is_file() and any((folder / name).is_file() for name in RUN_RASTERS)


def open_run(folder: Path, *, threshold: float | None = None, target_only: bool = False) -> Prediction:
    """Open the result folder of `geoseg run`.

    Args:
        folder: The folder.
        threshold: Another threshold than the run's; buildings are outlined anew then.
        target_only: Score the target alone though the run has several classes.

    Raises:
        ScoredFileError: If the folder lacks what is needed.
    """
    report = _read_report(folder)
    target = str(report.get("model", {}).get("target", "building"))
    several = (folder / "classes.tif").is_file() and not target_only
    names = _class_names(folder) if several else two_classes((), target)
    raster = folder / ("classes.tif" if several else "mask.tif")
    probability = RasterLayer(str(folder / "probability.tif")) if (folder / "probability.tif").is_file() else None
    if threshold is not None and probability is None:
        raise ScoredFileError(f"{folder} has no probability.tif, so no other threshold can be scored. Run it again.")
    grid = grid_of(raster if raster.is_file() else folder / "probability.tif")
    used = report.get("threshold", 0.5) if threshold is None else threshold
    afresh = threshold is not None or not raster.is_file()
    predicted: Layer = RasterLayer(str(raster))
    if afresh and not several and probability is not None:
        predicted = Thresholded(probability, stored_threshold(used))
    return Prediction(
        name=str(report.get("scene", {}).get("name", folder.name)),
        grid=grid,
        native=grid,
        classes=names,
        target=names.index(target),
        predicted=predicted,
        probability=probability,
        threshold=used,
        footprints=None if afresh else _run_footprints(folder, grid),
        min_area_m2=float(report.get("min_area_m2") or 0.0),
        simplify_px=float(report.get("settings", {}).get("simplify_px", SIMPLIFY_PX)),
        image=_image_of(report),
        colours=_palette(raster, names) if several else {},
        facts={
            "run": str(folder),
            "model": report.get("model", {}).get("name"),
            "key": report.get("model", {}).get("key"),
            "threshold": used,
        },
    )


def _read_report(folder: Path) -> dict[str, Any]:
    try:
        report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError as err:
        raise ScoredFileError(f"{folder / 'run.json'} is damaged ({err}). Run the scene again.") from err
    return report if isinstance(report, dict) else {}


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the category names that GDAL keeps beside the class raster."""
    path = folder / "classes.tif.aux.xml"
    try:
        found = [category.text or "" for category in ElementTree.parse(path).iter("Category")]
    except (OSError, ElementTree.ParseError) as err:
        raise ScoredFileError(f"The class names in {path} cannot be read ({err}). Run the scene again.") from err
    if len(found) < 2:
        raise ScoredFileError(f"{path} names {len(found)} classes, several are expected. Run the scene again.")
    return tuple(found)


def _palette(raster: Path, names: Sequence[str]) -> dict[str, str]:
    with _open(raster) as src:
        table = src.colormap(1)
    return {name: "#{:02X}{:02X}{:02X}".format(*table[index][:3]) for index, name in enumerate(names)}


def _run_footprints(folder: Path, grid: Grid) -> Footprints | None:
    path = folder / "buildings.gpkg"
    if not path.is_file():
        return None
    return read_footprints(path, grid, what="footprints", error=ScoredFileError)


def _image_of(report: dict[str, Any]) -> Scene | None:
    """Open the scene of a run for the picture, where it is still there."""
    scene = report.get("scene", {})
    if not scene.get("paths"):
        return None
    try:
        found = open_scene(scene["paths"], crs=report.get("settings", {}).get("crs"))
        return found.with_bands(scene["bands"]) if scene.get("bands") else found
    except GeosegError as err:
        log.info("The picture will be without the image: %s", err)
        return None


def open_files(
    mask: Path | None,
    footprints: Path | None,
    image: Scene | None,
    scratch: Path,
    *,
    classes: Sequence[str] = (),
    target: str = "",
    codes: tuple[tuple[str, str], ...] = (),
    confidence: str | None = None,
    grid: Grid | None = None,
    target_only: bool = False,
) -> Prediction:
    """Open a mask, or footprints, or both, as any tool writes them.

    Args:
        mask: Raster of class indices.
        footprints: Vector file of buildings; outlined from the mask by default.
        image: The scene: for the picture, and where there is no mask for the grid.
        scratch: Folder to keep pixels in.
        classes: Names of the mask's classes by index; background and building by default, and without a mask.
        target: The class of the footprints; `building` or the last by default.
        codes: Numbers and colours of the mask to class names.
        confidence: Column of the footprints.
        grid: Grid to burn footprints on where there is neither mask nor image.
        target_only: Score the target alone though the mask has several classes.

    Raises:
        ScoredFileError: If a file cannot be read or lies elsewhere.
        UsageError: If there is no grid.
    """
    names, index = _name_classes(classes, target) if mask is not None else (two_classes((), target or "building"), 1)
    own = grid_of(mask) if mask is not None else image.grid if image is not None else grid
    if own is None:
        raise UsageError(
            "Footprints and labels are both polygons, which have no pixels. Name the scene too: its extent is scored, "
            "on its pixels."
        )
    found = _read_polygons(footprints, own, confidence) if footprints is not None else None
    if mask is not None:
        coding = plan_labels(names, names[index], codes)
        layer = fill_scratch(scratch / "mask", own.shape, lambda w: _read_mask(mask, own, w, coding))
    else:
        assert found is not None
        layer = fill_scratch(scratch / "mask", own.shape, found.burn)
    first = mask or footprints
    predicted: Layer = layer
    if target_only and len(names) > 2:
        predicted, names, index = Chosen(layer, index), two_classes((), names[index]), 1
    return Prediction(
        name=first.stem if first is not None else "",
        grid=own,
        native=own,
        classes=names,
        target=index,
        predicted=predicted,
        footprints=found,
        image=image,
        facts={"mask": mask and str(mask), "footprints": footprints and str(footprints)},
    )


def _name_classes(classes: Sequence[str], target: str) -> tuple[tuple[str, ...], int]:
    if len(classes) < 2:
        return two_classes((), target or (classes[0] if classes else "building")), 1
    if target and target not in classes:
        raise UsageError(f"--target {target} is none of the classes {', '.join(classes)}.")
    return tuple(classes), classes.index(target or ("building" if "building" in classes else classes[-1]))


def _read_mask(path: Path, grid: Grid, window: Window, coding: Any) -> Any:
    try:
        return read_labels(path, grid.crop(window), coding=coding, native=grid)
    except LabelError as err:
        raise ScoredFileError(f"The mask cannot be scored: {err}. Say what its values mean with --mask-code.") from err


def _read_polygons(path: Path, grid: Grid, confidence: str | None) -> Footprints:
    found = read_footprints(path, grid, what="footprints", error=ScoredFileError, confidence=confidence)
    if not found.is_on(grid):
        raise ScoredFileError(say_elsewhere(path, grid, "footprints"))
    return found


def _open(path: Path) -> Any:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with quiet_georeference():
            return rasterio.open(path)
    except RasterioError as err:
        raise ScoredFileError(f"{path} cannot be opened as a raster ({err}). Check it with `gdalinfo`.") from err


def grid_of(path: Path) -> Grid:
    """Return the grid of a raster.

    Raises:
        ScoredFileError: If GDAL reads no raster from it.
    """
    with _open(path) as src:
        return Grid(src.crs, src.transform, src.shape)
