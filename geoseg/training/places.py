"""Where the images of a source lie, by their headers: ground that trains and validates, pictures on their side."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import GeosegError, RecipeError
from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Grid
from geoseg.io.tables import name_some, plural
from geoseg.scene import exif_turn, read_grid
from geoseg.third_party import allow_no_georeference
from geoseg.training.recipe import Source
from geoseg.training.source_files import SourcePart

__all__ = ["check_places"]

log = logging.getLogger(__name__)

WARNED_SHARE = 0.05
"""Share of the validated ground that may also be trained on without a word: neighbors share a margin."""

MOST_SHARED = 0.5
"""From this share on a drawn split is refused; extents of rotated scenes overlap, though their pixels do not."""


def check_places(source: Source, parts: Sequence[SourcePart]) -> None:
    """Warn of pictures that viewers turn and of ground that trains and validates; refuse a split with much of it.

    Args:
        source: The source.
        parts: Its images, and what each is for.

    Raises:
        RecipeError: A split or folds that geoseg draws put most of the validated ground into training too.
    """
    import rasterio

    places: dict[str, list[Grid]] = {"train": [], "validate": []}
    turned: dict[str, str] = {}
    for part in parts:
        if part.image is None:
            continue
        try:
            with allow_no_georeference(), rasterio.open(part.image) as src:
                turn, grid = exif_turn(src), read_grid(src, part.name)
        except (*GDAL_ERRORS, GeosegError):
            continue  # it is reported when it is read
        if turn:
            turned[part.name] = turn
        if grid.crs is not None and part.part in places:
            places[part.part].append(grid)
    if turned:
        log.warning(
            "sources.%s: %s (%s) have an EXIF orientation, such as %s, by which viewers and labeling tools turn them. "
            "geoseg reads pixels as they are stored, so masks that were drawn on the turned picture do not fit. Turn "
            "the pixels first: mogrify -auto-orient FILES.",
            *(source.name, plural(len(turned), "picture"), name_some(sorted(turned)), next(iter(turned.values()))),
        )
    is_one_place = source.areas or source.validate_east or source.validate_west or source.validate_px
    if places["train"] and places["validate"] and not is_one_place:
        _check_shared(source, places["train"], places["validate"])


def _check_shared(source: Source, train: Sequence[Grid], validate: Sequence[Grid]) -> None:
    trained, validated = (_outline(grids, train[0]) for grids in (train, validate))
    tree = shapely.STRtree(trained)
    shared = [shapely.union_all(trained[tree.query(place)]).intersection(place).area for place in validated]
    share = sum(shared) / max(float(shapely.area(validated).sum()), np.finfo(float).tiny)
    if share < WARNED_SHARE:
        return
    drawn = [key for key in ("split", "fold") if getattr(source, key)]
    message = (
        f"sources.{source.name}: {100 * share:.0f} % of the ground of {plural(len(validated), 'validation image')} is "
        "also that of training images, which overlap them"
    )
    if drawn and share >= MOST_SHARED:
        raise RecipeError(
            f"{message}: {drawn[0]} = {list(getattr(source, drawn[0]))} would score what was trained on. Name images "
            "that lie apart in validate_scenes, or make one image of them (gdalbuildvrt) and divide it with "
            "validate_east or areas"
        )
    log.warning("%s: scores are too high by that. Name images that lie apart in validate_scenes.", message)


def _outline(grids: Sequence[Grid], reference: Grid) -> NDArray[Any]:
    """Return the extents of images in the CRS of one of them."""
    from rasterio.warp import transform

    outlines = []
    for grid in grids:
        xs, ys = zip(*grid.corners, strict=True)
        if grid.crs != reference.crs:
            xs, ys = transform(grid.crs, reference.crs, list(xs), list(ys))[:2]
        outlines.append(
            shapely.Polygon(zip(xs, ys, strict=True)) if np.isfinite([*xs, *ys]).all() else shapely.Polygon()
        )
    return np.array(outlines, object)
