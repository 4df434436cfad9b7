"""Finished runs, scored as they were made or at another threshold, and what a model's own settings do to figures."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import torch
from affine import Affine

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.engines import ClassSegmenter
from geoseg.evaluate import EvaluateSettings, Evaluation, evaluate_scenes
from geoseg.inference import EngineRecipe
from geoseg.run import RunSettings, VectorizeSettings, run_scene, vectorize_raster

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
SPEC = ModelSpec(
    name="fake", network="unet", bands=("gray",), gsd_m=0.3, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
)
LAND = ("land", "building", "road")


def score(scene: Path | list[Path], labels: Path, **options: object) -> Evaluation:
    return evaluate_scenes(scene, EvaluateSettings(labels=labels, **options))


def bundle(folder: Path, **spec: object) -> Path:
    return save_bundle(folder / "other.safetensors", replace(SPEC, **spec), {"unused": torch.zeros(1)})


def houses() -> np.ndarray:
    """Return a faint house with a stepped edge, and a sure one of 9 m2."""
    rows, cols = np.mgrid[0:70, 0:70]
    values = np.full((70, 70), 10)
    values[(rows >= 5) & (cols >= 5) & (rows + cols < 45)] = 150
    values[50:60, 50:60] = 230
    return values


def test_a_run_at_another_threshold_is_the_run_that_was_made_with_it(tmp_path: Path, model: Path, write) -> None:
    values = houses()
    labels = {name: write(tmp_path / "labels" / f"{name}.tif", values > 100) for name in ("high", "half", "usual")}
    usual = {"threshold": 0.5, "min_area_m2": 5}
    (tmp_path / "runs").mkdir()
    made = {"high": {"threshold": 0.8}, "half": {}, "usual": {}}
    results = {}
    for name, other in made.items():
        asked = usual | ({} if name == "usual" else {"min_area_m2": 20, "outline": "raw"}) | other
        scene = write(tmp_path / "scenes" / f"{name}.tif", values)
        results[name] = run_scene(
            scene, RunSettings(model=model, out=tmp_path / "runs" / f"{name}_geoseg", **asked), quiet=True
        ).folder
    high, half = score(results["high"], labels["high"]), score(results["half"], labels["half"])
    again = score(results["high"], labels["high"], threshold=0.5)
    figures = [found.total.metrics()["buildings"] for found in (high, half, again)]
    assert figures[2] == pytest.approx(figures[1], nan_ok=True)
    assert [f["predicted"] for f in figures] == [0, 1, 1]  # the sure house is below 20 m2
    usual_figures = score(results["usual"], labels["usual"]).total.metrics()["buildings"]
    assert usual_figures["predicted"] == 2
    assert figures[1]["vertex_ratio"] > 2 * usual_figures["vertex_ratio"]  # every step is a corner
    assert [found.threshold for found in (high, half, again)] == [0.8, 0.5, 0.5]
    both = score([results["high"], results["half"]], tmp_path / "labels", out=tmp_path / "out", pictures=False)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["threshold"] is None
    assert {name: scene["threshold"] for name, scene in written["scenes"].items()} == {
        "high_geoseg": 0.8,
        "half_geoseg": 0.5,
    }
    assert both.threshold is None


def test_the_target_alone_of_a_run_of_several_classes(tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineRecipe, "open", lambda recipe: ClassSegmenter(3))
    values = np.repeat(np.arange(3), 20)[None] * 86 + 5 + np.zeros((60, 1), int)
    scene = write(tmp_path / "scene.tif", values)
    model = bundle(tmp_path, classes=LAND, target="building")
    run = run_scene(scene, RunSettings(model=model, out=tmp_path / "run"), quiet=True).folder
    labels = write(tmp_path / "labels.tif", values // 86 == 1)
    for scored, asked in ((run, {}), (scene, {"model": model})):
        found = score(scored, labels, target_only=True, **asked).total
        assert found.confusion.classes == ("background", "building")
        assert found.confusion.counts.tolist() == [[2400, 0], [0, 1200]]
    classes = score(run, write(tmp_path / "classes.tif", values // 86)).total.confusion
    assert (classes.classes, np.diag(classes.counts).tolist()) == (LAND, [1200] * 3)


def test_probabilities_and_means_are_those_of_the_models_target_and_scored_classes(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineRecipe, "open", lambda recipe: ClassSegmenter(3))
    values = np.repeat(np.arange(3), 20)[None] * 86 + 5 + np.zeros((60, 1), int)
    truth = values // 86
    truth[:30, 40:] = 0
    model = bundle(tmp_path, classes=LAND, target="road", training={"fit": {"unscored": ["building"]}})
    files = write(tmp_path / "scene.tif", values), write(tmp_path / "labels.tif", truth)
    found = score(*files, model=model, curve=True)
    metrics = found.total.metrics()
    # Stored: 190 / 254 where the road is found, half of which is road; 32 / 254 elsewhere, where none is.
    high, low = (round(p * 254) / 254 for p in (0.75, 0.125))
    assert metrics["calibration_error"] == pytest.approx((abs(0.5 - high) * 1200 + low * 2400) / 3600, abs=2e-3)
    assert (found.curve[126]["precision"], found.curve[126]["recall"]) == (0.5, 1)
    assert (metrics["precision"], metrics["recall"]) == (0.5, 1)
    assert found.total.unscored == ("building",)
    for key in ("iou", "boundary_iou"):
        expected = np.mean([metrics["classes"][name][key] for name in ("land", "road")])
        assert metrics[f"mean_{key}"] == pytest.approx(expected)
        assert metrics["classes"]["building"][key] > expected + 0.1


def test_unlabelled_is_left_out_of_means_beside_what_a_model_leaves_out(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineRecipe, "open", lambda recipe: ClassSegmenter(3))
    names = ("land", "building", "unlabelled")
    model = bundle(tmp_path, classes=names, training={"fit": {"unscored": ["land"]}})
    files = write(tmp_path / "scene.tif", houses()), write(tmp_path / "labels.tif", houses() * 0)
    assert score(*files, model=model).total.unscored == ("land", "unlabelled")


def test_buildings_below_the_models_smallest_area_are_not_scored(tmp_path: Path, model: Path, write) -> None:
    values = houses()
    files = write(tmp_path / "scene.tif", values), write(tmp_path / "labels.tif", values > 100)
    found = [
        score(*files, model=bundle(tmp_path, min_area_m2=least)).total.metrics()["buildings"] for least in (0, 8.9, 9.1)
    ]
    assert [f["predicted"] for f in found] == [2, 2, 1]
    assert [f["truth"] for f in found] == [2, 2, 2]


def test_buildings_that_touch_are_parted_by_the_depth_of_the_model(tmp_path: Path, model: Path, write) -> None:
    rows, cols = np.mgrid[0:70, 0:70]
    values = np.where((rows > 10) & (rows < 50), 240 - np.minimum(60, 4 * np.abs(np.abs(cols - 35) - 20)), 10)
    files = write(tmp_path / "scene.tif", values), write(tmp_path / "labels.tif", values > 100)
    for depth, count in ((None, 2), (0.05, 2), (0.6, 1), (1.0, 1)):
        parted = bundle(tmp_path, split_depth=depth)
        out = tmp_path / f"depth {depth}"
        assert (
            run_scene(files[0], RunSettings(model=parted, out=out), quiet=True).report["counts"]["buildings"] == count
        )
        assert score(*files, model=parted).total.metrics()["buildings"]["predicted"] == count
        again = vectorize_raster(out, VectorizeSettings(out=tmp_path / f"again {depth}"))
        assert again.report["counts"]["buildings"] == count
        asked = RunSettings(model=parted, out=tmp_path / f"asked {depth}", split_depth=0.05)
        assert run_scene(files[0], asked, quiet=True).report["counts"]["buildings"] == 2


def test_a_building_is_as_sure_as_its_pixels_not_as_large(tmp_path: Path, model: Path, write) -> None:
    values = houses()
    files = write(tmp_path / "scene.tif", values), write(tmp_path / "labels.tif", values > 200)
    # The small house is right and surer than the large one that is wrong.
    assert score(*files, model=model).total.metrics()["buildings"]["ap50"] == pytest.approx(1)


def test_a_building_counts_from_one_half_in_the_area_on(tmp_path: Path, model: Path, write) -> None:
    values = houses()
    files = write(tmp_path / "scene.tif", values), write(tmp_path / "labels.tif", values > 200)
    counted = {}
    for right in (54, 55, 56):  # of the columns 50 to 60
        ground = shapely.box(*(PLACE @ (0, 70)), *(PLACE @ (right, 0)))
        geopandas.GeoSeries([ground], crs="EPSG:32630").to_file(tmp_path / "area.gpkg")
        counted[right] = score(*files, model=model, aoi=tmp_path / "area.gpkg").total.metrics()["buildings"]["truth"]
    assert counted == {54: 0, 55: 1, 56: 1}


def test_scenes_that_names_with_dots_or_other_suffixes_tell_apart_are_all_scored(tmp_path: Path) -> None:
    from geoseg.evaluate.evaluate import plan_scenes

    (tmp_path / "labels").mkdir()
    dates = ("ortho_2023.05", "ortho_2023.06")
    for name in dates:
        for file in (f"out/{name}/run.json", f"out/{name}/mask.tif", f"labels/{name}.gpkg"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    settings = EvaluateSettings(labels=tmp_path / "labels")
    found = plan_scenes([tmp_path / "out", tmp_path / "out" / dates[0]], settings)
    assert [(scene.name, scene.labels.stem) for scene in found] == [(name, name) for name in dates]
    for name in ("a.tif", "a.png", "a.gpkg"):
        (tmp_path / "labels" / name).touch()
    (tmp_path / "masks").mkdir()
    for name in ("a.tif", "a.png"):
        (tmp_path / "masks" / name).touch()
    masks = EvaluateSettings(labels=tmp_path / "labels", mask=tmp_path / "masks")
    assert sorted(scene.name for scene in plan_scenes([], masks)) == ["a_png", "a_tif"]
