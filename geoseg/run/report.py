"""What `run.json` says: what was run, on what, and what it took."""

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from geoseg._version import __version__
from geoseg.inference import Plan, Stopwatch
from geoseg.mosaic import Composite
from geoseg.run.identity import Facts, key_of
from geoseg.run.job import Job
from geoseg.run.ledger import run_name
from geoseg.run.memory import peak_memory_mb
from geoseg.run.mosaic import Counts
from geoseg.run.polygons import FootprintCounts

PACKAGES = ("torch", "torchgeo", "openvino", "rasterio", "geopandas", "shapely", "dask", "numpy")


@dataclass(slots=True)
class Stages:
    """Wall seconds of each stage of a run."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def done(self, stage: str) -> None:
        """Close a stage."""
        now = time.perf_counter()
        self.seconds[stage], self._last = self.seconds.get(stage, 0.0) + now - self._last, now

    def move(self) -> None:
        """Go on from now, on another machine or after waiting for somebody else's work."""
        self._last = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Ending:
    """What the client knows of a run whose blocks are done.

    Attributes:
        stages: The clock.
        facts: What decides the result.
        failed: Why blocks could not be done, by their name; they are nodata.
        engine: Name and threads of the workers' engine; None where no block needed one.
        resumed: Blocks that an earlier client had done.
        write_s: Seconds that writing the parts took, of all threads.
        worker_memory_mb: The largest peak of a worker.
        token: Of the client's lease, which must hold when the results are put into their place.
    """

    stages: Stages
    facts: Facts
    failed: dict[str, str] = field(default_factory=dict)
    engine: tuple[str, int] | None = None
    resumed: int = 0
    write_s: float = 0.0
    worker_memory_mb: float | None = None
    token: str | None = None


def describe_run(
    job: Job, ending: Ending, watches: Sequence[Stopwatch], pixels: Counts, footprints: FootprintCounts
) -> dict[str, Any]:
    """Collect the report of a finished run."""
    plan, spec, stages = job.plan, job.bundle.spec, ending.stages
    wall = sum(stages.seconds.values())
    in_blocks = {key: sum(w.seconds.get(key, 0.0) for w in watches) for key in _stage_names(watches)}
    in_blocks["write"] = ending.write_s
    engine, threads = ending.engine or (None, 1)
    return {
        "geoseg": __version__,
        "started": stages.began.isoformat(timespec="seconds"),
        "command": sys.argv,
        "scene": describe_scene(plan),
        "key": key_of(ending.facts),
        "run": run_name(job.work),
        "facts": ending.facts,
        "model": {
            "name": spec.name,
            "version": spec.version,
            "key": job.bundle.key,
            "licence": spec.licence,
            "target": spec.target,
        },
        "settings": {key: _plain(value) for key, value in asdict(job.settings).items()},
        "threshold": spec.threshold if job.settings.threshold is None else job.settings.threshold,
        "min_area_m2": job.min_area_m2,
        "engine": engine,
        "threads": threads,
        "lattice": {"chip": plan.lattice.chip_shape, "core": plan.lattice.core, "halo_px": plan.lattice.halo_px},
        "counts": {
            "blocks": len(watches),
            "blocks_done_before": ending.resumed,
            "blocks_failed": len(ending.failed),
            "chips": sum(w.chips for w in watches),
            "pixels": plan.scene.grid.height * plan.scene.grid.width,
            "valid_pixels": pixels.valid,
            "building_pixels": pixels.building,
            "buildings": footprints.count,
            "buildings_at_edge": footprints.at_edge,
        },
        "classes": pixels.describe_classes(spec, plan.scene.grid) if plan.has_class_raster else None,
        "area_m2": round(footprints.area_m2, 1),
        "failed_blocks": _describe_failed(job, ending.failed),
        "seconds": {key: round(value, 3) for key, value in stages.seconds.items()} | {"total": round(wall, 3)},
        "thread_seconds_in_blocks": {key: round(value, 3) for key, value in in_blocks.items()},
        "network_share_of_wall": round(in_blocks.get("network", 0.0) / threads / wall, 4) if wall else 0.0,
        "peak_memory_mb": peak_memory_mb(),
        "worker_peak_memory_mb": ending.worker_memory_mb,
        "versions": package_versions(),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
    }


def _describe_failed(job: Job, failed: dict[str, str]) -> list[dict[str, Any]]:
    """Say where the result is nodata for want of a block, and why."""
    grid = job.plan.scene.grid
    return [
        {
            "block": block.name,
            "rows": [block.window.rows.start, block.window.rows.stop],
            "cols": [block.window.cols.start, block.window.cols.stop],
            "bounds": grid.crop(block.window).bounds,
            "error": failed[block.name],
        }
        for block in (job.blocks() if failed else [])
        if block.name in failed
    ]


def describe_scene(plan: Plan) -> dict[str, Any]:
    """Return what a scene is and how it is read."""
    scene = plan.scene
    return {
        "name": scene.name,
        "paths": list(scene.paths),
        "crs": scene.grid.crs.to_string() if scene.grid.crs is not None else None,
        "native": {
            "shape": scene.native.shape,
            "gsd_m": scene.native.gsd_m,
            "dtype": scene.dtype,
            "bands": scene.band_count,
        },
        "grid": {"shape": scene.grid.shape, "gsd_m": scene.grid.gsd_m, "bounds": scene.grid.bounds},
        "bands": scene.bands,
        "levels": scene.levels,
        "mosaic": _describe_parts(scene) if isinstance(scene, Composite) else None,
    }


def _describe_parts(mosaic: Composite) -> list[dict[str, Any]]:
    """Return what each scene of a mosaic is, the uppermost first."""
    return [
        {
            "name": part.scene.name,
            "crs": part.scene.native.crs.to_string() if part.scene.native.crs is not None else None,
            "gsd_m": part.scene.native.gsd_m,
            "bands": part.scene.bands,
            "levels": part.scene.levels,
        }
        for part in mosaic.parts
    ]


def _stage_names(watches: Sequence[Stopwatch]) -> list[str]:
    return list(dict.fromkeys(name for w in watches for name in w.seconds))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | list | tuple) else str(value)


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that decide a result."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
