"""Which scenes can meet an area, by what is known of them before they are opened."""

import logging
from collections.abc import Sequence

import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.sources.source import SceneSource

log = logging.getLogger(__name__)

MARGIN = 0.01
"""Share of a footprint's size by which it may be wrong: straight in degrees is not straight on a map (0.4 % over
110 km at 60 degrees north), and catalogues round. A scene too many costs the reading of one header."""

Bounds = tuple[float, float, float, float]


def filter_sources(sources: Sequence[SceneSource], aoi_bounds_4326: Bounds) -> list[SceneSource]:
    """Leave out the scenes whose footprint does not meet an area; those without a footprint stay.

    Args:
        sources: Scenes, not opened here.
        aoi_bounds_4326: `(west, south, east, north)` in degrees; west > east crosses the antimeridian.
    """
    area = _area(aoi_bounds_4326)
    kept = [source for source in sources if source.footprint is None or _meets(source.footprint, area)]
    if len(kept) < len(sources):
        log.info("%d of %d scenes lie outside the area and are not opened.", len(sources) - len(kept), len(sources))
    return kept


def _area(bounds: Bounds) -> BaseGeometry:
    west, south, east, north = bounds
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))


def _meets(footprint: BaseGeometry, area: BaseGeometry) -> bool:
    west, south, east, north = shapely.bounds(footprint)
    margin = MARGIN * max(east - west, north - south)
    whole = footprint if shapely.is_valid(footprint) else shapely.box(west, south, east, north)
    return bool(shapely.dwithin(whole, area, margin))
