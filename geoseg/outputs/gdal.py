"""Vector formats that GDAL writes: GeoPackage, with the style that QGIS draws it in, FlatGeobuf, GeoJSON, PMTiles."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from geoseg.io.aside import output_error, reported
from geoseg.io.reproject import in_degrees
from geoseg.outputs.styles import footprint_qml
from geoseg.third_party import ignore_warnings
from geoseg.vectorize.ground import official_crs

if TYPE_CHECKING:
    import pyarrow
    from geopandas import GeoDataFrame

LAYER = "buildings"
"""Name of the layer of footprints."""

DESCRIPTION = (
    "Building footprints. area_m2 and perimeter_m on the ellipsoid; confidence: mean probability inside; edge: cut off "
    "by the scene; orientation_deg: longer walls, clockwise from north; outline: regular, simple or raw (pixels)."
)
STYLE_TABLE = "layer_styles"
"""Where QGIS looks for styles in a GeoPackage; its columns are those that QGIS makes itself."""

VERSION = "1.2"
"""GDAL before 3.7, which QGIS 3.22 ships with, warns at newer versions."""

DEGREE_DIGITS = 8
"""Decimals of degrees in GeoJSON: a millimeter."""

ZOOMS = (13, 15)
"""Zooms of vector tiles: a unit of the last one is 0.3 m at the equator, and viewers enlarge it further. Each costs the
same again, and below the first one buildings are dots."""

TILE_COLUMNS = ("id", "area_m2", "confidence", "scene", "date")
"""Columns in vector tiles, which hold a building once per zoom and tile; with all of them tiles cost twice as much."""

UNLIMITED = str(10**8)
"""Bytes and features of a tile: with GDAL's limits dense towns would lose detail."""

UNDEFINED_CARTESIAN_SRID = -1
"""The GeoPackage standard's own number for coordinates without a CRS (OGC 12-128r18, requirement 11)."""


