"""What makes two runs the same: the files, the model and the settings that decide a result."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoseg.bundle import Bundle
from geoseg.errors import ExistingResultError
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
)
"""Settings that change what is found; blocks, threads and devices do not."""


def run_key(files: Sequence[str | Path], bundle: Bundle, settings: RunSettings) -> str:
    """Return a short hash of what decides a result; `run.json` keeps it.

    Files count with name, size and time of their last change, not with their folder: a data set may be moved.
    """
    aoi = [settings.aoi] if settings.aoi is not None else []
    facts = {
        "model": bundle.key,
        "settings": {name: getattr(settings, name) for name in DECIDING},
        "files": [_stamp(str(file)) for file in (*files, *aoi)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def is_finished(folder: Path, key: str, *, picture: bool = False) -> bool:
    """Tell whether a folder holds the result of a run with this key, and its picture where one is wanted.

    Raises:
        ExistingResultError: If it holds the result of another run.
    """
    path = folder / "run.json"
    if not path.is_file():
        return False
    if _read_key(path) != key:
        raise ExistingResultError(
            f"{folder} already holds the result of another image, model or setting. "
            "Choose another folder with --out, or replace it with --overwrite."
        )
    return not picture or (folder / "preview.png").is_file()


def _read_key(path: Path) -> Any:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report.get("key") if isinstance(report, dict) else None


def _stamp(file: str) -> list[Any]:
    path = Path(file)
    if is_remote(file) or not path.is_file():
        return [file]
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]
