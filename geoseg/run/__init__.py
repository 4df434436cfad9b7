"""From scenes to building footprints: blocks on a dask cluster, their parts, rasters, polygons, files."""

from geoseg.run.batch import BatchResult, run_each
from geoseg.run.merge import MergeResult, MergeSettings, merge_results
from geoseg.run.renew import write_report
from geoseg.run.report import RunStatus, read_status
from geoseg.run.run import RunResult, run_inputs, run_mosaic, run_plan, run_scene
from geoseg.run.settings import RunSettings, VectorizeSettings
from geoseg.run.vectorize import VectorizeResult, vectorize_raster

__all__ = [
    "BatchResult",
    "MergeResult",
    "MergeSettings",
    "RunResult",
    "RunSettings",
    "RunStatus",
    "VectorizeResult",
    "VectorizeSettings",
    "merge_results",
    "read_status",
    "run_each",
    "run_inputs",
    "run_mosaic",
    "run_plan",
    "run_scene",
    "vectorize_raster",
    "write_report",
]
