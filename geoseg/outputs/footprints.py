"""Footprints as files, one writer per format.

They come as a stream of record batches and go into GeoParquet, whose row groups are the batches: of a fixed size, so
that no more than a batch of footprints is held and the file is a function of the footprints alone. All other formats
are written from that file, which every result has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from geoseg.errors import MissingCRSError, UsageError
from geoseg.io.aside import write_all_aside
from geoseg.outputs.batches import ROW_GROUP, frame_batch, rebatch
from geoseg.outputs.gdal import LAYER, FlatGeobuf, GeoJSON, GeoPackage, PMTiles
from geoseg.outputs.geoparquet import GeoParquet, read_batches
from geoseg.third_party import ignore_warnings

if TYPE_CHECKING:
    import pyarrow
    from geopandas import GeoDataFrame

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "FootprintWriter",
    "add_format",
    "check_crs",
    "check_names",
    "file_of",
    "files_of",
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

    @property
    def needs_crs(self) -> bool:
        """Whether it has a CRS of its own, and so no footprints without a CRS."""

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
    "geojson": GeoJSON(),
    "pmtiles": PMTiles(),
}
"""The vector formats by name, in the order of a result's files. To add one, write such a class and name it here."""

ALWAYS = "parquet"
"""What every result has: other formats are made of it, also later."""

DEFAULT_FORMATS = ("gpkg", ALWAYS)
"""What a result has if no formats are asked for."""


def check_names(formats: Sequence[str]) -> None:
    """Check names of formats.

    Raises:
        UsageError: If one is unknown, or there is none.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(
            f"`formats={','.join(unknown)}` is not a known format. Choose from {', '.join(FORMATS)}, such as "
            f"`formats={','.join(DEFAULT_FORMATS)}`."
        )


def check_crs(formats: Sequence[str], crs: object, scene: str) -> None:
    """Check that footprints of a scene can be written in the formats that are asked for.

    Raises:
        MissingCRSError: If one of them needs a CRS, and the scene has none.
    """
    needy = [name for name in formats if FORMATS[name].needs_crs]
    if crs is None and needy:
        raise MissingCRSError(
            f"{scene} has no CRS of a place on Earth, which `formats={','.join(needy)}` needs. Set it with `crs`, such "
            "as EPSG:32630, or omit this format."
        )


def file_of(name: str) -> str:
    """Return the name of the file of a result in a format."""
    return f"buildings{FORMATS[name].suffix}"


def files_of(formats: Iterable[str]) -> list[str]:
    """Return the names of the files of a result in some formats and in `ALWAYS`, in the order of `FORMATS`."""
    wanted = {*formats, ALWAYS}
    return [file_of(name) for name in FORMATS if name in wanted]


def write_footprint_files(
    batches: Iterator["pyarrow.RecordBatch"], crs: object, stem: Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> list[Path]:
    """Write a stream of footprints in several formats.

    Args:
        batches: What `rebatch` gave; the row groups.
        crs: CRS of the geometries, or None.
        stem: The files to be, without suffix; older ones are replaced.
        formats: Keys of `FORMATS`; GeoParquet is written in any case.

    Returns:
        The files.

    Raises:
        OutputError: If a file cannot be written; nothing of any is left then.
    """
    others = [name for name in FORMATS if name in formats and name != ALWAYS]
    targets = [stem.with_suffix(FORMATS[name].suffix) for name in (ALWAYS, *others)]
    first = next(batches)
    with (
        write_all_aside(targets) as asides,
        ignore_warnings(UserWarning, "'crs' was not provided"),
    ):  # the scene's log says so
        FORMATS[ALWAYS].write(chain([first], batches), first.schema, crs, asides[0])
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
        writer.write(rebatch([batch], ROW_GROUP), batch.schema, footprints.crs, aside)
    return Path(path)


def write_geopackage(footprints: "GeoDataFrame", path: str | Path, *, layer: str = LAYER) -> Path:
    """Write footprints as a GeoPackage that QGIS draws in style; see `write_footprints`."""
    return write_footprints(footprints, path, GeoPackage(layer))


def write_geoparquet(footprints: "GeoDataFrame", path: str | Path) -> Path:
    """Write footprints as GeoParquet 1.1 with a covering box for each; see `write_footprints`."""
    return write_footprints(footprints, path, GeoParquet())
