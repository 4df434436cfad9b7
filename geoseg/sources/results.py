"""What geoseg wrote itself: no scene, where a folder or a pattern covers it."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

RESULT_NAMES = frozenset(
    ("buildings.parquet", "classes.tif", "mask.tif", "preview.png", "probability.tif", "run.json"),
)
"""Files of a result folder that could be taken for a scene, a manifest or a catalogue."""

RUN_FOLDER = ".geoseg"
"""Where a run that is not finished keeps its parts."""


def is_result_folder(names: frozenset[str]) -> bool:
    """Tell whether a folder with these files and folders holds a result, finished or not."""
    return RUN_FOLDER in names or ("probability.tif" in names and bool({"mask.tif", "run.json"} & names))


def leave_out_results(files: Sequence[str], names_beside: Callable[[str], frozenset[str]], where: str) -> list[str]:
    """Return the files that are not results of geoseg, and say how many were.

    Args:
        files: Paths or URLs.
        names_beside: Names of everything in a folder, given the folder.
        where: The folder or pattern that covers them.
    """
    left = dict.fromkeys(file for file in files if _is_result(file, names_beside))
    if left:
        first = next(iter(left))
        log.warning("%s: %d files are results of geoseg and no scenes, such as %s.", where, len(left), first)
    return [file for file in files if file not in left]


def _is_result(file: str, names_beside: Callable[[str], frozenset[str]]) -> bool:
    folder, _, name = file.rpartition("/")
    return name in RESULT_NAMES and is_result_folder(names_beside(folder))


def local_names() -> Callable[[str], frozenset[str]]:
    """Return a function that lists a local folder, each once."""
    return cache(lambda folder: frozenset(path.name for path in Path(folder or ".").iterdir()))
