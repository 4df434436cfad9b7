"""From a recipe's sources to prepared scenes: what is trained on, and what is validated on."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.datasets.auxiliary import Widths, draw_auxiliary, outline_components
from geoseg.datasets.coding import UNKNOWN, Coding, class_indices, plan_coding
from geoseg.datasets.labels import IGNORED, UNSURE, Labels, rasterize_areas, read_labels, read_outlines
from geoseg.datasets.prepared import is_known, is_prepared, write_prepared
from geoseg.datasets.splits import PARTS
from geoseg.errors import LabelError, RecipeError, UsageError
from geoseg.grid import Grid, Window, fit_lattice, reflect_indices
from geoseg.io.fingerprint import fingerprint
from geoseg.io.suffixes import is_raster
from geoseg.io.vectors import to_pixels
from geoseg.scene import Scene, open_scene
from geoseg.training.places import check_places
from geoseg.training.recipe import Recipe, Source
from geoseg.training.source_files import SourcePart, find_parts

__all__ = ["PreparedSource", "coding_of", "prepare_source", "prepare_sources", "quiet_scenes"]

log = logging.getLogger(__name__)

_VERSION = 4
"""Raised when the meaning of prepared files changes, so that old ones are not used."""

_SHOWN = 3
_LARGE_PX = 4_000_000
"""Pixels from which a part that is prepared gets a log line of its own."""

_ELSEWHERE = (
    *("name", "weight", "layout", "root", "images", "labels", "exclude", "areas", "validate_scenes", "test_scenes"),
    *("split", "split_file", "fold", "paint_seeds", "distill"),
)
"""Keys of a source that decide which files are used and how, not their pixels."""


def coding_of(recipe: Recipe, source: Source) -> Coding:
    """Return what the masks of a source mean.

    Raises:
        RecipeError: The source's colors or values cannot be used.
    """
    return plan_coding(
        recipe.network.classes,
        target=recipe.network.target_class,
        colors=source.colors or recipe.network.colors,
        also=source.also,
        values=source.values,
        instances=source.instances,
        where=f"sources.{source.name}.",
    )


@dataclass(frozen=True)
class PreparedSource:
    """Prepared files of one source; `test` is filled only where it is asked for."""

    name: str
    weight: float
    train: tuple[Path, ...]
    validate: tuple[Path, ...]
    test: tuple[Path, ...] = ()
    distill: bool = False


def prepare_sources(recipe: Recipe, *, data: Path, cache: Path, test: bool = False) -> list[PreparedSource]:
    """Prepare every source of a recipe, and check that together they teach every class.

    Args:
        recipe: The recipe.
        data: Folder that the sources' paths are relative to.
        cache: Folder of the prepared files; what is already there is used.
        test: Prepare what is held out for testing too.

    Raises:
        RecipeError: A source finds no image, or none for training.
        LabelError: Labels are missing, do not fit, have unknown values, or lack a class.
    """
    if not any(source.weight for source in recipe.sources):
        raise RecipeError("no source has a weight above 0; expected one at least to train on")
    sources = [prepare_source(source, recipe, data=data, cache=cache, test=test) for source in recipe.sources]
    _check_classes(sources, recipe)
    return sources


def prepare_source(source: Source, recipe: Recipe, *, data: Path, cache: Path, test: bool = False) -> PreparedSource:
    """Bring a source's imagery and labels to the GSD, bands and classes of a recipe, once; see `prepare_sources`."""
    coding_of(recipe, source)
    parts = find_parts(source, data=data, results=cache.parent, seed=recipe.fit.seed)
    parts = [part for part in parts if part.part != "test" or (test and part.labels)]
    check_places(source, parts)
    files: dict[str, list[Path]] = {part: [] for part in PARTS}
    faults: list[LabelError] = []
    with quiet_scenes():
        for part in parts:
            name = "".join(c if c.isalnum() or c in "._-" else "_" for c in part.name)
            path = cache / source.name / f"{name}-{part.part}-{_key(part, recipe)}.npy"
            try:
                if not is_prepared(path):
                    _prepare(part, recipe, path)
            except LabelError as err:
                faults.append(err)
            else:
                files[part.part].append(path)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        listed = "; ".join(map(str, faults[:_SHOWN]))
        raise LabelError(f"sources.{source.name}: {len(faults)} of {len(parts)} images cannot be used: {listed}{more}")
    counts = ", ".join(f"{len(paths)} {part}" for part, paths in files.items() if paths)
    log.info("sources.%s: %s files", source.name, counts)
    prepared = {part: tuple(files[part]) for part in PARTS}
    return PreparedSource(name=source.name, weight=source.weight, distill=source.distill, **prepared)


