"""Several classes: the likeliest one per pixel, whatever the blocks; two softmax classes are as good as one sigmoid."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ClassSegmenter
from geoseg.errors import PredictionError, UsageError
from geoseg.grid import fit_lattice
from geoseg.inference import AOI, BLOCK_PX, NODATA, Plan, plan_inference, predict_block, predict_scene
from geoseg.scene import close_readers, open_scene

NAMES = ("land", "building", "road", "water", "tree")


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


@dataclass(frozen=True)
class FakeEngine:
    """Answers with a function of the chips."""

    answer: Callable[[np.ndarray], np.ndarray]
    name: str = "fake"
    batch_size: int = 3
    threads: int = 1

    def predict(self, chips: np.ndarray) -> np.ndarray:
        return self.answer(chips)


def pooled_softmax(chips: np.ndarray) -> np.ndarray:
    """Give five classes that depend on the whole chip and on a pixel's neighbors."""
    values = chips[:, :1].astype(np.float32) / 255
    seen = uniform_filter(values, (0, 0, 5, 5), mode="nearest") + 0.3 * values.mean((2, 3), keepdims=True)
    logits = np.sin(seen * np.arange(1, 6, dtype=np.float32)[:, None, None] * 4)
    powers = np.exp(logits)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, pixels: np.ndarray, valid: np.ndarray | None = None) -> Path:
    """Write `(y, x)` uint8 pixels above 0; 0 is nodata where they are not valid."""
    pixels = np.maximum(pixels, 1) if valid is None else np.where(valid, np.maximum(pixels, 1), 0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "nodata": 0}
    profile |= {"height": len(pixels), "width": pixels.shape[1], "transform": Affine(0.3, 0, 5e5, 0, -0.3, 6e5)}
    with rasterio.open(folder / "scene.tif", "w", **profile) as dst:
        dst.write(pixels.astype(np.uint8), 1)
    return folder / "scene.tif"


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, shape, "uint8")


def plan_of(path: Path, engine: Any, **options: Any) -> Plan:
    scene = open_scene(path)
    lattice = fit_lattice(scene.grid.shape, chip_px=32, halo_px=6, multiple_px=2)
    return Plan(scene, lattice, engine, **({"classes": NAMES, "channel": 1} | options))


