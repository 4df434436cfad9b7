"""Building polygons: read from a file, outlined from a raster, and clipped to the scored area."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import GeosegError, LabelError
from geoseg.evaluate.rasters import BLOCK_PX, Bytes
from geoseg.grid import Grid, Window
from geoseg.io.datum import warn_once
from geoseg.io.reproject import areal_parts, repaired
from geoseg.io.tables import name_some, plural
from geoseg.io.vectors import describe_bounds, hint_mirrored, in_crs_of, read_polygons, to_pixels
from geoseg.scene import Raster
from geoseg.vectorize import Split, StoredPixels, join_seams, polygonize_block, polygonize_window
from geoseg.vectorize.calibration import Evidence, calibrate, gather_evidence
from geoseg.vectorize.footprints import Limits, keep_large
from geoseg.vectorize.generalize import Generalizer, clip_to_grid
from geoseg.vectorize.scene import OutlineOptions, count_windows, cut_grid, in_threads
from geoseg.vectorize.simplify import Simplify

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

PolygonArray = NDArray[Any]
"""Shapely polygons and multipolygons, `(building,)`; one item is one building."""

SIMPLIFY_PX = 1.0
"""Simplification tolerance for outlines of rasters; otherwise pixel corners would count as vertices."""

CONFIDENCE_COLUMNS = ("confidence", "score", "probability")
"""Columns used as the confidence of footprints by default, in order of preference, in upper or lower case."""


HALF = 0.5
"""A polygon counts if at least this share of its area lies in the scored area."""

WHOLE = 1.0
"""A polygon lies inside if its share, rounded to six decimals, is at least this."""


@dataclass(frozen=True, slots=True, eq=False)
class BuildingPolygons:
    """Buildings of a scene, true or predicted.

    Attributes:
        polygons: Valid polygons in pixels of the scored grid, x = column and y = row, `(building,)`.
        confidence: From 0 to 1, `(building,)`; None if unknown.
        evidence: What a confidence can be made of; None if unknown.
        repaired: Number of polygons that were invalid as read.
    """

    polygons: PolygonArray
    confidence: NDArray[np.float64] | None = None
    evidence: Evidence | None = None
    repaired: int = 0

    def burn(self, window: Window) -> Bytes:
        """Return 1 where a building covers the center of a pixel, else 0, `(y, x)`."""
        from affine import Affine
        from rasterio.features import rasterize

        from geoseg.third_party import allow_no_georeference

        box = shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop)
        here = self.polygons[np.sort(shapely.STRtree(self.polygons).query(box))]
        if not len(here):
            return np.zeros(window.shape, np.uint8)
        place = Affine.translation(window.col, window.row)
        with allow_no_georeference():
            return np.asarray(rasterize(here.tolist(), window.shape, transform=place, dtype="uint8"), np.uint8)

    def is_on(self, grid: Grid) -> bool:
        """Return True if any building touches the grid."""
        extent = shapely.box(0, 0, grid.width, grid.height)
        return bool(shapely.intersects(self.polygons, extent).any())


def read_buildings(
    path: Path,
    grid: Grid,
    *,
    what: str,
    error: type[GeosegError],
    layer: str = "",
    confidence: str | None = None,
    are_true: bool = False,
) -> BuildingPolygons:
    """Read the buildings of a vector file near a grid, in an order that does not depend on that of the file.

    Each part of a multipolygon is a building: a dissolved layer has all buildings in one.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, GeoParquet or whatever GDAL reads, in any CRS.
        grid: The scored grid.
        what: Noun for the file in messages.
        error: Class of the error to raise.
        layer: Layer of a file that has several.
        confidence: Column with the confidence; one of `CONFIDENCE_COLUMNS` by default.
        are_true: They are the truth, which has no confidence.

    Raises:
        GeosegError: `error`, if the file cannot be read, has no CRS although the grid has one, or lacks the column, or
            the column has values that are no numbers.
    """
    frame = read_polygons(path, what=what, error=error, layer=layer, near=grid)
    if frame.crs is None and grid.crs is not None:
        raise error(f"The {what} {path} have no CRS, but the scene has {grid.crs}. Assign one with `ogr2ogr -a_srs`.")
    known = None if are_true else _read_confidence(frame, path, confidence, error)
    features = np.asarray(to_pixels(in_crs_of(frame, grid, f"{what} {path}").geometry.to_numpy(), grid), object)
    read, feature = shapely.get_parts(features, return_index=True)
    count = np.bincount(feature, minlength=len(features))
    if (count > 1).any():
        warn_once(
            f"The {what} {path}: {plural(int((count > 1).sum()), 'multipolygon')} with {count[count > 1].sum():,} "
            "parts, each of which counts as a building. Where touching buildings were dissolved, they are one."
        )
    polygons, kept = repair_polygons(read)
    sure = None if known is None else known[feature[kept]]
    keys = [shapely.length(polygons), shapely.area(polygons), *shapely.bounds(polygons).T[::-1]]
    order = np.lexsort([*([] if sure is None else [sure]), *keys])
    repaired = int(np.count_nonzero(~shapely.is_valid(read)))
    return BuildingPolygons(polygons[order], None if sure is None else sure[order], repaired=repaired)


def _read_confidence(
    frame: "GeoDataFrame", path: Path, asked: str | None, error: type[GeosegError]
) -> NDArray[np.float64] | None:
    """Return the confidence of each row: the column asked for, or the first of the usual ones that is not empty."""
    import pandas

    usual = [str(c) for name in CONFIDENCE_COLUMNS for c in frame.columns if str(c).lower() == name]
    if asked is not None and asked not in frame.columns:
        raise error(f"{path} has no column {asked!r}. It has {', '.join(map(str, frame.columns))}.")
    for column in [asked] if asked is not None else usual:
        given = frame[column].replace("", None)
        if given.isna().all() and len(frame):
            continue
        numbers = np.asarray(pandas.to_numeric(given.astype(object), errors="coerce"), np.float64)
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            values = dict.fromkeys("nothing" if v is None or v != v else repr(v) for v in given[wrong])
            raise error(
                f"The column {column} of {path} has {name_some(list(values))} in {wrong.sum():,} of "
                f"{plural(len(frame), 'row')}. A number is expected in each, a larger one for a surer building: fill "
                "or convert them, or name another column with `confidence`."
            )
        return numbers
    if asked is not None or usual:
        message = f"The column {asked or usual[0]} of {path} is empty"
        if asked is not None:
            raise error(f"{message}. Name another one, or omit `confidence`.")
        warn_once(f"{message}: the buildings have no confidence, and there is no AP.")
    return None


def describe_mismatch(path: Path, grid: Grid, what: str, layer: str = "") -> str:
    """Return the message that a file does not overlap the scene, with both extents."""
    frame = read_polygons(path, what=what, error=LabelError, layer=layer)
    found = f"its extent is {describe_bounds(frame, grid)}" if len(frame) else "it contains no polygon"
    return (
        f"No polygon of the {what} {path} touches the scene: {found}. Check that both show the same place."
        f"{hint_mirrored(frame.total_bounds, grid)}"
    )


def repair_polygons(geometry: PolygonArray) -> tuple[PolygonArray, NDArray[np.int64]]:
    """Make geometries valid and keep polygons with an area.

    Returns:
        Polygons and multipolygons, and the index of each in `geometry`.
    """
    present = np.flatnonzero(~(shapely.is_missing(geometry) | shapely.is_empty(geometry)))
    valid = repaired(shapely.force_2d(geometry[present]))
    mixed = np.flatnonzero(shapely.get_type_id(valid) == shapely.GeometryType.GEOMETRYCOLLECTION)
    valid[mixed] = [shapely.union_all(areal_parts(collection)) for collection in valid[mixed]]
    kept = shapely.area(valid) > 0
    return valid[kept], present[kept].astype(np.int64)


def outline_buildings(
    classes: Raster,
    grid: Grid,
    target: int,
    *,
    probability: Raster | None = None,
    surface: Raster | None = None,
    split_depth: float | None = None,
    limits: Limits | None = None,
    generalizer: Generalizer | None = None,
    block_px: int = BLOCK_PX,
    coefficients: Mapping[str, float] | None = None,
) -> BuildingPolygons:
    """Outline the buildings in the pixels of a class in the same way as a run.

    Args:
        classes: Class indices.
        grid: Their grid.
        target: Index of the class.
        probability: Stored probabilities, from which the confidence is computed.
        surface: How far inside a building each pixel lies, stored alike; the probabilities by default.
        split_depth: How much that falls between two buildings; None leaves those that touch together.
        limits: What is too small; nothing by default.
        generalizer: Makes the outlines; simplifies them by `SIMPLIFY_PX` by default.
        block_px: Height and width of the windows, on which the result does not depend.
        coefficients: Those of the confidence, `ModelSpec.confidence`.
    """
    pixels = StoredPixels(grid, probability, surface=surface, classes=classes, target=target)
    split = Split.on(grid, split_depth, has_interior=surface is not None) if split_depth is not None else None
    usual = generalizer or Simplify(SIMPLIFY_PX)
    options = OutlineOptions(threshold=1, limits=limits or Limits(), generalizer=usual, split=split)
    windows = count_windows(pixels, options, list(cut_grid(grid.shape, block_px)), in_threads(1))
    joined = join_seams([polygonize_window(pixels, window, options) for window in windows])
    kept = keep_large(joined, grid, options.limits)
    outlines = clip_to_grid(usual.outlines(kept.polygons).polygons, grid.shape)
    if probability is None:
        return BuildingPolygons(outlines)
    evidence = gather_evidence(kept, grid)
    return BuildingPolygons(outlines, calibrate(evidence, coefficients), evidence=evidence)


def outline_area(known: NDArray[np.bool_], around: Window, window: Window, shape: tuple[int, int]) -> PolygonArray:
    """Return the known pixels of a window as polygons in pixels of the grid.

    Args:
        known: `(y, x)` pixels of `around`.
        around: A window that contains `window`.
        window: The window to outline.
        shape: Height and width of the grid.
    """
    own = known[window.relative_to(around).slices]
    if own.all():
        return np.array([shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop)], object)
    ring = window.expand(1).intersect(Window(0, 0, *shape))
    assert ring is not None
    padded = np.zeros(ring.shape, bool)
    padded[window.relative_to(ring).slices] = own
    nothing = np.zeros(ring.shape, np.uint8)
    found = polygonize_block(padded, nothing, np.ones(ring.shape, bool), window, scene_shape=shape)
    return np.asarray(found.polygons, object)


@dataclass(frozen=True, slots=True, eq=False)
class Clipped:
    """True or predicted buildings, clipped to the scored area.

    Attributes:
        polygons: Their parts inside the scored area, in meters or, without a CRS, in pixels, `(building,)`.
        share: Share of their area that lies inside, 0 to 1, `(building,)`.
        confidence: From 0 to 1, `(building,)`; None if unknown.
        evidence: What a confidence can be made of; None if unknown.
        row: Index of each building among those that were clipped, `(building,)`; None if they were not.
    """

    polygons: PolygonArray
    share: NDArray[np.float64]
    confidence: NDArray[np.float64] | None = None
    evidence: Evidence | None = None
    row: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check that all columns have the same length."""
        columns = (self.polygons, self.share, self.confidence, self.evidence, self.row)
        sizes = {len(column) for column in columns if column is not None}
        if len(sizes) > 1:
            raise ValueError(f"columns must have the same length, got {sorted(sizes)}")

    def __len__(self) -> int:
        """Return the number of buildings."""
        return len(self.polygons)

    @classmethod
    def of(cls, polygons: PolygonArray, confidence: NDArray[np.float64] | None = None) -> Self:
        """Return buildings that lie entirely in the scored area."""
        return cls(polygons, np.ones(len(polygons)), confidence)

    def take(self, index: NDArray[Any]) -> Self:
        """Select buildings by indices or a boolean array."""
        confidence = None if self.confidence is None else self.confidence[index]
        evidence = None if self.evidence is None else self.evidence.take(index)
        row = None if self.row is None else self.row[index]
        return type(self)(self.polygons[index], self.share[index], confidence, evidence, row)

    @property
    def counts(self) -> NDArray[np.bool_]:
        """True for buildings of which at least half lies in the scored area."""
        return np.asarray(self.share >= HALF)

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """True for buildings that lie entirely in the scored area."""
        return np.asarray(self.share >= WHOLE)

    @property
    def vertices(self) -> NDArray[np.int64]:
        """Number of vertices of each building, including holes, without the closing points of rings."""
        return count_vertices(self.polygons)