@contextmanager
def quiet_scenes() -> Iterator[None]:
    """Silence the log lines of scenes: hundreds of images would repeat them hundreds of times."""
    logger = logging.getLogger("geoseg.scene")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _key(part: SourcePart, recipe: Recipe) -> str:
    """Hash all that decides the prepared pixels, the fingerprints of the files included."""
    network = recipe.network
    about = {k: v for k, v in asdict(part.source).items() if k not in _ELSEWHERE and v is not None}
    target = {"gsd_m": recipe.gsd_m, "bands": network.bands, "stretched": _is_stretched(recipe)}
    target |= {"classes": network.classes, "target": network.target_class, "colors": network.colors}
    if network.auxiliary:
        widths = {
            k: v for k, v in asdict(recipe.auxiliary).items() if k in ("edge_m", "contact_m", "distance_m", "single_m2")
        }
        target |= {"auxiliary": network.auxiliary, **widths}
    chips = (recipe.chip_px, recipe.halo_px, network.stride_px) if part.part == "validate" else ()
    files = [fingerprint([path]) for path in (part.image, part.labels, part.areas) if path]
    text = json.dumps([_VERSION, about, part.seed, part.part, target, chips, files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _is_stretched(recipe: Recipe) -> bool:
    """Return True where pixels that are not 8-bit are brought to 0-255, as in `geoseg run`; else they are kept."""
    return recipe.network.pixel_max == 255


@dataclass(frozen=True, slots=True)
class _PartPixels:
    """The pixels of a part.

    Attributes:
        image: (band, y, x).
        truth: (y, x) class indices.
        valid: (y, x), True where the image has data.
        inside: (y, x), True in the part's area.
        outlines: Those of single buildings, in pixels; None if only the truth is known.
        clipped: Whether the outlines end at the border of the image and at pixels without a label.
        facts: For the .json.
    """

    image: NDArray[Any]
    truth: Labels
    valid: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    outlines: NDArray[Any] | None
    clipped: bool
    facts: dict[str, Any]


def _prepare(part: SourcePart, recipe: Recipe, path: Path) -> None:
    """Read or paint a part, and write it with the counts of its pixels by class; `unknown` have no label."""
    source = part.source
    read = _paint(part, recipe) if part.image is None else _read(part, part.image, recipe)
    truth = read.truth
    if not source.complete:
        truth = np.where(truth == coding_of(recipe, source).target[1], np.uint8(UNSURE), truth)
    auxiliary = _draw_auxiliary(read, truth, recipe, coding_of(recipe, source).target[0])
    truth = np.where(read.inside & read.valid, truth, np.uint8(IGNORED))
    known = 100 * float(is_known(truth).mean())
    if not known:
        log.warning("%s %s: no pixel of its %s part has a label", source.name, part.name, part.part)
    level = logging.INFO if truth.size > _LARGE_PX else logging.DEBUG
    log.log(level, "prepared %s %s %s: %s px, %.0f %% labeled", source.name, part.name, part.part, truth.shape, known)
    found = np.bincount(truth[read.inside & read.valid], minlength=256)
    indices = class_indices(recipe.network.classes)
    about = {
        "source": source.name,
        "scene": part.name,
        "part": part.part,
        **read.facts,
        "counts": {name: int(found[index]) for name, index in indices.items() if index != IGNORED},
        "unsure": int(found[UNSURE]),
        "unknown": int(found[IGNORED]),
        "nodata": int((read.inside & ~read.valid).sum()),
    }
    if auxiliary is not None:
        about["auxiliary"] = list(recipe.network.auxiliary)
        auxiliary = np.where(truth == IGNORED, np.uint8(IGNORED), auxiliary)
    write_prepared(path, read.image, truth, about=about, valid=read.valid, auxiliary=auxiliary)


def _draw_auxiliary(read: _PartPixels, truth: Labels, recipe: Recipe, target: int) -> NDArray[np.uint8] | None:
    """Draw the recipe's auxiliary channels (channel, y, x); None if it has none."""
    if not recipe.network.auxiliary:
        return None
    spec, gsd_m = recipe.auxiliary, recipe.gsd_m
    widths = Widths(spec.edge_m / gsd_m, spec.contact_m / gsd_m, spec.distance_m / gsd_m, spec.single_m2 / gsd_m**2)
    outlines, single = read.outlines, read.outlines is not None
    if outlines is None:
        outlines = outline_components(truth == target)
    return draw_auxiliary(
        recipe.network.auxiliary, outlines, truth, target, widths, single=single, clipped=read.clipped
    )


def _read(part: SourcePart, image: Path, recipe: Recipe) -> _PartPixels:
    """Read a part, cut to its area; a validation part with the context of its chips."""
    assert part.labels is not None
    source = part.source
    scene = _open(source, image, recipe)
    inside = _mark_area(part, scene.grid)
    window = _hull(inside, source.name, part.part)
    if part.part == "validate":
        window = _reach(window, scene.grid, recipe)
    inside = inside[window.slices]
    truth = read_labels(
        part.labels,
        scene.grid.crop(window),
        coding=coding_of(recipe, source),
        native=scene.native,
        layer=source.layer,
        column=source.label_column,
        empty_ok=source.empty_ok,
    )
    outlines = None
    if recipe.network.auxiliary:
        outlines = read_outlines(
            part.labels,
            scene.grid.crop(window),
            coding=coding_of(recipe, source),
            native=scene.native,
            layer=source.layer,
            column=source.label_column,
        )
    pixels = scene.read(window)
    facts = {
        "image": str(image),
        "labels": str(part.labels),
        "bands": scene.band_count,
        "used_bands": list(scene.bands),
        "dtype": scene.dtype,
        "file_shape": list(scene.native.shape),
        "file_gsd_m": scene.native.gsd_m,
        "gsd_m": scene.grid.gsd_m,
        "crs": scene.grid.crs.to_wkt() if scene.grid.crs else None,
        "transform": list(scene.grid.transform)[:6],
        "origin": [window.row, window.col],
        "scene_shape": list(scene.grid.shape),
        "shape": list(window.shape),
    }
    is_stored = pixels.values.dtype in (np.uint8, np.uint16)
    values = pixels.values if is_stored else pixels.values.astype(np.float32)
    return _PartPixels(values, truth, pixels.valid, inside, outlines, is_raster(part.labels), facts)


def _open(source: Source, image: Path, recipe: Recipe) -> Scene:
    """Open an image as inference would: its bands, its levels, its grid.

    Bands follow the rule of `geoseg.inference.choose_bands`.
    """
    try:
        scene = open_scene(image, bands=source.bands or None, nodata=source.nodata, alpha=source.alpha)
    except UsageError as err:
        raise RecipeError(f"sources.{source.name}.nodata cannot be used: {err}") from err
    wanted = len(recipe.network.bands)
    found = scene.bands if source.bands or wanted <= len(scene.bands) else scene.data_bands
    if len(found) == 1:
        found *= wanted
    elif len(found) < wanted or (source.bands and len(found) != wanted):
        raise RecipeError(
            f"sources.{source.name}: {scene.paths[0]} has {len(found)} bands ({', '.join(map(str, found))} of "
            f"{scene.band_count}); expected {wanted}, one for each of network.bands: name them in sources.{source.name}"
            ".bands"
        )
    scene = scene.with_bands(found[:wanted])
    if source.gsd_m and scene.native.crs is None:
        height, width = (max(1, round(n * source.gsd_m / recipe.gsd_m)) for n in scene.native.shape)
        scene = scene.at_shape((height, width))
    scene = scene.at_gsd(recipe.gsd_m) if scene.native.crs is not None else scene
    return scene.with_levels() if _is_stretched(recipe) else scene


def _mark_area(part: SourcePart, grid: Grid) -> NDArray[np.bool_]:
    """Mark the pixels of a part: the named areas, less or only their eastern strip, or the middle."""
    source, what = part.source, part.part
    from_training = what == "train" or bool(source.validate_east or source.validate_west)
    names = source.train if from_training else source.validate
    inside = rasterize_areas(part.areas, names, grid) if part.areas else np.ones(grid.shape, bool)
    if source.validate_east:
        hull = _hull(inside, source.name, what)
        border = hull.cols.stop - round(hull.width * source.validate_east)
        inside[:, border:] &= what == "validate"
        inside[:, :border] &= what == "train"
    if source.validate_west:
        hull = _hull(inside, source.name, what)
        border = hull.cols.start + round(hull.width * source.validate_west)
        inside[:, :border] &= what == "validate"
        inside[:, border:] &= what == "train"
    if what == "validate" and source.validate_px:
        hull, px = _hull(inside, source.name, what), source.validate_px
        row, col = hull.row + max(0, (hull.height - px) // 2), hull.col + max(0, (hull.width - px) // 2)
        middle = np.zeros_like(inside)
        middle[row : row + px, col : col + px] = True
        inside &= middle
    return inside


def _hull(inside: NDArray[np.bool_], name: str, part: str) -> Window:
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        raise RecipeError(f"sources.{name}: the {part} area is outside the image")
    return Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1))


def _reach(window: Window, grid: Grid, recipe: Recipe) -> Window:
    """Return the window of all pixels that chips over a window see, on inference's own lattice."""
    lattice = fit_lattice(
        grid.shape, chip_px=recipe.chip_px, halo_px=recipe.halo_px, multiple_px=recipe.network.stride_px
    )
    spans = []
    for side, core, size in zip(window.slices, lattice.core, grid.shape, strict=True):
        first, last = side.start // core, (side.stop - 1) // core
        seen = reflect_indices(first * core - lattice.halo_px, (last + 1) * core + lattice.halo_px, size)
        spans.append((int(seen.min()), int(seen.max() - seen.min()) + 1))
    (row, height), (col, width) = spans
    return Window(row, col, height, width)


def _paint(part: SourcePart, recipe: Recipe) -> _PartPixels:
    """Paint a scene with its truth; all of it is valid."""
    from rasterio.features import rasterize

    from geoseg.testing import paint_scene

    bands = len(recipe.network.bands)
    if bands != 3:
        raise RecipeError(
            f"sources.{part.source.name} is painted in 3 bands, and the network has {bands}. Remove this source."
        )
    source = part.source
    scene = paint_scene(part.seed, size_px=source.paint_size_px, gsd_m=recipe.gsd_m, kind=source.paint_kind)
    building, other = coding_of(recipe, part.source).target
    shapes = [(shape, building) for shape in scene.footprints]
    truth = rasterize(shapes, scene.grid.shape, fill=other, transform=scene.grid.transform, dtype="uint8")
    facts = {"bands": 3, "dtype": "uint8", "file_shape": list(truth.shape), "shape": list(truth.shape)}
    gsd = {"file_gsd_m": scene.grid.gsd_m, "gsd_m": scene.grid.gsd_m}
    everywhere = np.ones(truth.shape, bool)
    outlines = to_pixels(np.array(scene.footprints, dtype=object), scene.grid)
    return _PartPixels(scene.image, truth, everywhere, everywhere, outlines, True, facts | gsd)


def _check_classes(sources: Sequence[PreparedSource], recipe: Recipe) -> None:
    """Refuse training labels that lack a class that the network should learn; warn if validation lacks one."""
    for source in sources:
        _check_ground(source, _total(iter(source.train)), recipe)
    trained = _total(path for source in sources if source.weight > 0 for path in source.train)
    pixels = max(1, sum(trained.values()))
    shares = ", ".join(f"{name} {100 * count / pixels:.1f} %" for name, count in trained.items() if count)
    log.info("training labels: %.1f Mpx, %s", pixels / 1e6, shares)
    missing = [name for name in recipe.network.classes if not trained[name]]
    strict = [name for name in missing if name not in recipe.fit.unscored]
    if missing and not strict:
        log.warning(
            "the class %s is not in the training data; it is in fit.unscored, so training continues", missing[0]
        )
    if strict:
        counts = ", ".join(f"{name} {count} px" for name, count in trained.items())
        raise LabelError(
            f"the class {strict[0]} is not in the training data ({counts}). Add images of it, leave it out of "
            f"network.classes, or name it in fit.unscored; masks of 0 and 255 need values = "
            f'{{"255" = "{recipe.network.target_class}"}}'
        )
    validated = _total(path for source in sources for path in source.validate)
    absent = [name for name in recipe.network.classes if not validated[name] and name not in recipe.fit.unscored]
    if absent and any(source.validate for source in sources):
        log.warning("the class %s is not in the validation data: it cannot be scored", absent[0])


def _check_ground(source: PreparedSource, counts: Mapping[str, int], recipe: Recipe) -> None:
    """Refuse labels of one class or two of which all is unknown but the target: everything would become a building."""
    target = recipe.network.target_class
    others = [name for name in class_indices(recipe.network.classes) if name not in (target, UNKNOWN)]
    if len(others) == 1 and counts["unknown"] and not counts["unsure"] and not counts[others[0]]:
        raise LabelError(
            f"sources.{source.name}: the labels have no {others[0]}, only {counts[target]:,} px of {target} and "
            f"{counts['unknown']:,} px that are unknown (nodata, alpha or 255). If these are {others[0]}, say which "
            f'value they have: values = {{"0" = "{others[0]}"}}; give masks with alpha or a mask band without it '
            "(gdal_translate -b 1 -mask none)"
        )


def _total(paths: Iterator[Path]) -> Counter[str]:
    """Add up the counts of prepared scenes, in the order of the classes."""
    total: Counter[str] = Counter()
    for path in paths:
        about = json.loads(path.with_suffix(".json").read_text())
        total.update({**about["counts"], "unsure": about["unsure"], "unknown": about["unknown"]})
    return total
