"""Which label file belongs to which scene."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from geoseg.errors import LabelError
from geoseg.io.suffixes import RASTER_SUFFIXES, SCENE_SUFFIXES, VECTOR_SUFFIXES, is_beside
from geoseg.io.tables import name_some, plural

log = logging.getLogger(__name__)

LABEL_ENDINGS = ("", "_label", "_labels", "_mask")
"""What may follow a scene's name in the name of its labels."""


def find_labels(scenes: Sequence[str | Path], labels: Path) -> list[Path]:
    """Find the label file of each scene by its name.

    A file holds the labels of all scenes. In a folder, a scene's labels are, in this order:

    1. a file of the folder with the scene's name, also with one of `LABEL_ENDINGS` after it; rasters before vectors;
    2. such a file in a folder below that is not the scene's own: the one that shares the longest path with the scene;
    3. a file of the folder with the scene's name and any other suffix, as GDAL reads more than geoseg knows.

    A scene is never its own labels, and neither are files that lie beside others (`is_beside`).

    Args:
        scenes: Raster files, or result folders named `<scene>_geoseg`.
        labels: File or folder.

    Returns:
        A path for each scene, in their order.

    Raises:
        LabelError: If scenes have no labels, or one has several that are equally near.
    """
    if not labels.is_dir():
        return [labels] * len(scenes)
    beside = sorted(path for path in labels.iterdir() if not is_beside(path))
    known = {f"{path.stem}{path.suffix.lower()}": path for path in beside} | {path.name: path for path in beside}
    endings = [f"{ending}{suffix}" for ending in LABEL_ENDINGS for suffix in (*RASTER_SUFFIXES, *VECTOR_SUFFIXES)]
    below: dict[str, list[Path]] = {}
    found: list[Path] = []
    missing: list[str] = []
    for scene in scenes:
        own = Path(scene).absolute()
        stems = _stems(own)
        wanted = [f"{stem}{ending}" for stem in stems for ending in endings]
        named = (known[name] for name in (own.name.removesuffix("_geoseg"), *wanted) if name in known)
        first = next((path for path in named if path.is_file() and path.absolute() != own), None)
        if first is None:
            if not below:
                for path in sorted(path for path in labels.rglob("*") if not is_beside(path)):
                    below.setdefault(path.name, []).append(path)
            first = _nearest(own, [path for name in wanted for path in below.get(name, ())])
        if first is None:
            others = [path for path in beside if path.stem in stems and (path.suffix or path.is_file())]
            others = [path for path in others if path.absolute() != own]
            first = others[-1] if others else None  # of a MapInfo file's .dat, .id, .map and .tab the last is opened
        if first is None:
            missing.append(str(scene))
        else:
            found.append(first)
    if missing:
        raise LabelError(
            f"{labels} holds no labels for {len(missing)} of {len(scenes)} images ({name_some(missing)}). "
            "Expected a raster or vector file with the name of the image there. Add it, or leave the image out."
        )
    return found


def leave_out_labels(files: Sequence[str], where: str) -> list[str]:
    """Return the scenes among the rasters of a folder or pattern: `a_mask.tif` beside `a.tif` holds its labels.

    Args:
        files: Paths or URLs.
        where: What lists them, for the warning.
    """
    names = {os.path.splitext(file)[0] for file in files}  # noqa: PTH122 - may be URLs
    endings = [ending for ending in LABEL_ENDINGS if ending]
    labels = {
        file
        for file in files
        for ending in endings
        if (name := os.path.splitext(file)[0]).endswith(ending) and name.removesuffix(ending) in names  # noqa: PTH122
    }
    if labels:
        log.warning(
            "%s: %s left out, as the name is that of a scene's labels, such as %s. To use one as a scene, name it.",
            *(where, plural(len(labels), "file"), min(labels)),
        )
    return [file for file in files if file not in labels]


def _stems(scene: Path) -> list[str]:
    """Return the names that the labels of a scene may begin with; a dot in a folder's name does not begin a suffix."""
    name = scene.name.removesuffix("_geoseg")
    stem = Path(name).stem
    if Path(name).suffix.lower() in SCENE_SUFFIXES:
        return [stem]
    return [name] if scene.is_dir() or stem == name else [name, stem]


def _nearest(scene: Path, paths: Sequence[Path]) -> Path | None:
    """Return the path that shares the most folders with a scene; None where there is none."""
    shared = {path: len(Path(os.path.commonpath([scene, path.absolute()])).parts) for path in paths}
    shared = {path: length for path, length in shared.items() if path.absolute().parent != scene.parent}
    best = [path for path, length in shared.items() if length == max(shared.values())]
    if len(best) > 1:
        raise LabelError(f"{best[0]} and {best[1]} may both be the labels of {scene.name}. Name the folder of one.")
    return best[0] if best else None
