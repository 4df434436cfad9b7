"""Footprints as files: GeoPackage for people and their GIS, GeoParquet for programs.

Both are written from a stream of record batches, so that no more than a batch of footprints is held. GDAL builds the
GeoPackage's spatial index at the end; GeoParquet's row groups are the batches, whose size is fixed, so that the file is
a function of the footprints alone.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from geoseg.io.aside import output_error, reported, write_aside
from geoseg.outputs.styles import footprint_qml
from geoseg.silence import quiet

if TYPE_CHECKING:
    import pyarrow
    from geopandas import GeoDataFrame
    from pyproj import CRS

    from geoseg.vectorize import Footprints

LAYER = "buildings"
DESCRIPTION = "Building footprints. area_m2 and perimeter_m on the ellipsoid; confidence: mean probability inside."
STYLE_TABLE = "layer_styles"
"""Where QGIS looks for styles in a GeoPackage; its columns are those that QGIS makes itself."""

GEOPACKAGE_VERSION = "1.2"
"""GDAL before 3.7, which QGIS 3.22 ships with, warns at newer versions."""

UNDEFINED_CARTESIAN_SRID = -1
"""The GeoPackage standard's own number for coordinates without a CRS (OGC 12-128r18, requirement 11)."""

BATCH = 50_000
"""Footprints held at once: about 20 MB. A row group of GeoParquet as well."""

BOX = ("xmin", "ymin", "xmax", "ymax")


def write_footprint_files(
    batches: Iterator["pyarrow.RecordBatch"], crs: object, geopackage: str | Path, geoparquet: str | Path
) -> None:
    """Write a stream of footprints as GeoPackage and as GeoParquet, in one pass.

    Args:
        batches: What `rebatch` gave.
        crs: CRS of the geometries, or None.
        geopackage: The one file to be; an older one is replaced.
        geoparquet: The other.

    Raises:
        OutputError: If a file cannot be written; nothing of either is left then.
    """
    first, chained = _peek(batches)
    with (
        write_aside(geoparquet) as aside,
        reported(geoparquet),
        _GeoParquet.open(aside, first.schema, crs) as parquet,
    ):
        _write_layer(parquet.tee(chained), first.schema, crs, Path(geopackage), LAYER)


def write_geopackage(footprints: "GeoDataFrame", path: str | Path, *, layer: str = LAYER) -> Path:
    """Write footprints as a GeoPackage that QGIS draws in style.

    Args:
        footprints: Polygons with their attributes; may be empty and may be without a CRS.
        path: The file to be; an older one is replaced.
        layer: Name of the layer.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written; nothing of it is left then.
    """
    batch = _frame_batch(footprints)
    return _write_layer(rebatch([batch]), batch.schema, footprints.crs, Path(path), layer)


def write_geoparquet(footprints: "GeoDataFrame", path: str | Path) -> Path:
    """Write footprints as GeoParquet 1.1 with a covering box per footprint.

    Args:
        footprints: Polygons with their attributes; may be empty and may be without a CRS.
        path: The file to be; an older one is replaced.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written; nothing of it is left then.
    """
    batch = _frame_batch(footprints)
    with (
        write_aside(path) as aside,
        reported(path),
        _GeoParquet.open(aside, batch.schema, footprints.crs) as parquet,
    ):
        for part in rebatch([batch]):
            parquet.write(part)
    return Path(path)


def to_batch(footprints: "Footprints") -> "pyarrow.RecordBatch":
    """Return footprints as a record batch, in reading order: attributes, `geometry` as WKB, `bbox`."""
    import pyarrow as pa

    count = len(footprints)
    offset, wkb = pa.py_buffer(footprints.wkb_offset.astype(np.int64)), pa.py_buffer(footprints.wkb)
    columns = {
        "area_m2": footprints.area_m2,
        "perimeter_m": footprints.perimeter_m,
        "confidence": footprints.confidence,
        "edge": footprints.edge,
        "geometry": pa.Array.from_buffers(pa.large_binary(), count, [None, offset, wkb]),
        "bbox": _boxes(footprints.bounds),
    }
    return pa.record_batch(columns).take(np.lexsort((footprints.col, footprints.row)))


