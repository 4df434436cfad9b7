"""From a recipe's sources to prepared scenes: what is trained on, and what is validated on."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.datasets.labels import IGNORED, UNSURE, Labels, rasterize_areas, read_labels
from geoseg.datasets.prepared import is_prepared, write_prepared
from geoseg.errors import LabelError, RecipeError
from geoseg.grid import Grid, Window
from geoseg.scene import open_scene
from geoseg.training.recipe import Source

__all__ = ["PreparedSource", "prepare_source"]

log = logging.getLogger(__name__)

_LAYOUT = 1
"""Raised when the prepared files change meaning, so that old ones are made anew."""


@dataclass(frozen=True)
class PreparedSource:
    """Prepared files of one source."""

    name: str
    weight: float
    train: tuple[Path, ...]
    validate: tuple[Path, ...]


@dataclass(frozen=True)
class _Item:
    """One image and where its truth is; painted scenes have a seed instead."""

    name: str
    image: Path | None = None
    labels: Path | None = None
    seed: int = 0


def prepare_source(source: Source, *, data: Path, cache: Path, gsd_m: float) -> PreparedSource:
    """Bring a source's imagery and truth to one GSD, once; what is already in `cache` is used.

    Args:
        source: what the recipe says.
        data: folder that the source's paths start from.
        cache: folder of the prepared files.
        gsd_m: metres per pixel.

    Raises:
        RecipeError: the source finds no image, or none for training.
        LabelError: labels are missing or hold unknown values.
    """
    train: list[Path] = []
    validate: list[Path] = []
    for item in _items(source, data):
        for part, path in _parts(source, item, data, cache, gsd_m):
            (train if part == "train" else validate).append(path)
    if not train and source.weight > 0:
        raise RecipeError(f"sources.{source.name} has no training scene; {len(validate)} validate")
    return PreparedSource(source.name, source.weight, tuple(train), tuple(validate))


def _items(source: Source, data: Path) -> list[_Item]:
    if source.paint_seeds:
        return [_Item(f"painted_{seed}", seed=seed) for seed in range(*source.paint_seeds)]
    images = sorted(p for p in data.glob(source.images) if not any(fnmatch(p.stem, e) for e in source.exclude))
    if not images:
        raise RecipeError(f"sources.{source.name}.images = {source.images!r} finds nothing in {data}; give --data")
    return [_Item(image.stem, image, _labels_of(source, image, data)) for image in images]


def _labels_of(source: Source, image: Path, data: Path) -> Path:
    labels = data / source.labels
    if not labels.is_dir():
        return labels
    found = sorted(p for p in labels.iterdir() if p.stem == image.stem)
    if not found:
        raise LabelError(f"{image} has no labels in {labels}; expected a file of the same name, or exclude the image")
    return found[0]


def _parts(source: Source, item: _Item, data: Path, cache: Path, gsd_m: float) -> Iterator[tuple[str, Path]]:
    """Yield "train" or "validate" and the prepared file of each part of one image."""
    for part in ("train", "validate"):
        if not _has_part(source, item, part):
            continue
        path = cache / source.name / f"{item.name}-{part}-{_key(source, item, part, data, gsd_m)}.npy"
        if not is_prepared(path):
            _prepare(path, source, item, part, data, gsd_m)
        yield part, path


def _has_part(source: Source, item: _Item, part: str) -> bool:
    if source.areas:
        return bool(source.train if part == "train" else source.validate or source.validate_east)
    chosen = any(fnmatch(item.name, pattern) for pattern in source.validate_scenes)
    return chosen == (part == "validate") or (part == "validate" and bool(source.validate_east))


def _key(source: Source, item: _Item, part: str, data: Path, gsd_m: float) -> str:
    """Hash all that decides the prepared pixels, the files' sizes and times included."""
    about = {k: v for k, v in asdict(source).items() if k not in ("weight", "exclude", "paint_seeds")}
    files = [p for p in (item.image, item.labels, data / source.areas if source.areas else None) if p]
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]
    text = json.dumps([_LAYOUT, about, item.seed, part, gsd_m, stamps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _prepare(path: Path, source: Source, item: _Item, part: str, data: Path, gsd_m: float) -> None:
    if item.image is None:
        image, truth, grid = _paint(source, item, gsd_m)
    else:
        image, truth, grid = _read(source, item, part, data, gsd_m)
    if not source.complete:
        truth = np.where(truth == 0, np.uint8(UNSURE), truth)
    if part == "validate" and source.validate_px:
        image, truth = _middle(image, truth, source.validate_px)
    known = truth[truth != IGNORED]
    about: dict[str, Any] = {
        "source": source.name,
        "scene": item.name,
        "part": part,
        "gsd_m": grid.gsd_m,
        "crs": grid.crs.to_wkt() if grid.crs else None,
        "shape": list(truth.shape),
        "known": float(known.size / truth.size),
        "building": float((known == 1).mean()) if known.size else 0.0,
    }
    log.info("prepared %s %s %s: %s px, %.0f %% known", source.name, item.name, part, truth.shape, 100 * about["known"])
    write_prepared(path, image, truth, about=about)


def _read(source: Source, item: _Item, part: str, data: Path, gsd_m: float) -> tuple[NDArray[np.uint8], Labels, Grid]:
    """Read the image and the truth of a part, cut to the part's area."""
    assert item.image is not None
    assert item.labels is not None
    scene = open_scene(item.image).at_gsd(gsd_m)
    scene = scene if np.dtype(scene.dtype) == np.uint8 else scene.with_levels()
    inside = _area(source, part, data, scene.grid)
    window = _hull(inside, source.name, part)
    pixels = scene.read(window)
    truth = read_labels(item.labels, scene.grid.crop(window))
    truth[~(inside[window.slices] & pixels.valid)] = IGNORED
    return pixels.values.astype(np.uint8), truth, scene.grid.crop(window)


def _area(source: Source, part: str, data: Path, grid: Grid) -> NDArray[np.bool_]:
    """Mark the pixels of a part: the named areas, less or only their eastern strip."""
    from_training = part == "train" or bool(source.validate_east)
    names = source.train if from_training else source.validate
    inside = rasterize_areas(data / source.areas, names, grid) if source.areas else np.ones(grid.shape, bool)
    if source.validate_east:
        hull = _hull(inside, source.name, part)
        border = hull.cols.stop - round(hull.width * source.validate_east)
        inside[:, border:] &= part == "validate"
        inside[:, :border] &= part == "train"
    return inside


def _hull(inside: NDArray[np.bool_], name: str, part: str) -> Window:
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        raise RecipeError(f"sources.{name}: the {part} area lies outside the image")
    return Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1))


def _middle(image: NDArray[np.uint8], truth: Labels, px: int) -> tuple[NDArray[np.uint8], Labels]:
    row, col = (max(0, (n - px) // 2) for n in truth.shape)
    return image[:, row : row + px, col : col + px], truth[row : row + px, col : col + px]


def _paint(source: Source, item: _Item, gsd_m: float) -> tuple[NDArray[np.uint8], Labels, Grid]:
    from rasterio.features import rasterize

    from geoseg.testing import paint_scene

    scene = paint_scene(item.seed, size_px=source.paint_size_px, gsd_m=gsd_m)
    truth = rasterize(scene.footprints, out_shape=scene.grid.shape, transform=scene.grid.transform, dtype="uint8")
    return scene.image, truth, scene.grid
