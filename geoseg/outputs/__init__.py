"""What a run leaves behind: rasters, footprints and its own record, each written aside and renamed."""

from geoseg.outputs.footprints import write_geopackage, write_geoparquet
from geoseg.outputs.rasters import write_class_cog, write_mask_cog, write_probability_cog
from geoseg.outputs.record import write_run_json

__all__ = [
    "write_class_cog",
    "write_geopackage",
    "write_geoparquet",
    "write_mask_cog",
    "write_probability_cog",
    "write_run_json",
]
