"""A manifest: a table with a scene per row, as CSV, Parquet or GeoParquet.

stac-geoparquet is one too: https://github.com/stac-utils/stac-geoparquet.
"""

import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GeosegError, ManifestError, MissingCRSError
from geoseg.gdal import placed_crs
from geoseg.io.reproject import in_degrees
from geoseg.io.store import parse_json, read_bytes
from geoseg.io.suffixes import PARQUET_SUFFIXES
from geoseg.io.tables import plural
from geoseg.scene import parse_crs
from geoseg.sources.location import is_missing, join, suffix_of
from geoseg.sources.source import Found, as_utc, is_footprint

log = logging.getLogger(__name__)

MANIFEST_SUFFIXES = (".csv", *PARQUET_SUFFIXES)
SEPARATORS = ",;\t"
SHOWN = 5
"""Bad rows that a message quotes before it counts the others."""

PATH_COLUMNS = ("path", "href", "location", "url")
"""Where a scene is; the first of these that a table has."""

MOMENT_COLUMNS = ("datetime", "start_datetime")
ROW_COLUMNS = frozenset(
    (*PATH_COLUMNS, *MOMENT_COLUMNS, "crs", "name", "bands", "nodata", "alpha", "assets", "id", "collection")
)
"""Every column that is read; others are ignored."""

TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""How tables write that something is so or not."""

Row = Mapping[str | None, Any]
"""Values by column, in lower case; the column None has the values beyond the header."""


def is_manifest(location: str) -> bool:
    """Tell by its suffix whether a location names a manifest."""
    return suffix_of(location) in MANIFEST_SUFFIXES


def read_manifest(location: str, asset: str | None = None) -> list[Found]:
    """Return the scenes of a manifest, in the order of its rows.

    Args:
        location: Path, http(s) or s3 URL; relative paths in the manifest start from its folder.
        asset: Key of the asset to take from a column `assets`.

    Raises:
        ManifestError: If it cannot be read, has no column of paths, no rows, or rows that cannot be used.
    """
    data = read_bytes(location)
    rows: Iterable[tuple[str, Row]]
    footprints: Iterable[BaseGeometry | None] = repeat(None)
    if suffix_of(location) in PARQUET_SUFFIXES:
        rows, footprints = _read_table(data, location), _read_footprints(data, location)
    else:
        rows = _read_csv(data, location)
    found, bad = [], []
    for (where, row), footprint in zip(rows, footprints, strict=False):
        try:
            found.append(replace(_parse_row(row, location, asset), footprint=footprint))
        except GeosegError as err:
            bad.append(f"{where}: {err}")
    if len(bad) == 1:
        raise ManifestError(f"{location}: 1 of {plural(1 + len(found), 'row')} cannot be used: {bad[0]}")
    if bad:
        more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        raise ManifestError(
            f"{location}: {len(bad)} of {plural(len(bad) + len(found), 'row')} cannot be used. Fix or remove them.",
            rows=[*bad[:SHOWN], *more],
        )
    if not found:
        raise ManifestError(f"{location} has columns but no rows. One row per scene is expected; add at least one.")
    return found


def _read_csv(data: bytes, location: str) -> Iterator[tuple[str, Row]]:
    """Yield each row's line, for messages, and the row."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ManifestError(f"{location} is not text in UTF-8 ({err}). Save it as CSV in UTF-8.") from err
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=header.count))
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
    except csv.Error as err:
        raise ManifestError(f"{location} cannot be read as CSV ({err} in its first line). Write it again.") from err
    reader.fieldnames = columns
    _check_columns(columns, location)
    try:
        for row in reader:
            yield f"line {reader.line_num}", row
    except csv.Error as err:
        raise ManifestError(
            f"{location} cannot be read as CSV ({err} in line {reader.line_num}). Check the quotes, or write it again."
        ) from err


def _check_columns(columns: Sequence[str], location: str) -> None:
    if not {*PATH_COLUMNS, "assets"} & set(columns):
        raise ManifestError(
            f"{location} does not say where its scenes are: a column path, href, location or url is expected in the "
            f"first line or the schema. Found: {', '.join(columns) or 'nothing'}. Name the column of the paths `path`."
        )


def _read_table(data: bytes, location: str) -> list[tuple[str, Row]]:
    """Read the columns that say something about a scene, under their names in lower case."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = {name.lower(): name for name in file.schema_arrow.names}
        _check_columns(list(names), location)
        table = file.read(columns=[name for lower, name in names.items() if lower in ROW_COLUMNS])
        table = table.rename_columns([name.lower() for name in table.column_names])
        for i, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type):  # Python's datetime has microseconds
                moments = table.column(i).cast(pa.timestamp("us", field.type.tz), safe=False)
                table = table.set_column(i, field.name, moments)
        return [(f"row {number}", row) for number, row in enumerate(table.to_pylist(), 1)]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
        raise ManifestError(f"{location} cannot be read as Parquet ({err}). Write it again, or use CSV.") from err


def _read_footprints(data: bytes, location: str) -> list[BaseGeometry | None]:
    """Return the geometries in EPSG:4326, None for rows without one or all where nothing is known of their CRS."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(io.BytesIO(data))
    geo = (metadata.metadata or {}).get(b"geo")
    if geo is None:
        return [None] * metadata.num_rows
    import geopandas

    try:
        column = parse_json(geo)["primary_column"]
        shapes = geopandas.read_parquet(io.BytesIO(data), columns=[column]).geometry
    except Exception as err:  # geopandas, shapely, pyarrow and pyproj raise several types without a common root
        raise ManifestError(f"{location} cannot be read as GeoParquet ({err}). Write it again, or use CSV.") from err
    if placed_crs(shapes.crs) is None:
        log.warning("%s: its footprints have no CRS and are not used; every scene is opened.", location)
        return [None] * len(shapes)
    known = np.array([shape is not None and bool(np.isfinite(shape.bounds).all()) for shape in shapes], bool)
    placed = np.full(len(shapes), None, object)
    placed[known] = in_degrees(shapes[known].to_numpy(), shapes.crs)
    return [shape if shape is not None and is_footprint(shape) else None for shape in placed]


