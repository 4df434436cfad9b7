"""`predict_scene` in a notebook: from a path to a georeferenced, lazy array."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

import geoseg
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import UsageError
from geoseg.grid import fit_lattice
from geoseg.inference import EngineRecipe, InferenceOptions, Plan, predict_scene
from geoseg.inference import array as module
from geoseg.scene import open_scene

TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "transform": TRANSFORM}
    with rasterio.open(tmp_path / "scene.tif", "w", height=60, width=80, **profile) as dst:
        dst.write(np.arange(4800, dtype=np.uint8).reshape(1, 60, 80))
    return tmp_path / "scene.tif"


def plan_of(path: Path) -> Plan:
    scene = open_scene(path)
    return Plan(scene, fit_lattice(scene.grid.shape, chip_px=32, halo_px=8, multiple_px=8), ThresholdSegmenter())


def test_the_grid_mapping_holds_crs_and_transform(path: Path) -> None:
    array = predict_scene(plan_of(path), block_px=32)
    mapping = array.coords["spatial_ref"].attrs
    assert CRS.from_wkt(mapping["crs_wkt"]).to_epsg() == 32630
    assert Affine.from_gdal(*map(float, mapping["GeoTransform"].split())) == TRANSFORM
    assert array.encoding["grid_mapping"] == "spatial_ref"


def test_coordinates_are_the_centers_of_the_pixels(path: Path) -> None:
    array = predict_scene(plan_of(path), block_px=32)
    np.testing.assert_allclose(array.x, 500_000.15 + 0.3 * np.arange(80))
    np.testing.assert_allclose(array.y, 599_999.85 - 0.3 * np.arange(60))


OTHERS = {
    "bands": [1],
    "crs": "EPSG:32631",
    "grid": "scene",
    "nodata": 7.0,
    "alpha": False,
    "aoi": "area.gpkg",
    "aoi_where": "part = 1",
    "blend": True,
    "device": "cpu",
    "precision": "bf16",
    "threads": 3,
    "chip_px": 96,
    "halo_px": 0,
    "tta": "d4",
}
"""Another value of every option."""


def test_a_path_is_planned_with_the_model_and_every_option(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def plan(*given: object) -> Plan:
        asked.append(given)
        return plan_of(path)

    monkeypatch.setattr(module, "load_bundle", lambda model: f"bundle of {model}")
    monkeypatch.setattr(module, "plan_inference", plan)
    assert OTHERS.keys() == {field.name for field in fields(InferenceOptions)}
    array = predict_scene(path, model="mine", **OTHERS)
    assert asked == [(path, "bundle of mine", InferenceOptions(**OTHERS))]
    assert array.shape == (60, 80)


def test_the_views_of_chips_that_are_not_square_have_an_engine_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[EngineRecipe] = []
    monkeypatch.setattr(
        "geoseg.inference.plan._open_engine", lambda recipe: asked.append(recipe) or ThresholdSegmenter()
    )
    EngineRecipe("model", (32, 64), tta="d4").open()
    assert [(recipe.chip_shape, recipe.tta) for recipe in asked] == [((32, 64), None), ((64, 32), None)]


def test_views_that_are_not_known_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^`tta='d8'` is unknown\. Choose d4, or omit `tta`\.$"):
        InferenceOptions(tta="d8")


def test_options_beside_a_plan_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="bands would have no effect"):
        predict_scene(plan_of(path), bands=[1])


def test_the_graph_holds_the_plan_once(path: Path) -> None:
    array = predict_scene(plan_of(path), block_px=16)
    graph = array.data.__dask_graph__()
    blocks = array.data.npartitions
    assert blocks >= 20
    assert sum(isinstance(getattr(node, "value", node), Plan) for node in dict(graph).values()) <= 1
    assert len(dict(graph)) <= 4 * blocks + 1


def test_the_package_gives_its_main_functions_by_name() -> None:
    assert geoseg.predict_scene is predict_scene
    assert callable(geoseg.run_scene)
    with pytest.raises(AttributeError, match="predict_all"):
        _ = geoseg.predict_all
