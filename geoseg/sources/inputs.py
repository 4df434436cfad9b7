"""All that a user named, as one list of scenes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from geoseg.errors import MissingFileError, SourceError, UsageError
from geoseg.sources.files import is_pattern, list_folder, list_pattern, list_prefix
from geoseg.sources.location import clean, identity, is_local, is_s3, suffix_of
from geoseg.sources.manifest import MANIFEST_SUFFIXES, read_manifest
from geoseg.sources.names import name_sources
from geoseg.sources.source import Found, SceneSource

log = logging.getLogger(__name__)


def list_sources(inputs: Sequence[str | Path], *, asset: str | None = None) -> list[SceneSource]:
    """Return the scenes that a user means, without opening a raster.

    Args:
        inputs: Rasters, URLs, folders, patterns, STAC documents, manifests: see `docs/sources.md`.
        asset: Key of the asset to take of STAC Items that have several.

    Returns:
        Scenes in the order of the inputs, each once, with names of their own; sorted within folders and patterns.

    Raises:
        UsageError: If nothing was named.
        MissingFileError: If something is not there, or a folder or pattern holds no raster.
        SourceError: If something cannot be understood as scenes, or two scenes cannot be told apart by name.
    """
    if not inputs:
        raise UsageError("No scene was named. Name rasters, URLs, folders, patterns, STAC documents or manifests.")
    found = [one for text in inputs for one in _expand(clean(str(text)), asset)]
    if asset is not None and not any(one.is_item for one in found):
        log.warning("--asset %s is not used: no STAC Item was named.", asset)
    return name_sources(_without_duplicates(found))


def _expand(location: str, asset: str | None) -> list[Found]:
    """Return the scenes of one input."""
    if is_local(location) and Path(location).is_dir():
        return [Found(file) for file in list_folder(location)]
    if is_pattern(location):
        return [one for file in list_pattern(location) for one in _read(file, asset)]
    if location.endswith("/"):
        return [Found(file) for file in _list_remote(location)]
    return _read(location, asset)


def _list_remote(location: str) -> list[str]:
    if is_s3(location):
        return list_prefix(location)
    if is_local(location):
        raise MissingFileError(f"There is no folder {location}. Check the path; the working folder is {Path.cwd()}.")
    raise SourceError(
        f"{location} is a folder on a server, which cannot be asked what it holds. Name the files, a manifest (CSV, "
        "GeoParquet) or a STAC document such as catalog.json. Folders in a bucket are listed as s3://bucket/prefix/."
    )


def _read(location: str, asset: str | None) -> list[Found]:
    """Return the scenes of one file or URL: a document that names them, or a raster."""
    if is_local(location) and not Path(location).is_file():
        raise MissingFileError(f"There is no file {location}. Check the path; the working folder is {Path.cwd()}.")
    if suffix_of(location) in MANIFEST_SUFFIXES:
        return read_manifest(location, asset)
    from geoseg.sources.stac import is_stac, read_stac  # pystac is needed for this alone

    return read_stac(location, asset) if is_stac(location) else [Found(location)]


def _without_duplicates(found: Sequence[Found]) -> list[Found]:
    """Return each scene once, as it was named first: the same file with the same bands."""
    first: dict[tuple[object, ...], Found] = {}
    for one in found:
        first.setdefault((identity(one.path), one.bands), one)
    if len(first) < len(found):
        kept = set(map(id, first.values()))
        twice = [one.path for one in found if id(one) not in kept]
        log.warning("%d scenes were named more than once, such as %s; each is taken once.", len(twice), twice[0])
    return list(first.values())
