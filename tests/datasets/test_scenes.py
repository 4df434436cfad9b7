"""Scenes through torchgeo: its queries, its samplers, its loader."""

from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler

from geoseg.datasets import LatticeSampler, SceneDataset, fill_invalid
from geoseg.errors import ReadError
from geoseg.grid import Window, fit_lattice
from geoseg.scene import Scene, close_readers, open_scene
from geoseg.testing import decode_positions, position_values, write_position_scene

SHAPE = (150, 210)


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A scene whose pixels say where they are."""
    return open_scene(write_position_scene(tmp_path / "a.tif", SHAPE))


def window_of(sample: dict) -> Window:
    """The window that a sample's pixels say they come from."""
    rows, cols = decode_positions(sample["image"].numpy())
    return Window(int(rows[0, 0]), int(cols[0, 0]), *rows.shape)


def check_sample(dataset: SceneDataset, sample: dict) -> None:
    """A sample is the crop at the place of its bounds."""
    window = dataset.window_of(sample["bounds"][0], sample["bounds"][1])
    pixels = dataset.scene.read(window)
    np.testing.assert_array_equal(sample["image"].numpy(), pixels.values)
    np.testing.assert_array_equal(sample["valid"].numpy(), pixels.valid)
    assert window_of(sample) == window


def test_it_is_a_torchgeo_dataset_with_the_scene_as_its_index(scene: Scene) -> None:
    dataset = SceneDataset(scene)
    assert isinstance(dataset, RasterDataset)
    assert len(dataset) == 1
    assert dataset.res == pytest.approx((0.3, 0.3))
    x, y, _ = dataset.bounds
    assert (x.start, y.start, x.stop, y.stop) == pytest.approx(scene.grid.bounds)
    assert dataset.crs == scene.grid.crs


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_a_query_gives_the_pixels_at_its_coordinates(scene: Scene, data: st.DataObject) -> None:
    top, left = (data.draw(st.integers(0, n - 1)) for n in SHAPE)
    window = Window(top, left, data.draw(st.integers(1, SHAPE[0] - top)), data.draw(st.integers(1, SHAPE[1] - left)))
    left_m, bottom_m, right_m, top_m = scene.grid.crop(window).bounds
    dataset = SceneDataset(scene)
    sample = dataset[left_m:right_m, bottom_m:top_m]
    assert window_of(sample) == window
    assert sample["image"].dtype == torch.uint8
    check_sample(dataset, sample)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(x=st.floats(0, 100), y=st.floats(0, 100), size=st.integers(1, 50))
def test_queries_of_one_size_give_windows_of_one_size_wherever_they_lie(
    scene: Scene, x: float, y: float, size: int
) -> None:
    dataset = SceneDataset(scene)
    x, y = (round(2 * v) / 2 for v in (x, y))  # half pixels, where rounding up and down is a toss
    left, top = dataset.frame @ (x, y)
    window = dataset.window_of(slice(left, left + size * 0.3), slice(top - size * 0.3, top))
    assert window.shape == (size, size)
    assert abs(window.row - y) <= 0.5
    assert abs(window.col - x) <= 0.5


def test_sampler_and_loader_of_torchgeo_find_the_crops(scene: Scene) -> None:
    dataset = SceneDataset(scene)
    sampler = RandomGeoSampler(dataset, size=64, length=9)
    found = 0
    for batch in DataLoader(dataset, sampler=sampler, batch_size=3, collate_fn=stack_samples):
        assert batch["image"].shape == (3, 3, 64, 64)
        for i, bounds in enumerate(batch["bounds"]):
            check_sample(dataset, {k: batch[k][i] for k in ("image", "valid")} | {"bounds": bounds})
            found += 1
    assert found == 9


def test_a_transform_changes_the_sample(scene: Scene) -> None:
    dataset = SceneDataset(scene, transforms=lambda sample: sample | {"image": sample["image"] * 0})
    assert not dataset[:, :]["image"].any()