def count_vertices(polygons: PolygonArray) -> NDArray[np.int64]:
    """Count the vertices of polygons and multipolygons, without the closing points of rings."""
    parts, owner = shapely.get_parts(polygons, return_index=True)
    corners = shapely.get_num_coordinates(parts) - shapely.get_num_interior_rings(parts) - 1
    return np.bincount(owner, weights=corners, minlength=len(polygons)).astype(np.int64)


def clip_to_area(
    polygons: PolygonArray,
    area: PolygonArray,
    confidence: NDArray[np.float64] | None = None,
    evidence: Evidence | None = None,
) -> Clipped:
    """Clip polygons to the scored area; those that do not overlap it are omitted.

    Args:
        polygons: Valid polygons, `(building,)`.
        area: The scored area as valid polygons that do not overlap.
        confidence: Confidence of each polygon, or None.
        evidence: What it can be made of, or None.
    """
    which, piece = shapely.STRtree(area).query(polygons, predicate="intersects")
    shapely.prepare(area)
    common = polygons[which]
    cut = np.flatnonzero(~shapely.covers(area[piece], common))
    common[cut] = shapely.intersection(common[cut], area[piece[cut]])
    inside = np.bincount(which, weights=shapely.area(common), minlength=len(polygons))
    share = np.minimum(np.round(inside / np.maximum(shapely.area(polygons), np.finfo(float).tiny), 6), 1.0)
    crossing = np.flatnonzero((share > 0) & (share < WHOLE))
    order = np.argsort(which, kind="stable")
    common, which = common[order], which[order]
    first, stop = np.searchsorted(which, crossing, side="left"), np.searchsorted(which, crossing, side="right")
    parts = polygons.copy()
    parts[crossing] = [shapely.union_all(areal_parts(common[i:j])) for i, j in zip(first, stop, strict=True)]
    return Clipped(parts, share, confidence, evidence, np.arange(len(parts))).take(share > 0)
