"""Scores of a model on scenes with labels, through the same steps as a run."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import ExistingResultError, LabelError
from geoseg.evaluate import Confusion, EvaluateSettings, Evaluation, evaluate_scenes
from geoseg.inference import EngineRecipe
from geoseg.scene import close_readers

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
SPEC = ModelSpec(
    name="fake", network="unet", bands=("grey",), gsd_m=0.3, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
)


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that calls every pixel from 128 on a building."""
    import torch

    monkeypatch.setattr(EngineRecipe, "open", lambda self: ThresholdSegmenter(128))
    return save_bundle(tmp_path / "fake.safetensors", SPEC, {"unused": torch.zeros(1)})


def write(path: Path, pixels: np.ndarray, *, place: Affine = PLACE, nodata: float | None = None) -> Path:
    """Write one band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "crs": "EPSG:32630",
        "transform": place,
        "nodata": nodata,
    }
    with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as dst:
        dst.write(pixels[None].astype("uint8"))
    return path


@pytest.fixture
def painted(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A scene with bright buildings and its pixels; the value 0 is nodata."""
    pixels = np.random.default_rng(0).integers(1, 256, (150, 170))
    pixels[100:, 120:] = 0
    return write(tmp_path / "scene.tif", pixels, nodata=0), pixels


def score(scene: Path, model: Path, labels: Path, **options: object) -> Evaluation:
    """Score the fake model."""
    return evaluate_scenes([scene], EvaluateSettings(model=model, labels=labels, **options))


def test_a_score_counts_what_the_network_got_right_and_wrong(tmp_path: Path, painted, model: Path) -> None:
    scene, pixels = painted
    truth = np.random.default_rng(1).random(pixels.shape) < 0.5
    labels = np.where(np.random.default_rng(2).random(pixels.shape) < 0.1, 255, truth)
    found = score(scene, model, write(tmp_path / "labels.tif", labels))
    expected = Confusion.count(pixels >= 128, truth, (pixels > 0) & (labels != 255))
    assert found.total == expected
    assert found.scenes == {"scene": expected}


def test_polygons_are_labels_too_and_an_area_bounds_the_score(tmp_path: Path, painted, model: Path) -> None:
    scene, pixels = painted
    building = shapely.box(*(PLACE @ (10, 40)), *(PLACE @ (60, 20)))
    geopandas.GeoSeries([building], crs="EPSG:32630").to_crs(4326).to_file(tmp_path / "b.gpkg")
    area = shapely.box(*(PLACE @ (0, 50)), *(PLACE @ (170, 0)))
    geopandas.GeoSeries([area], crs="EPSG:32630").to_file(tmp_path / "area.gpkg")
    truth = np.zeros(pixels.shape, bool)
    truth[20:40, 10:60] = True
    known = np.zeros(pixels.shape, bool)
    known[:50] = True
    found = score(scene, model, tmp_path / "b.gpkg", area=tmp_path / "area.gpkg").total
    assert found.pixels == known.sum()
    assert abs(found.hits - Confusion.count(pixels >= 128, truth, known).hits) <= 50  # a border may move by a nanometre


def test_a_folder_of_labels_scores_every_scene_by_name(tmp_path: Path, model: Path) -> None:
    for name, value in (("one", 200), ("two", 10)):
        write(tmp_path / "scenes" / f"{name}.tif", np.full((70, 70), value))
        write(tmp_path / "labels" / f"{name}.tif", np.ones((70, 70)))
    found = score(tmp_path / "scenes", model, tmp_path / "labels")
    assert found.scenes == {"one": Confusion(hits=4900), "two": Confusion(misses=4900)}
    assert found.total.metrics()["recall"] == 0.5
    assert found.table().splitlines()[-1].startswith("| all | 0.5000 | 0.6667 | 1.0000 | 0.5000 |")


def test_a_scene_without_its_label_is_an_error_and_not_left_out(tmp_path: Path, model: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / "scenes" / f"{name}.tif", np.full((70, 70), 200))
    write(tmp_path / "labels" / "one.tif", np.ones((70, 70)))
    with pytest.raises(LabelError, match=r"no labels for two\.tif"):
        score(tmp_path / "scenes", model, tmp_path / "labels")


def test_labels_of_another_place_are_an_error_and_no_score(tmp_path: Path, painted, model: Path) -> None:
    elsewhere = write(tmp_path / "labels.tif", np.ones((50, 50)), place=Affine(0.3, 0, 700_000, 0, -0.3, 600_000))
    with pytest.raises(LabelError, match="same place"):
        score(painted[0], model, elsewhere)


def test_labels_that_are_no_labels_are_refused(tmp_path: Path, painted, model: Path) -> None:
    with pytest.raises(LabelError, match="no labels at"):
        score(painted[0], model, tmp_path / "gone.tif")
    with pytest.raises(LabelError, match=r"label values 7 \(25500 px\)"):
        score(painted[0], model, write(tmp_path / "sevens.tif", np.full((150, 170), 7)))


def test_the_threshold_is_the_models_unless_another_is_given(tmp_path: Path, painted, model: Path) -> None:
    labels = write(tmp_path / "labels.tif", np.ones((150, 170)))
    assert score(painted[0], model, labels).threshold == SPEC.threshold
    assert score(painted[0], model, labels, threshold=0.9).to_dict()["threshold"] == 0.9


def test_metrics_are_written_and_never_replaced_unasked(tmp_path: Path, painted, model: Path) -> None:
    labels = write(tmp_path / "labels.tif", np.ones((150, 170)))
    out = tmp_path / "out"
    found = score(painted[0], model, labels, out=out)
    written = json.loads((out / "metrics.json").read_text())
    assert written["total"]["iou"] == found.total.metrics()["iou"]
    assert written["model"] == "fake"
    with pytest.raises(ExistingResultError, match=r"metrics\.json is already there.*--overwrite"):
        score(painted[0], model, labels, out=out)
    score(painted[0], model, labels, out=out, overwrite=True)


def test_a_figure_that_does_not_exist_is_null_in_the_file(tmp_path: Path, model: Path) -> None:
    scene = write(tmp_path / "scene.tif", np.full((70, 70), 10))
    score(scene, model, write(tmp_path / "labels.tif", np.zeros((70, 70))), out=tmp_path / "out")
    text = (tmp_path / "out" / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["total"]["iou"] is None
