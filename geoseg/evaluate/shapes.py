"""Polygons ready to be compared: in one plane, cut to the area that is scored."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

PolygonArray = NDArray[Any]
"""Shapely polygons and multipolygons, `(building,)`; one item is one building."""

HALF = 0.5
"""A polygon counts where at least this share of its area lies in the scored area."""

WHOLE = 1.0
"""From this share, to the millionth, on a polygon lies inside."""


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Buildings of one side, truth or prediction.

    Attributes:
        polygons: What of them lies in the scored area, in metres (pixels where the ground is unknown), `(building,)`.
        share: How much of their area that is, 0 to 1, `(building,)`.
        confidence: From 0 to 1, `(building,)`; None where nobody said.
    """

    polygons: PolygonArray
    share: NDArray[np.float64]
    confidence: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        sizes = {len(column) for column in (self.polygons, self.share, self.confidence) if column is not None}
        if len(sizes) > 1:
            raise ValueError(f"columns must have the same length, got {sorted(sizes)}")

    def __len__(self) -> int:
        """Return the number of buildings."""
        return len(self.polygons)

    @classmethod
    def of(cls, polygons: PolygonArray, confidence: NDArray[np.float64] | None = None) -> Self:
        """Return buildings that lie wholly in the scored area."""
        return cls(polygons, np.ones(len(polygons)), confidence)

    def take(self, index: NDArray[Any]) -> Self:
        """Return the buildings of an index or a boolean array."""
        confidence = None if self.confidence is None else self.confidence[index]
        return type(self)(self.polygons[index], self.share[index], confidence)

    @property
    def counts(self) -> NDArray[np.bool_]:
        """True for buildings that lie in the scored area by half or more."""
        return np.asarray(self.share >= HALF)

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """True for buildings that the border of the scored area leaves whole."""
        return np.asarray(self.share >= WHOLE)

    @property
    def vertices(self) -> NDArray[np.int64]:
        """Corners of each building, those of its holes too; a ring's closing point is not counted again."""
        return count_vertices(self.polygons)


def count_vertices(polygons: PolygonArray) -> NDArray[np.int64]:
    """Count the corners of polygons and multipolygons, without the closing points of their rings."""
    parts, owner = shapely.get_parts(polygons, return_index=True)
    corners = shapely.get_num_coordinates(parts) - shapely.get_num_interior_rings(parts) - 1
    return np.bincount(owner, weights=corners, minlength=len(polygons)).astype(np.int64)


def tidy_polygons(geometry: PolygonArray) -> tuple[PolygonArray, NDArray[np.int64]]:
    """Make geometry valid and keep what is a polygon with an area.

    Returns:
        Polygons and multipolygons, and the position of each in `geometry`.
    """
    present = np.flatnonzero(~(shapely.is_missing(geometry) | shapely.is_empty(geometry)))
    valid = shapely.make_valid(shapely.force_2d(geometry[present]))
    mixed = np.flatnonzero(shapely.get_type_id(valid) == shapely.GeometryType.GEOMETRYCOLLECTION)
    valid[mixed] = [_polygons_of(collection) for collection in valid[mixed]]
    kept = shapely.area(valid) > 0
    return valid[kept], present[kept].astype(np.int64)


def _polygons_of(collection: Any) -> Any:
    parts = shapely.get_parts(shapely.get_parts(collection))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def cut_to_area(polygons: PolygonArray, area: PolygonArray, confidence: NDArray[np.float64] | None = None) -> Shapes:
    """Cut polygons to the scored area; those that do not touch it are left out.

    Args:
        polygons: Valid polygons, `(building,)`.
        area: Valid polygons without overlaps that together are the scored area.
        confidence: Of each polygon, or None.
    """
    which, piece = shapely.STRtree(area).query(polygons, predicate="intersects")
    shapely.prepare(area)
    common = polygons[which]
    cut = np.flatnonzero(~shapely.covers(area[piece], common))
    common[cut] = shapely.intersection(common[cut], area[piece[cut]])
    inside = np.bincount(which, weights=shapely.area(common), minlength=len(polygons))
    share = np.minimum(np.round(inside / np.maximum(shapely.area(polygons), np.finfo(float).tiny), 6), 1.0)
    crossing = (share > 0) & (share < WHOLE)
    parts = polygons.copy()
    parts[crossing] = _join_pieces(common, which, np.flatnonzero(crossing))
    return Shapes(parts, share, confidence).take(share > 0)


def _join_pieces(pieces: PolygonArray, owner: NDArray[np.int64], wanted: NDArray[np.int64]) -> list[Any]:
    """Return the union of each wanted owner's pieces."""
    order = np.argsort(owner, kind="stable")
    pieces, owner = pieces[order], owner[order]
    first, stop = np.searchsorted(owner, wanted, side="left"), np.searchsorted(owner, wanted, side="right")
    return [shapely.union_all(_areal(pieces[i:j])) for i, j in zip(first, stop, strict=True)]


def _areal(geometry: PolygonArray) -> PolygonArray:
    parts = shapely.get_parts(geometry)
    parts = shapely.get_parts(parts[shapely.get_dimensions(parts) == 2])
    return np.asarray(parts, object)
