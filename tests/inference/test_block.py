"""Stitching: who gives a pixel its value, and what is never predicted."""

import threading
from dataclasses import dataclass, field
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

from geoseg.errors import PredictionError
from geoseg.grid import fit_lattice
from geoseg.inference import AOI, NODATA, Plan, predict_block, predict_scene, stored_threshold
from geoseg.inference.block import Blended
from geoseg.scene import close_readers, open_scene


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


@dataclass
class FakeEngine:
    """Records the chips it is given and answers with a function of them."""

    answer: Any
    name: str = "fake"
    batch_size: int = 3
    threads: int = 1
    seen: list[np.ndarray] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def predict(self, chips: np.ndarray) -> np.ndarray:
        with self.lock:
            self.seen.extend(chips)
        return np.asarray(self.answer(chips))


def constant(value: float) -> Any:
    """Answer every pixel with one probability."""
    return lambda chips: np.full((len(chips), 1, *chips.shape[2:]), value, np.float32)


def pooled(chips: np.ndarray) -> np.ndarray:
    """Depend on the whole chip, as networks with image pooling do, and on a pixel's neighbors."""
    values = chips[:, :1].astype(np.float32) / 255
    return 0.5 * values.mean((2, 3), keepdims=True) + 0.5 * uniform_filter(values, (0, 0, 5, 5), mode="nearest")


def write(folder: Path, pixels: np.ndarray, valid: np.ndarray | None = None) -> Path:
    """Write `(band, y, x)` uint8 pixels, nodata 0 where they are not valid."""
    path = folder / "scene.tif"
    pixels = np.maximum(pixels, 1) if valid is None else np.where(valid, np.maximum(pixels, 1), 0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": len(pixels), "crs": "EPSG:32630", "nodata": 0}
    profile |= {"height": pixels.shape[1], "width": pixels.shape[2], "transform": Affine(0.3, 0, 5e5, 0, -0.3, 6e5)}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(pixels.astype(np.uint8))
    return path


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """One random band."""
    return np.random.default_rng(seed).integers(1, 256, (1, height, width), "uint8")


def plan_of(path: Path, engine: Any, *, chip: int = 32, halo: int = 6, **options: Any) -> Plan:
    """A plan at the scene's own pixels."""
    scene = open_scene(path)
    return Plan(scene, fit_lattice(scene.grid.shape, chip_px=chip, halo_px=halo, multiple_px=2), engine, **options)


def predict_all(plan: Plan, block_px: int) -> np.ndarray:
    """Predict block by block."""
    out = np.full(plan.scene.grid.shape, NODATA, np.uint8)
    for block in plan.blocks(block_px):
        out[block.window.slices] = predict_block(plan, block).probability
    return out


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    halo=st.integers(0, 8),
    value=st.integers(0, 254),
    blend=st.booleans(),
)
def test_a_constant_network_gives_that_constant_everywhere(
    tmp_path: Path, shape: tuple[int, int], halo: int, value: int, blend: bool
) -> None:
    plan = plan_of(write(tmp_path, noise(*shape)), FakeEngine(constant(value / 254)), halo=halo, blend=blend)
    assert (predict_all(plan, 60) == value).all()


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    seed=st.integers(0, 99),
    halo=st.sampled_from([0, 5, 9]),
    blocks=st.tuples(st.integers(10, 130), st.integers(10, 130)),
    blend=st.booleans(),
    batch=st.integers(1, 7),
)
def test_a_network_that_sees_the_whole_chip_gives_the_same_whatever_the_blocks(
    tmp_path: Path, seed: int, halo: int, blocks: tuple[int, int], blend: bool, batch: int
) -> None:
    valid = np.kron(np.random.default_rng(seed).random((5, 6)) < 0.7, np.ones((14, 13), bool)).astype(bool)
    path = write(tmp_path, noise(*valid.shape, seed), valid)
    area = AOI(shapely.box(5, 9, 70, 50))
    first, second = (
        predict_all(plan_of(path, FakeEngine(pooled, batch_size=n), halo=halo, blend=blend, aoi=area), px)
        for n, px in zip((3, batch), blocks, strict=True)
    )
    np.testing.assert_array_equal(first, second)


