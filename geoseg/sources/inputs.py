"""All that a user named, as one list of scenes; the kinds of inputs there are."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from geoseg.errors import MissingFileError, UsageError
from geoseg.io.tables import plural
from geoseg.sources.files import list_folder, list_pattern, list_prefix
from geoseg.sources.location import clean, identity, is_folder, is_missing, is_pattern, is_prefix, is_stac
from geoseg.sources.manifest import is_manifest, read_manifest
from geoseg.sources.source import Found, SceneSource, name_sources

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of input.

    Attributes:
        matches: Returns True for a location of this kind.
        read: Returns the scenes of a location, given the key of the asset to take of STAC Items.
    """

    matches: Callable[[str], bool]
    read: Callable[[str, str | None], list[Found]]


def _read(location: str, asset: str | None, kinds: Sequence[Kind]) -> list[Found]:
    return next(kind for kind in kinds if kind.matches(location)).read(location, asset)


def _read_pattern(location: str, asset: str | None) -> list[Found]:
    return [replace(one, is_direct=False) for file in list_pattern(location) for one in _read(file, asset, FILES)]


def _refuse_missing(location: str, asset: str | None) -> NoReturn:
    raise MissingFileError(f"There is no file {location}. Check the path; the working folder is {Path.cwd()}.")


def _read_stac(location: str, asset: str | None) -> list[Found]:
    from geoseg.sources.stac import read_stac  # pystac is needed for this alone

    return read_stac(location, asset)


FILES = (
    Kind(is_missing, _refuse_missing),
    Kind(is_manifest, read_manifest),
    Kind(is_stac, _read_stac),
    Kind(lambda raster: True, lambda raster, _: [Found(raster, is_direct=True)]),
)
"""What one file or URL may be; the first kind that matches reads it."""

KINDS = (
    Kind(is_folder, lambda folder, _: list(map(Found, list_folder(folder)))),
    Kind(is_pattern, _read_pattern),
    Kind(is_prefix, lambda prefix, _: list(map(Found, list_prefix(prefix)))),
    *FILES,
)
"""What an input may be; the first kind that matches reads it. A new kind is an entry here or in `FILES`."""


def list_sources(
    inputs: Sequence[str | Path], *, asset: str | None = None, known: Mapping[str, str] | None = None
) -> list[SceneSource]:
    """Return the scenes that a user means, without opening a raster.

    Args:
        inputs: Rasters, URLs, folders, patterns, STAC documents, manifests: see `docs/sources.md`.
        asset: Key of the asset to take of STAC Items that have several.
        known: Names that scenes had before, see `choose_names`.

    Returns:
        Scenes in the order of the inputs, each once, with names of their own; sorted within folders and patterns.

    Raises:
        UsageError: If nothing was named.
        MissingFileError: If something does not exist, or a folder or pattern yields no raster.
        SourceError: If something cannot be understood as scenes, or two scenes cannot be told apart by name.
    """
    if not inputs:
        raise UsageError("No scene was named. Name rasters, URLs, folders, patterns, STAC documents or manifests.")
    found = [one for text in inputs for one in _read(clean(str(text)), asset, KINDS)]
    if asset is not None and not any(one.is_item for one in found):
        log.warning("`asset=%s` is not used: no STAC Item was named.", asset)
    first: dict[tuple[object, ...], Found] = {}  # the same file with the same bands is one scene
    repeated = [one.path for one in found if first.setdefault((identity(one.path), one.bands), one) is not one]
    if repeated:
        count = plural(len(repeated), "repeated scene")
        log.warning("%s left out, such as %s: each scene is used once.", count, repeated[0])
    return name_sources(list(first.values()), known)
