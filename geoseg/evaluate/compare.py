"""Compare the buildings of a run with those of a map that exists: which are the same, changed, new, missing."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg._version import __version__
from geoseg.errors import ScoredFileError, UsageError
from geoseg.evaluate.buildings import Pairs, match_greedily, overlapping_pairs
from geoseg.evaluate.layers import FOOTPRINTS, PROBABILITY, check_out, read_footprints, require_run, write_out
from geoseg.evaluate.polygons import (
    Clipped,
    PolygonArray,
    clip_to_area,
    describe_mismatch,
    outline_area,
    repair_polygons,
)
from geoseg.evaluate.prediction import grid_of
from geoseg.evaluate.rasters import BLOCK_PX
from geoseg.grid import Grid
from geoseg.inference import NODATA
from geoseg.io.datum import collect_shifts
from geoseg.io.tables import plural, write_table
from geoseg.io.vectors import in_crs_of, read_polygons, to_pixels
from geoseg.outputs.styles import category_qml
from geoseg.scene import StoredRaster, close_readers
from geoseg.vectorize import cut_grid

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

log = logging.getLogger(__name__)

LAYERS, REPORT = "comparison.gpkg", "comparison.json"
"""The files of a comparison, the report last."""

MAP_ID = "map_id"
"""Column with the name of a building in the map."""

MATCHED, CHANGED, NEW, MISSING = "matched", "changed", "new", "missing"

TOUCHED = 0.1
"""Buildings have something to do with each other if they share at least this part of the smaller one."""

REACH_M = 15.0
"""Largest shift between a map and the buildings that is searched for, in meters (pixels without a CRS)."""

ALIKE = 0.6
"""The smaller of two buildings has at least this share of the area of the larger if they may be one."""

CELL_M = 0.5
"""Shifts are counted in cells of this size, then measured."""

FEW_PAIRS = 10
"""Fewer pairs tell no shift."""

SIGMAS = 3.0
"""A shift counts if it is larger than this many standard errors."""

ID_COLUMNS = ("id", "osm_id", "@id", "full_id", "fid", "gid", "objectid")
"""Columns that name the buildings of a map by default, in order of preference, in upper or lower case."""

COLORS = {
    MATCHED: ("140,140,140", "matched: the map has it"),
    CHANGED: ("255,140,0", "changed: the map has something else here"),
    NEW: ("0,200,255", "new: not in the map"),
    MISSING: ("230,0,60", "missing: only in the map"),
}
"""Color and label of each kind in QGIS."""


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """How a run is compared with a map.

    Attributes:
        out: Folder of the comparison; `<run folder>_comparison` in the working folder by default.
        layer: Layer of the map, if its file has several.
        map_id: Column that names the map's buildings; the first of `ID_COLUMNS` by default, otherwise the number of
            the row.
        iou: Smallest IoU of buildings that are the same.
        shift: Whether a constant shift between map and buildings is taken out first.
        overwrite: Replace an existing comparison.
    """

    out: str | Path | None = None
    layer: str = ""
    map_id: str | None = None
    iou: float = 0.5
    shift: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.iou < 1:
            raise UsageError(f"`iou={self.iou}` is not between 0 and 1. Give for example 0.5.")


@dataclass(frozen=True, slots=True)
class Shift:
    """A constant shift: how far a map lies from the buildings.

    Attributes:
        x: Along the columns of the grid, in meters or, without a CRS, in pixels.
        y: Along its rows, downward.
        error: Standard error of both.
        pairs: Number of buildings that it was measured at.
    """

    x: float = 0.0
    y: float = 0.0
    error: float = 0.0
    pairs: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of a run with a map.

    Attributes:
        folder: Where it was written.
        report: The contents of `comparison.json`.
    """

    folder: Path
    report: dict[str, Any]

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [str(self.folder / name) for name in (LAYERS, REPORT)]

    def table(self) -> str:
        """Return the counts as a Markdown table."""
        counts = self.report["counts"]
        rows = [[kind, f"{counts[kind]:,}", label.partition(": ")[2]] for kind, (_, label) in COLORS.items()]
        return write_table(("status", "buildings", "what"), rows)


