"""Models that say where buildings end: the probability that a pixel lies inside one, whatever the blocks."""

from dataclasses import dataclass, replace
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
from geoseg.inference import (
    AOI,
    BLOCK_PX,
    NODATA,
    InferenceOptions,
    Plan,
    plan_inference,
    plan_mosaic,
    predict_block,
    predict_scene,
)
from geoseg.scene import close_readers, open_scene
from geoseg.sources import SceneSource

BOTH = ("edge", "contact")


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


@dataclass(frozen=True)
class Waves:
    """Gives channels that depend on the whole chip and on a pixel's neighbors, or on the pixel alone; those picked."""

    picked: tuple[int, ...] = (0, 1, 2)
    is_local: bool = False
    name: str = "waves"
    batch_size: int = 3
    threads: int = 1

    def predict(self, chips: np.ndarray) -> np.ndarray:
        values = chips[:, :1].astype(np.float32) / 255
        seen = values
        if not self.is_local:
            seen = uniform_filter(values, (0, 0, 3, 3), mode="nearest") + 0.3 * values.mean((2, 3), keepdims=True)
        waves = np.sin(seen * (7 + 5 * np.array(self.picked, np.float32)[:, None, None]))
        return (0.5 + 0.5 * waves).astype(np.float32)


def write(folder: Path, pixels: np.ndarray, valid: np.ndarray | None = None, *, name: str = "scene", left: int = 0):
    """Write `(y, x)` uint8 pixels above 0; 0 is nodata where they are not valid."""
    pixels = np.maximum(pixels, 1) if valid is None else np.where(valid, np.maximum(pixels, 1), 0)
    place = Affine(0.3, 0, 5e5, 0, -0.3, 6e5) @ Affine.translation(left, 0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "nodata": 0}
    profile |= {"height": len(pixels), "width": pixels.shape[1], "transform": place}
    with rasterio.open(folder / f"{name}.tif", "w", **profile) as dst:
        dst.write(pixels.astype(np.uint8), 1)
    return folder / f"{name}.tif"


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(1, 256, (-(-shape[0] // 3), -(-shape[1] // 3)))
    return np.kron(coarse, np.ones((3, 3), int))[: shape[0], : shape[1]]


def plan_of(path: Path, engine: Any, **options: Any) -> Plan:
    scene = open_scene(path)
    lattice = fit_lattice(scene.grid.shape, chip_px=32, halo_px=6, multiple_px=2)
    return Plan(scene, lattice, engine, **({"auxiliary": BOTH} | options))


def predict_all(plan: Plan, block_px: int = 500, what: str = "interior") -> np.ndarray:
    """Return a raster of the whole scene."""
    out = np.full(plan.scene.grid.shape, NODATA, np.uint8)
    for block in plan.blocks(block_px):
        found = getattr(predict_block(plan, block), what)
        assert (found.dtype, found.shape) == (np.uint8, block.window.shape)
        out[block.window.slices] = found
    return out


def channel_of(path: Path, picked: int, **options: Any) -> np.ndarray:
    """Return one channel of `Waves` alone, as a model of one class gives it: float32, from stored levels."""
    plan = plan_of(path, Waves((picked,)), auxiliary=(), **options)
    return predict_all(plan, what="probability").astype(float) / 254


@settings(
    max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(seed=st.integers(0, 99), first=st.integers(10, 130), second=st.integers(10, 130), blend=st.booleans())
def test_the_interior_is_the_same_whatever_the_blocks(
    tmp_path: Path, seed: int, first: int, second: int, blend: bool
) -> None:
    valid = np.kron(np.random.default_rng(seed).random((5, 6)) < 0.7, np.ones((14, 13), bool)).astype(bool)
    path = write(tmp_path, noise(valid.shape, seed), valid)
    plan = plan_of(path, Waves(), blend=blend, aoi=AOI(shapely.box(5, 9, 70, 50)))
    np.testing.assert_array_equal(predict_all(plan, first), predict_all(plan, second))


@pytest.mark.parametrize(
    ("auxiliary", "picked"),
    [
        (BOTH, (1, 2)),
        (("contact", "edge"), (2, 1)),
        (("edge",), (1,)),
        (("contact",), (1,)),
        (("distance", "contact", "height", "edge"), (4, 2)),
    ],
)
def test_the_interior_is_the_building_without_edge_and_contact(
    tmp_path: Path, auxiliary: tuple[str, ...], picked: tuple[int, ...]
) -> None:
    """Single precision, a multiplication at a time: building, edge, contact."""
    pixels = noise((70, 90))
    engine = Waves(tuple(range(len(auxiliary) + 1)), is_local=True)
    found = predict_all(plan_of(write(tmp_path, pixels), engine, auxiliary=auxiliary), 40)
    channels = engine.predict(pixels[None, None])[0]
    value = channels[0] * np.float32(254)
    for channel in picked:
        value = value * (np.float32(1) - channels[channel])
    assert value.dtype == np.float32
    assert found.std() > 20
    np.testing.assert_array_equal(found, np.round(value))


@pytest.mark.parametrize("auxiliary", [(), ("distance", "height")])
def test_without_edge_and_contact_there_is_no_interior(tmp_path: Path, auxiliary: tuple[str, ...]) -> None:
    path = write(tmp_path, noise((40, 50)))
    plan = plan_of(path, Waves(tuple(range(len(auxiliary) + 1))), auxiliary=auxiliary)
    assert not plan.has_interior
    assert plan.channels == (0,)
    for block in plan.blocks(30):
        assert predict_block(plan, block).interior is None
    with pytest.raises(UsageError, match="an interior needs one of edge and contact"):
        predict_scene(plan, layer="interior")


@pytest.mark.parametrize("blend", [False, True])
def test_auxiliary_channels_do_not_change_the_probability(tmp_path: Path, blend: bool) -> None:
    path = write(tmp_path, noise((60, 80)))
    alone = plan_of(path, Waves((0,)), auxiliary=(), blend=blend)
    found = plan_of(path, Waves(), blend=blend)
    expected = predict_all(alone, what="probability")
    np.testing.assert_array_equal(predict_all(found, 30, what="probability"), expected)
    assert (predict_all(found) <= expected).all()


def test_blended_channels_are_blended_before_they_are_multiplied(tmp_path: Path) -> None:
    path = write(tmp_path, noise((60, 80)))
    found = predict_all(plan_of(path, Waves(), blend=True), 30)
    building, edge, contact = (channel_of(path, n, blend=True) for n in range(3))
    np.testing.assert_allclose(found, 254 * building * (1 - edge) * (1 - contact), atol=2.1)
    cropped = predict_all(plan_of(path, Waves()), 30)
    assert np.abs(found.astype(int) - cropped).max() > 10


def test_several_classes_have_an_interior_of_the_target(tmp_path: Path) -> None:
    pixels, names = noise((60, 80)), ("land", "building", "road")
    plan = plan_of(write(tmp_path, pixels), ClassSegmenter(3, auxiliary=2), classes=names, channel=1)
    assert plan.channels == (0, 1, 2, 3, 4)
    found, classes = predict_all(plan, 30), pixels * 3 // 256
    share = np.where(classes == 1, 0.75, 0.125)
    expected = 254 * share * (1 - pixels / (255 * 2)) * (1 - pixels / (255 * 3))
    np.testing.assert_allclose(found, expected, atol=0.51)
    np.testing.assert_array_equal(predict_all(plan, 30, "classes"), classes)
    one = replace(plan, classes=names[:2], engine=ClassSegmenter(2, auxiliary=2))
    assert one.channels == (1, 2, 3)
    assert predict_block(one, one.blocks(500)[0]).classes is None


def test_a_likelier_edge_is_no_class(tmp_path: Path) -> None:
    """The auxiliary channels are no candidates for the likeliest class."""
    plan = plan_of(
        write(tmp_path, np.full((40, 40), 255)),
        ClassSegmenter(3, share=0.34, auxiliary=2),
        classes=("land", "building", "road"),
        channel=1,
    )
    assert (predict_all(plan, what="classes") == 2).all()


def test_nodata_and_what_lies_outside_the_area_has_no_interior(tmp_path: Path) -> None:
    valid = np.ones((60, 80), bool)
    valid[:20, :20] = False
    plan = plan_of(write(tmp_path, noise((60, 80)), valid), Waves(), aoi=AOI(shapely.box(0, 0, 50, 60)))
    inside = valid & (np.arange(80) < 50)
    np.testing.assert_array_equal(predict_all(plan, 25) == NODATA, ~inside)
    empty = plan_of(write(tmp_path, noise((40, 40)), np.zeros((40, 40), bool), name="empty"), Waves())
    assert (predict_all(empty) == NODATA).all()


def test_a_mosaics_channels_are_averaged_before_they_are_multiplied(tmp_path: Path) -> None:
    spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), auxiliary=BOTH, chip_px=64, halo_px=8)
    values, sources = (60, 200), []
    for number, value in enumerate(values):
        path = write(tmp_path, np.full((60, 100), value), name=f"s{number}", left=50 * number)
        sources.append(SceneSource(path.stem, (str(path),)))
    plan = plan_mosaic(sources, Bundle(spec, Path("none"), "0"), InferenceOptions(), rule="mean")
    plan = replace(plan, engine=ClassSegmenter(1, share=0.8, auxiliary=2))
    found = predict_all(plan)
    both = np.mean(values)  # edge and contact are proportional to the gray level
    for columns, value in ((slice(2, 48), 60), (slice(52, 98), both), (slice(102, 148), 200)):
        expected = round(254 * 0.8 * (1 - value / 510) * (1 - value / 765))
        assert np.abs(found[2:-2, columns].astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(found, predict_all(plan, 40))
    apart = np.mean([(1 - value / 510) * (1 - value / 765) for value in values])
    assert abs(254 * 0.8 * apart - 254 * 0.8 * (1 - both / 510) * (1 - both / 765)) > 2


def test_probabilities_a_little_outside_0_to_1_stay_in_range(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Rounded(Waves):
        def predict(self, chips: np.ndarray) -> np.ndarray:
            by_row = np.array([[-5e-6, 1 + 5e-6]] * (chips.shape[2] // 2), np.float32).reshape(-1, 1)
            shape = (len(chips), 1, *chips.shape[2:])
            edge, building = np.broadcast_to(by_row, shape), np.full(shape, 1 + 5e-6, np.float32)
            return np.concatenate([building, edge, np.full(shape, -5e-6, np.float32)], axis=1)

    found = predict_all(plan_of(write(tmp_path, noise((40, 40))), Rounded()))
    assert set(np.unique(found)) == {0, 254}


@pytest.mark.parametrize("found", [1, 2, 4])
def test_another_number_of_channels_than_the_specification_names_is_an_error(tmp_path: Path, found: int) -> None:
    plan = plan_of(write(tmp_path, noise((40, 40))), Waves(tuple(range(found))))
    with pytest.raises(PredictionError, match=r"3 channels \(building, edge, contact\)"):
        predict_all(plan)


def test_a_channel_that_is_not_used_is_not_stitched_and_may_hold_anything(tmp_path: Path) -> None:
    """`distance` may be in meters one day."""

    @dataclass(frozen=True)
    class Distances(Waves):
        def predict(self, chips: np.ndarray) -> np.ndarray:
            found = super().predict(chips)
            found[:, 1] = 1000.0
            return found

    path = write(tmp_path, noise((40, 40)))
    plan = plan_of(path, Distances(), auxiliary=("distance", "edge"))
    assert plan.channels == (0, 2)
    expected = plan_of(path, Waves((0, 2)), auxiliary=("edge",))
    np.testing.assert_array_equal(predict_all(plan), predict_all(expected))


def test_only_channels_that_are_stitched_make_blocks_smaller(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path, noise((40, 40)))).at_shape((20_000, 20_000))
    lattice = fit_lattice(scene.grid.shape, chip_px=512, halo_px=32)
    few = Plan(scene, lattice, Waves(), auxiliary=("edge", "a", "b", "c", "contact"))
    several = replace(few, classes=("land", "building", "road"))
    assert few.choose_block_px(2) == BLOCK_PX
    assert several.choose_block_px(2) == BLOCK_PX // 2


@pytest.mark.parametrize("blend", [False, True])
def test_a_lazy_interior_is_that_of_the_blocks(tmp_path: Path, blend: bool) -> None:
    plan = plan_of(write(tmp_path, noise((70, 50))), Waves(), aoi=AOI(shapely.box(0, 0, 30, 70)), blend=blend)
    array, stored = predict_scene(plan, block_px=30, layer="interior"), predict_all(plan)
    assert (array.name, array.dtype, array.dims) == ("interior", np.float32, ("y", "x"))
    expected = np.where(stored == NODATA, np.nan, stored / np.float32(254))
    np.testing.assert_array_equal(array.values, expected.astype(np.float32))
    probability = predict_scene(plan, layer="probability")
    np.testing.assert_array_equal(probability.values, predict_scene(plan).values)
    assert probability.name == "probability"


def test_a_layer_that_does_not_exist_or_contradicts_classes_is_refused(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, noise((40, 40))), Waves())
    with pytest.raises(UsageError, match=r"no `layer='edge'`\. Choose one of probability, classes, interior"):
        predict_scene(plan, layer="edge")
    with pytest.raises(UsageError, match="Omit one"):
        predict_scene(plan, layer="interior", classes=True)
    with pytest.raises(UsageError, match="more than two"):
        predict_scene(plan, layer="classes")


def test_a_plan_has_the_models_auxiliary_channels(tmp_path: Path) -> None:
    spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), auxiliary=("contact", "distance", "edge"))
    plan = plan_inference(write(tmp_path, noise((40, 40))), Bundle(spec, Path("none"), "0"))
    assert plan.auxiliary == ("contact", "distance", "edge")
    assert plan.apart == (3, 1)
    assert plan.channels == (0, 3, 1)
