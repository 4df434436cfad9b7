"""What makes two runs the same: the files, the model and the settings that decide a result."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoseg.bundle import Bundle
from geoseg.errors import ExistingResultError
from geoseg.inference import Plan
from geoseg.io.store import stamp
from geoseg.run.settings import RunSettings
from geoseg.scene import is_remote

DECIDING = (
    "aoi_where",
    "threshold",
    "min_area_m2",
    "simplify_px",
    "bands",
    "crs",
    "grid",
    "blend",
    "precision",
    "chip_px",
    "halo_px",
    "mosaic",
    "target_crs",
)
"""Settings that change what is found; blocks, threads, workers and devices do not.

Nor does `errors`: it decides what becomes of blocks that cannot be done, and `run.json` lists those.
"""

SHOWN = 4
"""Most differences that an error lists."""

Facts = dict[str, Any]


def run_facts(files: Sequence[str | Path], bundle: Bundle, settings: RunSettings) -> Facts:
    """Return what decides a result, by name, in plain types; `run.json` keeps it.

    Files count with name, size and time of their last change, remote ones with what the server says of them; local
    ones not with their folder: a data set may be moved.
    """
    facts: Facts = {"model": bundle.key}
    facts |= {name: getattr(settings, name) for name in DECIDING}
    facts["aoi"] = stamp(str(settings.aoi)) if settings.aoi is not None else None
    facts["files"] = [stamp(part) for file in files for part in _parts(str(file))]
    plain: Facts = json.loads(json.dumps(facts, sort_keys=True, default=str))
    return plain


def plan_facts(plan: Plan, bundle: Bundle, settings: RunSettings) -> Facts:
    """Return what decides the result of a plan: see `run_facts`."""
    return run_facts(plan.scene.paths, bundle, settings)


def key_of(facts: Facts) -> str:
    """Return a short hash of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def differences(before: Facts, now: Facts) -> list[str]:
    """Name what differs between two runs: `threshold: 0.5 before, 0.7 now`."""
    names = [name for name in sorted(before.keys() | now.keys()) if name != "files"]
    found = [
        f"{name}: {before.get(name)} before, {now.get(name)} now" for name in names if before.get(name) != now.get(name)
    ]
    return found + _file_differences(before.get("files") or [], now.get("files") or [])


def refuse_other(location: str, before: Facts, now: Facts) -> ExistingResultError:
    """Say why a folder's run is another one."""
    found = differences(before, now)
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ExistingResultError(
        f"{location} belongs to another run. {'; '.join(found[:SHOWN])}{more}. Choose another folder with --out, give "
        "the same scene, model and settings as before, or replace it with --overwrite."
    )


def _file_differences(before: list[list[Any]], now: list[list[Any]]) -> list[str]:
    """Name the files that changed, came or went; a file's first fact is its name."""
    old, new = ({str(file[0]): file[1:] for file in files} for files in (before, now))
    changed = [f"{name} has changed since" for name in new if name in old and new[name] != old[name]]
    gone = [f"{name} is missing now" for name in old if name not in new]
    come = [f"{name} is new" for name in new if name not in old]
    if not (changed or gone or come) and before != now:
        return ["the files come in another order"]
    return changed + gone + come


def _parts(file: str) -> list[str]:
    """Return a file, and the files behind it where it is a virtual raster."""
    if not file.lower().endswith(".vrt") or is_remote(file):
        return [file]
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(file) as dataset:
            return [str(part) for part in dataset.files]
    except RasterioError:
        return [file]
