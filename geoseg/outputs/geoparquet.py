"""GeoParquet 1.1: for programs. Its row groups are the batches, so that other formats are written from it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS

from geoseg._version import __version__
from geoseg.io.aside import reported
from geoseg.outputs.batches import BOX, as_one
from geoseg.vectorize.ground import official_crs

if TYPE_CHECKING:
    import pyarrow


class GeoParquet:
    """See `geoseg.outputs.footprints.FootprintWriter`."""

    suffix = ".parquet"
    needs_crs = False

    def write(self, batches: Iterable["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write batches as row groups, with a covering box for each footprint."""
        import pyarrow.compute as pc
        from pyarrow.parquet import ParquetWriter

        count, low, high = 0, [np.inf, np.inf], [-np.inf, -np.inf]
        # Arrow's own copy of the schema would hide the metadata that are written at the end from its readers.
        with reported(path), ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
            for batch in batches:
                if len(batch):
                    writer.write_batch(batch, row_group_size=len(batch))
                    count += len(batch)
                    box = [batch["bbox"].field(name) for name in BOX]
                    low = [min(old, pc.min(side).as_py()) for old, side in zip(low, box[:2], strict=True)]
                    high = [max(old, pc.max(side).as_py()) for old, side in zip(high, box[2:], strict=True)]
            known = official_crs(crs)
            document = known.to_json_dict() if known is not None else None
            if document is not None:
                _forget_members(document)
            column: dict[str, Any] = {
                "encoding": "WKB",
                "crs": document,
                "geometry_types": ["Polygon"] if count else [],
                "covering": {"bbox": {name: ["bbox", name] for name in BOX}},
            }
            if np.isfinite([*low, *high]).all():
                column["bbox"] = [*low, *high]
            metadata = {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": column},
                "creator": {"library": "geoseg", "version": __version__},
            }
            writer.add_key_value_metadata({"geo": json.dumps(metadata)})
        return count


def read_batches(path: Path) -> Iterator["pyarrow.RecordBatch"]:
    """Yield what was written, a batch per row group; an empty batch where nothing was."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield as_one(file.read_row_group(group))
        if not file.num_row_groups:
            yield as_one(file.schema_arrow.empty_table())


def read_crs(path: Path) -> CRS | None:
    """Return the CRS of what was written."""
    from pyarrow.parquet import read_metadata

    document = json.loads(read_metadata(path).metadata[b"geo"])["columns"]["geometry"]["crs"]
    return CRS.from_json_dict(document) if document is not None else None


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
