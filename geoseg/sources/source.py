"""A scene before it is opened: its location, what is known about it, its name, and whether it may overlap an area."""

import datetime as dt
import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SourceError
from geoseg.io.tables import plural
from geoseg.redaction import redact
from geoseg.scene import path_of
from geoseg.sources.location import folders_of, identity, parent_of

log = logging.getLogger(__name__)

UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
"""What Windows, Linux or macOS refuse in a file's name."""

MAX_NAME = 100
MAX_BYTES = 200
"""Characters and bytes of a name: file systems take 255 bytes, and results add words of their own."""

MARGIN = 0.01
"""Share of a footprint's size by which it may be wrong: straight in degrees is not straight on a map (0.4 % over
110 km at 60 degrees north), and catalogs round. One scene too many costs reading one header."""

FARTHEST = (720.0, 100.0, 720.0, 100.0)
"""Largest longitudes and latitudes, to either side, of a footprint: catalogs count longitudes from anywhere."""

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SceneSource:
    """One scene that a user named.

    Attributes:
        name: File-safe, and unique among the sources of a run.
        paths: Its files or URLs, as `open_scene` takes them.
        datetime: When it was taken, UTC; None where unknown.
        footprint: The ground it covers, EPSG:4326; None where unknown.
        crs: The CRS to use where the file has none.
        bands: One-based band numbers; None leaves the choice to model and file.
        nodata: The nodata value that counts instead of the file's.
        alpha: Whether a band that is marked alpha is a mask; found out by default.
        is_direct: See `Found`.
    """

    name: str
    paths: tuple[str, ...]
    datetime: dt.datetime | None = None
    footprint: BaseGeometry | None = None
    crs: str | None = None
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    alpha: bool | None = None
    is_direct: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A scene as one input gives it, before its name is compared with the others'.

    Attributes:
        path: Its file or URL.
        is_item: True where it is an asset of a STAC Item.
        name: The name it was given: a STAC Item's id or a manifest's; None takes that of the file.
        parent: Prefix of the name where names clash: a STAC Collection; None uses the file's folder.
        datetime: See `SceneSource`.
        footprint: See `SceneSource`.
        crs: See `SceneSource`.
        bands: See `SceneSource`.
        nodata: See `SceneSource`.
        alpha: See `SceneSource`.
        is_direct: True for a raster or a STAC Item that was named itself: never more than one scene, whatever is added
            to a folder, a list or a catalog.
    """

    path: str
    is_item: bool = False
    name: str | None = None
    parent: str | None = None
    datetime: dt.datetime | None = None
    footprint: BaseGeometry | None = None
    crs: str | None = None
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    alpha: bool | None = None
    is_direct: bool = False


def pixels_with_data(source: SceneSource, nodata: float | None, alpha: bool | None) -> dict[str, Any]:
    """Return `nodata` and `alpha` of `open_scene` for a scene: its own if it has any, else those for all scenes."""
    return {
        "nodata": nodata if source.nodata is None else source.nodata,
        "alpha": alpha if source.alpha is None else source.alpha,
    }


def is_footprint(shape: BaseGeometry) -> bool:
    """Return True for a geometry that may be ground in degrees: what lies anywhere else says nothing about a scene."""
    return not shape.is_empty and bool((np.abs(shape.bounds) <= FARTHEST).all())


def as_utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Return a moment in UTC, so that any two compare; without a time zone it counts as UTC."""
    if moment is None:
        return None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def safe_name(text: str) -> str:
    """Return a text as the name of a file or folder that is neither hidden nor too long."""
    safe = UNSAFE.sub("_", text).strip().rstrip(". ")
    safe = re.sub(r"^\.+", "_", safe) or "scene"
    if len(safe) <= MAX_NAME and len(safe.encode()) <= MAX_BYTES:
        return safe
    cut = safe[: MAX_NAME - 9].encode()[: MAX_BYTES - 9].decode(errors="ignore")
    return f"{cut}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def name_sources(found: Sequence[Found], known: Mapping[str, str] | None = None) -> list[SceneSource]:
    """Give every scene a name of its own; see `choose_names`."""
    names = choose_names(found, known)
    sources = []
    for name, one in zip(names, found, strict=True):
        facts = (one.datetime, one.footprint, one.crs, one.bands, one.nodata, one.alpha, one.is_direct)
        sources.append(SceneSource(name, (one.path,), *facts))
    return sources


