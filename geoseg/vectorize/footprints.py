"""Building footprints: outlines placed in the world and measured, in columns."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Grid
from geoseg.inference import PROBABILITY_ONE
from geoseg.vectorize.blocks import BlockPolygons
from geoseg.vectorize.calibration import calibrate, gather_evidence
from geoseg.vectorize.generalize import Outlines
from geoseg.vectorize.ground import Ground, find_azimuths, measure_polygons, pixel_area_m2, to_world
from geoseg.vectorize.instances import place_of
from geoseg.vectorize.rings import PolygonArray, first_corners


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too small for a map.

    Attributes:
        min_area_m2: Buildings whose pixels cover less ground are dropped.
        fill_holes_m2: Holes whose pixels cover less ground are filled; at most `min_area_m2`, so that no building that
            is kept can lie in one.
    """

    min_area_m2: float = 0.0
    fill_holes_m2: float = 0.0

    def __post_init__(self) -> None:
        """Refuse holes that may hold a building."""
        if self.fill_holes_m2 > self.min_area_m2:
            raise ValueError(f"holes of {self.fill_holes_m2} m2 may hold buildings of {self.min_area_m2} m2")


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """Finished footprints as plain columns, to be stored and streamed without a look at each.

    Attributes:
        row: Row of the first vertex before simplification, pixels of the scene, `(footprint,)`. Row and column are the
            order of footprints in every result.
        col: Its column, `(footprint,)`.
        area_m2: Area of the geometry on the ellipsoid, in units of the coordinates without a CRS, `(footprint,)`.
        perimeter_m: Perimeter, holes included, `(footprint,)`.
        confidence: Probability that it matches a true building (`geoseg.vectorize.calibration`), or, without
            coefficients for that, the mean probability inside the unsimplified outline; 0 to 1, `(footprint,)`.
        confidence_min: Smallest probability inside the unsimplified outline, 0 to 1, `(footprint,)`.
        place: Where its innermost pixel lies, `(footprint,)`: see `name_places`.
        edge: Touches the scene's border or a pixel without data, `(footprint,)`.
        orientation_deg: Direction of the longer walls: degrees clockwise from the north of the CRS, at least 0 and
            below 180, `(footprint,)`; see `find_azimuths`.
        vertices: Vertices of the geometry, holes included, each once, `(footprint,)`.
        kind: How the geometry was made, index of `geoseg.vectorize.generalize.KINDS`, `(footprint,)` int8.
        bounds: Left, bottom, right, top in world coordinates, `(footprint, 4)`.
        wkb: Geometries in world coordinates as well-known binary, one after another, `(byte,)`.
        wkb_offset: Where each geometry begins, and the end of the last, `(footprint + 1,)`.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    area_m2: NDArray[np.float64]
    perimeter_m: NDArray[np.float64]
    confidence: NDArray[np.float64]
    confidence_min: NDArray[np.float64]
    place: NDArray[np.int64]
    edge: NDArray[np.bool_]
    orientation_deg: NDArray[np.float64]
    vertices: NDArray[np.int32]
    kind: NDArray[np.int8]
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
        return cls(
            row=place,
            col=place,
            area_m2=number,
            perimeter_m=number,
            confidence=number,
            confidence_min=number,
            place=place,
            edge=flag,
            orientation_deg=number,
            vertices=np.zeros(0, np.int32),
            kind=np.zeros(0, np.int8),
            bounds=bounds,
            wkb=np.zeros(0, dtype=np.uint8),
            wkb_offset=offset,
        )

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


_BY_FOOTPRINT = (
    *("row", "col", "area_m2", "perimeter_m", "confidence", "confidence_min", "place", "edge"),
    *("orientation_deg", "vertices", "kind", "bounds"),
)
"""Columns with an entry per footprint."""


def measure_footprints(
    polygons: BlockPolygons,
    outlines: Outlines,
    grid: Grid,
    *,
    coefficients: Mapping[str, float] | None = None,
) -> Footprints:
    """Place outlines in the world, exteriors counter-clockwise (OGC 06-103r4, GeoParquet), and measure them.

    Args:
        polygons: What is outlined, in pixels as they are.
        outlines: The outlines, `(polygon,)`.
        grid: Grid of the whole scene's pixels.
        coefficients: Those of the confidence, `ModelSpec.confidence`.
    """
    if not len(polygons):
        return Footprints.empty()
    kind, xy, (rings, parts) = shapely.to_ragged_array(outlines.polygons)
    world = np.column_stack(to_world(grid.transform, xy[:, 0], xy[:, 1]))
    geometry = shapely.orient_polygons(shapely.from_ragged_array(kind, world, (rings, parts)), exterior_cw=False)
    area, perimeter = measure_polygons(world, rings, parts, grid.crs)
    wkb = shapely.to_wkb(geometry, byte_order=1).tolist()
    return Footprints(
        *first_corners(polygons.polygons),
        area_m2=area,
        perimeter_m=perimeter,
        confidence=calibrate(gather_evidence(polygons, grid), coefficients),
        confidence_min=polygons.probability_min.astype(np.float64) * (1 / PROBABILITY_ONE),
        place=find_places(polygons.summit, grid),
        edge=polygons.edge,
        orientation_deg=find_azimuths(world, rings, parts, outlines.direction, grid),
        vertices=(rings[parts[1:]] - rings[parts[:-1]] - np.diff(parts)).astype(np.int32),
        kind=outlines.kind,
        bounds=shapely.bounds(geometry),
        wkb=np.frombuffer(b"".join(wkb), dtype=np.uint8),
        wkb_offset=np.cumsum([0, *map(len, wkb)]),
    )


MICRO = 10**6
"""Millionths of a degree: a tenth of a meter."""

TURN = 360 * MICRO


def find_places(summit: NDArray[np.int64], grid: Grid) -> NDArray[np.int64]:
    """Return where buildings lie: their innermost pixels, which hardly depend on how they are outlined.

    Args:
        summit: Orders of the pixels, `BlockPolygons.summit`.
        grid: Grid of the whole scene's pixels.

    Returns:
        Millionths of a degree of latitude, from the south pole, times `TURN`, plus those of longitude, from the date
        line, `(building,)`; without a CRS, or off the map, -1 minus the place of the pixel.
    """
    place = place_of(summit)
    ground = Ground.of(grid.crs)
    if ground.geod is None:
        return -1 - place
    row, col = np.divmod(place, grid.width)
    lon, lat = ground.lonlat(*to_world(grid.transform, col + 0.5, row + 0.5))
    known = np.isfinite(lon) & np.isfinite(lat)
    east = np.rint(np.where(known, np.remainder(lon + 180, 360), 0) * MICRO).astype(np.int64) % TURN
    north = np.rint(np.where(known, lat + 90, 0) * MICRO).astype(np.int64)
    return np.where(known, north * TURN + east, -1 - place)


def name_places(place: NDArray[np.int64]) -> list[str]:
    """Return places as text, such as `27.631052,85.520113`: latitude and longitude; `pixel 1204` without a CRS."""
    north, east = np.divmod(place, TURN)
    lat, lon = (north - 90 * MICRO) / MICRO, (east - 180 * MICRO) / MICRO
    return [
        f"{y:.6f},{x:.6f}" if known >= 0 else f"pixel {-1 - known}"
        for known, y, x in zip(place.tolist(), lat.tolist(), lon.tolist(), strict=True)
    ]


def keep_large(polygons: BlockPolygons, grid: Grid, limits: Limits) -> BlockPolygons:
    """Drop polygons, and fill holes, whose pixels cover less ground than the limits.

    What is off the map has no area and stays.
    """
    if not len(polygons) or limits.min_area_m2 <= 0:
        return polygons
    left, top, right, bottom = shapely.bounds(polygons.polygons).T
    area_m2 = polygons.pixel_count * pixel_area_m2(grid, (left + right) / 2, (top + bottom) / 2)
    large = polygons.take(~(area_m2 < limits.min_area_m2))
    has_hole = shapely.get_num_interior_rings(large.polygons) > 0
    if limits.fill_holes_m2 <= 0 or not has_hole.any():
        return large
    filled = large.polygons.copy()
    filled[has_hole] = _fill_holes(filled[has_hole], grid, limits.fill_holes_m2)
    return dataclasses.replace(large, polygons=filled)


def _fill_holes(polygons: PolygonArray, grid: Grid, fill_holes_m2: float) -> PolygonArray:
    """Return polygons in pixels without their holes that cover less ground than `fill_holes_m2`, `(polygon,)`."""
    kind, xy, (rings, parts) = shapely.to_ragged_array(polygons)
    start, size = rings[:-1], np.diff(rings)
    x, y = xy.T
    twice = np.append(x[:-1] * y[1:] - x[1:] * y[:-1], 0)
    twice[rings[1:] - 1] = 0  # from the end of a ring to the next one
    area_px = np.abs(np.add.reduceat(twice, start)) / 2
    center = [np.add.reduceat(values, start) / size for values in (x, y)]
    is_large = ~(area_px * pixel_area_m2(grid, *center) < fill_holes_m2)
    is_large[parts[:-1]] = True  # the exteriors
    kept = np.concatenate(([0], np.cumsum(is_large)))
    offsets = np.concatenate(([0], np.cumsum(size[is_large]))), kept[parts]
    return np.asarray(shapely.from_ragged_array(kind, xy[np.repeat(is_large, size)], offsets), dtype=object)
