"""Prepared scenes: crops by torchgeo's queries come from where they say."""

import copy
from pathlib import Path

import numpy as np
import pytest
from torchgeo.samplers import RandomGeoSampler

from geoseg.datasets.labels import IGNORED
from geoseg.datasets.prepared import PreparedScene, is_prepared, sampling_boxes, write_prepared
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
