"""A manifest: a table with a scene per row, as CSV, Parquet or GeoParquet.

stac-geoparquet is one too: https://github.com/stac-utils/stac-geoparquet.
"""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shapely.geometry.base import BaseGeometry

from geoseg.errors import GeosegError, ManifestError
from geoseg.io.store import read_bytes
from geoseg.sources.location import suffix_of
from geoseg.sources.rows import PATH_COLUMNS, ROW_COLUMNS, parse_row
from geoseg.sources.source import Found

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

TABLE_SUFFIXES = (".parquet", ".geoparquet", ".pq")
MANIFEST_SUFFIXES = (".csv", *TABLE_SUFFIXES)
SEPARATORS = ",;\t"
SHOWN = 5
"""Bad rows that a message quotes before it counts the others."""

Row = Mapping[str | None, Any]


def is_manifest(location: str) -> bool:
    """Tell by its suffix whether a location names a manifest."""
    return suffix_of(location) in MANIFEST_SUFFIXES


def read_manifest(location: str, asset: str | None = None) -> list[Found]:
    """Return the scenes of a manifest, in the order of its rows.

    Args:
        location: Path, http(s) or s3 URL; relative paths in the manifest start from its folder.
        asset: Key of the asset to take from a column `assets`.

    Raises:
        ManifestError: If it cannot be read, has no column of paths or no row, or rows that cannot be used.
    """
    data = read_bytes(location)
    if suffix_of(location) in TABLE_SUFFIXES:
        table = _read_table(data, location)
        footprints = _read_footprints(data, table.schema, location)
        found = _parse(_table_rows(table), location, asset)
        return [replace(one, footprint=shape) for one, shape in zip(found, footprints, strict=True)]
    return _parse(_csv_rows(data, location), location, asset)


def _parse(rows: Iterable[tuple[str, Row]], location: str, asset: str | None) -> list[Found]:
    """Parse all rows, and tell of all that cannot be used at once."""
    found, bad = [], []
    for where, row in rows:
        try:
            found.append(parse_row(row, location, asset))
        except GeosegError as err:
            bad.append(f"{where}: {err}")
    if bad:
        more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        raise ManifestError(
            f"{location}: {len(bad)} of {len(bad) + len(found)} rows cannot be used. Mend them or take them out.\n"
            + "\n".join([*bad[:SHOWN], *more])
        )
    if not found:
        raise ManifestError(f"{location} has columns and no row. A row per scene is expected; write one at least.")
    return found


def _csv_rows(data: bytes, location: str) -> Iterator[tuple[str, Row]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ManifestError(f"{location} is no text in UTF-8 ({err}). Save it as CSV in UTF-8.") from err
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=header.count))
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    _check_columns(columns, location)
    for row in reader:
        yield f"line {reader.line_num}", row


def _check_columns(columns: Sequence[str], location: str) -> None:
    if {*PATH_COLUMNS, "assets"} & set(columns):
        return
    raise ManifestError(
        f"{location} does not say where its scenes are: a column path, href, location or url is expected in the first "
        f"line or the schema. Found: {', '.join(columns) or 'nothing'}. Name the column of the paths `path`."
    )


def _read_table(data: bytes, location: str) -> "pyarrow.Table":
    """Read the columns that say something about a scene, under their names in lower case."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as err:
        raise ManifestError(f"{location} cannot be read as Parquet ({err}). Write it again, or use CSV.") from err
    names = {name.lower(): name for name in file.schema_arrow.names}
    _check_columns(list(names), location)
    wanted = {lower: name for lower, name in names.items() if lower in ROW_COLUMNS}
    table = file.read(columns=list(wanted.values()))
    return table.rename_columns([name.lower() for name in table.column_names])


def _table_rows(table: "pyarrow.Table") -> Iterator[tuple[str, Row]]:
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):  # Python knows microseconds
            moments = table.column(i).cast(pa.timestamp("us", field.type.tz), safe=False)
            table = table.set_column(i, field.name, moments)
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


def _read_footprints(data: bytes, schema: "pyarrow.Schema", location: str) -> list[BaseGeometry | None]:
    """Return the geometries in EPSG:4326, None for rows without one or all where nothing is known of their CRS."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(io.BytesIO(data))
    geo = (metadata.metadata or {}).get(b"geo")
    if geo is None:
        return [None] * metadata.num_rows
    import geopandas

    try:
        column = json.loads(geo)["primary_column"]
        shapes = geopandas.read_parquet(io.BytesIO(data), columns=[column]).geometry
    except (ValueError, KeyError) as err:
        raise ManifestError(f"{location} cannot be read as GeoParquet ({err}). Write it again, or use CSV.") from err
    if shapes.crs is None:
        log.warning("%s: its footprints have no CRS and are not used; every scene is opened.", location)
        return [None] * len(shapes)
    return [shape if shape is not None and not shape.is_empty else None for shape in shapes.to_crs(4326)]