@dataclass(frozen=True, slots=True)
class GeoPackage:
    """For people and their GIS: see `geoseg.outputs.footprints.FootprintWriter`.

    Attributes:
        layer: Name of the layer.
    """

    layer: str = LAYER
    suffix: ClassVar[str] = ".gpkg"
    needs_crs: ClassVar[bool] = False

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write footprints and their style."""
        options = {"GEOMETRY_NAME": "geom", "DESCRIPTION": DESCRIPTION}
        if crs is None:
            options["SRID"] = str(UNDEFINED_CARTESIAN_SRID)
        version = {"VERSION": VERSION}
        count = write_layer(
            batches, schema, crs, path, "GPKG", layer=self.layer, dataset_options=version, layer_options=options
        )
        add_style(
            path,
            self.layer,
            footprint_qml(has_confidence="confidence" in schema.names),
            "Confidence by color, if there is one; dashed outline at the edge of the data",
        )
        return count


def add_style(path: Path, layer: str, qml: str, description: str) -> None:
    """Store the style of a layer in its GeoPackage, from where QGIS takes it.

    Raises:
        OutputError: If it cannot be written.
    """
    from pandas import DataFrame
    from pyogrio import write_dataframe
    from pyogrio.errors import DataLayerError, DataSourceError

    style = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": layer,
        "f_geometry_column": "geom",
        "styleName": f"geoseg {layer}",
        "styleQML": qml,
        "styleSLD": "",
        "useAsDefault": True,
        "description": description,
        "owner": "",
        "ui": "",
        "update_time": datetime.now(UTC).replace(microsecond=0),
    }
    with reported(path, DataLayerError, DataSourceError):
        write_dataframe(DataFrame([style]), path, layer=STYLE_TABLE, append=True, layer_options={"FID": "id"})


def write_layers(path: Path, layers: Mapping[str, "GeoDataFrame"], styles: Mapping[str, str]) -> None:
    """Write several layers of polygons into one GeoPackage, each with the style that QGIS draws it in.

    Values that a table cannot hold, such as lists, become text.

    Args:
        path: A path where nothing lies yet.
        layers: Polygons with their attributes by name of the layer; may be empty and may be without a CRS.
        styles: QML of each layer by its name.

    Raises:
        OutputError: If the file cannot be written.
    """
    from pyogrio import write_dataframe
    from pyogrio.errors import DataLayerError, DataSourceError

    with reported(path, DataLayerError, DataSourceError), ignore_warnings(UserWarning, "'crs' was not provided"):
        for name, frame in layers.items():
            options = {"GEOMETRY_NAME": "geom", "FID": "feature"}
            if frame.crs is None:
                options["SRID"] = str(UNDEFINED_CARTESIAN_SRID)
            write_dataframe(
                _as_table(frame),
                path,
                layer=name,
                driver="GPKG",
                geometry_type="MultiPolygon",
                promote_to_multi=True,
                append=path.exists(),
                dataset_options={} if path.exists() else {"VERSION": VERSION},
                layer_options=options,
            )
    for name, qml in styles.items():
        add_style(path, name, qml, "Color by kind")


def _as_table(frame: "GeoDataFrame") -> "GeoDataFrame":
    """Return a frame whose columns fit a table: their names differ in more than case, values are scalars."""
    names, taken = {}, {"feature", "geom"}
    for column in frame.columns:
        if column == frame.geometry.name:
            continue
        name, n = str(column), 1
        while name.lower() in taken:
            n += 1
            name = f"{column}_{n}"
        taken.add(name.lower())
        names[column] = name
    table = frame[[*names, frame.geometry.name]].rename(columns=names)
    for name in names.values():
        if table[name].dtype == object:
            table[name] = [value if value is None or isinstance(value, str) else str(value) for value in table[name]]
    return table


class FlatGeobuf:
    """For the web and for reading parts over HTTP: see `geoseg.outputs.footprints.FootprintWriter`."""

    suffix = ".fgb"
    needs_crs = False

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write footprints with a packed Hilbert R-tree: GDAL sorts them along a space-filling curve."""
        return write_layer(batches, schema, crs, path, "FlatGeobuf", layer_options={"SPATIAL_INDEX": "YES"})


class GeoJSON:
    """For web maps and anything that reads text (RFC 7946): see `geoseg.outputs.footprints.FootprintWriter`."""

    suffix = ".geojson"
    needs_crs = True

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write footprints in longitude and latitude, cut at the antimeridian, a line for each."""
        options = {"RFC7946": "YES", "WRITE_NAME": "NO", "COORDINATE_PRECISION": str(DEGREE_DIGITS)}
        return write_layer(batches, schema, crs, path, "GeoJSON", layer_options=options, count=_count_lines)


class PMTiles:
    """Vector tiles for web maps, in one file: see `geoseg.outputs.footprints.FootprintWriter`."""

    suffix = ".pmtiles"
    needs_crs = True

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write footprints with a few of their columns, in Web Mercator, cut at the antimeridian."""
        import pyarrow as pa
        import shapely
        from pyproj import CRS

        def cut(batch: "pyarrow.RecordBatch") -> "pyarrow.RecordBatch":
            columns = {name: batch[name] for name in TILE_COLUMNS if name in batch.schema.names}
            if "date" in columns:  # else GDAL writes 2023/05/01
                columns["date"] = columns["date"].cast(pa.string())
            shapes = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
            shapes = in_degrees(shapes, source) if len(shapes) else shapes
            return pa.record_batch(columns | {"geometry": pa.array(shapely.to_wkb(shapes), pa.binary())})

        source = CRS.from_user_input(crs)
        first = cut(next(batches))
        options = {"MINZOOM": str(ZOOMS[0]), "MAXZOOM": str(ZOOMS[1]), "MAX_SIZE": UNLIMITED, "MAX_FEATURES": UNLIMITED}
        if not len(first):  # GDAL has no bounds then
            options |= {"BOUNDS": "-180,-85,180,85", "CENTER": f"0,0,{ZOOMS[0]}"}
        with ignore_warnings(RuntimeWarning, "driver PMTiles does not support creation option"):  # that of MVT does
            return write_layer(
                chain([first], map(cut, batches)),
                first.schema,
                "EPSG:4326",
                path,
                "PMTiles",
                dataset_options=options,
                count=_check_archive,
            )