def compare_with_map(run: str | Path, map_file: str | Path, settings: CompareSettings | None = None) -> Comparison:
    """Compare the buildings of a finished run with a map, and write both as layers of `comparison.gpkg`.

    Buildings are paired one to one, the largest IoU first. Layer `buildings` has those of the run with `status`
    (matched, changed, new), `iou`, `offset_m` and `map_id`; layer `missing` has the buildings of the map that the run
    has nothing of, with their own columns. Only what lies where the run has data counts.

    Both layers are held in memory.

    Args:
        run: Result folder of a run on this machine.
        map_file: Polygons in any CRS and format that GDAL reads, such as buildings of OpenStreetMap or of a cadastre.
        settings: See `CompareSettings`.

    Raises:
        MissingFileError: If the folder holds no finished run.
        ScoredFileError: If the map cannot be read, or lies elsewhere.
        ExistingResultError: If there is a comparison, which is not to be replaced.
        OutputError: If it cannot be written. Nothing is left behind.
    """
    settings, folder, path = settings or CompareSettings(), Path(run), Path(map_file)
    probability = folder / PROBABILITY
    require_run(folder, FOOTPRINTS, PROBABILITY)
    out = Path(settings.out or f"{folder.absolute().name}_comparison")
    check_out(out, (LAYERS, REPORT), overwrite=settings.overwrite)
    grid = grid_of(probability)
    area = _data_area(probability, grid)
    frame = read_footprints(folder)
    found = _Layer(frame, np.asarray(to_pixels(frame.geometry.to_numpy(), grid), object))
    with collect_shifts() as datums:
        mapped, column = _read_map(path, grid, settings)
    close_readers()
    ours, theirs = found.clip(area, grid), mapped.clip(area, grid)
    assert ours.row is not None
    assert theirs.row is not None
    if not len(theirs):
        raise ScoredFileError(describe_mismatch(path, grid, "map", settings.layer))
    shift = measure_shift(ours, theirs, settings.iou) if settings.shift else Shift()
    match = match_map(ours, _moved(theirs.polygons, -np.array([shift.x, shift.y])), settings.iou)

    buildings, map_rows = found.frame.iloc[ours.row], mapped.frame.iloc[theirs.row]
    names = [*map_rows[MAP_ID], None]  # the last one is that of no building
    buildings = buildings.assign(
        status=match.status,
        iou=np.round(match.iou, 4),
        offset_m=np.round(match.offset, 2),
        **{MAP_ID: [names[i] for i in match.partner]},
    )
    missing = map_rows[match.is_missing].assign(status=MISSING)
    counts = {kind: int(np.count_nonzero(match.status == kind)) for kind in (MATCHED, CHANGED, NEW)}
    report = {
        "geoseg": __version__,
        "run": str(folder),
        "map": str(path),
        "settings": {"iou": settings.iou, "layer": settings.layer, MAP_ID: column},
        "counts": counts | {MISSING: len(missing), "run": len(ours), "map": len(theirs)},
        "shift": _tell_shift(shift, grid, path) if settings.shift else None,
        "unit": "m" if grid.gsd_m else "px",
        "datum_shifts": [one.describe() for one in datums],
    }
    kinds = {"buildings": (NEW, CHANGED, MATCHED), MISSING: (MISSING,)}
    styles = {name: category_qml("status", {kind: COLORS[kind] for kind in each}) for name, each in kinds.items()}
    write_out(out, (LAYERS, REPORT), {"buildings": buildings, MISSING: missing}, styles, report)
    return Comparison(out, report)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """Buildings of a file: rows in the CRS of the run, and valid polygons in pixels of its grid, `(building,)`."""

    frame: "GeoDataFrame"
    polygons: PolygonArray

    def clip(self, area: PolygonArray, grid: Grid) -> Clipped:
        """Clip them to the area, in meters or, without a CRS, in pixels; leave out those that lie mostly outside."""
        clipped = clip_to_area(_to_meters(self.polygons, grid), area)
        return clipped.take(clipped.counts)


def _to_meters(shapes: PolygonArray, grid: Grid) -> PolygonArray:
    scale = np.array(grid.gsd_m or (1.0, 1.0))
    return np.asarray(shapely.transform(shapes, lambda xy: xy * scale), object)


