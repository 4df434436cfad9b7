"""The buildings of a scene from its rasters, window by window: what waits lies in files, and little of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.bundle import CONFIDENCE_TERMS
from geoseg.grid import Grid
from geoseg.vectorize import (
    Footprints,
    Limits,
    OutlineOptions,
    Simplify,
    Split,
    StoredPixels,
    choose_generalizer,
    cut_grid,
    in_threads,
    outline_scene,
)
from geoseg.vectorize import scene as scene_module
from geoseg.vectorize.polygonize import InMemory


def roofs(shape: tuple[int, int]) -> np.ndarray:
    """Return `(y, x)` stored probabilities: slanted roofs side by side, and a wall across many rows."""
    rng, (rows, cols) = np.random.default_rng(0), np.indices(shape)
    walls = ((rows - 0.3 * cols) % 11 > 2) & ((cols + 0.3 * rows) % 17 > 3)
    probability = np.where(walls, rng.integers(127, 255, shape), 20).astype(np.uint8)
    probability[:, :2] = 0
    probability[100:180, 3] = 200
    return probability


def pixels_of(probability: np.ndarray, surface: np.ndarray | None = None) -> StoredPixels:
    grid = Grid(CRS.from_epsg(32630), Affine(0.3, 0, 500_000, 0, -0.3, 600_000), probability.shape)
    return StoredPixels(grid, InMemory(probability), surface=None if surface is None else InMemory(surface))


def options_of(pixels: StoredPixels, depth: float, *, has_interior: bool = False) -> OutlineOptions:
    split = Split.on(pixels.grid, depth, has_interior=has_interior)
    coefficients = dict(zip(CONFIDENCE_TERMS, (-3.0, 6.0, 2.0, -0.5, -0.9), strict=True))
    return OutlineOptions(
        threshold=127, limits=Limits(0.5), generalizer=Simplify(1.0), coefficients=coefficients, split=split
    )


def bands(pixels: StoredPixels, options: OutlineOptions, folder: Path, side_px: int) -> list[Footprints]:
    folder.mkdir(exist_ok=True)
    windows = list(cut_grid(pixels.grid.shape, side_px))
    return list(outline_scene(pixels, options, scratch=folder, windows=windows, spread=in_threads(2)))


@pytest.mark.parametrize("depth", [0.03, 0.3, 1.0])
def test_footprints_do_not_depend_on_the_windows(tmp_path: Path, depth: float) -> None:
    pixels = pixels_of(roofs((230, 120)))
    options = options_of(pixels, depth)
    (one,) = bands(pixels, options, tmp_path / "one", 1000)
    assert len(one) > 100
    assert one.confidence.std() > 0.02
    for side_px in (16, 37, 64):
        found = Footprints.concatenate(bands(pixels, options, tmp_path / f"px{side_px}", side_px))
        for name in ("wkb", "area_m2", "confidence", "edge", "row"):
            np.testing.assert_array_equal(getattr(found, name), getattr(one, name))


def test_rows_of_windows_are_given_as_soon_as_nothing_undecided_begins_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held does not grow with the scene, but for what is open; and a band of a row holds few footprints."""
    monkeypatch.setattr(scene_module, "AT_ONCE", 40)
    log: list[tuple[str, int]] = []
    for name in ("read_pending", "read_finished"):
        read = getattr(scene_module, name)

        def note(path: Path, *, name: str = name, read: object = read) -> object:
            log.append((name, int(path.stem[1:].split("_")[0])))
            return read(path)  # type: ignore[operator]

        monkeypatch.setattr(scene_module, name, note)
    pixels = pixels_of(roofs((400, 120)))
    found = bands(pixels, options_of(pixels, 1.0), tmp_path, 50)
    given = {row: log.index(("read_finished", row)) for row in {row for _, row in log}}
    joined = {row: log.index(("read_pending", row)) for row in given}
    rows = sorted(given)
    assert given[rows[0]] < joined[rows[2]]
    assert given[max(row for row in rows if row <= 100)] > joined[max(row for row in rows if row < 180)]
    assert given[rows[-3]] < joined[rows[-1]]
    assert sum(map(len, found)) > 250
    assert max(map(len, found)) < 60


def test_an_interior_splits_where_the_probability_does_not(tmp_path: Path) -> None:
    probability = np.zeros((60, 90), np.uint8)
    probability[10:50, 10:80] = 250
    surface = probability.copy()
    surface[:, 44:46] = 0
    both = pixels_of(probability), pixels_of(probability, surface)
    found = [
        Footprints.concatenate(bands(pixels, options_of(pixels, 0.1, has_interior=True), tmp_path / str(number), 32))
        for number, pixels in enumerate(both)
    ]
    assert [len(footprints) for footprints in found] == [1, 2]
    assert shapely.union_all(found[1].geometry).equals(found[0].geometry[0])


@pytest.mark.parametrize("outline", ["regular", "simple", "raw"])
def test_footprints_lie_inside_the_scene(tmp_path: Path, outline: str) -> None:
    rows, cols = np.indices((150, 150))
    slanted = np.where((rows + 0.35 * cols) % 29 > 4, 200, 20) * ((cols - 0.35 * rows) % 23 > 3)
    pixels = pixels_of(slanted.astype(np.uint8))
    options = replace(options_of(pixels, 1.0), generalizer=choose_generalizer(outline, 1.0, pixels.grid))
    found = Footprints.concatenate(bands(pixels, options, tmp_path, 64))
    assert found.edge.sum() > 10
    assert shapely.is_valid(found.geometry).all()
    assert shapely.box(*pixels.grid.bounds).buffer(1e-6).covers(shapely.union_all(found.geometry))
