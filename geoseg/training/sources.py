"""From a recipe's sources to prepared scenes: what is trained on, and what is validated on."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.datasets.coding import class_indices
from geoseg.datasets.labels import IGNORED, UNSURE, Labels, rasterize_areas, read_labels
from geoseg.datasets.layouts import LAYOUTS, Pair, Rule, find_pairs, is_chosen, is_template
from geoseg.datasets.prepared import is_known, is_prepared, write_prepared
from geoseg.datasets.splits import PARTS, Split, draw_fold, draw_split, read_split, write_split
from geoseg.errors import LabelError, RecipeError
from geoseg.grid import Grid, Window, reflect_indices
from geoseg.scene import Scene, open_scene
from geoseg.training.demand import Demand, plan_demand
from geoseg.training.recipe import Recipe, Source

__all__ = ["PreparedSource", "prepare_source", "prepare_sources", "quiet_scenes"]

log = logging.getLogger(__name__)

_VERSION = 2
"""Raised when the prepared files change meaning, so that old ones are made anew."""

_SHOWN = 3
_LARGE_PX = 4_000_000
"""Pixels from which a part that is prepared gets a log line of its own."""

_ELSEWHERE = (
    *("name", "weight", "layout", "root", "images", "labels", "exclude", "areas", "validate_scenes", "test_scenes"),
    *("split", "split_file", "fold", "paint_seeds"),
)
"""Keys of a source that decide which files serve, not what they become."""


@dataclass(frozen=True)
class PreparedSource:
    """Prepared files of one source; `test` is filled only where it is asked for."""

    name: str
    weight: float
    train: tuple[Path, ...]
    validate: tuple[Path, ...]
    test: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Job:
    """One part of one image, to be prepared; painted scenes have a seed instead of an image."""

    source: Source
    demand: Demand
    data: Path
    part: str
    name: str
    image: Path | None = None
    labels: Path | None = None
    seed: int = 0


def prepare_sources(recipe: Recipe, *, data: Path, cache: Path, test: bool = False) -> list[PreparedSource]:
    """Prepare every source of a recipe, and check that together they teach every class.

    Args:
        recipe: the recipe.
        data: folder that the sources' paths start from.
        cache: folder of the prepared files; what is already there is used.
        test: prepare what is held out for testing too.

    Raises:
        RecipeError: a source finds no image, or none for training.
        LabelError: labels are missing, do not fit, hold unknown values, or lack a class.
    """
    if not any(source.weight for source in recipe.sources):
        raise RecipeError("no source has a weight above 0; expected one at least to train on")
    demand = plan_demand(recipe)
    sources = [prepare_source(s, data=data, cache=cache, demand=demand, test=test) for s in recipe.sources]
    _check_classes(sources, demand)
    return sources


def prepare_source(source: Source, *, data: Path, cache: Path, demand: Demand, test: bool = False) -> PreparedSource:
    """Bring a source's imagery and truth to what a recipe demands, once.

    Args:
        source: what the recipe says.
        data: folder that the source's paths start from.
        cache: folder of the prepared files; what is already there is used.
        demand: GSD, bands and classes.
        test: prepare what is held out for testing too.

    Raises:
        RecipeError: the source finds no image, or none for training.
        LabelError: labels are missing, do not fit, or hold unknown values.
    """
    demand.coding_of(source)
    jobs = [job for job in _jobs(source, data, cache, demand) if job.part != "test" or (test and job.labels)]
    files: dict[str, list[Path]] = {part: [] for part in PARTS}
    faults: list[LabelError] = []
    with quiet_scenes():
        for job in jobs:
            try:
                files[job.part].append(_prepared(job, cache))
            except LabelError as err:
                faults.append(err)
    _raise_faults(source, faults, len(jobs))
    counts = ", ".join(f"{len(paths)} {part}" for part, paths in files.items() if paths)
    log.info("sources.%s: %s files", source.name, counts)
    return PreparedSource(source.name, source.weight, *(tuple(files[part]) for part in PARTS))


@contextmanager
def quiet_scenes() -> Iterator[None]:
    """Leave out what a scene says of itself: hundreds of pictures would say it hundreds of times."""
    logger = logging.getLogger("geoseg.scene")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _raise_faults(source: Source, faults: Sequence[LabelError], total: int) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        listed = "; ".join(map(str, faults[:_SHOWN]))
        raise LabelError(f"sources.{source.name}: {len(faults)} of {total} images cannot be used: {listed}{more}")


def _jobs(source: Source, data: Path, cache: Path, demand: Demand) -> list[_Job]:
    """Return what there is to prepare, and refuse a source that trains on nothing."""
    if source.paint_seeds:
        pairs, seeds = [], {f"painted_{seed}": seed for seed in range(*source.paint_seeds)}
        split = _split(source, list(seeds), data, cache, demand.seed)
        jobs = [_Job(source, demand, data, part, name, seed=seeds[name]) for part in PARTS for name in split[part]]
    else:
        pairs = find_images(source, data)
        jobs = [_Job(source, demand, data, *found) for found in _parts(source, pairs, data, cache, demand.seed)]
    counts = Counter(job.part for job in jobs)
    if not counts["train"] and source.weight > 0:
        held = f"{counts['validate']} validate, {counts['test']} test"
        raise RecipeError(f"sources.{source.name} has no training scene; {held}, of {len(pairs) or len(jobs)} images")
    if source.validate_east:
        jobs += [replace(job, part="validate") for job in jobs if job.part == "train"]
    return jobs


def find_images(source: Source, data: Path) -> list[Pair]:
    """Find a source's images and the labels of each.

    Args:
        source: what the recipe says.
        data: folder that the source's paths start from.

    Raises:
        RecipeError: there is no image.
        LabelError: labels are missing.
    """
    if source.layout or is_template(source.images):
        rules = LAYOUTS[source.layout] if source.layout else (Rule(source.images, (source.labels,)),)
        pairs = find_pairs(data / source.root, rules, exclude=source.exclude)
        what = f"layout = {source.layout!r}" if source.layout else f"images = {source.images!r}"
    else:
        names = _named(sorted((data / source.root).glob(source.images)))
        kept = {name: path for name, path in names.items() if not is_chosen(name, source.exclude)}
        pairs, what = _with_labels(source, kept, data / source.root), f"images = {source.images!r}"
    if not pairs:
        raise RecipeError(f"sources.{source.name}.{what} finds nothing in {data / source.root}; give --data")
    return pairs


def find_names(source: Source, data: Path) -> list[str]:
    """Return the names that a split or folds deal out: of painted scenes too, without those held out for testing.

    Args:
        source: what the recipe says.
        data: folder that the source's paths start from.

    Raises:
        RecipeError: there is no image.
        LabelError: labels are missing.
    """
    if source.paint_seeds:
        names = [f"painted_{seed}" for seed in range(*source.paint_seeds)]
    else:
        names = [pair.name for pair in find_images(source, data) if pair.split in ("", "train")]
    return [name for name in names if not is_chosen(name, source.test_scenes)]


def _named(images: Sequence[Path]) -> dict[str, Path]:
    """Name images by their stems, or by their folders too where stems repeat."""
    stems = Counter(path.stem for path in images)
    return {
        path.stem if stems[path.stem] == 1 else f"{path.parent.parent.name}/{path.parent.name}/{path.stem}": path
        for path in images
    }


def _with_labels(source: Source, images: dict[str, Path], root: Path) -> list[Pair]:
    """Give each image the one label file there is, or the one of its name in a folder."""
    labels = root / source.labels
    if not labels.is_dir():
        return [Pair(name, image, labels) for name, image in images.items()]
    beside = {path.stem: path for path in sorted(labels.iterdir())}
    missing = [str(image) for image in images.values() if image.stem not in beside]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise LabelError(
            f"{len(missing)} of {len(images)} images ({', '.join(missing[:_SHOWN])}{more}) have no labels in {labels}; "
            "expected a file of the same name, or exclude the images"
        )
    twice = [name for name in images if "/" in name]
    if twice:
        raise LabelError(f"images of one name in several folders ({twice[0]}) share labels in {labels}; use a template")
    return [Pair(name, image, beside[image.stem]) for name, image in images.items()]


def _parts(
    source: Source, pairs: Sequence[Pair], data: Path, cache: Path, seed: int
) -> Iterator[tuple[str, str, Path, Path | None]]:
    """Yield the part, the name, the image and the labels of everything that serves."""
    free = [pair.name for pair in pairs if pair.split in ("", "train")]
    split = _split(source, free, data, cache, seed)
    for part in PARTS:
        chosen = set(split[part])
        for pair in pairs:
            own = pair.split in ("", "train")
            if (own and pair.name in chosen) or (not own and pair.split == part):
                yield part, pair.name, pair.image, pair.labels


def _split(source: Source, names: Sequence[str], data: Path, cache: Path, seed: int) -> Split:
    """Return which names train, validate and test; with areas an image may do both."""
    held = tuple(name for name in names if is_chosen(name, source.test_scenes))
    left = [name for name in names if not is_chosen(name, source.test_scenes)]
    if source.areas:
        train, validate = (tuple(left) if areas else () for areas in (source.train, source.validate))
        split = {"train": train, "validate": validate, "test": ()}
    elif source.split_file:
        split = _kept_split(source, left, data, cache, seed)
    elif source.split:
        split = draw_split(left, source.split, seed)
    elif source.fold:
        fold, folds = source.fold
        split = draw_fold(left, fold, folds, seed)
    else:
        chosen = {name: is_chosen(name, source.validate_scenes) for name in left}
        train, validate = (tuple(n for n in left if chosen[n] == wanted) for wanted in (False, True))
        split = {"train": train, "validate": validate, "test": ()}
    return split | {"test": (*split["test"], *held)}


def _kept_split(source: Source, names: Sequence[str], data: Path, cache: Path, seed: int) -> Split:
    """Read the split of a file; draw it once where there is none, beside the data or else beside the results."""
    places = [data / source.split_file, cache.parent / source.split_file]
    for place in places:
        if place.exists():
            return read_split(place, names)
    if not source.split:
        raise RecipeError(
            f"sources.{source.name}.split_file = {source.split_file!r} is not in {data}; expected the file, or split = "
            "[0.9, 0.05, 0.05] to draw it"
        )
    split = draw_split(names, source.split, seed)
    try:
        path = write_split(places[0], split)
    except RecipeError:
        path = write_split(places[1], split)
    log.info("sources.%s: the split is drawn and kept in %s", source.name, path)
    return split


def _prepared(job: _Job, cache: Path) -> Path:
    """Return the prepared file of a job, made if it is not there."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in job.name)
    path = cache / job.source.name / f"{name}-{job.part}-{_key(job)}.npy"
    if not is_prepared(path):
        _prepare(job, path)
    return path


