"""FlatGeobuf: for the web and for reading parts over HTTP. GDAL sorts the footprints along a space-filling curve."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.outputs.gdal import write_layer

if TYPE_CHECKING:
    import pyarrow


class FlatGeobuf:
    """See `geoseg.outputs.footprints.FootprintWriter`."""

    suffix = ".fgb"

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write footprints with a packed Hilbert R-tree."""
        return write_layer(batches, schema, crs, path, "FlatGeobuf", layer_options={"SPATIAL_INDEX": "YES"})
