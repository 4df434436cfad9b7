"""GeoParquet 1.1: for programs. Its row groups are the batches, so that other formats are written from it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from geoseg._version import __version__
from geoseg.io.aside import reported
from geoseg.outputs.batches import BOX, as_one
from geoseg.vectorize.ground import official_crs

if TYPE_CHECKING:
    import pyarrow
    from pyproj import CRS


class GeoParquet:
    """See `geoseg.outputs.footprints.FootprintWriter`."""

    suffix = ".parquet"

    def write(self, batches: Iterable["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write batches as row groups, with a covering box for each footprint."""
        with reported(path), _File.open(path, schema, crs) as file:
            for batch in batches:
                file.write(batch)
        return file.count


def read_batches(path: Path) -> Iterator["pyarrow.RecordBatch"]:
    """Yield what was written, a batch per row group; an empty batch where nothing was."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield as_one(file.read_row_group(group))
        if not file.num_row_groups:
            yield as_one(file.schema_arrow.empty_table())


@dataclass(slots=True)
class _File:
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
            file = cls(writer, official_crs(crs))
            yield file
            writer.add_key_value_metadata({"geo": json.dumps(file.describe())})

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
        crs = self.crs.to_json_dict() if self.crs is not None else None
        if crs is not None:
            _forget_members(crs)
        column: dict[str, Any] = {
            "encoding": "WKB",
            "crs": crs,
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


def _forget_members(document: dict[str, Any]) -> None:
    """Remove the registry numbers of a datum ensemble's members from PROJJSON, as GDAL and geopandas do.

    Older versions of PROJ do not read them (https://github.com/OSGeo/PROJ/pull/3221).
    """
    for key, value in document.items():
        if isinstance(value, dict):
            _forget_members(value)
        elif key == "members":
            for member in value:
                member.pop("id", None)
