"""PoLiS: the mean distance between the outlines of two polygons."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

PolygonArray = NDArray[Any]


def polis(a: PolygonArray, b: PolygonArray) -> NDArray[np.float64]:
    """Return the PoLiS distance of every pair of polygons.

    Avbelj, Mueller and Bamler, "A metric for polygon comparison and building extraction evaluation", IEEE Geoscience
    and Remote Sensing Letters 12(1), 2015: the mean distance of the vertices of `a` from the outline of `b`, and
    the other way round, and the mean of both. Holes have vertices and outlines like every ring.

    Args:
        a: Polygons, `(pair,)`.
        b: Polygons, `(pair,)`.

    Returns:
        Distances in the unit of the coordinates, `(pair,)`; 0 for equal outlines.
    """
    return (_mean_distance(a, b) + _mean_distance(b, a)) / 2


def _mean_distance(a: PolygonArray, b: PolygonArray) -> NDArray[np.float64]:
    """Return the mean distance of the vertices of `a` from the outline of `b`."""
    parts, owner = shapely.get_parts(a, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True)
    pair = owner[part[ring[~closing]]]
    outline = shapely.boundary(b)
    shapely.prepare(outline)
    distance = shapely.distance(shapely.points(xy[~closing]), outline[pair])
    return np.asarray(np.bincount(pair, weights=distance, minlength=len(a)) / np.bincount(pair, minlength=len(a)))
