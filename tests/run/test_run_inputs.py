"""What `geoseg run` was given: which scenes are opened, and what is made of them."""

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window

from geoseg.errors import OutsideAOIError, UsageError
from geoseg.run import BatchResult, RunResult, RunSettings, run_each, run_inputs, run_mosaic
from geoseg.run.run import sources_within
from geoseg.sources import SceneSource


def source(name: str, west: float) -> SceneSource:
    """A scene of one degree that begins at a meridian."""
    footprint = shapely.box(west, 0, west + 1, 1)
    return SceneSource(name, (f"{name}.tif",), datetime(2024, 1, 1, tzinfo=UTC), footprint, None, None)


SOURCES = [source("a", 0), source("b", 10), source("c", 20)]


@pytest.fixture
def aoi(tmp_path: Path) -> Path:
    """An area in the scene c."""
    path = tmp_path / "aoi.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(20.2, 0.2, 20.4, 0.4)], crs=4326).to_file(path)
    return path


def names(left: list[SceneSource]) -> list[str]:
    return [each.name for each in left]


def test_scenes_outside_the_aoi_are_left_out(aoi: Path) -> None:
    assert names(sources_within(SOURCES, RunSettings(aoi=aoi))) == ["c"]
    assert names(sources_within(SOURCES, RunSettings())) == ["a", "b", "c"]


def test_the_first_scene_of_a_mosaic_stays_as_its_pixels_are_the_mosaics(aoi: Path) -> None:
    assert names(sources_within(SOURCES, RunSettings(aoi=aoi, mosaic="latest"))) == ["a", "c"]
    assert names(sources_within(SOURCES, RunSettings(aoi=aoi, mosaic="first", grid="scene"))) == ["a", "b", "c"]


def test_only_the_areas_that_were_asked_for_count(tmp_path: Path) -> None:
    path, areas = tmp_path / "aoi.gpkg", [shapely.box(west, 0.2, west + 0.2, 0.4) for west in (0.2, 10.2)]
    geopandas.GeoDataFrame({"split": ["train", "test"]}, geometry=areas, crs=4326).to_file(path)
    assert names(sources_within(SOURCES, RunSettings(aoi=path))) == ["a", "b"]
    assert names(sources_within(SOURCES, RunSettings(aoi=path, aoi_where="split = 'test'"))) == ["b"]


def test_an_aoi_that_no_scene_meets_is_refused(aoi: Path) -> None:
    with pytest.raises(OutsideAOIError, match="None of the 2 scenes meets the AOI"):
        sources_within(SOURCES[:2], RunSettings(aoi=aoi))


def test_a_mosaic_needs_a_rule() -> None:
    with pytest.raises(UsageError, match="'first', 'latest' or 'mean'"):
        run_mosaic(SOURCES, RunSettings())


