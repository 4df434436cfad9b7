"""The shipped model on real imagery: runs to the end, keeps to the data, and is as good as its card says."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.features import geometry_mask

from geoseg.bundle import DEFAULT_MODEL
from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.run import RunSettings, run_scene

pytestmark = pytest.mark.realdata


def score(folder: Path, scene: str, labels: str) -> float:
    """Return the IoU on the test area of one place."""
    settings = EvaluateSettings(
        model=DEFAULT_MODEL, labels=folder / labels, aoi=folder / "splits.geojson", aoi_where="split = 'test'"
    )
    return evaluate_scenes([folder / scene], settings).total.metrics()["iou"]


def test_scene_in_degrees_becomes_footprints_in_degrees(realdata: Path, tmp_path: Path) -> None:
    scene = realdata / "banepa" / "banepa.tif"
    result = run_scene(scene, RunSettings(out=tmp_path / "out"), quiet=True)
    footprints = geopandas.read_file(result.folder / "buildings.gpkg", layer="buildings")
    with rasterio.open(scene) as own, rasterio.open(result.folder / "mask.tif") as mask:
        assert mask.bounds == pytest.approx(own.bounds, abs=1e-12)
        assert mask.crs == footprints.crs == own.crs
    assert result.report["scene"]["grid"]["gsd_m"] == pytest.approx((0.3, 0.3), rel=1e-3)
    assert footprints.is_valid.all()
    assert len(footprints) > 300
    assert footprints["area_m2"].sum() == pytest.approx(result.report["counts"]["building_pixels"] * 0.09, rel=0.05)


def test_no_footprint_lies_on_nodata(realdata: Path, tmp_path: Path) -> None:
    aoi = realdata / "accra" / "splits.geojson"
    settings = RunSettings(out=tmp_path / "out", aoi=aoi, aoi_where="split = 'val'", outline="raw")
    result = run_scene(realdata / "accra" / "accra.tif", settings, quiet=True)
    footprints = geopandas.read_file(result.folder / "buildings.gpkg", layer="buildings")
    with rasterio.open(result.folder / "mask.tif") as src:
        mask = src.read(1)
        inside = geometry_mask(footprints.geometry, src.shape, src.transform, invert=True)
    assert len(footprints) > 200
    assert not np.any(inside & (mask == 255))
    assert np.mean(mask[inside] == 1) > 0.999


@pytest.mark.slow
def test_accra_is_as_good_as_the_card_says(realdata: Path) -> None:
    assert score(realdata / "accra", "accra.tif", "accra_buildings.tif") >= 0.83


@pytest.mark.slow
def test_banepa_is_as_good_as_the_card_says(realdata: Path) -> None:
    assert score(realdata / "banepa", "banepa.tif", "buildings.geojson") >= 0.75
