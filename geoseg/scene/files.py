"""The files that a user named, on disk, on the web or in buckets, and what GDAL keeps of those behind a network."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlparse

import rasterio
from rasterio.session import DummySession

from geoseg.errors import MissingFileError, TruncatedFileError, UsageError
from geoseg.gdal import GDAL_ERRORS, forget_failed_sources
from geoseg.io.fingerprint import named_by
from geoseg.io.pairs import leave_out_labels
from geoseg.io.remote import REMOTE_ENV, is_remote, is_there, remote_env, vsi_path
from geoseg.io.suffixes import SCENE_SUFFIXES, is_beside

Paths = str | Path | Sequence[str | Path]

BUCKETS = ("s3", "gs", "az")
"""Schemes of objects in buckets, whose keys may contain anything."""

VRT_HEAD, VRT_HEAD_BYTES = b"<VRTDataset", 1024
"""What GDAL knows a VRT by, whatever its suffix, and how far it looks for that."""

NOT_KEPT = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"}
"""What is fetched of a file that is opened under this is thrown away when it is closed, for all threads."""

ALONE = {"VRT_NUM_THREADS": "1"}
"""GDAL's own threads read the sources of a VRT (from 3.10 on), and what fails in them is no error in rasterio's."""


def absolute_path(path: str) -> str:
    """Return the absolute path of a local file; URLs and names that only GDAL knows as they are."""
    return str(Path(path).absolute()) if not is_remote(path) and is_there(path) else path


def web_address(url: str) -> str:
    """Return the address of a file on a web server: what is not allowed in it is escaped, but nothing twice.

    No server is ever sent what follows a `#`, so it belongs to the name of a file; nor does rasterio send a `;`.
    """
    path, sign, query = url.partition("?")
    escaped = quote(path, safe="%/:=&~+!$,'@()*[]") + sign + quote(query, safe="%/:=&?~+!$,;'@()*[]")
    return re.sub("%(?![0-9A-Fa-f]{2})", "%25", escaped)


def path_of(location: str) -> PurePosixPath:
    """Return the path alone: of a web URL without host, query and escapes; of a bucket's object its key."""
    scheme, is_url, rest = location.partition("://")
    if is_url and scheme in BUCKETS:
        return PurePosixPath(rest.partition("/")[2])
    if is_remote(location) and not location.startswith(tuple(f"/vsi{name}/" for name in BUCKETS)):
        return PurePosixPath(unquote(urlparse(location).path))
    return PurePosixPath(Path(location).as_posix())


def list_files(paths: Paths) -> list[str]:
    """Return the files that `paths` name: folders are expanded to their scenes, URLs kept as they are.

    Raises:
        UsageError: If nothing is named.
        MissingFileError: If a folder holds no raster.
    """
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    if not named:
        raise UsageError("No scene was named. Name a raster file, a URL or a folder of rasters.")
    files = []
    for path in map(str, named):
        if is_remote(path) or path.startswith("/vsi") or not (is_there(path) and Path(path).is_dir()):
            files.append(web_address(path) if path.startswith(("http://", "https://")) else path)
            continue
        found = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in SCENE_SUFFIXES and not is_beside(p))
        if not found:
            raise MissingFileError(
                f"The folder {path} holds no raster ({', '.join(SCENE_SUFFIXES)}). "
                "Name the file itself if it has another suffix."
            )
        files += leave_out_labels(found, path)
    return files


def check_file(path: str) -> None:
    """Refuse a local file that does not exist or is empty.

    Raises:
        MissingFileError: If it does not exist.
        TruncatedFileError: If it is empty.
    """
    if is_remote(path) or path.startswith("/vsi"):
        return
    if not is_there(path):
        raise MissingFileError(f"There is no file {path}. Check the path; the working folder is {Path.cwd()}.")
    if Path(path).stat().st_size == 0:
        raise TruncatedFileError(f"The file {path} is empty. Copy or download it again.")


@contextmanager
def gdal_env(files: Sequence[str], **options: str) -> Iterator[None]:
    """Set GDAL's options for files, when opening and at every read: they apply to the calling thread only.

    Args:
        files: The files.
        options: Further options.
    """
    reach = reach_of(tuple(files))
    if reach is None:
        with rasterio.Env(DummySession(), **ALONE, **options):  # else boto3 is asked for credentials, at every read
            yield
    else:
        with remote_env(_one_of_each(tuple(files)), GDAL_DISABLE_READDIR_ON_OPEN=reach, **ALONE, **options):
            yield


def open_raster(source: str, **options: int) -> rasterio.DatasetReader:
    """Open a path, a URL or a VRT; sources of a VRT that could not be opened before are tried again."""
    reader = rasterio.open(vsi_path(source), **options)
    if reader.driver == "VRT":
        forget_failed_sources()
    return reader


def is_vrt(path: str) -> bool:
    """Return True for a local file that GDAL opens as a VRT."""
    try:
        with Path(path).open("rb") as file:
            return VRT_HEAD in file.read(VRT_HEAD_BYTES)
    except (OSError, ValueError):  # a folder, a URL, a VRT's XML
        return False


def forget(files: Sequence[str]) -> None:
    """Throw away what GDAL keeps of remote files.

    It keeps what came before a connection broke off as if it were all, so a read that failed would fail again.
    """
    for source in {source for file in files for source in _sources(file) if is_remote(source)}:
        with gdal_env([source], **NOT_KEPT), suppress(*GDAL_ERRORS, OSError):
            rasterio.open(vsi_path(source)).close()


@lru_cache(maxsize=256)
def reach_of(files: tuple[str, ...]) -> str | None:
    """Return how GDAL should look for neighbors of files; None where all of them, and what VRTs name, are local."""
    sources = [source for file in files for source in _sources(file)]
    remote = [is_remote(source) for source in sources]
    if not any(remote):
        return None
    return REMOTE_ENV["GDAL_DISABLE_READDIR_ON_OPEN"] if all(remote) else "TRUE"  # local files keep their neighbors


@lru_cache(maxsize=256)
def _one_of_each(files: tuple[str, ...]) -> tuple[str, ...]:
    """Return one file of each of GDAL's file systems among files and what VRTs name: each has its own credentials."""
    return tuple(
        {
            vsi_path(source).partition("/")[2].partition("/")[0]: source for file in files for source in _sources(file)
        }.values()
    )


def _sources(file: str) -> list[str]:
    """Return the files that a local VRT names; of any other file, itself."""
    return [file] if is_remote(file) else named_by(file) or [file]
