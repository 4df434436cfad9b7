"""Which mask belongs to which image: folder layouts, all of them pairs of templates.

A template is a path with words in braces: `{area}/images/{name}.jpg` finds every picture below a folder `images`, and
`{area}/masks/{name}.png` its mask. A word is one folder or file name, or part of one; the suffix `.*` is that of any
raster.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from geoseg.errors import LabelError, RecipeError
from geoseg.io.suffixes import SCENE_SUFFIXES, is_beside
from geoseg.io.tables import name_some

__all__ = ["LAYOUTS", "Pair", "Rule", "find_pairs", "is_chosen", "is_template", "match_files"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The templates of images of one purpose, and of their masks.

    Attributes:
        images: Template of the images.
        labels: Templates of the masks; the first one that finds a file is used. Empty if there are no masks.
        split: Purpose of the images: `train`, `validate`, `test`, or "" if the layout does not say.
    """

    images: str
    labels: tuple[str, ...]
    split: str = ""


LAYOUTS: Mapping[str, tuple[Rule, ...]] = {
    "split-folders": (
        Rule("train/{name}.*", ("train_labels/{name}.*",), "train"),
        Rule("val/{name}.*", ("val_labels/{name}.*",), "validate"),
        Rule("test/{name}.*", ("test_labels/{name}.*",), "test"),
    ),
    "suffix": (Rule("images/images/{name}.*", ("label/label/{name}_label.*",)),),
    "paired": (Rule("images/{name}.*", ("masks/{name}.*", "labels/{name}.*")),),
    "numbered": (
        Rule("train/images/img_{n}.*", ("train/masks/mask_{n}.*",)),
        Rule("test/test_image_{n}.*", (), "test"),
    ),
    "areas": (Rule("{area}/images/{name}.*", ("{area}/masks/{name}.*",)),),
}
"""The layouts by name: how the published systems keep their data."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its truth; `split` as in `Rule`."""

    name: str
    image: Path
    labels: Path | None
    split: str = ""


def is_template(text: str) -> bool:
    """Return True for a path with words in braces."""
    return "{" in text


def is_chosen(name: str, patterns: Sequence[str]) -> bool:
    """Return True if a name, or the last part of it, matches one of the patterns (`*`, `?`, `[...]`)."""
    return any(fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern) for pattern in patterns)


def find_pairs(root: Path, rules: Sequence[Rule], *, exclude: Sequence[str] = ()) -> list[Pair]:
    """Find the images of a layout, and the mask of each.

    Args:
        root: Folder that the templates are relative to.
        rules: The layout.
        exclude: Patterns of names that are left out, masks too.

    Returns:
        Pairs in the order of the rules, and of their names.

    Raises:
        LabelError: Images have no mask, masks have no image, or two files have one name.
    """
    pairs: list[Pair] = []
    for rule in rules:
        images = _find(root, rule.images, exclude)
        if not rule.labels:
            pairs += [Pair(name, image, None, rule.split) for name, image in images.items()]
            continue
        place, labels = root / " or ".join(rule.labels), dict[str, Path]()
        for template in rule.labels:
            found = _find(root, template, exclude)
            if found:
                place, labels = root / template, found
                break
        missing = [str(path) for name, path in images.items() if name not in labels]
        if missing:
            raise LabelError(
                f"{len(missing)} of {len(images)} images ({name_some(missing)}) have no mask at {place}; add the "
                "masks, or leave the images out with exclude"
            )
        orphans = [str(path) for name, path in labels.items() if name not in images]
        if orphans:
            raise LabelError(
                f"{len(orphans)} of {len(labels)} masks ({name_some(orphans)}) have no image at "
                f"{root / rule.images}; add the images, or leave the masks out with exclude"
            )
        pairs += [Pair(name, image, labels[name], rule.split) for name, image in images.items()]
    return pairs


def _find(root: Path, template: str, exclude: Sequence[str]) -> dict[str, Path]:
    """Return the files of a template by the values of its words, in the order of their names."""
    root, template = _split_root(root, template)
    pattern, found = _expression(template), dict[str, Path]()
    for path in sorted(match_files(root, re.sub(r"\{\w+\}", "*", template)), key=lambda path: _natural(str(path))):
        words = pattern.fullmatch(path.relative_to(root).as_posix())
        if words is None or not path.is_file() or is_beside(path.relative_to(root)):
            continue
        name = "/".join(words.groupdict().values())
        if is_chosen(name, exclude):
            continue
        if name in found:
            raise LabelError(f"{found[name]} and {path} are both named {name}; expected one file of each name")
        found[name] = path
    return found


def match_files(root: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern, which is relative to a folder, or absolute.

    Raises:
        RecipeError: It is no pattern.
    """
    root, relative = _split_root(root, pattern)
    try:
        return list(root.glob(relative))
    except (ValueError, NotImplementedError, IndexError) as err:
        raise RecipeError(f"{pattern!r} is no pattern of paths ({err}); expected one such as city/*.tif") from err


def _split_root(root: Path, pattern: str) -> tuple[Path, str]:
    """Return the folder that a pattern is relative to, and the rest of it; of an absolute one, the root of the disk."""
    path = Path(pattern)
    return (Path(path.anchor), path.relative_to(path.anchor).as_posix()) if path.is_absolute() else (root, pattern)


def _expression(template: str) -> re.Pattern[str]:
    """Return the regular expression of a template: each word once, then the same again."""
    anything = template.endswith(".*")
    text = re.escape(template.removesuffix(".*")).replace(r"\{", "{").replace(r"\}", "}").replace(r"\*", "[^/]*")
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        word = match[1]
        again = word in seen
        seen.add(word)
        return f"(?P={word})" if again else f"(?P<{word}>[^/]+)"

    suffixes = "|".join(re.escape(suffix) for suffix in SCENE_SUFFIXES)
    return re.compile(re.sub(r"\{(\w+)\}", group, text) + (f"(?i:{suffixes})" if anything else ""))


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key by which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
