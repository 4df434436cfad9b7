"""A scene before it is opened: its location, what is known about it, its name, and whether it may overlap an area."""

import datetime as dt
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SourceError
from geoseg.io.tables import plural
from geoseg.sources.location import parent_of, path_of

log = logging.getLogger(__name__)

UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
"""What Windows, Linux or macOS refuse in a file's name."""

MAX_NAME = 100
"""Characters of a name: file systems take 255 bytes, and results add words of their own."""

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
    """

    name: str
    paths: tuple[str, ...]
    datetime: dt.datetime | None = None
    footprint: BaseGeometry | None = None
    crs: str | None = None
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    alpha: bool | None = None


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
    safe = UNSAFE.sub("_", text).strip().rstrip(".")
    safe = re.sub(r"^\.+", "_", safe) or "scene"
    if len(safe) <= MAX_NAME:
        return safe
    return f"{safe[: MAX_NAME - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def name_sources(found: Sequence[Found]) -> list[SceneSource]:
    """Give every scene a name of its own: its stem or given name, unless others have the same.

    Those that clash keep their suffix; where that does not tell them apart either, their folder (or STAC Collection)
    becomes a prefix. Letter case makes no difference, as on Windows and macOS.

    Raises:
        SourceError: If two scenes would still share a name.
    """
    choices = [_choices(one) for one in found]
    names: list[str | None] = [None] * len(found)
    for level in zip(*choices, strict=True):  # names that are unique at this level and not taken at an earlier one
        taken = {name.casefold() for name in names if name is not None}
        wanted = Counter(choice.casefold() for name, choice in zip(names, level, strict=True) if name is None)
        for i, choice in enumerate(level):
            if names[i] is None and wanted[choice.casefold()] == 1 and choice.casefold() not in taken:
                names[i] = choice
    sources = []
    for one, own, (*_, last) in zip(found, names, choices, strict=True):
        if own is None:
            other = next(
                other.path
                for other, name, choice in zip(found, names, choices, strict=True)
                if other is not one and last.casefold() in ((name or "").casefold(), choice[-1].casefold())
            )
            raise SourceError(
                f"{one.path} and {other} would share the name {last}, and results are named after their scenes. Run "
                "them separately, each with its own `out`, or give them names in a manifest (a CSV with columns path "
                "and name)."
            )
        known = (one.datetime, one.footprint, one.crs, one.bands, one.nodata, one.alpha)
        sources.append(SceneSource(own, (one.path,), *known))
    return sources


def _choices(found: Found) -> tuple[str, str, str, str]:
    """Return the names that a scene may get, the preferred one first."""
    path = path_of(found.path)
    name = found.name or path.stem or "scene"
    full = f"{name}{path.suffix.replace('.', '_')}"
    parent = found.parent or parent_of(found.path)
    return safe_name(name), safe_name(full), safe_name(f"{parent}_{name}"), safe_name(f"{parent}_{full}")


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
