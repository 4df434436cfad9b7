"""Outlines of true masks, beside plain simplification and buildingregulariser.

    python docs/benchmarks/outlines.py DATA

True buildings are drawn as pixels, outlined, and compared with what was drawn: the polygons of Banepa at 0.3 m, each an
instance of its own, and label masks of Massachusetts at 1 m, of which only the pixels are known. Every tool gets the
same pixels and one core. buildingregulariser is left out where it cannot be imported; it gets the polygons of
`rasterio.features.shapes`, half, once and twice the tolerance, and double that for parallel walls: the ratio of its
defaults.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes
from rasterio.transform import from_origin
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.vectorize import Regularize, Simplify
from geoseg.vectorize.rings import Corners, PolygonArray, outline
from geoseg.vectorize.scene import TOLERANCE_M


@dataclass(frozen=True)
class Case:
    """Labels to outline, `(y, x)`, each connected and from one, and the true polygon of each in pixels."""

    name: str
    labels: NDArray[np.int32]
    truth: PolygonArray
    gsd_m: float
    has_polygons: bool


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("data", type=Path)
    data: Path = args.parse_args().data
    for case in (banepa(data), massachusetts(data)):
        print(f"\n{case.name}: {len(case.truth)} buildings, {case.gsd_m} m\n")
        print("| outlines | IoU | PoLiS, px | orthogonality | vertices | overlaps | invalid | slivers | buildings/s |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        if case.has_polygons:
            print(f"| truth | | | {orthogonality(case.truth):.3f} | 1.00 | | | | |")
        outline_labels(case.labels)  # no tool pays for the first use of memory
        for name, tool in tools(case.gsd_m).items():
            begin = time.process_time()
            found = tool(case.labels)
            print(row(name, case, found, time.process_time() - begin), flush=True)


def banepa(data: Path) -> Case:
    import geopandas

    frame = geopandas.read_file(data / "banepa" / "buildings.geojson").to_crs(32645)
    left, bottom, right, top = frame.total_bounds
    place = from_origin(left - 3, top + 3, 0.3, 0.3)
    shape = int((top - bottom + 6) / 0.3), int((right - left + 6) / 0.3)
    drawn = rasterize(zip(frame.geometry, range(1, len(frame) + 1), strict=True), shape, transform=place, dtype="int32")
    pixels = shapely.transform(frame.geometry.to_numpy(), lambda xy: (xy - [place.c, place.f]) / [place.a, place.e])
    labels, source = connected(drawn)
    return Case("Banepa", labels, np.asarray(pixels, object)[source - 1], 0.3, True)


def massachusetts(data: Path) -> Case:
    """Every 40th label raster, one below the other."""
    files = sorted((data / "massachusetts" / "labels_without_image").glob("*.tif"))[::40]
    masks = []
    for path in files:
        with rasterio.open(path) as file:
            masks.append(np.pad(file.read(1) == 1, ((0, 1), (0, 0))))
    labels, _ = connected(np.vstack(masks).astype(np.int32))
    return Case("Massachusetts", labels, outline_labels(labels), 1.0, False)


def connected(drawn: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the 4-connected parts of equal labels in reading order, and return the label of each part."""
    pixel = np.arange(drawn.size).reshape(drawn.shape)
    level, upright = (drawn[:, 1:] == drawn[:, :-1]) & (drawn[:, 1:] > 0), (drawn[1:] == drawn[:-1]) & (drawn[1:] > 0)
    one = np.concatenate((pixel[:, :-1][level], pixel[:-1][upright]))
    other = np.concatenate((pixel[:, 1:][level], pixel[1:][upright]))
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(drawn.size, drawn.size))
    _, part = connected_components(links, directed=False)
    labels = np.zeros(drawn.size, np.int32)
    is_building = drawn.ravel() > 0
    _, first, rank = np.unique(part[is_building], return_index=True, return_inverse=True)
    labels[is_building] = rank + 1
    return labels.reshape(drawn.shape), drawn.ravel()[is_building][first].astype(np.int64)


def outline_labels(labels: NDArray[np.int32]) -> PolygonArray:
    """Outline the pixels of every label."""
    padded = np.pad(labels, ((0, 0), (1, 1)))
    row, col = np.nonzero(padded[:, 1:] != padded[:, :-1])  # where a run of equal labels starts or stops
    before, after = padded[row, col], padded[row, col + 1]
    starts, stops = np.flatnonzero(after), np.flatnonzero(before)
    region = np.concatenate((after[starts], before[stops])).astype(np.int64) - 1
    at = np.concatenate((starts, stops))
    weight = np.concatenate((np.ones(len(starts), np.int64), np.full(len(stops), -1)))
    top, left = row[at], col[at]
    return outline(Corners(*map(np.concatenate, ((region, region), (top, top + 1), (left, left), (weight, -weight)))))