def rebatch(batches: Iterable["pyarrow.RecordBatch"]) -> Iterator["pyarrow.RecordBatch"]:
    """Yield the rows of batches of any size in batches of `BATCH`; the last one is smaller, and may be empty."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) > BATCH:
            rows = pa.Table.from_batches(held)
            yield _as_one(rows.slice(0, BATCH))
            held = rows.slice(BATCH).to_batches()
    yield _as_one(pa.Table.from_batches(held))


def _as_one(rows: "pyarrow.Table") -> "pyarrow.RecordBatch":
    """Return rows as one batch of fresh memory, geometries with 32-bit offsets, which every reader knows."""
    import pyarrow as pa

    geometry = rows.schema.get_field_index("geometry")
    rows = rows.set_column(geometry, "geometry", rows["geometry"].cast(pa.binary()))
    rows = rows.combine_chunks()
    return rows.to_batches()[0] if len(rows) else pa.RecordBatch.from_pylist([], schema=rows.schema)


def _peek(batches: Iterator["pyarrow.RecordBatch"]) -> "tuple[pyarrow.RecordBatch, Iterator[pyarrow.RecordBatch]]":
    """Return the first batch, and all of them."""
    first = next(batches)

    def chain() -> Iterator["pyarrow.RecordBatch"]:
        yield first
        yield from batches

    return first, chain()


def _frame_batch(footprints: "GeoDataFrame") -> "pyarrow.RecordBatch":
    """Return a frame as `to_batch` does, rows and attributes as they are."""
    import pyarrow as pa

    attributes = footprints.drop(columns=footprints.geometry.name)
    columns = {str(name): pa.array(values.to_numpy()) for name, values in attributes.items()}
    columns["geometry"] = pa.array(footprints.geometry.to_wkb(), pa.binary())
    columns["bbox"] = _boxes(footprints.bounds.to_numpy())
    return pa.record_batch(columns)


def _boxes(bounds: np.ndarray[Any, np.dtype[np.float64]]) -> "pyarrow.StructArray":
    import pyarrow as pa

    return pa.StructArray.from_arrays([pa.array(side) for side in bounds.T.copy()], names=BOX)


@dataclass(slots=True)
class _GeoParquet:
    """A GeoParquet file under construction."""

    writer: Any
    crs: "CRS | None"
    count: int = 0
    low: list[float] = field(default_factory=lambda: [np.inf, np.inf])
    high: list[float] = field(default_factory=lambda: [-np.inf, -np.inf])

    @classmethod
    @contextmanager
    def open(cls, path: Path, schema: "pyarrow.Schema", crs: object) -> Iterator[Self]:
        """Open a file, and finish it where nothing goes wrong."""
        from pyarrow.parquet import ParquetWriter

        # Arrow's own copy of the schema would hide the metadata that are written at the end from its readers.
        with ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
            file = cls(writer, _official(crs))
            yield file
            writer.add_key_value_metadata({"geo": json.dumps(file.describe())})

    def tee(self, batches: Iterable["pyarrow.RecordBatch"]) -> Iterator["pyarrow.RecordBatch"]:
        """Write batches and pass them on."""
        for batch in batches:
            self.write(batch)
            yield batch

    def write(self, batch: "pyarrow.RecordBatch") -> None:
        """Write a batch as a row group."""
        import pyarrow.compute as pc

        if not len(batch):
            return
        self.writer.write_batch(batch, row_group_size=len(batch))
        self.count += len(batch)
        box = [batch["bbox"].field(name) for name in BOX]
        self.low = [min(old, pc.min(side).as_py()) for old, side in zip(self.low, box[:2], strict=True)]
        self.high = [max(old, pc.max(side).as_py()) for old, side in zip(self.high, box[2:], strict=True)]

    def describe(self) -> dict[str, Any]:
        """Return the file's metadata (GeoParquet 1.1)."""
        from geoseg._version import __version__

        column: dict[str, Any] = {
            "encoding": "WKB",
            "crs": _projjson(self.crs) if self.crs is not None else None,
            "geometry_types": ["Polygon"] if self.count else [],
            "covering": {"bbox": {name: ["bbox", name] for name in BOX}},
        }
        if np.isfinite([*self.low, *self.high]).all():
            column["bbox"] = [*self.low, *self.high]
        return {
            "version": "1.1.0",
            "primary_column": "geometry",
            "columns": {"geometry": column},
            "creator": {"library": "geoseg", "version": __version__},
        }


