"""Names that tell a raster from a file of polygons, and both from what lies beside them."""

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


SIDE_SUFFIXES = (
    *(".aux", ".aux.xml", ".xml", ".ovr", ".msk", ".rrd", ".hdr", ".rpb", ".rpc", ".imd"),
    *(".tfw", ".tifw", ".tfwx", ".jgw", ".jpw", ".jgwx", ".pgw", ".pngw", ".pgwx", ".bpw", ".gfw", ".j2w", ".wld"),
    *(".cpg", ".dbf", ".prj", ".qpj", ".shx", ".sbn", ".sbx", ".qix", ".idm", ".ind"),
    *(".qml", ".qmd", ".sld", ".lyr", ".lyrx", ".gpkg-wal", ".gpkg-shm", ".gpkg-journal", ".md5"),
)
"""Files that belong to another one of their name: overviews and masks, world files, parts of a Shapefile, styles."""

MAC_FOLDER = "__MACOSX"
"""Where an archive made on a Mac keeps the `._` files of all others."""


def is_beside(path: PurePath) -> bool:
    """Return True for a file that no one means by itself: a side file, a hidden one (`._scene.tif` of a Mac)."""
    return path.name.startswith(".") or MAC_FOLDER in path.parts or path.name.lower().endswith(SIDE_SUFFIXES)


def is_raster(path: PurePath) -> bool:
    """Return True for the suffix of a raster."""
    return path.suffix.lower() in RASTER_SUFFIXES
