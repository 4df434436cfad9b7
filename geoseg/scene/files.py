"""The files that a user named: on disk, on the web, in buckets."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from geoseg.errors import MissingFileError, TruncatedFileError, UsageError
from geoseg.io.suffixes import SCENE_SUFFIXES
from geoseg.tiff import promised_size

Paths = str | Path | Sequence[str | Path]

Stamp = tuple[int, int] | None
"""Time and size of a local file."""


def is_remote(path: str) -> bool:
    """Return True for URLs and GDAL's network file systems."""
    return urlparse(path).scheme in ("http", "https", "s3", "gs", "az") or path.startswith(
        ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz")
    )


def list_files(paths: Paths) -> list[str]:
    """Return the files that `paths` name: folders are expanded, URLs kept as they are."""
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    if not named:
        raise UsageError("No scene was named. Name a raster file, a URL or a folder of rasters.")
    return [file for path in named for file in _expand(str(path))]


def _expand(path: str) -> list[str]:
    if is_remote(path) or path.startswith("/vsi") or not Path(path).is_dir():
        return [path]
    found = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in SCENE_SUFFIXES)
    if not found:
        raise MissingFileError(
            f"The folder {path} holds no raster ({', '.join(SCENE_SUFFIXES)}). "
            "Name the file itself if it has another suffix."
        )
    return found


def check_file(path: str) -> None:
    """Refuse a local file that is not there or empty.

    Raises:
        MissingFileError: If it is not there.
        TruncatedFileError: If it is empty.
    """
    if is_remote(path) or path.startswith("/vsi"):
        return
    if not Path(path).exists():
        raise MissingFileError(f"There is no file {path}. Check the path; the working folder is {Path.cwd()}.")
    if Path(path).stat().st_size == 0:
        raise TruncatedFileError(f"The file {path} is empty. Copy or download it again.")


def check_complete(path: str) -> None:
    """Compare what a local TIFF's directories promise with the size of its file.

    Raises:
        TruncatedFileError: If the file ends before.
    """
    if is_remote(path) or not Path(path).is_file():
        return
    size, end = Path(path).stat().st_size, promised_size(path)
    if end > size:
        raise TruncatedFileError(
            f"{path} is cut short: its pixels reach to byte {end:,}, but it ends at {size:,}. "
            "Copy or download it again."
        )


def stamp_of(path: str) -> Stamp:
    """Return a local file's time and size."""
    if path.startswith("<") or is_remote(path):
        return None
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