def choose_names(found: Sequence[Found], known: Mapping[str, str] | None = None) -> list[str]:
    """Return a name for every scene: its stem or given name, unless others have the same.

    Those that clash keep their suffix; where that does not tell them apart either, their folder (or STAC Collection)
    becomes a prefix, then all folders in which they differ. Two names that one file system or another takes for the
    same, such as those that differ in letter case alone, clash.

    Args:
        found: The scenes.
        known: Names that scenes had before, by `identity` of their files: they keep them, so that a scene that is
            added does not give another one a new name.

    Raises:
        SourceError: If two scenes would still share a name.
    """
    choices = _list_choices(found)
    names = _keep_names(found, choices, known or {})
    for level in zip(*choices, strict=True):  # names that are unique at this level and not taken at an earlier one
        taken = {_folded(name) for name in names if name is not None}
        wanted = Counter(_folded(choice) for name, choice in zip(names, level, strict=True) if name is None)
        for i, choice in enumerate(level):
            if names[i] is None and wanted[_folded(choice)] == 1 and _folded(choice) not in taken:
                names[i] = choice
    for one, own, (*_, last) in zip(found, names, choices, strict=True):
        if own is None:
            other = next(
                other.path
                for other, name, choice in zip(found, names, choices, strict=True)
                if other is not one and _folded(last) in (_folded(name or ""), _folded(choice[-1]))
            )
            raise SourceError(
                f"{one.path} and {other} would share the name {last}, and results are named after their scenes. Run "
                "them separately, each with its own `out`, or give them names in a manifest (a CSV with columns path "
                "and name)."
            )
    return [name for name in names if name is not None]


def _keep_names(found: Sequence[Found], choices: Sequence[Sequence[str]], known: Mapping[str, str]) -> list[str | None]:
    """Return the names that scenes had before and may have now; None for the others, and where two would have one."""
    kept = [known.get(redact(identity(one.path))) for one in found]
    kept = [name if name in own else None for name, own in zip(kept, choices, strict=True)]
    wanted = Counter(_folded(name) for name in kept if name is not None)
    return [name if name is not None and wanted[_folded(name)] == 1 else None for name in kept]


def _folded(name: str) -> str:
    """Return a text that names share if they are one file on Windows or macOS."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _list_choices(found: Sequence[Found]) -> list[tuple[str, ...]]:
    """Return the names that each scene may get, the preferred one first."""
    folders = [folders_of(one.path) for one in found]
    differing = (i for i, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1)
    shared = next(differing, min(map(len, folders), default=0))
    listed = []
    for one, folder in zip(found, folders, strict=True):
        path = path_of(one.path)
        name = one.name or path.stem or "scene"
        full = f"{name}{path.suffix.replace('.', '_')}"
        beside, below = one.parent or parent_of(one.path), folder[shared:]
        choices = (
            name,
            full,
            f"{beside}_{name}",
            f"{beside}_{full}",
            "_".join((*below, name)),
            "_".join((*below, full)),
        )
        listed.append(tuple(map(safe_name, choices)))
    return listed


def filter_sources(sources: Sequence[SceneSource], aoi_bounds_4326: Bounds) -> list[SceneSource]:
    """Leave out the scenes whose footprint does not meet an area; those without a footprint stay.

    Args:
        sources: Scenes, not opened here.
        aoi_bounds_4326: `(west, south, east, north)` in degrees; west > east crosses the antimeridian.
    """
    west, south, east, north = aoi_bounds_4326
    if west > east:
        east += 360
    around = (-360, 0, 360)  # catalogs count longitudes from anywhere
    area = shapely.union_all([shapely.box(west + turn, south, east + turn, north) for turn in around])
    kept = []
    for source in sources:
        if source.footprint is not None:
            bounds = shapely.bounds(source.footprint)
            margin = MARGIN * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
            footprint = source.footprint if shapely.is_valid(source.footprint) else shapely.box(*bounds)
            if not shapely.dwithin(footprint, area, margin):
                continue
        kept.append(source)
    if len(kept) < len(sources):
        log.info("Not opened, outside the area: %d of %s.", len(sources) - len(kept), plural(len(sources), "scene"))
    return kept
