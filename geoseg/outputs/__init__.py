"""What a run leaves behind: rasters and footprints, each written aside and renamed."""

from geoseg.outputs.footprints import write_geopackage, write_geoparquet
from geoseg.outputs.rasters import class_file, mask_file, open_rasters, probability_file, write_raster

__all__ = [
    "class_file",
    "mask_file",
    "open_rasters",
    "probability_file",
    "write_geopackage",
    "write_geoparquet",
    "write_raster",
]