@pytest.mark.parametrize("shape", [(150, 210), (20, 30), (1, 1), (64, 7)])
@pytest.mark.parametrize("size", [(64, 8), (32, 0), (64, 31)])
def test_every_chip_of_the_lattice_comes_even_of_a_scene_smaller_than_a_chip(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    scene = open_scene(write_position_scene(tmp_path / "a.tif", shape))
    lattice = fit_lattice(shape, chip_px=size[0], halo_px=size[1])
    dataset = SceneDataset(scene)
    (block,) = lattice.plan_blocks(10_000)
    chips = list(lattice.chips_of(block))[:40]
    sampler = LatticeSampler(dataset, lattice, chips)
    queries = list(sampler)
    assert len(queries) == len(sampler) == len(chips) > 0
    mirrored = np.pad(
        position_values(shape), ((0, 0), (70, 200), (70, 200)), mode="reflect" if min(shape) > 1 else "edge"
    )
    for chip, query in zip(chips, queries, strict=True):
        seen, sample = lattice.chip_window(*chip), dataset[query]
        rows, cols = slice(seen.row + 70, seen.rows.stop + 70), slice(seen.col + 70, seen.cols.stop + 70)
        np.testing.assert_array_equal(sample["image"].numpy(), mirrored[:, rows, cols])


def test_beyond_the_border_the_scene_is_mirrored_and_not_valid(scene: Scene) -> None:
    dataset = SceneDataset(scene)
    pixels = dataset.read_chip(Window(-20, 190, 60, 40))
    expected = np.pad(position_values(SHAPE), ((0, 0), (20, 0), (0, 20)), mode="reflect")[:, :60, 190:]
    np.testing.assert_array_equal(pixels.values, expected)
    inside = np.zeros((60, 40), bool)
    inside[20:, :20] = True
    np.testing.assert_array_equal(pixels.valid, inside)
    np.testing.assert_array_equal(dataset.read_valid(Window(-20, 190, 60, 40)), inside)


def test_nodata_is_filled_and_said(tmp_path: Path) -> None:
    import rasterio

    path = write_position_scene(tmp_path / "a.tif", SHAPE, nodata=255)
    with rasterio.open(path, "r+") as dst:
        dst.write(np.full((3, 40, 50), 255, np.uint8), window=rasterio.windows.Window(30, 20, 50, 40))
    dataset = SceneDataset(open_scene(path))
    pixels = dataset.read_chip(Window(0, 0, 100, 120))
    hole = np.zeros((100, 120), bool)
    hole[20:60, 30:80] = True
    np.testing.assert_array_equal(pixels.valid, ~hole)
    assert not (pixels.values == 255).any()
    np.testing.assert_array_equal(pixels.values[:, ~hole], position_values(SHAPE)[:, :100, :120][:, ~hole])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_chips_cut_from_a_cached_window_are_those_read_alone(scene: Scene, data: st.DataObject) -> None:
    numbers = st.integers(-60, 200)
    outer = Window(
        data.draw(numbers), data.draw(numbers), data.draw(st.integers(5, 150)), data.draw(st.integers(5, 150))
    )
    row, col = data.draw(st.integers(0, outer.height - 1)), data.draw(st.integers(0, outer.width - 1))
    shape = data.draw(st.integers(1, outer.height - row)), data.draw(st.integers(1, outer.width - col))
    inner = Window(outer.row + row, outer.col + col, *shape)
    cached, alone = SceneDataset(scene, cached=outer).read_chip(inner), SceneDataset(scene).read_chip(inner)
    np.testing.assert_array_equal(cached.values, alone.values)
    np.testing.assert_array_equal(cached.valid, alone.valid)


def test_a_query_outside_the_cached_window_is_refused_and_not_another_place(scene: Scene) -> None:
    dataset = SceneDataset(scene, cached=Window(50, 50, 60, 60))
    with pytest.raises(ValueError, match="leaves the cached"):
        dataset.read_chip(Window(40, 55, 20, 20))


@pytest.mark.parametrize("kind", ["rotated", "picture", "south-up"])
def test_scenes_that_no_query_can_follow_are_asked_in_pixels(tmp_path: Path, kind: str) -> None:
    turned = Affine.translation(500_000, 600_000) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3)
    transform = {"rotated": turned, "picture": None, "south-up": Affine(0.3, 0, 500_000, 0, 0.3, 600_000)}[kind]
    crs = None if kind == "picture" else "EPSG:32630"
    path = write_position_scene(tmp_path / "a.tif", SHAPE, crs=crs, transform=transform)
    dataset = SceneDataset(open_scene(path))
    assert window_of(dataset[40:70, -30:-10]) == Window(10, 40, 20, 30)
    assert dataset.res == (1, 1)
    sampler = LatticeSampler(dataset, fit_lattice(SHAPE, chip_px=64, halo_px=8), [(1, 1)])
    assert dataset.window_of(*next(iter(sampler))[:2]) == fit_lattice(SHAPE, chip_px=64, halo_px=8).chip_window(1, 1)


