"""Figures are those of the scene, however it is cut."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg.errors import LabelError
from geoseg.evaluate import Confusion
from geoseg.evaluate.polygons import BuildingPolygons, outline_buildings
from geoseg.evaluate.prediction import Prediction
from geoseg.evaluate.rasters import Raster, Scratch, Thresholded, strips
from geoseg.evaluate.scores import Stack, boundary_width, score_buildings, score_pixels, score_scene
from geoseg.grid import Grid
from geoseg.inference import AOI
from geoseg.vectorize import Simplify

SHAPE = (37, 41)
GRID = Grid(CRS.from_epsg(32630), Affine(0.5, 0, 500_000, 0, -0.5, 600_000), SHAPE)


def blobs(seed: int, unknown: float) -> np.ndarray:
    """Return `(y, x)` stored probabilities in squares of 4 px; some are 255."""
    rng = np.random.default_rng(seed)
    coarse = np.where(rng.random((11, 12)) < unknown, 255, rng.integers(0, 255, (11, 12)))
    return np.kron(coarse, np.ones((4, 4)))[: SHAPE[0], : SHAPE[1]].astype(np.uint8)


def predict(predicted: Raster, probability: Raster | None = None) -> Prediction:
    classes = ("background", "building")
    return Prediction(grid=GRID, native=GRID, classes=classes, target=1, predicted=predicted, probability=probability)


def stack_of(seed: int, area: AOI | None = None) -> Stack:
    probability, other = blobs(seed, 0.1), blobs(seed + 1, 0.1)
    truth = np.where(other == 255, 255, np.roll(probability, 1) // 2 + other // 2 > 110).astype(np.uint8)
    return Stack("scene", predict(Thresholded(Scratch(probability), 128), Scratch(probability)), Scratch(truth), area)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), block_px=st.integers(3, 45), width_px=st.integers(1, 5))
def test_no_figure_depends_on_the_blocks(seed: int, block_px: int, width_px: int) -> None:
    stack = stack_of(seed, AOI(shapely.box(3, 2, 38, 33)) if seed % 2 else None)
    whole = score_pixels(stack, width_px=width_px, block_px=1000)
    parts = score_pixels(stack, width_px=width_px, block_px=block_px)
    assert parts.confusion == whole.confusion
    assert np.array_equal(parts.boundary.common, whole.boundary.common)
    assert np.array_equal(parts.boundary.either, whole.boundary.either)
    assert np.array_equal(parts.levels.counts, whole.levels.counts)
    assert shapely.union_all(parts.area).symmetric_difference(shapely.union_all(whole.area)).area == 0
    truth, found = (
        outline_buildings(layer, GRID, 1, probability=extra, generalizer=Simplify(0), block_px=block_px)
        for layer, extra in ((stack.truth, None), (stack.prediction.predicted, stack.prediction.probability))
    )
    counts = [score_buildings(truth, found, area, GRID) for area in (whole.area, parts.area)]
    assert counts[0].metrics() == pytest.approx(counts[1].metrics(), nan_ok=True)


def test_only_pixels_with_data_label_and_area_count() -> None:
    stack = stack_of(3, AOI(shapely.box(5, 5, 30, 20)))
    known = np.zeros(SHAPE, bool)
    known[5:20, 5:30] = True
    probability, truth = stack.prediction.probability.read(GRID.window), stack.truth.read(GRID.window)
    known &= (probability != 255) & (truth != 255)
    pixels = score_pixels(stack, width_px=2)
    expected = Confusion.count((probability >= 128).astype(np.uint8), np.where(known, truth, 255))
    assert pixels.confusion == expected
    assert shapely.area(pixels.area).sum() == known.sum()
    assert pixels.levels.counts.sum() == known.sum()


def test_a_scene_without_any_scored_pixel_is_an_error() -> None:
    nothing = Scratch(np.full(SHAPE, 255, np.uint8))
    stack = Stack("scene", predict(nothing), nothing)
    with pytest.raises(LabelError, match="same place"):
        score_scene(stack, None, width_px=1)


def test_buildings_are_compared_in_meters() -> None:
    truth = BuildingPolygons(np.array([shapely.box(10, 10, 20, 20)], object))
    found = BuildingPolygons(np.array([shapely.box(10, 10, 20, 22)], object), np.ones(1))
    area = np.array([shapely.box(0, 0, 41, 37)], object)
    metrics = score_buildings(truth, found, area, GRID).metrics()
    assert metrics["matched_iou"] == pytest.approx(10 / 12, abs=1e-6)
    # Two of the four found corners lie 2 px of 0.5 m beyond the true edge; the true corners lie on the found outline.
    assert metrics["polis"] == pytest.approx((2 / 4 + 0) / 2, rel=1e-3)
    assert metrics["polis_px"] == pytest.approx(metrics["polis"] / 0.5, rel=1e-3)
    assert metrics["area"] == pytest.approx(10 * 12 / 4, rel=2e-3)


def test_the_boundary_is_a_meter_wide_unless_asked_otherwise() -> None:
    picture = Grid(None, Affine.scale(1, -1), SHAPE)
    assert boundary_width(GRID, None, None) == 2
    assert boundary_width(GRID, 3.0, None) == 6
    assert boundary_width(GRID, 0.1, None) == 1
    assert boundary_width(GRID, None, 7) == 7
    assert boundary_width(picture, None, None) == 3


@pytest.mark.parametrize("shape", [(7, 2**23), (3, 2**24), (2, 2**25), (9, 1), (0, 5)])
def test_strips_of_any_raster_hold_every_row_once(shape: tuple[int, int]) -> None:
    found = list(strips(shape))
    assert [row for strip in found for row in range(strip.rows.start, strip.rows.stop)] == list(range(shape[0]))
    assert all((strip.cols.start, strip.cols.stop) == (0, shape[1]) for strip in found)


def test_scratch_pixels_are_unknown_until_they_are_written(tmp_path: Path) -> None:
    scratch: Raster = Scratch.create(tmp_path / "pixels", SHAPE)
    assert (scratch.read(GRID.window) == 255).all()