def _read_map(path: Path, grid: Grid, settings: CompareSettings) -> tuple[_Layer, str | None]:
    """Read the buildings of the map near the run, parts of multipolygons apart; and which column names them.

    The names are in the column `MAP_ID`.
    """
    frame = read_polygons(path, what="map", error=ScoredFileError, layer=settings.layer, near=grid)
    if frame.crs is None and grid.crs is not None:
        raise ScoredFileError(
            f"The map {path} has no CRS, but the run has {grid.crs}. Assign one with `ogr2ogr -a_srs`."
        )
    columns = {str(name).lower(): str(name) for name in reversed(frame.columns)}
    column = settings.map_id or next((columns[name] for name in ID_COLUMNS if name in columns), None)
    if column is not None and column not in frame.columns:
        raise ScoredFileError(f"{path} has no column {column!r}. It has {', '.join(map(str, frame.columns))}.")
    names = [str(value) for value in (frame[column] if column is not None else range(len(frame)))]
    frame = in_crs_of(frame, grid, f"map {path}").reset_index(drop=True)
    frame[MAP_ID] = names
    frame = frame.explode(ignore_index=True)
    polygons, kept = repair_polygons(np.asarray(to_pixels(frame.geometry.to_numpy(), grid), object))
    return _Layer(frame.iloc[kept], polygons), column


def _data_area(probability: Path, grid: Grid) -> PolygonArray:
    """Return where the run has data as polygons in meters."""
    raster, found = StoredRaster(str(probability)), []
    for window in cut_grid(grid.shape, BLOCK_PX):
        around = window.expand(1).intersect(grid.window)
        assert around is not None
        found.append(outline_area(raster.read(around) != NODATA, around, window, grid.shape))
    return _to_meters(np.concatenate(found), grid)


def measure_shift(ours: Clipped, theirs: Clipped, iou: float) -> Shift:
    """Measure how far the buildings of a map lie from ours, all alike.

    Distances between the centers of all buildings of similar size within `REACH_M` are counted in cells; the fullest
    cell is the first guess. Buildings that match once the map is moved by it give the shift: the median of their
    distances. No shift is told from fewer than `FEW_PAIRS` buildings, from fewer than match without it, or of a size
    within `SIGMAS` standard errors.

    Args:
        ours: Buildings of the run.
        theirs: Buildings of the map.
        iou: Smallest IoU of buildings that match.
    """
    distance = _distances(ours, theirs)
    if not len(distance):
        return Shift()
    guess = _fullest_cell(distance)
    for _ in range(3):
        guess = np.median(distance[np.abs(distance - guess).max(axis=1) <= 3 * CELL_M], axis=0)
    still = len(_pair(ours, theirs.polygons, iou)[0])
    own, other = _pair(ours, _moved(theirs.polygons, -guess), iou)
    whole = ours.is_whole[own] & theirs.is_whole[other]
    own, other = own[whole], other[whole]
    if len(own) < max(FEW_PAIRS, still / 2):
        return Shift()
    moves = _centers(theirs.polygons[other]) - _centers(ours.polygons[own])
    middle = np.median(moves, axis=0)
    spread = 1.4826 * np.median(np.abs(moves - middle), axis=0)  # of a normal distribution, by its median deviation
    error = float(1.2533 * spread.max() / np.sqrt(len(own)))  # standard error of a median
    is_shifted = np.hypot(*middle) > SIGMAS * error
    x, y = middle.tolist() if is_shifted else (0.0, 0.0)
    return Shift(x, y, error, len(own))


def _distances(ours: Clipped, theirs: Clipped) -> NDArray[np.float64]:
    """Return the vectors from our buildings to those of the map that are near and of similar size, `(pair, 2)`."""
    own, other = _centers(ours.polygons), _centers(theirs.polygons)
    i, j = shapely.STRtree(shapely.points(other)).query(shapely.points(own), predicate="dwithin", distance=REACH_M)
    sizes = shapely.area(ours.polygons)[i], shapely.area(theirs.polygons)[j]
    alike = np.minimum(*sizes) >= ALIKE * np.maximum(*sizes)
    return np.asarray(other[j[alike]] - own[i[alike]], np.float64)