@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(st.integers(1, 120), st.integers(1, 120)), chip=st.integers(4, 20), share=st.floats(0, 0.25))
def test_blending_weights_add_up_to_one_where_halos_fit_into_cores(
    shape: tuple[int, int], chip: int, share: float
) -> None:
    halo = int(2 * chip * share)  # at most a quarter of the chip, so two halos fit into a core
    lattice = fit_lattice(shape, chip_px=2 * chip, halo_px=halo, multiple_px=2)
    (block,) = lattice.plan_blocks(10_000)
    stitch = Blended(lattice, block.window, 1)
    for each in lattice.chips_of(block):
        stitch.add(each, np.ones((1, *lattice.chip_shape), np.float32))
    if min(lattice.core) >= 2 * halo:
        np.testing.assert_allclose(stitch.weight, 1, atol=1e-5)
    assert stitch.weight.min() > 0


def test_blending_softens_the_step_that_cutting_leaves(tmp_path: Path) -> None:
    path = write(tmp_path, np.broadcast_to(np.arange(1, 201, dtype="uint8"), (1, 60, 200)).copy())
    steps = []
    for blend in (False, True):
        plan = plan_of(path, FakeEngine(pooled), chip=64, halo=14, blend=blend)
        rows = predict_all(plan, 500)[20:40].astype(int)
        border = plan.lattice.core[1]
        steps.append(np.abs(rows[:, border] - rows[:, border - 1]).mean())
    assert steps[1] < steps[0] / 3


def test_a_chip_whose_only_data_lies_in_its_halo_is_blended_like_any_other(tmp_path: Path) -> None:
    """The second chip's core (columns 20 to 39) is empty; its halo and the ramp over it begin at column 14."""
    valid = np.zeros((60, 60), bool)
    valid[:, :18] = True
    path = write(tmp_path, np.broadcast_to(np.arange(1, 61), (1, 60, 60)), valid)
    is_second = lambda chips: np.broadcast_to(chips[:, :1, 16:17, :1] == 15, (len(chips), 1, 32, 32))  # noqa: E731
    engine = FakeEngine(lambda chips: is_second(chips).astype(np.float32))
    plan = plan_of(path, engine, blend=True)
    assert plan.lattice.core == (20, 20)
    found = predict_all(plan, 60)
    ramp = [round(254 * (i + 0.5) / 12) for i in range(4)]
    np.testing.assert_array_equal(found[:, :18], np.broadcast_to([0] * 14 + ramp, (60, 18)))
    assert (found[:, 18:] == NODATA).all()


def test_a_stored_probability_reaches_a_threshold_as_its_value_does() -> None:
    for threshold in (0.001, 0.3, 0.5, 0.501, 0.61, 0.75, 0.9999):
        expected = min(v for v in range(255) if v >= threshold * 254)
        assert stored_threshold(threshold) == expected, threshold


def test_a_probability_is_stored_as_the_nearest_value(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise(20, 20)), FakeEngine(constant(100.7 / 254)))
    assert (predict_all(plan, 100) == 101).all()


def test_nodata_never_reaches_the_network_nor_the_result(tmp_path: Path) -> None:
    valid = np.ones((90, 120), bool)
    valid[30:70, 20:70] = False
    pixels = np.where(valid, 100, 0)[None]
    engine = FakeEngine(lambda chips: (chips[:, :1] != 100).astype(np.float32))
    out = predict_all(plan_of(write(tmp_path, pixels, valid), engine), 64)
    np.testing.assert_array_equal(out, np.where(valid, 0, NODATA))
    assert all((chip == 100).all() for chip in engine.seen)


