"""What a run leaves behind: rasters and footprints, each written aside and renamed."""

from geoseg.outputs.footprints import write_geopackage, write_geoparquet
from geoseg.outputs.rasters import write_class_cog, write_mask_cog, write_probability_cog

__all__ = [
    "write_class_cog",
    "write_geopackage",
    "write_geoparquet",
    "write_mask_cog",
    "write_probability_cog",
]
