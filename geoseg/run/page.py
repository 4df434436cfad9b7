"""What the page of a result shows: a preview of its scene, and its buildings."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import GeosegError, ReadError
from geoseg.grid import Grid
from geoseg.mosaic import Composite, compose
from geoseg.outputs.page import Gathered, View, gather_buildings, write_page
from geoseg.outputs.picture import draw_image
from geoseg.scene import Scene, is_remote, open_scene
from geoseg.sources.location import is_local

MOST_LOCAL, MOST_REMOTE = 1 << 29, 1 << 26
"""Pixels that are read for a preview where the files have no overviews; otherwise the page has none."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a page shows of a scene and its buildings.

    Attributes:
        view: The part of the scene.
        found: The buildings.
        image: `(y, x, color)` preview of the scene, or None.
        why: Why there is none.
    """

    view: View
    found: Gathered
    image: NDArray[np.uint8] | None
    why: str

    def write(self, report: Mapping[str, Any], sizes: Mapping[str, int], folder: Path) -> None:
        """Write the page; see `write_page`."""
        write_page(report, sizes, folder, self.view, self.found, self.image, why=self.why)


def look(scene: Scene | None, grid: Grid, folder: Path) -> Sight:
    """Gather what a page shows; memory does not grow with the scene.

    Args:
        scene: The scene; None if it cannot be opened any more.
        grid: Grid of the result.
        folder: Local folder with the rasters and `buildings.parquet`.
    """
    view = View.of(folder / "probability.tif")
    image, why = _draw(scene, view)
    found = gather_buildings(folder / "buildings.parquet", folder / "probability.tif", grid, view)
    return Sight(view, found, image, why)


def _draw(scene: Scene | None, view: View) -> tuple[NDArray[np.uint8] | None, str]:
    """Draw a preview of a scene; or say why there is none: an error would take the result from its user."""
    if scene is None:
        return None, "The scene is not where it was when the result was made, so this page has no image of it."
    small = scene.at_shape(view.shape)
    parts = [part.scene for part in small.parts] if isinstance(small, Composite) else [small]
    share = view.window.height * view.window.width / (view.shape[0] * view.shape[1])
    pixels = share * sum(float(np.prod(part.native.shape)) for part in parts if not part.reads_overview)
    if pixels > (MOST_REMOTE if any(map(is_remote, scene.paths)) else MOST_LOCAL):
        return None, (
            f"The scene has no overviews: {pixels / 1e6:,.0f} million pixels would have to be read for an image of it, "
            "so this page has none. Build overviews with gdaladdo, and the page again with geoseg report."
        )
    try:
        return draw_image(scene, view.shape, view.window), ""
    except ReadError:
        return None, "Part of the scene cannot be read, so this page has no image of it."


def follow(report: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a report with local scenes where they are now: beside the result folder, if both were moved together."""
    scene = copy.deepcopy(report["scene"])

    def find(path: str) -> str:
        beside = folder.absolute().parent / Path(path).name
        return str(beside) if is_local(path) and not Path(path).exists() and beside.is_file() else path

    for part in (scene, *(scene.get("mosaic") or ())):
        if part.get("paths"):
            part["paths"] = [find(path) for path in part["paths"]]
    return dict(report) | {"scene": scene}


def reopen(report: Mapping[str, Any], grid: Grid) -> Scene | None:
    """Open the scene of a result again; None if that is not possible, or if it is another one now."""
    found, settings = report["scene"], report.get("settings") or {}
    own = {"nodata": settings.get("nodata"), "alpha": settings.get("alpha")}
    try:
        if not found.get("mosaic"):
            scene = open_scene(found["paths"], bands=found["bands"], crs=found["crs"], **own)
            scene = replace(scene, levels=_levels(found))
            return scene if scene.native.shape == tuple(found["native"]["shape"]) else None
        parts = [
            replace(
                open_scene(part["paths"], bands=part["bands"], crs=part["crs"], **own | {"nodata": part["nodata"]}),
                levels=_levels(part),
            )
            for part in found["mosaic"]
        ]
        return compose(parts, grid)
    except (GeosegError, KeyError):
        return None


def _levels(found: Mapping[str, Any]) -> Any:
    return tuple(map(tuple, found["levels"])) if found.get("levels") else None