@pytest.fixture
def scenes(place: Any, models: Path, tmp_path: Path, threads: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two scenes of one place without a CRS, which overlap."""
    for client in ("run", "batch"):
        monkeypatch.setattr(f"geoseg.run.{client}.open_client", lambda *_: nullcontext(threads))
    monkeypatch.setenv("GEOSEG_CACHE_DIR", str(models / "cache"))
    monkeypatch.chdir(tmp_path)
    with rasterio.open(place.scene) as telling:
        pixels = telling.read(window=Window(0, 0, 80, 70))
    for name, east in (("a", 0.0), ("b", 15.0)):
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 2, "height": 70, "width": 80}
        place_of = Affine(0.3, 0, 500_000 + east, 0, -0.3, 600_000)
        with rasterio.open(f"{name}.tif", "w", transform=place_of, **profile) as file:
            file.write(np.concatenate([pixels, 255 - pixels]))
    return tmp_path


def given(models: Path, **settings: Any) -> RunSettings:
    return RunSettings(model=models / "model.safetensors", crs="EPSG:32630", **settings)


def test_one_scene_becomes_a_result_several_one_each_and_a_mosaic_one_of_all(scenes: Path, models: Path) -> None:
    one = run_inputs(["a.tif"], given(models), quiet=True)
    assert isinstance(one, RunResult)
    assert one.report["scene"]["grid"]["shape"] == (70, 80)
    each = run_inputs(["a.tif", "b.tif"], given(models, out="each/"), quiet=True)
    assert isinstance(each, BatchResult)
    assert (each.done, each.failed) == (["each/a", "each/b"], {})
    mosaic = run_inputs(["a.tif", "b.tif"], given(models, mosaic="first", out="mosaic"), quiet=True)
    assert isinstance(mosaic, RunResult)
    assert sorted(Path(path).name for path in mosaic.report["scene"]["paths"]) == ["a.tif", "b.tif"]
    assert mosaic.report["scene"]["grid"]["shape"] == (70, 130)
    assert {path.parent.as_posix() for path in Path().rglob("run.json")} == {"a_geoseg", "each/a", "each/b", "mosaic"}


@pytest.mark.parametrize("how", ["imagery", "imagery/*.tif", "list.csv", "list.json"])
def test_a_result_stays_where_it_is_when_a_second_scene_is_added(scenes: Path, models: Path, how: str) -> None:
    (scenes / "imagery").mkdir()
    items = []
    for count, name in enumerate("ab", 1):
        (scenes / f"{name}.tif").rename(scenes / "imagery" / f"{name}.tif")
        (scenes / "list.csv").write_text("\n".join(["path", *(f"imagery/{one}.tif" for one in "ab"[:count])]))
        assets = {"image": {"href": f"imagery/{name}.tif", "type": "image/tiff"}}
        items.append(
            {"type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [], "assets": assets}
            | {"properties": {"datetime": "2024-01-01T00:00:00Z"}}
        )
        (scenes / "list.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        result = run_inputs([how], given(models, out="out"), quiet=True)
        assert isinstance(result, BatchResult)
        assert (result.failed, len(result.done)) == ({}, 1)
        assert [path.parent.as_posix() for path in sorted(Path().rglob("run.json"))] == ["out/a", "out/b"][:count]


def test_the_scene_of_a_result_is_found_from_any_folder(scenes: Path, models: Path) -> None:
    result = run_inputs(["a.tif"], given(models), quiet=True)
    assert isinstance(result, RunResult)
    assert result.report["scene"]["paths"] == [str(scenes / "a.tif")]


@pytest.mark.parametrize("rows", [1, 2])
def test_what_a_manifest_says_of_a_scene_goes_before_what_the_user_says_of_all(
    scenes: Path, models: Path, rows: int
) -> None:
    lines = ["path,crs,bands,nodata,alpha", "a.tif,EPSG:32631,2,0,no", "b.tif,,,,"][: rows + 1]
    (scenes / "list.csv").write_text("\n".join(lines))
    run_inputs(["list.csv"], given(models, out="out", bands=(1,), nodata=7, alpha=True), quiet=True)
    reports = [json.loads(path.read_text()) for path in sorted((scenes / "out").rglob("run.json"))]
    found = [(report["scene"]["crs"], report["scene"]["bands"]) for report in reports]
    assert found == [("EPSG:32631", [2]), ("EPSG:32630", [1])][:rows]
    assert [(report["facts"]["nodata"], report["facts"]["alpha"]) for report in reports] == [(0, False), (7, True)][
        :rows
    ]


@pytest.mark.parametrize("many", [False, True])
def test_the_asset_that_was_asked_for_is_the_scene(scenes: Path, models: Path, many: bool) -> None:
    assets = {"first": {"href": "a.tif", "type": "image/tiff"}, "second": {"href": "b.tif", "type": "image/tiff"}}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [], "assets": assets}
    item["properties"] = {"datetime": "2024-01-01T00:00:00Z"}
    (scenes / "x.json").write_text(json.dumps(item))
    run = run_each if many else run_inputs
    run(["x.json"], given(models, out="out", asset="second"), quiet=True)
    (report,) = (scenes / "out").rglob("run.json")
    assert Path(json.loads(report.read_text())["scene"]["paths"][0]).name == "b.tif"
