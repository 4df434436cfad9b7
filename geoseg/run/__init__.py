"""From scenes to building footprints: dask blocks -> parts -> mosaic -> polygons -> outputs."""

from geoseg.run.run import RunResult, RunSettings, run_scene

__all__ = ["RunResult", "RunSettings", "run_scene"]