def _key(job: _Job) -> str:
    """Hash all that decides the prepared pixels, the files' sizes and times included."""
    about = {k: v for k, v in asdict(job.source).items() if k not in _ELSEWHERE}
    demand = job.demand
    chips = (demand.chip_px, demand.halo_px, demand.stride_px) if job.part == "validate" else ()
    files = [p for p in (job.image, job.labels, job.data / job.source.areas if job.source.areas else None) if p]
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]
    text = json.dumps([_VERSION, about, job.seed, job.part, demand.to_dict(), chips, stamps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class _Part:
    """A part: image (band, y, x), truth, what is valid, what lies in the part's area; facts of the file."""

    image: NDArray[Any]
    truth: Labels
    valid: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    facts: dict[str, Any]


def _prepare(job: _Job, path: Path) -> None:
    part = _paint(job) if job.image is None else _read(job)
    truth = part.truth
    if not job.source.complete:
        truth = np.where(truth == job.demand.coding_of(job.source).target[1], np.uint8(UNSURE), truth)
    about = {"source": job.source.name, "scene": job.name, "part": job.part}
    known = 100 * float(is_known(truth).mean())
    if not known:
        log.warning("%s %s: no pixel of its %s part has truth", job.source.name, job.name, job.part)
    level = logging.INFO if truth.size > _LARGE_PX else logging.DEBUG
    log.log(level, "prepared %s %s %s: %s px, %.0f %% known", job.source.name, job.name, job.part, truth.shape, known)
    about |= part.facts | _counts(truth, part, job.demand)
    write_prepared(path, part.image, truth, about=about, valid=part.valid)


def _counts(truth: Labels, part: _Part, demand: Demand) -> dict[str, Any]:
    """Count the pixels of a part's area by class; `unknown` have imagery and no truth."""
    found = np.bincount(truth[part.inside & part.valid], minlength=256)
    counts = {name: int(found[i]) for name, i in class_indices(demand.classes).items() if i != IGNORED}
    nodata = int((part.inside & ~part.valid).sum())
    return {"counts": counts, "unsure": int(found[UNSURE]), "unknown": int(found[IGNORED]), "nodata": nodata}


def _read(job: _Job) -> _Part:
    """Read a part, cut to its area; a validation part with the context of its chips."""
    assert job.image is not None
    assert job.labels is not None
    source = job.source
    scene = _open(job)
    inside = _area(job, scene.grid)
    window = _hull(inside, source.name, job.part)
    if job.part == "validate":
        window = _reach(window, scene.grid, job.demand)
    inside = inside[window.slices]
    truth = read_labels(
        job.labels,
        scene.grid.crop(window),
        coding=job.demand.coding_of(source),
        native=scene.native,
        layer=source.layer,
        column=source.label_column,
        empty_ok=source.empty_ok,
    )
    pixels = scene.read(window)
    truth[~(inside & pixels.valid)] = IGNORED
    return _Part(_stored(pixels.values), truth, pixels.valid, inside, _facts(job, scene, window))


def _facts(job: _Job, scene: Scene, window: Window) -> dict[str, Any]:
    return {
        "image": str(job.image),
        "labels": str(job.labels),
        "bands": scene.band_count,
        "used_bands": list(scene.bands),
        "dtype": scene.dtype,
        "file_shape": list(scene.native.shape),
        "file_gsd_m": scene.native.gsd_m,
        "gsd_m": scene.grid.gsd_m,
        "crs": scene.grid.crs.to_wkt() if scene.grid.crs else None,
        "origin": [window.row, window.col],
        "scene_shape": list(scene.grid.shape),
        "shape": list(window.shape),
    }


def _stored(values: NDArray[Any]) -> NDArray[Any]:
    """Return pixels in a type that is stored."""
    return values if values.dtype in (np.uint8, np.uint16) else values.astype(np.float32)


def _open(job: _Job) -> Scene:
    """Open an image as inference would: its bands, its levels, its grid."""
    assert job.image is not None
    source, demand = job.source, job.demand
    scene = open_scene(job.image, bands=source.bands or None)
    scene = scene.with_bands(_choose_bands(scene, source, len(demand.bands)))
    if source.gsd_m and scene.native.crs is None:
        height, width = (max(1, round(n * source.gsd_m / demand.gsd_m)) for n in scene.native.shape)
        scene = scene.at_shape((height, width))
    scene = scene.at_gsd(demand.gsd_m) if scene.native.crs is not None else scene
    return scene.with_levels() if demand.stretched else scene


def _choose_bands(scene: Scene, source: Source, wanted: int) -> tuple[int, ...]:
    """Return the image's band for each of the network's; the rule of `geoseg.inference.fit.choose_bands`."""
    found = scene.bands if source.bands or wanted <= len(scene.bands) else scene.data_bands
    if len(found) == 1:
        return found * wanted
    if len(found) < wanted or (source.bands and len(found) != wanted):
        raise RecipeError(
            f"sources.{source.name}: {scene.paths[0]} gives {len(found)} bands ({', '.join(map(str, found))} of "
            f"{scene.band_count}); expected {wanted}, one for each of network.bands: name them in sources.{source.name}"
            ".bands"
        )
    return found[:wanted]


def _area(job: _Job, grid: Grid) -> NDArray[np.bool_]:
    """Mark the pixels of a part: the named areas, less or only their eastern strip, or the middle."""
    source, part = job.source, job.part
    from_training = part == "train" or bool(source.validate_east)
    names = source.train if from_training else source.validate
    inside = rasterize_areas(job.data / source.areas, names, grid) if source.areas else np.ones(grid.shape, bool)
    if source.validate_east:
        hull = _hull(inside, source.name, part)
        border = hull.cols.stop - round(hull.width * source.validate_east)
        inside[:, border:] &= part == "validate"
        inside[:, :border] &= part == "train"
    if part == "validate" and source.validate_px:
        _keep_middle(inside, _hull(inside, source.name, part), source.validate_px)
    return inside


def _keep_middle(inside: NDArray[np.bool_], hull: Window, px: int) -> None:
    row, col = (first + max(0, (n - px) // 2) for first, n in ((hull.row, hull.height), (hull.col, hull.width)))
    middle = np.zeros_like(inside)
    middle[row : row + px, col : col + px] = True
    inside &= middle


def _hull(inside: NDArray[np.bool_], name: str, part: str) -> Window:
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        raise RecipeError(f"sources.{name}: the {part} area lies outside the image")
    return Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1))


def _reach(window: Window, grid: Grid, demand: Demand) -> Window:
    """Return the window of all pixels that chips over a window see, on inference's own lattice."""
    lattice = demand.lattice_of(grid.shape)
    spans = []
    for side, core, size in zip(window.slices, lattice.core, grid.shape, strict=True):
        first, last = side.start // core, (side.stop - 1) // core
        seen = reflect_indices(first * core - lattice.halo_px, (last + 1) * core + lattice.halo_px, size)
        spans.append((int(seen.min()), int(seen.max() - seen.min()) + 1))
    (row, height), (col, width) = spans
    return Window(row, col, height, width)


def _paint(job: _Job) -> _Part:
    from rasterio.features import rasterize

    from geoseg.testing import paint_scene

    if len(job.demand.bands) != 3:
        raise RecipeError(
            f"sources.{job.source.name} is painted in 3 bands; the network has {len(job.demand.bands)}: leave it out"
        )
    size = job.source.paint_size_px
    scene = paint_scene(job.seed, size_px=size, gsd_m=job.demand.gsd_m)
    target, other = job.demand.coding_of(job.source).target
    shapes = [(shape, target) for shape in scene.footprints]
    truth = rasterize(shapes, scene.grid.shape, fill=other, transform=scene.grid.transform, dtype="uint8")
    facts = {"bands": 3, "dtype": "uint8", "file_shape": list(truth.shape), "shape": list(truth.shape)}
    gsd = {"file_gsd_m": scene.grid.gsd_m, "gsd_m": scene.grid.gsd_m}
    everywhere = np.ones(truth.shape, bool)
    return _Part(scene.image, truth, everywhere, everywhere, facts | gsd)


def _check_classes(sources: Sequence[PreparedSource], demand: Demand) -> None:
    """Refuse truth that lacks a class which the network should learn, and warn where validation lacks one."""
    trained = _total(path for source in sources if source.weight > 0 for path in source.train)
    _report("training", trained)
    missing = [name for name in demand.classes if not trained[name]]
    strict = [name for name in missing if name not in demand.unscored]
    if missing and not strict:
        log.warning("the class %s is nowhere in the training data; it is unscored and stays so", missing[0])
    if strict:
        counts = ", ".join(f"{name} {count} px" for name, count in trained.items())
        raise LabelError(
            f"the class {strict[0]} is nowhere in the training data ({counts}). Add images of it, leave it out of "
            f"network.classes, or name it in fit.unscored; masks of 0 and 255 want values = "
            f'{{"255" = "{demand.target}"}}'
        )
    validated = _total(path for source in sources for path in source.validate)
    absent = [name for name in demand.classes if not validated[name] and name not in demand.unscored]
    if absent and any(source.validate for source in sources):
        log.warning("the class %s is nowhere in the validation data: its scores say nothing", absent[0])


def _total(paths: Iterator[Path]) -> Counter[str]:
    total: Counter[str] = Counter()  # in the order of the classes, as counts are
    for path in paths:
        about = json.loads(path.with_suffix(".json").read_text())
        total.update({**about["counts"], "unsure": about["unsure"], "unknown": about["unknown"]})
    return total


def _report(what: str, total: Counter[str]) -> None:
    pixels = max(1, sum(total.values()))
    shares = ", ".join(f"{name} {100 * count / pixels:.1f} %" for name, count in total.items() if count)
    log.info("%s truth: %.1f Mpx, %s", what, pixels / 1e6, shares)
