"""Polygons that block borders cut, put together again."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.vectorize.blocks import BlockPolygons, add_by_region
from geoseg.vectorize.rings import PolygonArray, corners_of, open_rings, outline, reading_order
from geoseg.vectorize.runs import connected_components, expand_ranges


def join_seams(blocks: Sequence[BlockPolygons]) -> BlockPolygons:
    """Join the polygons of blocks along their common borders.

    The result equals that of polygonizing the whole scene at once, vertex for vertex and attribute for attribute, for
    any cut of the scene into disjoint windows. Only open polygons are looked at.

    Args:
        blocks: What `polygonize_block` gave for each block, in any order.

    Returns:
        Polygons sorted by first vertex (row, col), none of them open.

    Raises:
        ValueError: If polygons overlap, so that the blocks cannot be disjoint.
    """
    parts = BlockPolygons.concatenate(blocks)
    joined = BlockPolygons.concatenate([parts.take(~parts.open), join_open(parts.take(parts.open))])
    return joined.take(reading_order(joined.polygons))


def join_open(parts: BlockPolygons, goes_on: NDArray[np.bool_] | None = None) -> BlockPolygons:
    """Join open polygons.

    Args:
        parts: Open polygons.
        goes_on: True where a polygon may go on beyond all of them, `(polygon,)`; none does by default.

    Returns:
        What they make up, open where a part goes on.
    """
    if not len(parts):
        return parts
    goes_on = np.zeros(len(parts), dtype=bool) if goes_on is None else goes_on
    count, region = connected_components(len(parts), *_neighbors(parts.polygons))
    return BlockPolygons(
        polygons=outline(corners_of(parts.polygons, region)),
        pixel_count=add_by_region(region, parts.pixel_count, count),
        probability_sum=add_by_region(region, parts.probability_sum, count),
        edge=add_by_region(region, parts.edge, count) > 0,
        open=add_by_region(region, goes_on, count) > 0,
    )


def _neighbors(polygons: PolygonArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the pairs of polygons that share a piece of an edge."""
    xy, ring, polygon = open_rings(polygons)
    last = np.append(ring[1:] != ring[:-1], True)
    first = np.flatnonzero(np.append(True, last[:-1]))
    following = np.arange(1, len(ring) + 1)
    following[last] = first
    level = _shared_edges(xy, following, polygon, axis=0)
    upright = _shared_edges(xy, following, polygon, axis=1)
    return np.concatenate((level[0], upright[0])), np.concatenate((level[1], upright[1]))


def _shared_edges(
    xy: NDArray[np.int64], following: NDArray[np.int64], polygon: NDArray[np.int64], *, axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the pairs of polygons that share a piece of an edge along one axis (0 = x, 1 = y).

    Polygons lie to the same side of their edges, so neighbors walk a shared edge in opposite directions, and edges of
    the same direction never overlap.
    """
    begin, end = xy[:, axis], xy[following, axis]
    line = xy[:, 1 - axis] * (int(xy[:, axis].max()) + 1)
    forth, back = np.flatnonzero(end > begin), np.flatnonzero(end < begin)
    forth = forth[np.argsort((line + begin)[forth])]
    back = back[np.argsort((line + end)[back])]
    _check_disjoint((line + begin)[forth], (line + end)[forth])
    _check_disjoint((line + end)[back], (line + begin)[back])
    first = np.searchsorted((line + begin)[back], (line + begin)[forth], side="right")
    stop = np.searchsorted((line + end)[back], (line + end)[forth], side="left")
    i, j = expand_ranges(first, stop)
    return polygon[forth[i]], polygon[back[j]]


def _check_disjoint(start: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
    if (start[1:] < stop[:-1]).any():
        raise ValueError("polygons overlap, so the blocks overlap; join the polygons of disjoint blocks, each once")
