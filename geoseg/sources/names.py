"""Names of scenes: safe for files, unique in a run, the same each time."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from geoseg.errors import SourceError
from geoseg.sources.location import parent_of, path_of
from geoseg.sources.source import Found, SceneSource

UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
"""What Windows, Linux or macOS refuse in a file's name."""

MAX_NAME = 100
"""Characters of a name: file systems take 255 bytes, and results add words of their own."""


def safe_name(text: str) -> str:
    """Return a text as the name of a file or folder that is neither hidden nor too long."""
    safe = UNSAFE.sub("_", text).strip().rstrip(".")
    safe = re.sub(r"^\.+", "_", safe) or "scene"
    if len(safe) <= MAX_NAME:
        return safe
    return f"{safe[: MAX_NAME - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def name_sources(found: Sequence[Found]) -> list[SceneSource]:
    """Give every scene a name of its own: its stem or given name, unless others have the same.

    Those that clash keep their suffix; where that does not tell them apart either, their folder (or STAC Collection)
    stands before. Letter case makes no difference, as on Windows and macOS.

    Raises:
        SourceError: If two scenes would still share a name.
    """
    choices = [_choices(one) for one in found]
    names: list[str | None] = [None] * len(found)
    for level in range(max(map(len, choices), default=0)):
        _settle(names, [choice[level] for choice in choices])
    for one, name, choice in zip(found, names, choices, strict=True):
        if name is None:
            _refuse(found, names, choices, one, choice[-1])
    return [_as_source(one, name) for one, name in zip(found, names, strict=True) if name is not None]


def _choices(found: Found) -> tuple[str, str, str, str]:
    path = path_of(found.path)
    name = found.name or path.stem or "scene"
    full = f"{name}{path.suffix.replace('.', '_')}"
    parent = found.parent or parent_of(found.path)
    return safe_name(name), safe_name(full), safe_name(f"{parent}_{name}"), safe_name(f"{parent}_{full}")


def _settle(names: list[str | None], level: Sequence[str]) -> None:
    """Fill in the names that are unique at one level and not taken at an earlier one."""
    taken = {name.casefold() for name in names if name is not None}
    wanted = Counter(choice.casefold() for name, choice in zip(names, level, strict=True) if name is None)
    for i, choice in enumerate(level):
        if names[i] is None and wanted[choice.casefold()] == 1 and choice.casefold() not in taken:
            names[i] = choice


def _refuse(
    found: Sequence[Found],
    names: Sequence[str | None],
    choices: Sequence[tuple[str, ...]],
    one: Found,
    name: str,
) -> None:
    both = [
        other.path
        for other, own, choice in zip(found, names, choices, strict=True)
        if other is not one and name.casefold() in ((own or "").casefold(), choice[-1].casefold())
    ]
    raise SourceError(
        f"{one.path} and {both[0]} would share the name {name}, and results are named after their scenes. Run them "
        "apart, each with its own --out, or give them names in a manifest (a CSV with columns path and name)."
    )


def _as_source(found: Found, name: str) -> SceneSource:
    return SceneSource(name, (found.path,), found.datetime, found.footprint, found.crs, found.bands)
