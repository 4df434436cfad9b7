"""The buildings of a batch as one layer."""

from datetime import date
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import shapely
from affine import Affine
from typer.testing import CliRunner

from geoseg.bundle import Bundle, ModelSpec
from geoseg.cli import app
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import GeosegError, MissingCRSError
from geoseg.grid import fit_lattice
from geoseg.inference import Plan
from geoseg.run import MergeSettings, RunSettings, batch, merge_results, run_each
from geoseg.scene import open_scene

SPEC = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), min_area_m2=0.0)


def write_scene(path: Path, *, east: float = 500_000.0, crs: int | None = 32630, houses: int = 3) -> Path:
    """Write a scene of 60 x 80 px of 0.3 m with some houses of 8 x 8 px in a row."""
    pixels = np.zeros((60, 80), np.uint8)
    for n in range(houses):
        pixels[10:18, 5 + 20 * n : 13 + 20 * n] = 255
    options = {"driver": "GTiff", "count": 1, "height": 60, "width": 80, "dtype": "uint8"}
    with rasterio.open(path, "w", **options, crs=crs, transform=Affine(0.3, 0, east, 0, -0.3, 600_000)) as dst:
        dst.write(pixels, 1)
    return path


@pytest.fixture(autouse=True)
def _threshold_instead_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(files: tuple[str, ...], bundle: Bundle, settings: RunSettings) -> Plan:
        scene = open_scene(files)
        return Plan(scene, fit_lattice(scene.grid.shape, chip_px=64, halo_px=8), ThresholdSegmenter())

    monkeypatch.setattr(batch, "load_bundle", lambda _: Bundle(SPEC, Path("none"), "0"))
    monkeypatch.setattr(batch, "plan_inference", plan)


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, **({"layer": "buildings"} if path.suffix == ".gpkg" else {}))


def run(folder: Path, *scenes: Path, dates: list[str] | None = None) -> Path:
    """Run scenes as a batch, with a manifest that says when they were taken."""
    manifest = folder / "scenes.csv"
    columns = {"path": [str(scene) for scene in scenes]} | ({"datetime": dates} if dates else {})
    pandas.DataFrame(columns).to_csv(manifest, index=False)
    run_each(str(manifest), RunSettings(out=str(folder / "town")), quiet=True)
    return folder / "town"


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb"])
def test_the_layer_has_every_building_with_its_scene_and_day(tmp_path: Path, suffix: str) -> None:
    a, b = write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", east=500_100.0, houses=2)
    town = run(tmp_path, a, b, dates=["2023-05-01T10:00:00Z", ""])
    found = merge_results(town, MergeSettings(tmp_path / f"all{suffix}"))
    assert (found.scenes, found.left_out, found.buildings) == (["a", "b"], [], 5)
    layer = read(tmp_path / f"all{suffix}")
    assert layer.crs.to_epsg() == 32630
    for name, day in (("a", date(2023, 5, 1)), ("b", None)):
        own = geopandas.read_parquet(town / name / "buildings.parquet").sort_values("id")
        rows = layer[layer["scene"] == name].sort_values("id")
        assert rows["id"].tolist() == own["id"].tolist()
        assert rows["area_m2"].tolist() == own["area_m2"].tolist()
        assert all(x.normalize() == y.normalize() for x, y in zip(rows.geometry, own.geometry, strict=True))
        days = pandas.to_datetime(rows["date"])
        assert days.isna().all() if day is None else (days.dt.date == day).all()


def test_scenes_of_several_CRSs_come_into_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", crs=32631, east=170_000.0)
    town = run(tmp_path, a, b)
    result = CliRunner().invoke(app, ["merge", str(town), "--target-crs", "EPSG:4326"])
    assert result.exception is None, result.exception
    assert result.stdout.strip() == "town_buildings.gpkg"
    layer = read(tmp_path / "town_buildings.gpkg")
    assert layer.crs.to_epsg() == 4326
    for name in ("a", "b"):
        own = geopandas.read_parquet(town / name / "buildings.parquet").to_crs(4326).sort_values("id")
        rows = layer[layer["scene"] == name].sort_values("id")
        apart = shapely.hausdorff_distance(np.array(own.geometry), np.array(rows.geometry))
        assert (apart < 1e-9).all()
    merge_results(town, MergeSettings("first.parquet"))
    assert geopandas.read_parquet(tmp_path / "first.parquet").crs.to_epsg() == 32630


def test_what_is_not_finished_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, b = write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", east=500_100.0)
    town = run(tmp_path, a, b)
    (town / "b" / "mask.tif").unlink()
    found = merge_results(town, MergeSettings(tmp_path / "all.fgb"))
    assert (found.scenes, found.left_out, found.buildings) == (["a"], ["b"], 3)
    assert "1 of 2 scenes not finished and left out: b" in caplog.text


def test_scenes_that_overlap_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, b = write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", east=500_010.0)
    c = write_scene(tmp_path / "c.tif", east=500_034.0)  # beside b
    merge_results(run(tmp_path, a, b, c), MergeSettings(tmp_path / "all.fgb"))
    assert "The extents of 1 pair of scenes overlap (a and b)" in caplog.text


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    town = run(tmp_path, write_scene(tmp_path / "a.tif"))
    for out, says in (("all.shp", "the suffix of no format"), ("taken.fgb", r"taken\.fgb exists")):
        (tmp_path / "taken.fgb").touch()
        with pytest.raises(GeosegError, match=says):
            merge_results(town, MergeSettings(tmp_path / out))
    with pytest.raises(GeosegError, match="There is no run in"):
        merge_results(tmp_path / "nowhere", MergeSettings(tmp_path / "all.fgb"))
    (town / "a" / "buildings.gpkg").unlink()
    with pytest.raises(GeosegError, match="None of the 1 scene in"):
        merge_results(town, MergeSettings(tmp_path / "all.fgb"))
    assert not (tmp_path / "all.fgb").exists()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_place_is_refused(tmp_path: Path) -> None:
    town = run(tmp_path, write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", crs=None))
    with pytest.raises(MissingCRSError, match="has no CRS, so it has no place in one layer"):
        merge_results(town, MergeSettings(tmp_path / "all.fgb"))