def _fullest_cell(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle of the cell that has most distances, its neighbors' counted too; of equal ones the nearest."""
    reach = int(np.ceil(REACH_M / CELL_M))
    edges = (np.arange(-reach, reach + 2) - 0.5) * CELL_M
    counts = np.histogram2d(distance[:, 0], distance[:, 1], bins=[edges, edges])[0]
    padded = np.pad(counts, 1)
    n = len(counts)
    around = np.sum([padded[i : i + n, j : j + n] for i in range(3) for j in range(3)], axis=0)
    middle = np.arange(-reach, reach + 1) * CELL_M
    far = np.hypot(*np.meshgrid(middle, middle, indexing="ij"))
    row, col = np.unravel_index(np.lexsort((far.ravel(), -around.ravel()))[0], counts.shape)
    return np.array([middle[row], middle[col]])


def _centers(polygons: PolygonArray) -> NDArray[np.float64]:
    return np.asarray(shapely.get_coordinates(shapely.centroid(polygons)))


def _moved(polygons: PolygonArray, by: NDArray[np.float64]) -> PolygonArray:
    return np.asarray(shapely.transform(polygons, lambda xy: xy + by), object)


def _pair(ours: Clipped, theirs: PolygonArray, iou: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of our buildings and of the map's that match one to one, the largest IoU first."""
    pairs = overlapping_pairs(theirs, ours.polygons, at_least=iou)
    chosen = _choose(pairs, len(ours), len(theirs), iou)
    return np.flatnonzero(chosen >= 0), pairs.truth[chosen[chosen >= 0]]


def _choose(pairs: Pairs, ours: int, theirs: int, iou: float) -> NDArray[np.int64]:
    """Return the index in `pairs` of the match of each of our buildings, -1 for none."""
    best = np.zeros(ours)
    np.maximum.at(best, pairs.predicted, pairs.iou)
    return match_greedily(pairs, np.argsort(-best, kind="stable"), np.ones(theirs, bool), iou)


@dataclass(frozen=True, slots=True, eq=False)
class MapMatch:
    """What became of the buildings of both sides.

    Attributes:
        status: `matched`, `changed` or `new`, of each building of the run.
        iou: Its largest IoU with a building of the map; that of the pair if matched.
        offset: Distance of its center from that of its match; NaN without one.
        partner: Index of that building of the map, -1 if it is new.
        is_missing: True for each building of the map that the run has nothing of.
    """

    status: NDArray[Any]
    iou: NDArray[np.float64]
    offset: NDArray[np.float64]
    partner: NDArray[np.int64]
    is_missing: NDArray[np.bool_]


def match_map(ours: Clipped, theirs: PolygonArray, iou: float) -> MapMatch:
    """Match the buildings of a run with those of a map.

    Args:
        ours: Buildings of the run.
        theirs: Buildings of the map, the shift taken out.
        iou: Smallest IoU of buildings that match.
    """
    pairs = overlapping_pairs(theirs, ours.polygons)
    own, other = shapely.area(ours.polygons)[pairs.predicted], shapely.area(theirs)[pairs.truth]
    shared = pairs.iou / (1 + pairs.iou) * (own + other) / np.minimum(own, other)
    touch = shared >= TOUCHED
    chosen = _choose(pairs, len(ours), len(theirs), iou)
    is_matched = chosen >= 0
    order = np.flatnonzero(touch)[np.argsort(pairs.iou[touch], kind="stable")]
    best = np.full(len(ours), -1)
    best[pairs.predicted[order]] = order  # the last one stays, whose IoU is the largest
    best[is_matched] = chosen[is_matched]
    has_any = best >= 0
    is_missing = np.ones(len(theirs), bool)
    is_missing[pairs.truth[touch]] = False
    partner, overlap, offset = np.full(len(ours), -1), np.zeros(len(ours)), np.full(len(ours), np.nan)
    partner[has_any], overlap[has_any] = pairs.truth[best[has_any]], pairs.iou[best[has_any]]
    apart = _centers(ours.polygons[is_matched]) - _centers(theirs[partner[is_matched]])
    offset[is_matched] = np.hypot(*apart.T)
    return MapMatch(np.select([is_matched, has_any], [MATCHED, CHANGED], NEW), overlap, offset, partner, is_missing)


def _in_directions(shift: Shift, grid: Grid) -> tuple[float, float]:
    """Return a shift along columns and rows as one along the axes of the CRS, to the right and upward."""
    t = grid.transform
    across, down = np.array([t.a, t.d]), np.array([t.b, t.e])
    east, north = shift.x * across / np.hypot(*across) + shift.y * down / np.hypot(*down)
    return float(east), float(north)


def _tell_shift(shift: Shift, grid: Grid, path: Path) -> dict[str, float | int]:
    """Say how far the map lies from the buildings; return it for the report."""
    east, north = _in_directions(shift, grid)
    unit = "m" if grid.gsd_m else "px"
    if shift.x or shift.y:
        sides = ("east" if east > 0 else "west", "north" if north > 0 else "south")
        log.info(
            "The map %s lies %.2f %s %s and %.2f %s %s of the buildings (%s, standard error %.2f %s) and is moved back "
            "for the comparison; `shift=False` compares it where it lies.",
            *(path, abs(east), unit, sides[0], abs(north), unit, sides[1], plural(shift.pairs, "pair")),
            *(shift.error, unit),
        )
    return {"east": east, "north": north, "error": shift.error, "pairs": shift.pairs}
