"""Suffixes that tell a raster from a file of polygons."""

from pathlib import PurePath

SCENE_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
"""Files that are taken for scenes where a folder is given."""

RASTER_SUFFIXES = (*SCENE_SUFFIXES, ".bmp", ".gif")
"""Files that are read as rasters where labels or predictions are named: masks are kept as palette images, too."""

PARQUET_SUFFIXES = (".parquet", ".geoparquet", ".pq")
"""Names that Parquet and GeoParquet go by."""

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb", *PARQUET_SUFFIXES)
"""Files of polygons that are looked for beside a scene."""

ONE_LAYER_SUFFIXES = (".fgb", ".geojson", ".json", ".shp", *PARQUET_SUFFIXES)
"""Files of polygons that cannot hold several layers."""


def is_raster(path: PurePath) -> bool:
    """Return True for the suffix of a raster."""
    return path.suffix.lower() in RASTER_SUFFIXES
