"""Building footprints: outlines placed in the world and measured, in columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Grid
from geoseg.inference import PROBABILITY_ONE
from geoseg.vectorize.blocks import BlockPolygons
from geoseg.vectorize.ground import measure_polygons, pixel_area_m2, to_world
from geoseg.vectorize.rings import PolygonArray, first_corners


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """Finished footprints as plain columns, to be stored and streamed without a look at each.

    Attributes:
        row: Row of the first vertex before simplification, pixels of the scene, `(footprint,)`. Row and column are the
            order of footprints in every result.
        col: Its column, `(footprint,)`.
        area_m2: Area of the geometry on the ellipsoid, in units of the coordinates without a CRS, `(footprint,)`.
        perimeter_m: Perimeter, holes included, `(footprint,)`.
        confidence: Mean probability inside the unsimplified outline, 0 to 1, `(footprint,)`.
        edge: Touches the scene's border or a pixel without data, `(footprint,)`.
        bounds: Left, bottom, right, top in world coordinates, `(footprint, 4)`.
        wkb: Geometries in world coordinates as well-known binary, one after another, `(byte,)`.
        wkb_offset: Where each geometry begins, and the end of the last, `(footprint + 1,)`.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    area_m2: NDArray[np.float64]
    perimeter_m: NDArray[np.float64]
    confidence: NDArray[np.float64]
    edge: NDArray[np.bool_]
    bounds: NDArray[np.float64]
    wkb: NDArray[np.uint8]
    wkb_offset: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of footprints."""
        return len(self.row)

    @property
    def geometry(self) -> PolygonArray:
        """The geometries as Shapely polygons, `(footprint,)`."""
        data, limits = self.wkb.tobytes(), self.wkb_offset.tolist()
        found = [data[start:stop] for start, stop in pairwise(limits)]
        geometry: PolygonArray = np.asarray(shapely.from_wkb(np.array(found, dtype=object)), dtype=object)
        return geometry

    @classmethod
    def empty(cls) -> Self:
        """Return no footprints."""
        number, flag, bounds = np.zeros(0), np.zeros(0, dtype=bool), np.zeros((0, 4))
        place, offset = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
        return cls(place, place, number, number, number, flag, bounds, np.zeros(0, dtype=np.uint8), offset)

    def between(self, start: int, stop: int) -> Self:
        """Return the footprints from `start` to `stop - 1`."""
        columns = {name: getattr(self, name)[start:stop] for name in _BY_FOOTPRINT}
        first, last = int(self.wkb_offset[start]), int(self.wkb_offset[stop])
        offset = self.wkb_offset[start : stop + 1] - first
        return type(self)(**columns, wkb=self.wkb[first:last], wkb_offset=offset)

    def in_reading_order(self) -> Self:
        """Return the footprints sorted by row and column."""
        order = np.lexsort((self.col, self.row))
        size = np.diff(self.wkb_offset)[order]
        offset = np.concatenate(([0], np.cumsum(size)))
        byte = np.repeat(self.wkb_offset[:-1][order] - offset[:-1], size) + np.arange(offset[-1])
        columns = {name: getattr(self, name)[order] for name in _BY_FOOTPRINT}
        return type(self)(**columns, wkb=self.wkb[byte], wkb_offset=offset)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put the footprints of several parts one after another."""
        parts = parts or [cls.empty()]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_BY_FOOTPRINT, "wkb")}
        ends = np.cumsum([0, *(len(part.wkb) for part in parts)])
        offset = [part.wkb_offset[:-1] + start for part, start in zip(parts, ends, strict=False)]
        return cls(**columns, wkb_offset=np.concatenate((*offset, ends[-1:])))


_BY_FOOTPRINT = ("row", "col", "area_m2", "perimeter_m", "confidence", "edge", "bounds")
"""Columns with an entry per footprint."""


def measure_footprints(polygons: BlockPolygons, outlines: PolygonArray, grid: Grid) -> Footprints:
    """Place outlines in the world, exteriors counter-clockwise (OGC 06-103r4, GeoParquet), and measure them.

    Args:
        polygons: What is outlined, in pixels and not simplified.
        outlines: The outlines in pixels, simplified or not, `(polygon,)`.
        grid: Grid of the whole scene's pixels.
    """
    if not len(polygons):
        return Footprints.empty()
    kind, xy, (rings, parts) = shapely.to_ragged_array(outlines)
    world = np.column_stack(to_world(grid.transform, xy[:, 0], xy[:, 1]))
    geometry = shapely.orient_polygons(shapely.from_ragged_array(kind, world, (rings, parts)), exterior_cw=False)
    area, perimeter = measure_polygons(world, rings, parts, grid.crs)
    wkb = shapely.to_wkb(geometry, byte_order=1).tolist()
    return Footprints(
        *first_corners(polygons.polygons),
        area_m2=area,
        perimeter_m=perimeter,
        confidence=polygons.probability_sum / polygons.pixel_count * (1 / PROBABILITY_ONE),
        edge=polygons.edge,
        bounds=shapely.bounds(geometry),
        wkb=np.frombuffer(b"".join(wkb), dtype=np.uint8),
        wkb_offset=np.cumsum([0, *map(len, wkb)]),
    )


def keep_large(polygons: BlockPolygons, grid: Grid, min_area_m2: float) -> BlockPolygons:
    """Drop polygons whose pixels cover less ground than `min_area_m2`; what is off the map has no area and stays."""
    if not len(polygons) or min_area_m2 <= 0:
        return polygons
    left, top, right, bottom = shapely.bounds(polygons.polygons).T
    area_m2 = polygons.pixel_count * pixel_area_m2(grid, (left + right) / 2, (top + bottom) / 2)
    return polygons.take(~(area_m2 < min_area_m2))