def predict_all(plan: Plan, block_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities and classes of the whole scene."""
    probability, classes = (np.full(plan.scene.grid.shape, NODATA, np.uint8) for _ in range(2))
    for block in plan.blocks(block_px):
        pixels = predict_block(plan, block)
        assert pixels.classes is not None
        assert pixels.classes.dtype == np.uint8
        probability[block.window.slices] = pixels.probability
        classes[block.window.slices] = pixels.classes
    return probability, classes


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 99), first=st.integers(10, 130), second=st.integers(10, 130), blend=st.booleans())
def test_classes_are_the_same_whatever_the_blocks(
    tmp_path: Path, seed: int, first: int, second: int, blend: bool
) -> None:
    valid = np.kron(np.random.default_rng(seed).random((5, 6)) < 0.7, np.ones((14, 13), bool)).astype(bool)
    path = write(tmp_path, noise(valid.shape, seed), valid)
    plan = plan_of(path, FakeEngine(pooled_softmax), blend=blend, aoi=AOI(shapely.box(5, 9, 70, 50)))
    for one, other in zip(predict_all(plan, first), predict_all(plan, second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_pixel_gets_the_class_that_its_own_chip_found_likeliest(tmp_path: Path) -> None:
    pixels = noise((70, 90))
    probability, classes = predict_all(plan_of(write(tmp_path, pixels), ClassSegmenter(5)), 40)
    np.testing.assert_array_equal(classes, np.maximum(pixels, 1).astype(int) * 5 // 256)
    np.testing.assert_array_equal(probability, np.where(classes == 1, round(0.75 * 254), round(0.0625 * 254)))


def test_blended_classes_are_those_of_the_blended_probabilities(tmp_path: Path) -> None:
    path = write(tmp_path, noise((60, 80)))
    _, classes = predict_all(plan_of(path, FakeEngine(pooled_softmax), blend=True), 500)
    every = [
        predict_all(plan_of(path, FakeEngine(pooled_softmax), blend=True, channel=channel), 500)[0].astype(int)
        for channel in range(5)
    ]
    stored = np.stack(every)
    chosen = np.take_along_axis(stored, classes[None].astype(int), axis=0)[0]
    assert (chosen == stored.max(axis=0)).all()
    assert len(np.unique(classes)) > 2


def test_of_equal_classes_the_first_is_taken(tmp_path: Path) -> None:
    def tie(chips: np.ndarray) -> np.ndarray:
        shares = np.array([0.1, 0.1, 0.35, 0.1, 0.35], np.float32)
        return np.broadcast_to(shares[:, None, None], (len(chips), 5, *chips.shape[2:]))

    _, classes = predict_all(plan_of(write(tmp_path, noise((40, 40))), FakeEngine(tie)), 100)
    assert (classes == 2).all()


def test_nodata_and_what_lies_outside_the_area_has_no_class(tmp_path: Path) -> None:
    valid = np.ones((60, 80), bool)
    valid[:20, :20] = False
    area = AOI(shapely.box(0, 0, 50, 60))
    plan = plan_of(write(tmp_path, noise((60, 80)), valid), ClassSegmenter(5), aoi=area)
    _, classes = predict_all(plan, 25)
    inside = valid & (np.arange(80) < 50)
    np.testing.assert_array_equal(classes == NODATA, ~inside)


def test_a_block_without_data_has_no_class_either(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise((40, 40)), np.zeros((40, 40), bool)), ClassSegmenter(5))
    assert (predict_all(plan, 100)[1] == NODATA).all()


def softmax_of_two(chips: np.ndarray) -> np.ndarray:
    building = chips[:, :1].astype(np.float32) / 255
    return np.concatenate([1 - building, building], axis=1)


@pytest.mark.parametrize("blend", [False, True])
def test_background_and_building_are_predicted_exactly_as_building_alone(tmp_path: Path, blend: bool) -> None:
    valid = np.ones((60, 80), bool)
    valid[10:30, 10:30] = False
    path = write(tmp_path, noise((60, 80)), valid)
    one = plan_of(path, FakeEngine(lambda c: softmax_of_two(c)[:, 1:]), blend=blend, classes=("building",), channel=0)
    two = plan_of(path, FakeEngine(softmax_of_two), blend=blend, classes=("background", "building"))
    for block in one.blocks(30):
        first, second = predict_block(one, block), predict_block(two, block)
        np.testing.assert_array_equal(first.probability, second.probability)
        assert first.classes is second.classes is None


@pytest.mark.parametrize("found", [1, 4, 6])
def test_another_number_of_classes_than_the_specification_names_is_an_error(tmp_path: Path, found: int) -> None:
    answer = lambda chips: np.full((len(chips), found, *chips.shape[2:]), 0.2, np.float32)  # noqa: E731
    with pytest.raises(PredictionError, match=r"5 channels \(land, building"):
        predict_all(plan_of(write(tmp_path, noise((40, 40))), FakeEngine(answer)), 100)


def test_no_number_in_any_class_is_an_error(tmp_path: Path) -> None:
    def broken(chips: np.ndarray) -> np.ndarray:
        found = np.full((len(chips), 5, *chips.shape[2:]), 0.2, np.float32)
        found[:, 4] = np.nan
        return found

    with pytest.raises(PredictionError, match="nan"):
        predict_all(plan_of(write(tmp_path, noise((40, 40))), FakeEngine(broken)), 100)


def test_a_lazy_class_raster_has_the_classes_and_their_names(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise((70, 50))), ClassSegmenter(5), aoi=AOI(shapely.box(0, 0, 30, 70)))
    array = predict_scene(plan, block_px=30, classes=True)
    assert (array.name, array.dtype, array.dims) == ("class", np.uint8, ("y", "x"))
    assert array.attrs["classes"] == NAMES
    assert array.attrs["nodata"] == NODATA
    np.testing.assert_array_equal(array.values, predict_all(plan, 500)[1])
    assert predict_scene(plan, block_px=30).dtype == np.float32


def test_a_class_raster_of_one_class_is_refused(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise((40, 40))), ClassSegmenter(2), classes=("building",), channel=0)
    with pytest.raises(UsageError, match="more than two"):
        predict_scene(plan, classes=True)


def test_many_classes_make_smaller_blocks(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path, noise((40, 40)))).at_shape((20_000, 20_000))
    plan = Plan(scene, fit_lattice(scene.grid.shape, chip_px=512, halo_px=32), ClassSegmenter(), classes=NAMES[:4])
    many = Plan(plan.scene, plan.lattice, ClassSegmenter(6), classes=tuple("abcdef"))
    assert plan.choose_block_px(2) == BLOCK_PX
    assert many.choose_block_px(2) == BLOCK_PX // 2


def test_a_plan_has_the_models_classes_and_target(tmp_path: Path) -> None:
    spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), classes=NAMES, target="road")
    plan = plan_inference(write(tmp_path, noise((40, 40))), Bundle(spec, Path("none"), "0"))
    assert (plan.classes, plan.channel) == (NAMES, 2)
    assert plan.has_class_raster
