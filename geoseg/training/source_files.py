"""The files of a source: which there are, and which of them are for training, validation and testing."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geoseg.datasets.layouts import LAYOUTS, Pair, Rule, find_pairs, is_chosen, is_template, match_files
from geoseg.datasets.splits import PARTS, Split, draw_fold, draw_split, read_split, write_split
from geoseg.errors import LabelError, RecipeError
from geoseg.io.fingerprint import fingerprint
from geoseg.io.pairs import find_labels
from geoseg.io.suffixes import is_beside
from geoseg.training.folder import Scenes, kept_scenes
from geoseg.training.recipe import Recipe, Source

__all__ = ["SourcePart", "find_images", "find_names", "find_parts", "fingerprint_scenes", "split_names"]

log = logging.getLogger(__name__)

_PAINTED = "painted_"
"""How the names of painted scenes begin; their seeds follow."""


@dataclass(frozen=True, slots=True)
class SourcePart:
    """An image of a source, and one purpose of it.

    Attributes:
        source: The source.
        part: `train`, `validate` or `test`.
        name: Name of the image.
        image: Its file; None for a painted scene.
        labels: File of its labels; None where it has none.
        areas: The source's file of areas.
    """

    source: Source
    part: str
    name: str
    image: Path | None
    labels: Path | None
    areas: Path | None

    @property
    def seed(self) -> int:
        """The seed of a painted scene; 0 of others."""
        return int(self.name.removeprefix(_PAINTED)) if self.image is None else 0


def find_parts(source: Source, *, data: Path, results: Path, seed: int) -> list[SourcePart]:
    """Find a source's images, and what each of them is for; an image may both train and validate.

    Args:
        source: The source.
        data: Folder that the source's paths are relative to.
        results: Folder of the results, for a split that cannot be kept in `data`, and the scenes of before.
        seed: Draws shares and folds.

    Raises:
        RecipeError: There is no image, none to train on, or the split cannot be used.
        LabelError: Labels are missing.
    """
    pairs, parts = find_images(source, data, results), list[SourcePart]()
    free = [pair.name for pair in pairs if _is_free(pair)]
    split = split_names(source, free, data=data, results=results, seed=seed)
    areas = data / source.areas if source.areas else None
    for part in PARTS:
        chosen = set(split[part])
        for pair in pairs:
            if pair.name in chosen if _is_free(pair) else pair.split == part:
                image = None if source.paint_seeds else pair.image
                parts.append(SourcePart(source, part, pair.name, image, pair.labels, areas))
    counts = Counter(found.part for found in parts)
    if not counts["train"] and source.weight > 0:
        held = f"{counts['validate']} for validation, {counts['test']} for testing"
        raise RecipeError(f"sources.{source.name} has no training scene: of {len(pairs)} images, {held}")
    if source.validate_east or source.validate_west:
        parts += [replace(found, part="validate") for found in parts if found.part == "train"]
    return parts


def _is_free(pair: Pair) -> bool:
    """Return True if the layout does not assign an image to validation or testing."""
    return pair.split in ("", "train")


def find_images(source: Source, data: Path, results: Path | None = None) -> list[Pair]:
    """Find a source's images and the labels of each; painted scenes have a name alone.

    Args:
        source: The source.
        data: Folder that the source's paths are relative to.
        results: Folder whose trainings have begun: images that came later are left out.

    Raises:
        RecipeError: There is no image.
        LabelError: Labels are missing.
    """
    if source.paint_seeds:
        return [Pair(f"{_PAINTED}{seed}", Path(), None) for seed in range(*source.paint_seeds)]
    root, what = data / source.root, f"images = {source.images!r}"
    if source.layout:
        pairs, what = find_pairs(root, LAYOUTS[source.layout], exclude=source.exclude), f"layout = {source.layout!r}"
    elif is_template(source.images):
        pairs = find_pairs(root, [Rule(source.images, (source.labels,))], exclude=source.exclude)
    else:
        pairs = _find_images_of_pattern(source, root)
    if not pairs:
        raise RecipeError(
            f"sources.{source.name}.{what} finds nothing in {root}. Give the folder of the imagery as `data`."
        )
    kept = (kept_scenes(results) if results is not None else None) or {}
    return [pair for pair in pairs if pair.name in kept.get(source.name, (pair.name,))]


def fingerprint_scenes(plan: Recipe, *, data: Path, results: Path) -> Scenes:
    """Return the fingerprint of every scene of a recipe's sources, labels included, and of what else they depend on.

    A split that goes into a file is drawn. Arguments as `find_parts`.
    """
    network, fit = plan.network, plan.fit
    weights = [Path(name) for name in (network.start_from, fit.distill_from) if name]
    found: Scenes = {"": {"weights": fingerprint(path.absolute() for path in weights if path.is_file())}}
    for source in plan.sources:
        pairs = find_images(source, data)
        if source.split_file and not source.areas:
            kept = [pair.name for pair in find_images(source, data, results) if _is_free(pair)]
            split_names(source, kept, data=data, results=results, seed=fit.seed)
        shared = [data / source.areas] if source.areas else []
        splits = (place / source.split_file for place in (data, results) if source.split_file)
        shared += [path for path in splits if path.is_file()][:1]
        own = {"": fingerprint(shared)} if shared else {}
        for pair in pairs:
            labels = fingerprint([pair.labels]) if pair.labels else []
            image = [] if source.paint_seeds else fingerprint([pair.image])
            own[pair.name] = [*image, *([f"labels {name}", *facts] for name, *facts in labels)]
        found[source.name] = own
    return found


def _find_images_of_pattern(source: Source, root: Path) -> list[Pair]:
    """Find images, and their labels as `find_labels` does.

    Images are named by their stems, or by their folders too where stems repeat.
    """
    labels = root / source.labels
    paths = sorted(path for path in match_files(root, source.images) if not is_beside(path))
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


def find_names(source: Source, data: Path, results: Path | None = None) -> list[str]:
    """Return the names that are divided among a split or folds, without those held out for testing."""
    names = [pair.name for pair in find_images(source, data, results) if _is_free(pair)]
    return [name for name in names if not is_chosen(name, source.test_scenes)]


def split_names(source: Source, names: Sequence[str], *, data: Path, results: Path, seed: int) -> Split:
    """Divide `names` into training, validation and test; with areas an image may do both. Arguments as `find_parts`.

    A split that goes into a file is drawn once, and kept beside the data or else beside the results.

    Raises:
        RecipeError: The split cannot be drawn, read or written.
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
    log.info("sources.%s: the split was drawn and written to %s", source.name, path)
    return split
