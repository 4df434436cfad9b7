"""Crops follow weights, validation chips count every pixel once, incomplete labels leave out what is unsure."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.datasets.prepared import write_prepared
from geoseg.errors import RecipeError
from geoseg.training.optimizer import Progress
from geoseg.training.sources import PreparedSource
from geoseg.training.task import MixedCrops, MixedSampler, ValidationChips, settle_unsure


def scene(folder: Path, name: str, value: int, shape: tuple[int, int] = (96, 128)) -> Path:
    image = np.full((3, *shape), value, np.uint8)
    return write_prepared(folder / f"{name}.npy", image, np.ones(shape, np.uint8), about={})


def test_sources_are_drawn_by_weight_and_not_by_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    big = PreparedSource("big", 1.0, tuple(scene(tmp_path, f"b{i}", 1) for i in range(3)), ())
    small = PreparedSource("small", 3.0, (scene(tmp_path, "s", 2, (64, 64)),), ())
    crops = MixedCrops([big, small], window_px=48)
    sampler = MixedSampler(crops, window_px=48, batch=10, batches=40, seed=0, progress=Progress(0, 1.0))
    drawn = torch.tensor([int(crops[index]["image"][0, 0, 0]) for batch in sampler for index in batch])
    assert len(drawn) == 400
    assert float((drawn == 2).float().mean()) == pytest.approx(0.75, abs=0.07)


def test_a_large_scene_of_a_source_is_drawn_more_often_than_a_tiny_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    paths = (scene(tmp_path, "tiny", 1, (48, 48)), scene(tmp_path, "large", 2, (480, 480)))
    crops = MixedCrops([PreparedSource("s", 1.0, paths, ())], window_px=48)
    sampler = MixedSampler(crops, window_px=48, batch=100, batches=2, seed=0, progress=Progress(0, 1.0))
    drawn = [int(crops[index]["image"][0, 0, 0]) for batch in sampler for index in batch]
    assert drawn.count(2) > 10 * drawn.count(1)


def test_scenes_without_room_are_left_out_by_name_and_none_at_all_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = PreparedSource("s", 1.0, (scene(tmp_path, "a", 1), scene(tmp_path, "b", 2, (30, 300))), ())
    assert len(MixedCrops([source], window_px=48).scenes) == 1
    assert "1 of 2 training scenes have no room or too few labels for a window of 48 px; left out: b" in caplog.text
    with pytest.raises(RecipeError, match=r"fit\.window_px"):
        MixedCrops([source], window_px=200)


@pytest.mark.parametrize("shape", [(40, 40), (96, 128), (97, 130)])
def test_validation_counts_every_known_pixel_once(tmp_path: Path, shape: tuple[int, int]) -> None:
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.uint8)
    truth = np.ones(shape, np.uint8)
    truth[:5] = IGNORED
    path = write_prepared(tmp_path / "v.npy", np.stack([rows, cols, rows]), truth, about={})
    chips = ValidationChips([PreparedSource("v", 1.0, (), (path,))], chip_px=64, halo_px=16)
    counted = np.zeros(shape, int)
    for n in range(len(chips)):
        chip = chips[n]
        assert chip["image"].shape == (3, 64, 64)
        known = (chip["mask"] != IGNORED).numpy()
        np.add.at(counted, (chip["image"][0].numpy()[known], chip["image"][1].numpy()[known]), 1)
    assert (counted[5:] == 1).all()
    assert (counted[:5] == 0).all()


def test_chips_without_truth_are_left_out(tmp_path: Path) -> None:
    truth = np.full((64, 256), IGNORED, np.uint8)
    truth[:, 200:] = 0
    path = write_prepared(tmp_path / "v.npy", np.zeros((3, 64, 256), np.uint8), truth, about={})
    chips = ValidationChips([PreparedSource("v", 1.0, (), (path,))], chip_px=64, halo_px=0)
    assert len(chips) == 1


def test_batches_hold_chips_of_one_shape_and_every_chip_once(tmp_path: Path) -> None:
    shapes = [(40, 40), (40, 40), (300, 300), (100, 300)]
    paths = tuple(scene(tmp_path, f"v{n}", n, shape) for n, shape in enumerate(shapes))
    chips = ValidationChips([PreparedSource("v", 1.0, (), paths)], chip_px=128, halo_px=16)
    batches = chips.batches(3)
    assert sorted(itertools.chain(*batches)) == list(range(len(chips)))
    assert max(map(len, batches)) == 3
    for batch in batches:
        assert len({chips[n]["image"].shape for n in batch}) == 1
    assert len({chips[batch[0]]["image"].shape for batch in batches}) > 1


def test_a_part_of_a_scene_keeps_the_scenes_lattice_and_mirrors_only_at_its_border(tmp_path: Path) -> None:
    rows, cols = np.mgrid[0:100, 0:120].astype(np.uint8)
    whole = np.stack([rows, cols, rows])
    truth = np.full((100, 120), IGNORED, np.uint8)
    truth[70:90, 5:9] = 1
    about = {"origin": [20, 0], "scene_shape": [100, 120]}
    path = write_prepared(tmp_path / "v.npy", whole[:, 20:, :100], truth[20:, :100], about=about)
    chips = ValidationChips([PreparedSource("v", 1.0, (), (path,))], chip_px=64, halo_px=8)
    assert [chip for _, chip in chips.chips] == [(1, 0)]
    padded = np.pad(whole, ((0, 0), (8, 100), (8, 100)), mode="reflect")
    assert chips.lattices[0].core == (48, 48)
    assert np.array_equal(chips[0]["image"].numpy(), padded[:, 48 : 48 + 64, 0:64])


MASK = torch.tensor([[[1, 0, UNSURE, UNSURE, IGNORED]]], dtype=torch.uint8)


def test_a_young_network_is_not_asked_about_unsure_background() -> None:
    settled = settle_unsure(MASK, None, 0.25)
    assert settled.tolist() == [[[1, 0, IGNORED, IGNORED, IGNORED]]]


def test_unsure_background_that_may_be_a_building_is_left_out_and_the_rest_is_background() -> None:
    settled = settle_unsure(MASK, torch.tensor([[[0.0, 0.9, 0.3, 0.2, 0.9]]]), 0.25)
    assert settled.tolist() == [[[1, 0, IGNORED, 0, IGNORED]]]
