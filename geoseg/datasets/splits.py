"""Which files train, validate and test: by shares, by folds, or as a JSON file says.

Files are drawn by a hash of the seed and their name: neither the order of a folder nor the machine decides.
"""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from geoseg.errors import OutputError, RecipeError
from geoseg.io.aside import write_json

__all__ = ["PARTS", "Split", "check_shares", "draw_fold", "draw_split", "read_split", "write_split"]

log = logging.getLogger(__name__)

PARTS = ("train", "validate", "test")

Split = dict[str, tuple[str, ...]]
"""The names of each of `PARTS`."""


def draw_split(names: Iterable[str], shares: Sequence[float], seed: int) -> Split:
    """Draw names for training, validation and test.

    Args:
        names: all names.
        shares: of training, validation and, if there is a third, test; they add up to 1.
        seed: another seed draws others.

    Returns:
        The names of each part: as many as its share, rounded, and one at least where the share is above 0.

    Raises:
        RecipeError: the shares do not add up, or there are fewer names than parts.
    """
    for problem in check_shares(shares):
        raise RecipeError(problem.removeprefix("."))
    ranked = _ranked(names, seed)
    total, others = len(ranked), (*shares, 0.0)[1:3]
    fewer = [max(1, round(total * share)) if share > 0 else 0 for share in others]
    counts = max(0, total - sum(fewer)), *fewer  # the rest trains
    if any(share > 0 and not count for share, count in zip(shares, counts, strict=False)):
        raise RecipeError(
            f"split = {list(shares)} of {total} files leaves {' / '.join(map(str, counts))} for "
            f"{' / '.join(PARTS)}; expected one file at least in each: give more files, or other shares"
        )
    first, second = counts[0], counts[0] + counts[1]
    return _named(ranked[:first], ranked[first:second], ranked[second:])


def check_shares(shares: Sequence[float]) -> Iterator[str]:
    """Yield what is wrong with the shares of a split."""
    if not 2 <= len(shares) <= 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        yield f".split = {list(shares)}; expected two or three shares, train first, that add up to 1"


def _named(train: Sequence[str], validate: Sequence[str], test: Sequence[str]) -> Split:
    return {part: tuple(sorted(names)) for part, names in zip(PARTS, (train, validate, test), strict=True)}


def _ranked(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def draw_fold(names: Iterable[str], fold: int, folds: int, seed: int) -> Split:
    """Draw one of several folds for validation and the others for training; each name validates in one fold.

    Raises:
        RecipeError: there is no such fold, or there are fewer names than folds.
    """
    ranked = _ranked(names, seed)
    if not 0 <= fold < folds or folds < 2 or folds > len(ranked):
        raise RecipeError(f"fold = [{fold}, {folds}] of {len(ranked)} files; expected [k, n], 0 <= k < n <= files")
    chosen = set(ranked[fold::folds])
    return _named([name for name in ranked if name not in chosen], sorted(chosen), ())


def read_split(path: Path, names: Iterable[str]) -> Split:
    """Read a split and check it against the files.

    Args:
        path: JSON of lists of names: `{"train": [...], "validate": [...], "test": [...]}`.
        names: the names that there are.

    Raises:
        RecipeError: the file is not a split, names a file that is not there, or names one twice.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise RecipeError(f"the split {path} cannot be read: {err}") from err
    is_split = isinstance(table, Mapping) and all(
        part in PARTS and isinstance(names, list) and all(isinstance(name, str) for name in names)
        for part, names in table.items()
    )
    if not is_split:
        expected = '{"train": [names], "validate": [names], "test": [names]}'
        raise RecipeError(f"{path} is not a split; expected {expected}")
    split = _named(*(table.get(part, []) for part in PARTS))
    listed, there = [name for part in PARTS for name in split[part]], set(names)
    _refuse(path, "in more than one place", sorted(name for name, n in Counter(listed).items() if n > 1))
    _refuse(path, "not there any more", sorted(set(listed) - there))
    left = sorted(there - set(listed))
    if left:
        log.warning("%s says nothing of %d of %d files (%s): left out", path, len(left), len(there), _some(left))
    return split


def _refuse(path: Path, fault: str, names: Sequence[str]) -> None:
    if names:
        raise RecipeError(f"{path} names {len(names)} files that are {fault}: {_some(names)}. Fix it, or delete it")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def write_split(path: Path, split: Split) -> Path:
    """Write a split as `read_split` reads it, aside and renamed.

    Raises:
        RecipeError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_json(path, split)
    except (OSError, OutputError) as err:
        raise RecipeError(f"the split {path} cannot be written: {err}") from err
