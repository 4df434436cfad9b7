"""A scene before it is opened: where it is, and what was said about it."""

import datetime as dt
from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class SceneSource:
    """One scene that a user named.

    Attributes:
        name: File-safe, and unique among the sources of a run.
        paths: Its files or URLs, as `open_scene` takes them.
        datetime: When it was taken, UTC; None where nobody said.
        footprint: The ground it covers, EPSG:4326; None where nobody said.
        crs: The CRS to use where the file has none.
        bands: One-based band numbers; None leaves the choice to model and file.
    """

    name: str
    paths: tuple[str, ...]
    datetime: dt.datetime | None = None
    footprint: BaseGeometry | None = None
    crs: str | None = None
    bands: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A scene as one input gives it, before its name is compared with the others'.

    Attributes:
        path: Its file or URL.
        is_item: True where it is an asset of a STAC Item.
        name: The name it was given: a STAC Item's id or a manifest's; None takes that of the file.
        parent: What stands before the name where names clash: a STAC Collection; None takes the file's folder.
        datetime: See `SceneSource`.
        footprint: See `SceneSource`.
        crs: See `SceneSource`.
        bands: See `SceneSource`.
    """

    path: str
    is_item: bool = False
    name: str | None = None
    parent: str | None = None
    datetime: dt.datetime | None = None
    footprint: BaseGeometry | None = None
    crs: str | None = None
    bands: tuple[int, ...] | None = None


def as_utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Return a moment in UTC, so that any two compare; without a time zone it counts as UTC."""
    if moment is None:
        return None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
