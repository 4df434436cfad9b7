"""Which files are for training, validation and test: by shares, by folds, or by a JSON file.

Files are drawn by a hash of the seed and their name: neither the order of a folder nor the machine decides.
"""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from geoseg.errors import OutputError, RecipeError
from geoseg.io.aside import write_json
from geoseg.io.store import parse_json
from geoseg.io.tables import name_some

__all__ = ["PARTS", "Split", "check_shares", "draw_fold", "draw_split", "read_split", "write_split"]

log = logging.getLogger(__name__)

PARTS = ("train", "validate", "test")

Split = dict[str, tuple[str, ...]]
"""The names of each of `PARTS`."""


def draw_split(names: Iterable[str], shares: Sequence[float], seed: int) -> Split:
    """Draw names for training, validation and test.

    Args:
        names: All names.
        shares: Of training, validation and optionally test; they add up to 1.
        seed: Random seed.

    Returns:
        The names of each part: as many as its share, rounded, and at least one if the share is above 0.

    Raises:
        RecipeError: The shares do not add up, or there are fewer names than parts.
    """
    check_shares(shares)
    ranked = _ranked(names, seed)
    total, others = len(ranked), (*shares, 0.0)[1:3]
    fewer = [max(1, round(total * share)) if share > 0 else 0 for share in others]
    counts = max(0, total - sum(fewer)), *fewer  # the rest trains
    if any(share > 0 and not count for share, count in zip(shares, counts, strict=False)):
        raise RecipeError(
            f"split = {list(shares)} of {total} files leaves {' / '.join(map(str, counts))} for "
            f"{' / '.join(PARTS)}; expected at least one file in each: give more files, or other shares"
        )
    first, second = counts[0], counts[0] + counts[1]
    return _named(ranked[:first], ranked[first:second], ranked[second:])


def check_shares(shares: Sequence[float], where: str = "") -> None:
    """Check the shares of a split; `where` is the dotted name of the recipe's table.

    Raises:
        RecipeError: They are not two or three shares that add up to 1.
    """
    if not 2 <= len(shares) <= 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise RecipeError(f"{where}split = {list(shares)}; expected two or three shares, train first, that add up to 1")


def _named(train: Sequence[str], validate: Sequence[str], test: Sequence[str]) -> Split:
    return {part: tuple(sorted(names)) for part, names in zip(PARTS, (train, validate, test), strict=True)}


def _ranked(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def draw_fold(names: Iterable[str], fold: int, folds: int, seed: int) -> Split:
    """Draw one of several folds for validation and the others for training; each name is in one fold.

    Raises:
        RecipeError: There is no such fold, or there are fewer names than folds.
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
        names: The names of the files.

    Raises:
        RecipeError: The file is not a split, names a missing file, or names one twice.
    """
    try:
        table = parse_json(path.read_bytes())
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
    twice = sorted(name for name, n in Counter(listed).items() if n > 1)
    for names_of, fault in ((twice, "listed twice"), (sorted(set(listed) - there), "missing")):
        if names_of:
            raise RecipeError(
                f"{path} names {len(names_of)} files that are {fault}: {name_some(names_of)}. Fix or delete it."
            )
    left = sorted(there - set(listed))
    if left:
        log.warning("%s does not list %d of %d files (%s): left out", path, len(left), len(there), name_some(left))
    return split


def write_split(path: Path, split: Split) -> Path:
    """Write a split as `read_split` reads it, aside and renamed.

    Raises:
        RecipeError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_json(path, split)
    except (OSError, OutputError) as err:
        raise RecipeError(f"the split {path} cannot be written: {err}") from err
