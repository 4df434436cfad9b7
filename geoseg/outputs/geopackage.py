"""GeoPackage: for people and their GIS, with the style that QGIS draws it in."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from geoseg.io.aside import reported
from geoseg.outputs.gdal import LAYER, write_layer
from geoseg.outputs.styles import footprint_qml

if TYPE_CHECKING:
    import pyarrow

DESCRIPTION = "Building footprints. area_m2 and perimeter_m on the ellipsoid; confidence: mean probability inside."
STYLE_TABLE = "layer_styles"
"""Where QGIS looks for styles in a GeoPackage; its columns are those that QGIS makes itself."""

VERSION = "1.2"
"""GDAL before 3.7, which QGIS 3.22 ships with, warns at newer versions."""

UNDEFINED_CARTESIAN_SRID = -1
"""The GeoPackage standard's own number for coordinates without a CRS (OGC 12-128r18, requirement 11)."""


@dataclass(frozen=True, slots=True)
class GeoPackage:
    """See `geoseg.outputs.footprints.FootprintWriter`.

    Attributes:
        layer: Name of the layer.
    """

    layer: str = LAYER
    suffix: ClassVar[str] = ".gpkg"

    def write(self, batches: Iterator["pyarrow.RecordBatch"], schema: "pyarrow.Schema", crs: object, path: Path) -> int:
        """Write footprints and their style."""
        from pyogrio import write_dataframe
        from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError

        options = {"GEOMETRY_NAME": "geom", "DESCRIPTION": DESCRIPTION}
        if crs is None:
            options["SRID"] = str(UNDEFINED_CARTESIAN_SRID)
        version = {"VERSION": VERSION}
        count = write_layer(
            batches, schema, crs, path, "GPKG", layer=self.layer, dataset_options=version, layer_options=options
        )
        with reported(path, DataLayerError, DataSourceError, FeatureError, FieldError):
            write_dataframe(_style_rows(self.layer), path, layer=STYLE_TABLE, append=True, layer_options={"FID": "id"})
        return count


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
        "description": "Confidence by color, dashed outline at the edge of the data",
        "owner": "",
        "ui": "",
        "update_time": datetime.now(UTC).replace(microsecond=0),
    }
    return DataFrame([row])