def test_a_scene_of_degrees_has_a_resolution_per_axis(tmp_path: Path) -> None:
    place = Affine(3e-6, 0, 85.1, 0, -2.7e-6, 27.6)
    dataset = SceneDataset(
        open_scene(write_position_scene(tmp_path / "a.tif", SHAPE, crs="EPSG:4326", transform=place))
    )
    assert dataset.res == pytest.approx((3e-6, 2.7e-6))
    lattice = fit_lattice(SHAPE, chip_px=64, halo_px=8)
    for chip, query in zip([(0, 1), (2, 3)], LatticeSampler(dataset, lattice, [(0, 1), (2, 3)]), strict=True):
        assert dataset.window_of(*query[:2]) == lattice.chip_window(*chip)


def test_16_bit_pixels_come_as_float_and_stretched_ones_as_bytes(tmp_path: Path) -> None:
    scene = open_scene(write_position_scene(tmp_path / "a.tif", SHAPE, dtype="uint16"))
    sample = SceneDataset(scene)[:, :]
    assert sample["image"].dtype == torch.float32
    np.testing.assert_array_equal(sample["image"].numpy(), position_values(SHAPE, dtype="uint16"))
    assert SceneDataset(scene.with_levels())[:, :]["image"].dtype == torch.uint8


def test_an_unreadable_file_is_an_error_and_not_skipped(scene: Scene) -> None:
    dataset = SceneDataset(scene)
    Path(scene.source).write_bytes(b"II*\0" + b"x" * 500)
    with pytest.raises(ReadError, match="cannot be"):
        dataset.read_chip(Window(0, 0, 20, 20))


MARK = 255


def test_a_whole_chip_is_returned_as_it_is() -> None:
    values = np.ones((3, 5, 5), np.uint8)
    assert fill_invalid(values, np.ones((5, 5), bool)) is values


def test_a_chip_without_data_is_zeros() -> None:
    values = np.full((3, 5, 5), MARK, np.uint8)
    assert not fill_invalid(values, np.zeros((5, 5), bool)).any()


def test_a_missing_edge_mirrors_the_pixels_beside_it_as_numpy_does() -> None:
    values = np.random.default_rng(0).integers(0, 200, (2, 12, 20), "uint8")
    valid = np.ones((12, 20), bool)
    valid[:, :6] = False
    expected = np.pad(values[:, :, 6:], ((0, 0), (0, 0), (6, 0)), mode="reflect")
    np.testing.assert_array_equal(fill_invalid(values, valid), expected)


def test_where_the_mirror_leads_nowhere_the_nearest_pixel_serves() -> None:
    values = np.array([[[7, MARK, MARK, MARK]]], np.uint8)
    valid = np.array([[True, False, False, False]])
    assert (fill_invalid(values, valid) == 7).all()


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 25), st.integers(1, 25)), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_no_invalid_value_leaks_and_no_valid_one_changes(shape: tuple[int, int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) < share
    values = np.where(valid, rng.integers(1, 200, (3, *shape)), MARK).astype(np.uint8)
    before = values.copy()
    out = fill_invalid(values, valid)
    assert not (out == MARK).any()
    np.testing.assert_array_equal(out[:, valid], values[:, valid])
    np.testing.assert_array_equal(values, before)
    bands = {tuple(p) for p in values[:, valid].T}  # a filled pixel is a whole pixel, not a mix of bands
    assert not valid.any() or {tuple(p) for p in out.reshape(3, -1).T} <= bands