@pytest.mark.parametrize("blend", [False, True])
def test_chips_without_data_or_interest_are_not_sent_to_the_network(tmp_path: Path, blend: bool) -> None:
    valid = np.ones((96, 96), bool)
    valid[:, 60:] = False
    path = write(tmp_path, noise(96, 96), valid)
    everything, engine = FakeEngine(constant(0.5)), FakeEngine(constant(0.5))
    predict_all(plan_of(path, everything, blend=blend), 40)
    out = predict_all(plan_of(path, engine, blend=blend, aoi=AOI(shapely.box(0, 0, 30, 30))), 40)
    assert 0 < len(engine.seen) < len(everything.seen) < (80 if blend else 25)
    expected = np.full((96, 96), NODATA)
    expected[:30, :30] = 127
    np.testing.assert_array_equal(out, expected)


def test_a_block_without_data_needs_no_engine(tmp_path: Path) -> None:
    path = write(tmp_path, noise(40, 40), np.zeros((40, 40), bool))
    engine = FakeEngine(constant(0.5))
    plan = plan_of(path, engine)
    (block,) = plan.blocks(100)
    pixels = predict_block(plan, block)
    assert (pixels.probability == NODATA).all()
    assert not pixels.valid.any()
    assert not engine.seen


def test_the_valid_mask_reaches_one_pixel_beyond_the_block_and_stops_at_the_scene(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise(60, 80)), FakeEngine(constant(1)))
    blocks = plan.blocks(30)
    assert len(blocks) > 3
    for block in blocks:
        found = predict_block(plan, block).valid
        assert found.shape == (block.window.height + 2, block.window.width + 2)
        assert found[0].any() == (block.window.row > 0)
        assert found[:, -1].any() == (block.window.cols.stop < 80)


def test_the_border_of_the_scene_is_predicted_to_its_last_pixel(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise(61, 83)), FakeEngine(constant(1)), blend=True)
    assert (predict_all(plan, 30) == 254).all()


def test_the_channel_of_the_target_class_is_kept(tmp_path: Path) -> None:
    answer = lambda chips: np.stack([constant(v)(chips)[:, 0] for v in (0.1, 0.7, 0.2)], 1)  # noqa: E731
    plan = plan_of(write(tmp_path, noise(20, 20)), FakeEngine(answer), channel=1, classes=("a", "b", "c"))
    assert (predict_all(plan, 100) == round(0.7 * 254)).all()


WRONG = {
    "array of": lambda chips: np.zeros((len(chips), 1, 8, 8), np.float32),
    "array of ": lambda chips: np.zeros((1, 1, *chips.shape[2:]), np.float32),
    "array of  ": lambda chips: np.zeros((len(chips), 2, *chips.shape[2:]), np.float32),
    "nan": constant(np.nan),
    "7.5": constant(7.5),
    "-2.0": constant(-2),
}


@pytest.mark.parametrize("found", WRONG)
@pytest.mark.parametrize("blend", [False, True])
def test_what_is_no_probability_is_an_error_and_never_zeros(tmp_path: Path, found: str, blend: bool) -> None:
    plan = plan_of(write(tmp_path, noise(90, 90)), FakeEngine(WRONG[found]), blend=blend)
    with pytest.raises(PredictionError, match=f"fake gave .*{found.strip()}"):
        predict_all(plan, 50)


def test_an_engine_that_fails_fails_the_block(tmp_path: Path) -> None:
    def fail(chips: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    plan = plan_of(write(tmp_path, noise(40, 40)), FakeEngine(fail))
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_all(plan, 50)


def test_a_lazy_scene_has_no_values_on_nodata_and_outside_the_area(tmp_path: Path) -> None:
    valid = np.ones((60, 80), bool)
    valid[:20, :20] = False
    area = AOI(shapely.box(0, 0, 50, 60))
    plan = plan_of(write(tmp_path, noise(60, 80), valid), FakeEngine(constant(1)), aoi=area)
    values = predict_scene(plan, block_px=25).values
    expected = np.where(valid, np.float32(1), np.nan)
    expected[:, 50:] = np.nan
    np.testing.assert_array_equal(values, expected)
