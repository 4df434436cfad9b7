"""Rasters by name: a folder of them, a pattern, a prefix of a bucket, without what geoseg wrote itself."""

import glob
import logging
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

from geoseg.errors import MissingFileError, SourceError
from geoseg.io import store
from geoseg.io.pairs import leave_out_labels
from geoseg.io.suffixes import MAC_FOLDER, SCENE_SUFFIXES, is_beside
from geoseg.io.tables import name_some, plural
from geoseg.sources.location import MAGIC, is_local, is_s3, suffix_of

log = logging.getLogger(__name__)

RESULT_NAMES = frozenset(
    (
        *("buildings.geojson", "buildings.parquet", "classes.tif", "interior.tif", "item.json", "mask.tif"),
        *("preview.png", "probability.tif", "run.json"),
    )
)
"""Files of a result folder that could be taken for a scene, a manifest or a catalog."""

RUN_FOLDER = ".geoseg"
"""Where a run that is not finished keeps its parts."""


def list_folder(folder: str) -> list[str]:
    """Return the rasters that lie in a folder, sorted; neither hidden ones nor those of folders below.

    Raises:
        MissingFileError: If there is none.
    """
    inside = sorted(path for path in Path(folder).iterdir() if not is_beside(path))
    rasters = [path.as_posix() for path in inside if path.suffix.lower() in SCENE_SUFFIXES and path.is_file()]
    kept = _leave_out_results(rasters, _local_names(), folder)
    if not kept:
        found = name_some([path.name + "/" * path.is_dir() for path in inside], most=5) or "nothing"
        raise MissingFileError(
            f"The folder {folder} holds no raster to segment ({', '.join(SCENE_SUFFIXES)}). Found: {found}. "
            "Name the file itself if it has another suffix; for the folders below, quote a pattern: "
            f"'{folder.rstrip('/')}/**/*.tif'."
        )
    return kept


def list_prefix(prefix: str) -> list[str]:
    """Return the rasters that lie directly below `s3://bucket/prefix/`, sorted.

    Raises:
        MissingFileError: If there is none, or the prefix is a local folder that does not exist.
        SourceError: If the prefix is a folder on a server.
    """
    if is_local(prefix):
        raise MissingFileError(f"There is no folder {prefix}. Check the path; the working folder is {Path.cwd()}.")
    if not is_s3(prefix):
        raise SourceError(
            f"{prefix} is a folder on a server, which cannot list its files. Name the files, a manifest (CSV, "
            "GeoParquet) or a STAC document such as catalog.json. Folders in a bucket are listed as s3://bucket/prefix/."
        )
    names = [name for name in store.list_names(prefix) if not name.endswith("/")]  # others are a console's folders
    below = [name for name in names if "/" not in name.removeprefix(prefix)]
    rasters = [name for name in below if suffix_of(name) in SCENE_SUFFIXES and not _is_hidden(name, prefix)]
    kept = _without_results(rasters, below, prefix)
    if not kept:
        raise MissingFileError(
            f"{prefix} holds no raster to segment ({', '.join(SCENE_SUFFIXES)}). "
            f"Found: {name_some([name.removeprefix(prefix) for name in below], most=5) or 'nothing'}. "
            f"For everything below, quote a pattern: '{prefix}**/*.tif'."
        )
    return kept


def list_pattern(pattern: str) -> list[str]:
    """Return the files that match a pattern, sorted; `**` matches any folders.

    A pattern that ends in a suffix of its own (`*.dat`) takes every file that matches, another one only rasters.

    Raises:
        SourceError: If the place cannot be listed.
        MissingFileError: If nothing matches.
    """
    if not is_local(pattern) and not is_s3(pattern):
        raise SourceError(
            f"{pattern} is a pattern, and a web server cannot list its files. Name the files, a manifest "
            "(CSV, GeoParquet) or a STAC catalog; patterns work for local files and s3://bucket/prefix/*.tif."
        )
    if is_s3(pattern):
        parent, _, last = pattern.rpartition("/")
        everything = _objects(f"{parent}/*" if last != "**" else f"{pattern}/*")
        fixed = pattern[: min(pattern.find(sign) for sign in MAGIC if sign in pattern)].rpartition("/")[0]
        matching = [name for name in everything if fnmatchcase(name.rpartition("/")[2], last)]
        seen = [name for name in matching if not _is_hidden(name, fixed)]
        matches = _without_results(_wanted(seen, pattern), everything, pattern)
    else:
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207 - Path.glob matches hidden files
        files = [Path(path).as_posix() for path in found if not is_beside(Path(path))]
        matches = _leave_out_results(_wanted(files, pattern), _local_names(), pattern)
    if not matches:
        raise MissingFileError(
            f"No scene matches {pattern}. Check the pattern: * stays within a folder, ** crosses folders"
            f"{f'; the working folder is {Path.cwd()}' if is_local(pattern) else ''}."
        )
    return matches


def _leave_out_results(files: Sequence[str], names_beside: Callable[[str], frozenset[str]], where: str) -> list[str]:
    """Return the files that are neither results of geoseg, finished or not, nor labels; log how many are.

    Args:
        files: Paths or URLs.
        names_beside: Names of everything in a folder, given the folder.
        where: The folder or pattern that covers them.
    """
    results = []
    for file in files:
        folder, _, name = file.rpartition("/")
        names = names_beside(folder) if name in RESULT_NAMES else frozenset[str]()
        if RUN_FOLDER in names or ("probability.tif" in names and {"mask.tif", "run.json"} & names):
            results.append(file)
    if results:
        count = plural(len(results), "result")
        log.warning("%s: %s of geoseg left out, such as %s.", where, count, results[0])
    left_out = set(results)
    return leave_out_labels([file for file in files if file not in left_out], where)


def _local_names() -> Callable[[str], frozenset[str]]:
    """Return a function that lists a local folder, each once."""
    return cache(lambda folder: frozenset(path.name for path in Path(folder or ".").iterdir()))


def _objects(pattern: str) -> list[str]:
    """Return the objects of a bucket that match; names that end in a slash are folders that a console made."""
    return [name for name in store.glob(pattern) if not name.endswith("/")]


def _without_results(files: Sequence[str], everything: Sequence[str], where: str) -> list[str]:
    folders: dict[str, set[str]] = {}
    for name in everything:
        run, is_part, _ = name.partition(f"/{RUN_FOLDER}/")
        folder, last = (run, RUN_FOLDER) if is_part else name.rpartition("/")[::2]
        folders.setdefault(folder, set()).add(last)
    return _leave_out_results(files, lambda folder: frozenset(folders.get(folder, ())), where)


def _wanted(files: Iterable[str], pattern: str) -> list[str]:
    suffix = PurePosixPath(pattern).suffix
    if suffix and not any(sign in suffix for sign in MAGIC):
        return list(files)
    return [file for file in files if suffix_of(file) in SCENE_SUFFIXES]


def _is_hidden(name: str, below: str) -> bool:
    return any(part.startswith(".") or part == MAC_FOLDER for part in name.removeprefix(below).split("/"))
