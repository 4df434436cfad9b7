"""The predictions that are scored: of a model on a scene, of a finished run, or of any tool."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import Bundle
from geoseg.datasets.labels import IGNORED, read_labels
from geoseg.errors import GeosegError, LabelError, RunFolderError, ScoredFileError, UsageError
from geoseg.evaluate.labels import plan_labels
from geoseg.evaluate.polygons import BuildingPolygons, describe_mismatch, outline_buildings, read_buildings
from geoseg.evaluate.rasters import Bytes, Chosen, Scratch, Thresholded, strips
from geoseg.evaluate.settings import EvaluateSettings
from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Block, Grid, Window
from geoseg.inference import NODATA, InferenceOptions, plan_inference, predict_block, stored_threshold
from geoseg.io.store import LocalStore
from geoseg.io.suffixes import is_raster
from geoseg.outputs.footprints import DEFAULT_FORMATS, files_of
from geoseg.scene import Raster, Scene, StoredRaster, open_raster, open_scene, read_grid
from geoseg.third_party import allow_no_georeference
from geoseg.vectorize import Generalizer, Limits, Simplify, choose_depth, choose_generalizer, choose_limits

log = logging.getLogger(__name__)

NO_LIMITS = Limits()

RUN_RASTERS = ("classes.tif", "mask.tif", "probability.tif")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The prediction for one scene, on its own grid.

    Attributes:
        grid: Grid of the rasters.
        native: Grid of the scene's own pixels.
        classes: Names of the classes, in the order of their indices.
        target: Index of the class whose buildings and probability are scored.
        predicted: Class indices; 255 for nodata.
        probability: Stored probability of the target, or None.
        threshold: Minimum probability of a target pixel, or None.
        buildings: Predicted buildings; None if they must be outlined.
        limits: Which outlined buildings and holes are too small.
        generalizer: Outlines buildings; see `outline_buildings`.
        surface: How far inside a building each pixel lies; the probability if None.
        split_depth: How much it falls between two outlined buildings; None leaves those that touch together.
        coefficients: Those of the confidence of outlined buildings.
        image: The scene, for pictures, or None.
        colors: `#RRGGBB` by class name.
        unscored: Classes excluded from means.
        facts: Facts for `metrics.json`.
        mask_counts: Pixels of another tool's mask by class index and 255, `(256,)`.
    """

    grid: Grid
    native: Grid
    classes: tuple[str, ...]
    target: int
    predicted: Raster
    probability: Raster | None = None
    threshold: float | None = None
    buildings: BuildingPolygons | None = None
    limits: Limits = NO_LIMITS
    generalizer: Generalizer | None = None
    surface: Raster | None = None
    split_depth: float | None = None
    coefficients: Mapping[str, float] = field(default_factory=dict)
    image: Scene | None = None
    colors: dict[str, str] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    mask_counts: NDArray[np.int64] | None = None

    def outline(self) -> BuildingPolygons:
        """Return the predicted buildings; without a file of them, outline them in the same way as a run."""
        if self.buildings is not None:
            return self.buildings
        classes, target = self.predicted, self.target
        if self.probability is not None and self.threshold is not None:
            classes, target = Thresholded(self.probability, stored_threshold(self.threshold)), 1
        return outline_buildings(
            classes,
            self.grid,
            target,
            probability=self.probability,
            limits=self.limits,
            generalizer=self.generalizer,
            surface=self.surface,
            split_depth=self.split_depth,
            coefficients=self.coefficients,
        )


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model, to be run on the files of a scene."""

    files: tuple[str, ...]
    bundle: Bundle

    def open(self, settings: EvaluateSettings, labels: Path, scratch: Path) -> Prediction:
        """Run the model on the scene.

        Args:
            settings: See `EvaluateSettings`.
            labels: The reference labels.
            scratch: Temporary folder for the pixels.

        Raises:
            GeosegError: If scene, model or AOI do not fit.
        """
        from dask.base import compute
        from dask.delayed import delayed

        spec = self.bundle.spec
        options = InferenceOptions(
            aoi=settings.aoi,
            aoi_where=settings.aoi_where,
            blend=settings.blend,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            crs=settings.crs,
            nodata=settings.nodata,
            alpha=settings.alpha,
            chip_px=settings.chip_px,
            halo_px=settings.halo_px,
            tta=settings.tta,
        )
        plan = plan_inference(list(self.files), self.bundle, options)
        several = plan.has_class_raster and not settings.scores_target_only(labels)
        probability = Scratch.create(scratch / "probability", plan.scene.grid.shape)
        classes = Scratch.create(scratch / "classes", plan.scene.grid.shape) if several else None
        interior = Scratch.create(scratch / "interior", plan.scene.grid.shape) if plan.has_interior else None
        threads = plan.open_engine().threads
        blocks = plan.blocks(plan.choose_block_px(threads))

        def predict(block: Block) -> None:
            pixels = predict_block(plan, block)
            probability.write(block.window, pixels.probability)
            if classes is not None and pixels.classes is not None:
                classes.write(block.window, pixels.classes)
            if interior is not None and pixels.interior is not None:
                interior.write(block.window, pixels.interior)

        tasks = [delayed(predict)(block) for block in blocks]
        compute(*tasks, scheduler="threads", num_workers=threads)  # type: ignore[no-untyped-call]
        threshold = spec.threshold if settings.threshold is None else settings.threshold
        names = spec.classes if several else two_classes(spec.classes, spec.target)
        target = names.index(spec.target)
        has_colors = several and len(spec.classes) > 2
        return Prediction(
            grid=plan.scene.grid,
            native=plan.scene.native,
            classes=names,
            target=target,
            predicted=classes or Thresholded(probability, stored_threshold(threshold), target),
            probability=probability,
            threshold=threshold,
            limits=choose_limits(spec.min_area_m2, None),
            surface=interior,
            split_depth=choose_depth(spec.split_depth, has_interior=plan.has_interior),
            generalizer=choose_generalizer("regular", None, plan.scene.grid),
            coefficients=spec.confidence,
            image=plan.scene,
            colors=dict(zip(spec.classes, spec.class_colors, strict=True)) if has_colors else {},
            unscored=tuple(spec.training.get("fit", {}).get("unscored", ())),
            facts={
                "model": spec.name,
                "key": self.bundle.key,
                "inference_precision": plan.precision,
                "tta": settings.tta,
                "threshold": threshold,
            },
        )


def is_run_folder(path: Path) -> bool:
    """Return True if a path is a result folder of `geoseg run`."""
    return (path / "run.json").is_file() and any((path / name).is_file() for name in RUN_RASTERS)


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A result folder of `geoseg run`."""

    folder: Path

    def open(self, settings: EvaluateSettings, labels: Path, scratch: Path) -> Prediction:
        """Open the results; at another threshold than the run's, buildings are outlined again.

        Args:
            settings: See `EvaluateSettings`.
            labels: The reference labels.
            scratch: Not used, as the results are read in place.

        Raises:
            ScoredFileError: If a required file is missing or damaged.
        """
        from geoseg.run.ledger import read_report  # dask is needed for this alone

        folder, threshold = self.folder, settings.threshold
        try:
            report = read_report(LocalStore(folder))
        except RunFolderError as err:
            raise ScoredFileError(str(err)) from err
        if report is None:
            raise ScoredFileError(f"{folder / 'run.json'} is damaged: it is not a JSON object. Run the scene again.")
        model = report.get("model") or {}
        target = str(model.get("target", "building"))
        several = (folder / "classes.tif").is_file() and not settings.scores_target_only(labels)
        names = _class_names(folder) if several else two_classes(model.get("classes", ()), target)
        index = names.index(target)
        raster, probabilities = folder / ("classes.tif" if several else "mask.tif"), folder / "probability.tif"
        probability = StoredRaster(str(probabilities)) if probabilities.is_file() else None
        if threshold is not None and probability is None:
            raise ScoredFileError(
                f"{folder} has no probability.tif, which another threshold requires. Run the scene again."
            )
        grid = grid_of(raster if raster.is_file() else probabilities)
        used = float(report.get("threshold") or 0.5) if threshold is None else threshold
        afresh = threshold is not None or not raster.is_file()
        predicted: Raster = StoredRaster(str(raster))
        if afresh and not several and probability is not None:
            predicted = Thresholded(probability, stored_threshold(used), index)
        elif not several:
            predicted = Chosen(predicted, 1, index)  # in mask.tif the target is 1
        files = [folder / name for name in files_of(DEFAULT_FORMATS)]  # of a GeoPackage, someone may have edited it
        buildings, footprints = None, next((file for file in files if file.is_file()), None)
        if not afresh and footprints is not None:
            buildings = read_buildings(footprints, grid, what="footprints", error=ScoredFileError)
        colors = {}
        if several:
            with _open(raster) as src:
                table = src.colormap(1)
            colors = {name: "#{:02X}{:02X}{:02X}".format(*table[index][:3]) for index, name in enumerate(names)}
        return Prediction(
            grid=grid,
            native=grid,
            classes=names,
            target=index,
            predicted=predicted,
            probability=probability,
            threshold=used,
            buildings=buildings,
            limits=Limits(float(report.get("min_area_m2") or 0.0), float(report.get("fill_holes_m2") or 0.0)),
            generalizer=_generalizer_of(report.get("settings") or {}, grid),
            surface=StoredRaster(str(folder / "interior.tif")) if (folder / "interior.tif").is_file() else None,
            split_depth=report.get("split_depth"),
            coefficients=model.get("confidence") or {},
            image=_image_of(report),
            colors=colors,
            facts={
                "run": str(folder),
                "model": model.get("name"),
                "key": model.get("key"),
                "inference_precision": (report.get("facts") or {}).get("precision"),
                "tta": (report.get("facts") or {}).get("tta"),
                "threshold": used,
            },
        )


