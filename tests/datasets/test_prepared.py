"""Prepared scenes: crops by torchgeo's queries come from where they say."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torchgeo.samplers import RandomGeoSampler

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.datasets.prepared import (
    NO_PIXEL,
    PreparedScene,
    is_known,
    is_prepared,
    keep_labels,
    sampling_boxes,
    write_prepared,
)
from geoseg.datasets.scenes import fill_invalid
from geoseg.grid import Window


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene whose first band is the row and second the column; only its right half has truth."""
    rows, cols = np.mgrid[0:100, 0:120].astype(np.uint8)
    truth = np.full((100, 120), IGNORED, np.uint8)
    truth[:, 60:] = 1
    return write_prepared(tmp_path / "s.npy", np.stack([rows, cols, rows]), truth, about={"scene": "s"})


def test_a_random_crop_holds_the_pixels_of_its_query(scene: Path) -> None:
    dataset = PreparedScene(scene, crop_px=32)
    for query in RandomGeoSampler(dataset, size=32, length=30):
        sample, x, y = dataset[query], query[0], query[1]
        assert sample["image"].shape == (3, 32, 32)
        assert sample["image"][0, 0, 0] == y.start
        assert sample["image"][0, -1, 0] == y.stop - 1
        assert sample["image"][1, 0, 0] == x.start
        assert sample["image"][1, 0, -1] == x.stop - 1


def test_boxes_cover_the_truth_and_leave_the_unknown_out() -> None:
    truth = np.full((64, 256), IGNORED, np.uint8)
    truth[:, 128:] = 0
    boxes = sampling_boxes(truth, 32, 0.5)
    covered = np.zeros(truth.shape, bool)
    for box in boxes:
        assert (truth[box.slices] != IGNORED).mean() >= 0.5
        covered[box.slices] = True
    assert covered[:, 128:].all()
    assert not covered[:, :100].any()


def test_a_scene_smaller_than_a_crop_has_no_box() -> None:
    assert sampling_boxes(np.zeros((20, 100), np.uint8), 32, 0.5) == []


def test_a_scene_travels_to_a_worker_without_its_pixels(scene: Path) -> None:
    dataset = PreparedScene(scene)
    before = dataset.read(Window(3, 4, 5, 6))["image"]
    assert dataset.__getstate__()["_pixels"] is None
    assert (copy.deepcopy(dataset).read(Window(3, 4, 5, 6))["image"] == before).all()


def test_an_unfinished_scene_is_not_prepared(scene: Path) -> None:
    assert is_prepared(scene)
    scene.with_suffix(".json").unlink()
    assert not is_prepared(scene)


def test_a_chip_of_a_part_is_the_scenes_own_and_is_mirrored_at_the_scenes_border_alone(tmp_path: Path) -> None:
    rows, cols = np.mgrid[0:40, 0:50].astype(np.uint8)
    part = np.stack([rows, cols])[:, 12:, 7:]  # the scene's lower right
    about = {"origin": (12, 7), "scene_shape": (40, 50)}
    scene = PreparedScene(write_prepared(tmp_path / "s.npy", part, np.ones(part.shape[1:], np.uint8), about=about))
    chip = scene.read_chip(Window(20, 30, 24, 28))
    expected = [np.pad(band[20:, 30:], ((0, 4), (0, 8)), mode="reflect") for band in (rows, cols)]
    assert np.array_equal(chip["image"], expected)
    assert (chip["mask"][:20, :20] == 1).all()
    assert (chip["mask"][20:] == IGNORED).all()
    assert (chip["mask"][:, 20:] == IGNORED).all()


def test_pixels_without_data_are_filled_as_in_inference_and_have_no_truth(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 50)).astype(np.uint8)
    valid = np.ones((40, 50), bool)
    valid[10:20, 30:] = False
    path = write_prepared(tmp_path / "s.npy", image, np.ones((40, 50), np.uint8), about={}, valid=valid)
    window = Window(5, 20, 30, 20)
    sample = PreparedScene(path).read(window)
    own = (slice(None), *window.slices)
    assert np.array_equal(sample["image"], fill_invalid(image[own], valid[window.slices]))
    assert np.array_equal(sample["mask"], np.where(valid[window.slices], 1, IGNORED))


def test_unsure_is_known_and_missing_pixels_are_not() -> None:
    assert is_known(np.array([0, 1, 5, UNSURE, NO_PIXEL, IGNORED])).tolist() == [True] * 4 + [False] * 2


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """The lower right of a scene of 40 x 50 px, 16-bit; two auxiliary planes hold row and column, and no data above."""
    rows, cols = np.mgrid[0:40, 0:50].astype(np.uint8)
    part = np.stack([rows, cols]).astype(np.uint16)[:, 12:, 7:] * 100
    planes = np.stack([rows, cols])[:, 12:, 7:]
    valid = np.ones(part.shape[1:], bool)
    valid[:3] = False
    about = {"origin": (12, 7), "scene_shape": (40, 50), "auxiliary": ["edge", "contact"]}
    truth = np.ones(part.shape[1:], np.uint8)
    return write_prepared(tmp_path / "deep.npy", part, truth, about=about, valid=valid, auxiliary=planes)


def test_auxiliary_planes_are_read_beside_the_image_and_unknown_without_data(deep: Path) -> None:
    scene = PreparedScene(deep)
    assert scene.auxiliary == ("edge", "contact")
    sample = scene.read(Window(0, 2, 10, 20))
    assert sample["image"].shape == (2, 10, 20)
    assert sample["image"].dtype == torch.float32
    assert sample["auxiliary"].dtype == torch.uint8
    rows, cols = np.mgrid[12:22, 9:29]
    assert np.array_equal(sample["auxiliary"][:, 3:], np.stack([rows, cols])[:, 3:])
    assert (sample["auxiliary"][:, :3] == IGNORED).all()
    assert (sample["mask"][3:] == 1).all()
    assert np.array_equal(sample["image"][:, 3:], np.stack([rows, cols])[:, 3:] * 100)


def test_auxiliary_planes_of_a_chip_are_unknown_where_its_labels_are(deep: Path, scene: Path) -> None:
    chip = PreparedScene(deep).read_chip(Window(20, 30, 24, 28))
    assert (chip["auxiliary"][:, :20, :20] != IGNORED).all()
    assert (chip["auxiliary"][:, 20:] == IGNORED).all()
    assert (chip["auxiliary"][:, :, 20:] == IGNORED).all()
    kept = keep_labels(chip, Window(4, 5, 6, 7))
    inside = torch.zeros(24, 28, dtype=torch.bool)
    inside[4:10, 5:12] = True
    for key in ("mask", "auxiliary"):
        assert torch.equal(kept[key][..., inside], chip[key][..., inside])
        assert (kept[key][..., ~inside] == IGNORED).all()
        assert (keep_labels(chip, None)[key] == IGNORED).all()
    assert "auxiliary" not in PreparedScene(scene).read(Window(0, 0, 4, 4))
