"""One row of a manifest, whatever table it stood in."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from geoseg.errors import ManifestError, MissingCRSError
from geoseg.scene import parse_crs
from geoseg.sources.assets import Asset, choose_asset
from geoseg.sources.location import is_local, join
from geoseg.sources.source import Found, as_utc

PATH_COLUMNS = ("path", "href", "location", "url")
"""Where a scene is; the first of these that a table has."""

MOMENT_COLUMNS = ("datetime", "start_datetime")
ROW_COLUMNS = frozenset((*PATH_COLUMNS, *MOMENT_COLUMNS, "crs", "name", "bands", "assets", "id", "collection"))
"""Every column that is read; others may hold what they like."""


def parse_row(row: Mapping[str | None, Any], location: str, asset: str | None) -> Found:
    """Return the scene of a row.

    Args:
        row: Values by column, in lower case; None as column holds values beyond the header's.
        location: The manifest's own.
        asset: Key of the asset to take, in tables of STAC Items.

    Raises:
        ManifestError: If a value is missing or cannot be understood; the message says which.
        AssetError: If an Item's asset cannot be chosen.
    """
    if row.get(None):
        raise ManifestError(
            f"it has {len(row[None])} values more than there are columns. Put values that hold the separator between "
            'quotes, such as bands "1,2,3".'
        )
    is_item = not set(PATH_COLUMNS) & set(row)
    path = join(location, _asset_href(row, asset) if is_item else _path(row))
    if is_local(path) and not Path(path).is_file():
        raise ManifestError(f"there is no file {path}. A raster is expected; paths start from the manifest's folder.")
    return Found(
        path,
        is_item=is_item,
        name=_text(row.get("id" if is_item and not _text(row.get("name")) else "name")),
        parent=_text(row.get("collection")) if is_item else None,
        datetime=_moment(row),
        crs=_crs(_text(row.get("crs"))),
        bands=_bands(row.get("bands")),
    )


def _text(value: Any) -> str | None:
    """Return a cell as text; None where it is empty. Tables store whole numbers with gaps as 32630.0 and NaN."""
    if isinstance(value, float):
        value = None if math.isnan(value) else f"{value:g}" if not value.is_integer() else int(value)
    return str(value).strip() or None if value is not None else None


def _path(row: Mapping[str | None, Any]) -> str:
    column = next(name for name in PATH_COLUMNS if name in row)
    path = _text(row[column])
    if path is None:
        raise ManifestError(f"{column} is empty. A file or URL is expected.")
    return path


def _asset_href(row: Mapping[str | None, Any], wanted: str | None) -> str:
    struct = row["assets"] or {}
    if not isinstance(struct, dict):
        raise ManifestError(
            f"assets hold {type(struct).__name__}; a struct of assets with href, type and roles is expected, as "
            "stac-geoparquet writes it."
        )
    cells = {key: cell for key, cell in struct.items() if cell and cell.get("href")}
    assets = [
        Asset(key, str(cell["href"]), _text(cell.get("type")), tuple(cell.get("roles") or ()))
        for key, cell in cells.items()
    ]
    return choose_asset(assets, wanted, f"the Item {row.get('id')}").href


def _moment(row: Mapping[str | None, Any]) -> datetime | None:
    value = next((row[name] for name in MOMENT_COLUMNS if row.get(name) not in (None, "")), None)
    if isinstance(value, datetime):
        return as_utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    text = _text(value)
    try:
        return as_utc(datetime.fromisoformat(text)) if text else None
    except ValueError as err:
        raise ManifestError(
            f"datetime {text} is not understood. Expected: 2023-05-01 or 2023-05-01T10:30:00Z."
        ) from err


@lru_cache(maxsize=256)
def _crs(text: str | None) -> str | None:
    if text is None:
        return None
    crs = f"EPSG:{text}" if text.isdecimal() else text
    try:
        parse_crs(crs)
    except MissingCRSError as err:
        raise ManifestError(f"crs {text} is no coordinate reference system. Expected: EPSG:32630, say.") from err
    return crs


def _bands(value: Any) -> tuple[int, ...] | None:
    parts = value if isinstance(value, list) else re.split(r"[\s,;]+", _text(value) or "")
    try:
        bands = tuple(int(part) for part in parts if part not in ("", None))
    except ValueError as err:
        raise ManifestError(f"bands {value} is no list of band numbers. Expected: 1,2,3, say.") from err
    if bands and min(bands) < 1:
        raise ManifestError(f"bands {value} counts from 0; bands are numbered from 1. Expected: 1,2,3, say.")
    return bands or None