def _check_archive(path: Path, layer: str) -> int | None:
    """Return None for a PMTiles archive that is as long as its header says, else -1; it does not count features.

    https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md#3-header
    """
    with path.open("rb") as file:
        head = file.read(127)
    if len(head) < 127 or not head.startswith(b"PMTiles\x03"):
        return -1
    begin, size = struct.unpack_from("<QQ", head, 56)  # of the tiles, which come last
    return None if path.stat().st_size == begin + size else -1


def _count_lines(path: Path, layer: str) -> int:
    """Return the number of features of a GeoJSON file that GDAL wrote; -1 if it does not end as one."""
    count, line = 0, b""
    with path.open("rb") as file:
        for line in file:
            count += line.startswith(b'{ "type": "Feature",')
    return count if line.rstrip() == b"}" else -1


def _count_features(path: Path, layer: str) -> int:
    """Return the number of features of a layer."""
    from pyogrio import read_info

    return int(read_info(path, layer=layer, force_feature_count=True)["features"])


def write_layer(
    batches: Iterator["pyarrow.RecordBatch"],
    schema: "pyarrow.Schema",
    crs: object,
    path: Path,
    driver: str,
    *,
    layer: str = LAYER,
    dataset_options: Mapping[str, str] | None = None,
    layer_options: Mapping[str, str] | None = None,
    count: Callable[[Path, str], int | None] = _count_features,
) -> int:
    """Write footprints as the one layer of a file, boxes left out: GDAL's formats have indices of their own.

    Args:
        batches: See `geoseg.outputs.footprints.FootprintWriter`.
        schema: See there.
        crs: See there.
        path: See there.
        driver: GDAL's name of the format.
        layer: Name of the layer.
        dataset_options: Of the driver.
        layer_options: Of the driver.
        count: Counts the features of a layer that was written; None if they cannot be counted.

    Returns:
        The number of footprints, which is what the file holds.

    Raises:
        OutputError: If the file cannot be written, or lacks some of them.
    """
    import pyarrow as pa
    from pyogrio import write_arrow
    from pyogrio.errors import DataLayerError, DataSourceError

    known, name = official_crs(crs), None
    if known is not None:  # as pyogrio's own writer of frames passes it on
        code = known.to_epsg()
        name = f"EPSG:{code}" if code is not None else str(known.to_wkt("WKT1_GDAL"))
    stream = _Stream(batches)
    plain = pa.schema([field for field in schema if field.name != "bbox"])
    with reported(path, DataLayerError, DataSourceError):
        try:
            write_arrow(
                pa.RecordBatchReader.from_batches(plain, stream.select(plain.names)),
                path,
                layer=layer,
                driver=driver,
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=name,
                dataset_options=dict(dataset_options or {}),
                layer_options=dict(layer_options or {}),
            )
        except RuntimeError:
            if stream.failure is not None:
                raise stream.failure from None
            raise
        written = count(path, layer)
    if written is not None and written != stream.count:
        raise output_error(path, f"{max(written, 0)} of {stream.count} footprints after writing")
    return stream.count


@dataclass(slots=True)
class _Stream:
    """Batches on their way through Arrow's C interface into GDAL, which passes on no exceptions."""

    batches: Iterator["pyarrow.RecordBatch"]
    count: int = 0
    failure: BaseException | None = None

    def select(self, names: list[str]) -> Iterator["pyarrow.RecordBatch"]:
        """Yield some columns of the batches."""
        try:
            for batch in self.batches:
                self.count += len(batch)
                yield batch.select(names)
        except BaseException as err:
            self.failure = err
            raise
