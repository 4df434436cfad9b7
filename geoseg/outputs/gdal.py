"""Record batches of footprints into GDAL's vector drivers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.io.aside import output_error, reported

if TYPE_CHECKING:
    import pyarrow
    from pyproj import CRS

LAYER = "buildings"
"""Name of the layer of footprints."""


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
) -> int:
    """Write footprints as the one layer of a file, boxes left out: GDAL's formats have indices of their own.

    Returns:
        The number of footprints, which is what the file holds.

    Raises:
        OutputError: If the file cannot be written, or lacks some of them.
    """
    import pyarrow as pa
    from pyogrio import read_info, write_arrow
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError

    stream = _Stream(batches)
    plain = schema.remove(schema.get_field_index("bbox"))
    with reported(path, DataLayerError, DataSourceError, FeatureError, FieldError):
        try:
            write_arrow(
                pa.RecordBatchReader.from_batches(plain, stream.select(plain.names)),
                path,
                layer=layer,
                driver=driver,
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=_name_for_gdal(official(crs)),
                dataset_options=dict(dataset_options or {}),
                layer_options=dict(layer_options or {}),
            )
        except RuntimeError:
            if stream.failure is not None:
                raise stream.failure from None
            raise
        written = read_info(path, layer=layer, force_feature_count=True)["features"]
    if written != stream.count:
        raise output_error(path, f"{written} of {stream.count} footprints after writing")
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


def official(crs: object) -> "CRS | None":
    """Return pyproj's CRS, in the EPSG registry's words where it has the same."""
    from geoseg.vectorize.ground import official_crs

    return None if crs is None else official_crs(crs)


def _name_for_gdal(crs: "CRS | None") -> str | None:
    """Return a CRS as pyogrio's own writer of frames passes it on."""
    if crs is None:
        return None
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None else str(crs.to_wkt("WKT1_GDAL"))