def _parse_row(row: Row, location: str, asset: str | None) -> Found:
    """Return the scene of a row, whatever table it stood in.

    Raises:
        ManifestError: If a value is missing or cannot be understood; the message says which.
        AssetError: If an Item's asset cannot be chosen.
    """
    if row.get(None):
        raise ManifestError(
            f"it has {len(row[None])} values more than there are columns. Put values that contain the separator in "
            'quotes, such as bands "1,2,3".'
        )
    is_item = not set(PATH_COLUMNS) & set(row)
    if is_item:
        href = _asset_href(row, asset)
    else:
        column = next(name for name in PATH_COLUMNS if name in row)
        href = _text(row[column]) or ""
        if not href:
            raise ManifestError(f"{column} is empty. A file or URL is expected.")
    path = join(location, href)
    if is_missing(path):
        raise ManifestError(f"there is no file {path}. A raster is expected; paths start from the manifest's folder.")
    return Found(
        path,
        is_item=is_item,
        name=_text(row.get("id" if is_item and not _text(row.get("name")) else "name")),
        parent=_text(row.get("collection")) if is_item else None,
        datetime=_moment(row),
        crs=_crs(_text(row.get("crs"))),
        bands=_bands(row.get("bands")),
        nodata=_nodata(row.get("nodata")),
        alpha=_alpha(row.get("alpha")),
    )


def _text(value: Any) -> str | None:
    """Return a cell as text; None where it is empty. Tables store whole numbers with gaps as 32630.0 and NaN."""
    if isinstance(value, float):
        value = None if math.isnan(value) else f"{value:g}" if not value.is_integer() else int(value)
    return str(value).strip() or None if value is not None else None


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _asset_href(row: Row, wanted: str | None) -> str:
    struct = row["assets"] or {}
    if not isinstance(struct, dict):
        raise ManifestError(
            f"assets hold {type(struct).__name__}; a struct of assets with href, type and roles is expected, as "
            "stac-geoparquet writes it."
        )
    from pystac import Asset

    from geoseg.sources.stac import choose_asset

    assets = {
        key: Asset(str(cell["href"]), media_type=_text(cell.get("type")), roles=_texts(cell.get("roles")))
        for key, cell in struct.items()
        if isinstance(cell, dict) and cell.get("href")
    }
    return assets[choose_asset(assets, wanted, f"the Item {row.get('id')}")].href


def _moment(row: Row) -> datetime | None:
    value = next((row[name] for name in MOMENT_COLUMNS if row.get(name) not in (None, "")), None)
    if isinstance(value, datetime):
        return as_utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    text = _text(value)
    try:
        return as_utc(datetime.fromisoformat(text)) if text else None
    except ValueError as err:
        raise ManifestError(f"datetime {text} cannot be read. Expected: 2023-05-01 or 2023-05-01T10:30:00Z.") from err


@lru_cache(maxsize=256)
def _crs(text: str | None) -> str | None:
    if text is None:
        return None
    crs = f"EPSG:{text}" if text.isdecimal() else text
    try:
        parse_crs(crs)
    except MissingCRSError as err:
        raise ManifestError(f"crs {text} is not a coordinate reference system. Expected: EPSG:32630, say.") from err
    return crs


def _bands(value: Any) -> tuple[int, ...] | None:
    parts = value if isinstance(value, list) else re.split(r"[\s,;]+", _text(value) or "")
    try:
        bands = tuple(int(part) for part in parts if part not in ("", None))
    except (ValueError, TypeError, OverflowError) as err:
        raise ManifestError(f"bands {value} is not a list of band numbers. Expected: 1,2,3, say.") from err
    if bands and min(bands) < 1:
        raise ManifestError(f"bands {value} counts from 0; bands are numbered from 1. Expected: 1,2,3, say.")
    return bands or None


def _nodata(value: Any) -> float | None:
    if _text(value) is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    if not math.isfinite(number):
        raise ManifestError(f"nodata {value} is not a number. Expected: 255, say; NaN means nodata anyway.")
    return number


def _alpha(value: Any) -> bool | None:
    text = (_text(value) or "").lower()
    if text and text not in TRUTHS:
        raise ManifestError(f"alpha {value} is neither true nor false. Expected one of them, or nothing.")
    return TRUTHS[text] if text else None