def _generalizer_of(settings: dict[str, Any], grid: Grid) -> Generalizer:
    """Return what outlined the buildings of a run; older runs have a tolerance in pixels."""
    if "simplify_px" in settings:
        return Simplify(float(settings["simplify_px"]))
    return choose_generalizer(settings.get("outline", "regular"), settings.get("tolerance_m"), grid)


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the category names that GDAL stores beside the class raster."""
    path = folder / "classes.tif.aux.xml"
    try:
        found = [category.text or "" for category in ElementTree.parse(path).iter("Category")]
    except (OSError, ElementTree.ParseError) as err:
        raise ScoredFileError(f"The class names in {path} cannot be read ({err}). Run the scene again.") from err
    if len(found) < 2:
        raise ScoredFileError(f"{path} has {len(found)} class names; several are expected. Run the scene again.")
    return tuple(found)


def _image_of(report: dict[str, Any]) -> Scene | None:
    """Open the scene of a run for the picture; None if it no longer exists."""
    scene = report.get("scene") or {}
    if not scene.get("paths"):
        return None
    try:
        given = report.get("settings") or {}
        found = open_scene(scene["paths"], crs=given.get("crs"), nodata=given.get("nodata"), alpha=given.get("alpha"))
        return found.with_bands(scene["bands"]) if scene.get("bands") else found
    except GeosegError as err:
        log.info("The picture will not show the image: %s", err)
        return None


@dataclass(frozen=True, slots=True)
class ScoredFiles:
    """A mask, footprints or both, written by any tool.

    Attributes:
        mask: Class raster; None if only footprints are scored.
        images: Files of the scene, for the picture and, without a mask, for the grid; may be empty.
    """

    mask: Path | None
    images: tuple[str, ...]

    def open(self, settings: EvaluateSettings, labels: Path, scratch: Path) -> Prediction:
        """Open the mask and the footprints of the settings.

        Args:
            settings: See `EvaluateSettings`.
            labels: The reference labels.
            scratch: Temporary folder for the pixels.

        Raises:
            ScoredFileError: If a file cannot be read or does not overlap the scene.
            UsageError: If there is no grid, or the target is not one of the classes.
        """
        mask, footprints = self.mask, settings.footprints
        image = None
        if self.images:
            image = open_scene(list(self.images), crs=settings.crs, nodata=settings.nodata, alpha=settings.alpha)
        names, index = _name_classes(settings.classes if mask is not None else (), settings.target)
        if mask is not None:
            grid = grid_of(mask)
        elif image is not None:
            grid = image.grid
        elif is_raster(labels):
            grid = grid_of(labels)
        else:
            raise UsageError(
                "Footprints and labels are both polygons, which have no pixels. Give the scene too: its pixels and its "
                "extent are used for the scores."
            )
        buildings = None
        if footprints is not None:
            buildings = read_buildings(
                footprints, grid, what="footprints", error=ScoredFileError, confidence=settings.confidence
            )
            if not buildings.is_on(grid):
                raise ScoredFileError(describe_mismatch(footprints, grid, "footprints"))
        counts = np.zeros(256, np.int64) if mask is not None else None
        if mask is not None:
            coding = plan_labels(names, names[index], settings.mask_codes, argument="mask_codes")

            def read(window: Window) -> Bytes:
                return read_labels(mask, grid.crop(window), coding=coding, native=grid, counts=counts)

            try:
                pixels = Scratch.fill(scratch / "mask", grid.shape, read)
            except LabelError as err:
                problem = str(err).replace("`codes` (in a recipe: values)", "`mask_codes`")
                hint = "" if "`mask_codes`" in problem else ". Explain its values in `mask_codes`"
                raise ScoredFileError(f"The mask cannot be scored: {problem}{hint}.") from err
        else:
            assert buildings is not None
            pixels = Scratch.fill(scratch / "mask", grid.shape, buildings.burn)
        _leave_out_nodata(pixels, grid, image)
        predicted: Raster = pixels
        if settings.scores_target_only(labels) and len(names) > 2:
            predicted, names = Chosen(pixels, index), two_classes((), names[index])
            if counts is not None:
                others = counts[:IGNORED].sum() - counts[index]
                counts = np.bincount([0, 1, IGNORED], (others, counts[index], counts[IGNORED])).astype(np.int64)
            index = 1
        return Prediction(
            grid=grid,
            native=grid,
            classes=names,
            target=index,
            predicted=predicted,
            buildings=buildings,
            image=image,
            mask_counts=counts,
            facts={"mask": mask and str(mask), "footprints": footprints and str(footprints)},
        )


def _leave_out_nodata(pixels: Scratch, grid: Grid, image: Scene | None) -> None:
    """Set pixels to nodata where the scene has no data, so that all tools are judged on the same ground."""
    if image is None or not image.has_mask:
        return
    step = max(abs(value) for value in (grid.transform.a, grid.transform.b, grid.transform.d, grid.transform.e))
    corners = zip(grid.corners, image.native.corners, strict=True)
    apart = max(abs(a - b) for one, other in corners for a, b in zip(one, other, strict=True))
    if grid.crs != image.native.crs or apart > step / 2:
        log.warning("The nodata pixels of %s are scored, as the mask has another extent.", image.name)
        return
    scene = image.at_shape(grid.shape)
    for strip in strips(grid.shape):
        found = pixels.read(strip)
        found[~scene.read(strip).valid] = NODATA
        pixels.write(strip, found)


def _name_classes(classes: Sequence[str], target: str) -> tuple[tuple[str, ...], int]:
    """Return the classes of a mask and the index of the target: as given, or else `building`, or else the last."""
    if len(classes) < 2:
        return two_classes((), target or (classes[0] if classes else "building")), 1
    if target and target not in classes:
        raise UsageError(f"`target={target!r}` is not one of the classes {', '.join(classes)}.")
    return tuple(classes), classes.index(target or ("building" if "building" in classes else classes[-1]))


def two_classes(classes: Sequence[str], target: str) -> tuple[str, str]:
    """Return two classes in their order, as labels number them; else the background of all others, and the target."""
    return (classes[0], classes[1]) if len(classes) == 2 else ("background", target)


def _open(path: Path) -> Any:
    try:
        with allow_no_georeference():
            return open_raster(str(path))
    except GDAL_ERRORS as err:
        raise ScoredFileError(f"{path} cannot be opened as a raster ({err}). Check it with `gdalinfo`.") from err


def grid_of(path: Path) -> Grid:
    """Return the grid of a raster.

    Raises:
        ScoredFileError: If GDAL cannot open it.
        GeoreferenceError: If its transform gives the pixels no place or no area.
    """
    with _open(path) as src:
        return read_grid(src, str(path))