def _official(crs: object) -> "CRS | None":
    """Return pyproj's CRS, in the EPSG registry's words where it has the same."""
    from geoseg.vectorize.ground import official_crs

    return None if crs is None else official_crs(crs)


def _projjson(crs: "CRS") -> dict[str, Any]:
    """Return a CRS as PROJJSON that older versions of PROJ read, too (https://github.com/OSGeo/PROJ/pull/3221)."""
    document = crs.to_json_dict()
    _forget_members(document)
    return document


def _forget_members(document: dict[str, Any]) -> None:
    """Take away the registry numbers of a datum ensemble's members, as GDAL and geopandas do."""
    for key, value in document.items():
        if isinstance(value, dict):
            _forget_members(value)
        elif key == "members":
            for member in value:
                member.pop("id", None)


def _write_layer(
    batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path, layer: str
) -> Path:
    """Write a stream of footprints as the layer of a GeoPackage."""
    from pyogrio import read_info, write_dataframe
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError

    failures = (DataLayerError, DataSourceError, FeatureError, FieldError)
    stream = _Stream(batches)
    said = "'crs' was not provided"  # when the scene was opened
    with write_aside(path) as aside, reported(path, *failures), quiet(UserWarning, said):
        stream.write(aside, schema, _official(crs), layer)
        write_dataframe(_style_rows(layer), aside, layer=STYLE_TABLE, append=True, layer_options={"FID": "id"})
        written = read_info(aside, layer=layer, force_feature_count=True)["features"]
        if written != stream.count:
            raise output_error(path, f"{written} of {stream.count} footprints after writing")
    return path


@dataclass(slots=True)
class _Stream:
    """Batches on their way through Arrow's C interface into GDAL, which passes on no exceptions."""

    batches: Iterator["pyarrow.RecordBatch"]
    count: int = 0
    failure: BaseException | None = None

    def write(self, path: Path, schema: "pyarrow.Schema", crs: "CRS | None", layer: str) -> None:
        """Write all batches, boxes left out: a GeoPackage has an index of its own."""
        import pyarrow as pa
        from pyogrio import write_arrow

        options = {"GEOMETRY_NAME": "geom", "DESCRIPTION": DESCRIPTION}
        if crs is None:
            options["SRID"] = str(UNDEFINED_CARTESIAN_SRID)
        plain = schema.remove(schema.get_field_index("bbox"))
        try:
            write_arrow(
                pa.RecordBatchReader.from_batches(plain, self._pass(plain.names)),
                path,
                layer=layer,
                driver="GPKG",
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=_name_for_gdal(crs),
                dataset_options={"VERSION": GEOPACKAGE_VERSION},
                layer_options=options,
            )
        except RuntimeError:
            if self.failure is not None:
                raise self.failure from None
            raise

    def _pass(self, names: list[str]) -> Iterator["pyarrow.RecordBatch"]:
        try:
            for batch in self.batches:
                self.count += len(batch)
                yield batch.select(names)
        except BaseException as err:
            self.failure = err
            raise


def _name_for_gdal(crs: "CRS | None") -> str | None:
    """Return a CRS as pyogrio's own writer of frames passes it on."""
    if crs is None:
        return None
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None else str(crs.to_wkt("WKT1_GDAL"))


def _style_rows(layer: str) -> Any:
    """Return the table row by which QGIS finds the style of a layer."""
    from pandas import DataFrame

    row = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": layer,
        "f_geometry_column": "geom",
        "styleName": "geoseg buildings",
        "styleQML": footprint_qml(),
        "styleSLD": "",
        "useAsDefault": True,
        "description": "Confidence by colour, dashed outline at the edge of the data",
        "owner": "",
        "ui": "",
        "update_time": datetime.now(UTC).replace(microsecond=0),
    }
    return DataFrame([row])
