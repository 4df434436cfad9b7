"""The files of a recipe's source: which there are, and which of them train, validate and test."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geoseg.datasets.layouts import LAYOUTS, Pair, Rule, find_pairs, is_chosen, is_template
from geoseg.datasets.splits import PARTS, Split, draw_fold, draw_split, read_split, write_split
from geoseg.errors import LabelError, RecipeError
from geoseg.io.pairs import find_labels
from geoseg.training.recipe import Source

__all__ = ["SourcePart", "find_images", "find_names", "find_parts", "split_names"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourcePart:
    """What an image of a source is for; a painted scene has a seed instead of an image.

    Attributes:
        source: The source.
        part: `train`, `validate` or `test`.
        name: Name of the image.
        image: Its file.
        labels: File of its truth; None where it has none.
        areas: The source's file of areas.
        seed: Seed of a painted scene.
    """

    source: Source
    part: str
    name: str
    image: Path | None = None
    labels: Path | None = None
    areas: Path | None = None
    seed: int = 0


def find_parts(source: Source, *, data: Path, results: Path, seed: int) -> list[SourcePart]:
    """Find a source's images, and what each of them is for; an image may both train and validate.

    Args:
        source: what the recipe says.
        data: folder that the source's paths start from.
        results: folder of the results.
        seed: draws shares and folds.

    Raises:
        RecipeError: there is no image, none to train on, or the split cannot be used.
        LabelError: labels are missing.
    """
    if source.paint_seeds:
        seeds = {f"painted_{number}": number for number in range(*source.paint_seeds)}
        total, split = len(seeds), split_names(source, list(seeds), data=data, results=results, seed=seed)
        parts = [SourcePart(source, part, name, seed=seeds[name]) for part in PARTS for name in split[part]]
    else:
        pairs, parts = find_images(source, data), []
        free = [pair.name for pair in pairs if _is_free(pair)]
        total, split = len(pairs), split_names(source, free, data=data, results=results, seed=seed)
        areas = data / source.areas if source.areas else None
        for part in PARTS:
            chosen = set(split[part])
            for pair in pairs:
                serves = pair.name in chosen if _is_free(pair) else pair.split == part
                if serves:
                    parts.append(SourcePart(source, part, pair.name, pair.image, pair.labels, areas))
    counts = Counter(found.part for found in parts)
    if not counts["train"] and source.weight > 0:
        held = f"{counts['validate']} validate, {counts['test']} test"
        raise RecipeError(f"sources.{source.name} has no training scene; {held}, of {total} images")
    if source.validate_east:
        parts += [replace(found, part="validate") for found in parts if found.part == "train"]
    return parts


def _is_free(pair: Pair) -> bool:
    """Return True where a layout does not say what an image is for, beyond training."""
    return pair.split in ("", "train")


def find_images(source: Source, data: Path) -> list[Pair]:
    """Find a source's images and the labels of each.

    Args:
        source: what the recipe says.
        data: folder that the source's paths start from.

    Raises:
        RecipeError: there is no image.
        LabelError: labels are missing.
    """
    root, what = data / source.root, f"images = {source.images!r}"
    if source.layout:
        pairs, what = find_pairs(root, LAYOUTS[source.layout], exclude=source.exclude), f"layout = {source.layout!r}"
    elif is_template(source.images):
        pairs = find_pairs(root, [Rule(source.images, (source.labels,))], exclude=source.exclude)
    else:
        pairs = _find_images_of_pattern(source, root)
    if not pairs:
        raise RecipeError(
            f"sources.{source.name}.{what} finds nothing in {root}; give the folder of the imagery as `data`"
        )
    return pairs


def _find_images_of_pattern(source: Source, root: Path) -> list[Pair]:
    """Find images, and their labels as `find_labels` does.

    Images are named by their stems, or by their folders too where stems repeat.
    """
    paths, labels = sorted(root.glob(source.images)), root / source.labels
    stems = Counter(path.stem for path in paths)
    images: dict[str, Path] = {}
    for path in paths:
        folders = f"{path.parent.parent.name}/{path.parent.name}/" if stems[path.stem] > 1 else ""
        if not is_chosen(folders + path.stem, source.exclude):
            images[folders + path.stem] = path
    truths = find_labels([*images.values()], labels)
    uses = Counter(truths)
    twice = [name for name, truth in zip(images, truths, strict=True) if "/" in name and uses[truth] > 1]
    if twice and labels.is_dir():
        raise LabelError(f"images of one name in several folders ({twice[0]}) share labels in {labels}; use a template")
    return [Pair(name, image, truth) for (name, image), truth in zip(images.items(), truths, strict=True)]


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
        names = [pair.name for pair in find_images(source, data) if _is_free(pair)]
    return [name for name in names if not is_chosen(name, source.test_scenes)]


def split_names(source: Source, names: Sequence[str], *, data: Path, results: Path, seed: int) -> Split:
    """Return which names train, validate and test; with areas an image may do both.

    A split that goes into a file is drawn once, and kept beside the data or else beside the results.

    Args:
        source: what the recipe says.
        names: what is dealt out.
        data: folder that the source's paths start from.
        results: folder of the results.
        seed: draws shares and folds.

    Raises:
        RecipeError: the split cannot be drawn, read or written.
    """
    held = tuple(name for name in names if is_chosen(name, source.test_scenes))
    left = [name for name in names if not is_chosen(name, source.test_scenes)]
    if source.areas:
        train, validate = (tuple(left) if areas else () for areas in (source.train, source.validate))
        split = {"train": train, "validate": validate, "test": ()}
    elif source.split_file:
        split = _kept_split(source, left, data, results, seed)
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


def _kept_split(source: Source, names: Sequence[str], data: Path, results: Path, seed: int) -> Split:
    """Read the split of a file, in the first of two places that has it; draw and write it where neither has."""
    places = data / source.split_file, results / source.split_file
    for path in places:
        if path.exists():
            return read_split(path, names)
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
