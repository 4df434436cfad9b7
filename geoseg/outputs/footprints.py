"""Footprints as files: GeoPackage for people and their GIS, GeoParquet for programs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.outputs.aside import output_error, reported, write_aside
from geoseg.outputs.styles import footprint_qml

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

LAYER = "buildings"
DESCRIPTION = "Building footprints. area_m2 and perimeter_m on the ellipsoid; confidence: mean probability inside."
STYLE_TABLE = "layer_styles"
"""Where QGIS looks for styles in a GeoPackage; its columns are those that QGIS makes itself."""

GEOPACKAGE_VERSION = "1.2"
"""GDAL before 3.7, which QGIS 3.22 ships with, warns at newer versions."""

UNDEFINED_CARTESIAN_SRID = -1
"""The GeoPackage standard's own number for coordinates without a CRS (OGC 12-128r18, requirement 11)."""


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
    from pyogrio import read_info, write_dataframe
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError

    failures = (DataLayerError, DataSourceError, FeatureError, FieldError)
    with write_aside(path) as aside, reported(path, *failures), _quiet_about_missing_crs():
        options = {"GEOMETRY_NAME": "geom", "DESCRIPTION": DESCRIPTION}
        if footprints.crs is None:
            options["SRID"] = str(UNDEFINED_CARTESIAN_SRID)
        write_dataframe(
            footprints,
            aside,
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            dataset_options={"VERSION": GEOPACKAGE_VERSION},
            layer_options=options,
        )
        write_dataframe(_style_rows(layer), aside, layer=STYLE_TABLE, append=True, layer_options={"FID": "id"})
        written = read_info(aside, layer=layer, force_feature_count=True)["features"]
        if written != len(footprints):
            raise output_error(path, f"{written} of {len(footprints)} footprints after writing")
    return Path(path)


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
    with write_aside(path) as aside, reported(path):
        footprints.to_parquet(aside, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
    return Path(path)


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


@contextmanager
def _quiet_about_missing_crs() -> Iterator[None]:
    """Let footprints be without a CRS: that was said when the scene was opened."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        yield