def tools(gsd_m: float) -> dict[str, Callable[[NDArray[np.int32]], PolygonArray]]:
    """Return what outlines labels, by name; polygons in the order of the labels."""
    tolerance_px = max(TOLERANCE_M / gsd_m, 1.0)

    def plain(labels: NDArray[np.int32]) -> PolygonArray:
        found = {int(value): shapely.geometry.shape(part) for part, value in shapes(labels, mask=labels > 0)}
        return np.array([found[value] for value in sorted(found)], object)

    def peer(labels: NDArray[np.int32], simplify_px: float) -> PolygonArray:
        import geopandas
        from buildingregulariser import regularize_geodataframe

        frame = geopandas.GeoDataFrame({"label": np.arange(labels.max())}, geometry=plain(labels), crs=32645)
        new = regularize_geodataframe(
            frame, parallel_threshold=2 * simplify_px, simplify_tolerance=simplify_px, num_cores=1
        )
        result = np.full(len(frame), shapely.Polygon(), dtype=object)
        result[new["label"].to_numpy()] = new.geometry.to_numpy()
        return result

    found: dict[str, Callable[[NDArray[np.int32]], PolygonArray]] = {
        "geoseg, regular": lambda labels: Regularize(tolerance_px).outlines(outline_labels(labels)).polygons,
        "geoseg, simple": lambda labels: Simplify(tolerance_px).outlines(outline_labels(labels)).polygons,
        "geoseg, raw": outline_labels,
        "rasterio shapes + simplify": lambda labels: np.asarray(shapely.simplify(plain(labels), tolerance_px), object),
    }
    try:
        import buildingregulariser  # noqa: F401
    except ImportError:
        return found
    for simplify_px in (tolerance_px / 2, tolerance_px, 2 * tolerance_px):
        found[f"buildingregulariser, {simplify_px:.2g} px"] = partial(peer, simplify_px=simplify_px)
    return found


def row(name: str, case: Case, found: PolygonArray, seconds: float) -> str:
    """Return a row of the table."""
    truth, invalid = case.truth, ~shapely.is_valid(found)
    shown = np.where(invalid, shapely.make_valid(found), found)
    iou = shapely.area(shapely.intersection(shown, truth)) / shapely.area(shapely.union(shown, truth))
    a, b = shapely.STRtree(shown).query(shown)
    shared = shapely.area(shapely.intersection(shown[a[a < b]], shown[b[a < b]]))
    slivers = shapely.area(shown) < 0.5
    vertices = count_vertices(found) / (count_vertices(truth) if case.has_polygons else len(found))
    cells = (
        f"{iou.mean():.4f}",
        f"{polis(shown, truth):.2f}",
        f"{orthogonality(found):.3f}",
        f"{vertices:.2f}",
        f"{int((shared > 1e-6).sum())}",
        f"{int(invalid.sum())}",
        f"{int(slivers.sum())}",
        f"{len(found) / seconds:,.0f}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def count_vertices(polygons: PolygonArray) -> int:
    """Count vertices, each ring's first once."""
    rings = shapely.get_rings(polygons)
    return int(shapely.get_num_coordinates(rings).sum() - len(rings))


def polis(a: PolygonArray, b: PolygonArray) -> float:
    """Return the mean PoLiS distance (Avbelj et al., 2015): half the mean distance of vertices to the other outline."""
    total = np.zeros(len(a))
    for one, other in ((a, b), (b, a)):
        points, owner = shapely.get_coordinates(one, return_index=True)
        away = shapely.distance(shapely.points(points), shapely.boundary(other)[owner])
        total += np.bincount(owner, away, len(a)) / np.maximum(np.bincount(owner, minlength=len(a)), 1) / 2
    return float(np.mean(total[~shapely.is_empty(a)]))


def orthogonality(polygons: PolygonArray) -> float:
    """Return the share of corners within 5 degrees of 90 or 180."""
    rings: Any = shapely.get_rings(polygons)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    edge = np.diff(xy, axis=0)[ring[1:] == ring[:-1]]
    ring = ring[1:][ring[1:] == ring[:-1]]
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    following = np.arange(1, len(ring) + 1)
    following[np.append(first[1:], len(ring)) - 1] = first
    after = edge[following]
    turn = np.degrees(np.arctan2(edge[:, 0] * after[:, 1] - edge[:, 1] * after[:, 0], (edge * after).sum(axis=1)))
    turn = np.abs(turn)
    return float(((np.abs(turn - 90) <= 5) | (turn <= 5)).mean())


if __name__ == "__main__":
    main()
