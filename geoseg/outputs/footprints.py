"""Footprints as files, one writer per format.

They come as a stream of record batches and go into GeoParquet, whose row groups are the batches: of a fixed size, so
that no more than a batch of footprints is held and the file is a function of the footprints alone. All other formats
are written from that file.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from geoseg.io.aside import write_all_aside
from geoseg.outputs.batches import frame_batch, rebatch, to_batch
from geoseg.outputs.gdal import LAYER, FlatGeobuf, GeoPackage
from geoseg.outputs.geoparquet import GeoParquet, read_batches
from geoseg.third_party import ignore_warnings

if TYPE_CHECKING:
    import pyarrow
    from geopandas import GeoDataFrame

__all__ = [
    "FORMATS",
    "FootprintWriter",
    "add_format",
    "rebatch",
    "to_batch",
    "write_footprint_files",
    "write_footprints",
    "write_geopackage",
    "write_geoparquet",
]


class FootprintWriter(Protocol):
    """A vector format."""

    @property
    def suffix(self) -> str:
        """Suffix of its files, dot included."""

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write a stream of footprints to a path where nothing lies yet, and return how many there were.

        Args:
            batches: What `rebatch` gives: attributes, `geometry` as WKB, `bbox`; one batch at least.
            schema: Of the batches.
            crs: CRS of the geometries in any form that pyproj takes, or None.
            path: The file.

        Raises:
            OutputError: If the file cannot be written.
        """


FORMATS: Mapping[str, FootprintWriter] = {
    "gpkg": GeoPackage(),
    "parquet": GeoParquet(),
    "fgb": FlatGeobuf(),
}
"""The vector formats by name, in the order of a result's files. To add one, write such a class and name it here."""

ALWAYS = ("gpkg", "parquet")
"""What every result has."""


def write_footprint_files(
    batches: Iterator["pyarrow.RecordBatch"], crs: object, stem: Path, formats: Sequence[str] = ALWAYS
) -> list[Path]:
    """Write a stream of footprints in several formats.

    Args:
        batches: What `rebatch` gave.
        crs: CRS of the geometries, or None.
        stem: The files to be, without suffix; older ones are replaced.
        formats: Keys of `FORMATS`; GeoParquet is written in any case.

    Returns:
        The files.

    Raises:
        OutputError: If a file cannot be written; nothing of any is left then.
    """
    others = [name for name in FORMATS if name in formats and name != "parquet"]
    targets = [stem.with_suffix(FORMATS[name].suffix) for name in ("parquet", *others)]
    first = next(batches)
    with (
        write_all_aside(targets) as asides,
        ignore_warnings(UserWarning, "'crs' was not provided"),
    ):  # the scene's log says so
        FORMATS["parquet"].write(chain([first], batches), first.schema, crs, asides[0])
        for name, aside in zip(others, asides[1:], strict=True):
            FORMATS[name].write(read_batches(asides[0]), first.schema, crs, aside)
    return targets


def add_format(parquet: Path, crs: object, name: str) -> Path:
    """Write the footprints of a GeoParquet file in another format, beside it and under its name.

    Args:
        parquet: What `write_footprint_files` wrote.
        crs: CRS of its geometries, or None.
        name: Key of `FORMATS`.

    Raises:
        OutputError: If the file cannot be written.
    """
    writer = FORMATS[name]
    target, first = parquet.with_suffix(writer.suffix), next(read_batches(parquet))
    with write_all_aside([target]) as (aside,), ignore_warnings(UserWarning, "'crs' was not provided"):
        writer.write(read_batches(parquet), first.schema, crs, aside)
    return target


def write_footprints(footprints: "GeoDataFrame", path: str | Path, writer: FootprintWriter) -> Path:
    """Write a frame of footprints in one format.

    Args:
        footprints: Polygons with their attributes; may be empty and may be without a CRS.
        path: The file to be; an older one is replaced.
        writer: One of `FORMATS`, or another.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written; nothing of it is left then.
    """
    batch = frame_batch(footprints)
    with write_all_aside([path]) as (aside,), ignore_warnings(UserWarning, "'crs' was not provided"):
        writer.write(rebatch([batch]), batch.schema, footprints.crs, aside)
    return Path(path)


def write_geopackage(footprints: "GeoDataFrame", path: str | Path, *, layer: str = LAYER) -> Path:
    """Write footprints as a GeoPackage that QGIS draws in style; see `write_footprints`."""
    return write_footprints(footprints, path, GeoPackage(layer))


def write_geoparquet(footprints: "GeoDataFrame", path: str | Path) -> Path:
    """Write footprints as GeoParquet 1.1 with a covering box for each; see `write_footprints`."""
    return write_footprints(footprints, path, GeoParquet())
