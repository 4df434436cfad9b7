"""From scenes to building footprints: dask blocks -> parts -> mosaic -> polygons -> outputs."""

from geoseg.run.run import RunResult, plan_run, run_plan, run_scene
from geoseg.run.settings import RunSettings

__all__ = ["RunResult", "RunSettings", "plan_run", "run_plan", "run_scene"]
