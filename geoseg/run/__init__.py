"""From scenes to building footprints: dask blocks -> parts -> mosaic -> polygons -> outputs."""

from geoseg.run.batch import BatchResult, run_each
from geoseg.run.inputs import run_inputs, run_mosaic
from geoseg.run.run import RunResult, plan_run, run_plan, run_scene
from geoseg.run.settings import RunSettings

__all__ = [
    "BatchResult",
    "RunResult",
    "RunSettings",
    "plan_run",
    "run_each",
    "run_inputs",
    "run_mosaic",
    "run_plan",
    "run_scene",
]
