"""Further vector formats of a result, and areas that are shapes instead of files."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.errors import ExistingResultError, MissingCRSError, UsageError
from geoseg.inference import read_aoi
from geoseg.outputs.footprints import FORMATS
from geoseg.run import RunSettings


def contents(folder: Path) -> dict[str, Any]:
    """Return what the files of a result hold: bytes, of a GeoPackage the rows; without those that say when it was."""
    found: dict[str, Any] = {}
    for path in folder.iterdir():
        if path.suffix == ".gpkg":
            found[path.name] = geopandas.read_file(path, layer="buildings").to_json()
        elif path.suffix not in (".html", ".json"):
            found[path.name] = path.read_bytes()
    return found


def project_of(folder: Path) -> str:
    """Return the QGIS project of a result."""
    with zipfile.ZipFile(folder / "project.qgz") as file:
        return file.read("project.qgs").decode()


def test_every_format_holds_the_same_footprints_and_can_be_asked_for_later(
    place: Any, blocks: Any, tmp_path: Path
) -> None:
    asked, later = tmp_path / "asked", tmp_path / "later"
    result = place.run(asked, formats=tuple(FORMATS), picture=True)
    names = [Path(path).name for path in result.paths]
    rasters = ["probability.tif", "probability.qml", "mask.tif", "mask.qml"]
    others = ["preview.png", "project.qgz", "index.html", "item.json", "run.json"]
    assert names == [*rasters, *(f"buildings.{name}" for name in FORMATS), *others]
    place.run(later, formats=("parquet",))
    assert [path.name for path in later.glob("buildings.*")] == ["buildings.parquet"]
    blocks.take()
    assert project_of(later).count("outlines by confidence") == 0
    added = place.run(later, formats=tuple(FORMATS), picture=True)
    assert not added.is_new
    assert blocks.take() == []
    assert contents(later) == contents(asked)
    expected = geopandas.read_parquet(asked / "buildings.parquet")
    for name in ("gpkg", "fgb"):
        found = geopandas.read_file(asked / f"buildings.{name}", layer="buildings")
        assert found.crs == expected.crs is not None
        assert sorted(found.geometry.to_wkb()) == sorted(expected.geometry.to_wkb())
    found = geopandas.read_file(asked / "buildings.geojson").set_index("id").loc[expected["id"]]
    moved = found.to_crs(expected.crs).geometry
    assert found.is_valid.all()
    assert set(found.geom_type) == {"Polygon"}
    assert shapely.hausdorff_distance(moved.array, expected.geometry.array).max() < 0.01  # spikes thinner than 1 mm go
    assert moved.area.to_numpy() == pytest.approx(expected.area.to_numpy(), abs=0.02)


def test_the_report_lists_formats_that_were_added_with_their_checksums(place: Any, tmp_path: Path) -> None:
    place.run(tmp_path / "out")
    place.run(tmp_path / "out", formats=("fgb", "geojson", "pmtiles"))
    files = json.loads((tmp_path / "out" / "run.json").read_text())["files"]
    on_disk = {path.name for path in (tmp_path / "out").iterdir()}
    assert files.keys() == on_disk - {"run.json"} >= {f"buildings.{name}" for name in FORMATS}
    for name, facts in files.items():
        data = (tmp_path / "out" / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assets = json.loads((tmp_path / "out" / "item.json").read_text())["assets"].values()
    assert {asset["href"].removeprefix("./") for asset in assets} == on_disk - {"item.json"}
    assert {asset["file:checksum"] for asset in assets if "file:checksum" in asset} == {
        f"1220{facts['sha256']}" for name, facts in files.items() if name != "item.json"
    }


def test_a_format_that_was_removed_is_written_again_and_one_of_an_older_result_does_not_stay(
    place: Any, blocks: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    place.run(out, formats=("gpkg", "fgb", "geojson"))
    before = contents(out)
    (out / "buildings.fgb").unlink()
    (out / "buildings.gpkg").unlink()
    blocks.take()
    assert not place.run(out, formats=("gpkg", "fgb", "geojson")).is_new
    assert blocks.take() == []
    assert contents(out) == before
    place.run(out, threshold=0.3, overwrite=True)
    assert sorted(path.name for path in out.glob("buildings.*")) == ["buildings.gpkg", "buildings.parquet"]


def write_scene(path: Path) -> Path:
    """Write a scene without a CRS."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 90, "width": 100}
    with rasterio.open(path, "w", transform=Affine(0.3, 0, 0, 0, -0.3, 0), **profile) as file:
        file.write(np.full((1, 90, 100), 200, np.uint8))
    return path


def test_the_project_shows_the_format_that_there_is_and_keeps_what_was_saved_in_it(place: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place.run(out, formats=("fgb",))
    assert "./buildings.fgb|layername=buildings" in project_of(out)
    place.run(out)
    assert "./buildings.gpkg|layername=buildings" in project_of(out)
    place.run(out, formats=("fgb",), overwrite=True)
    (out / "project.qgz").write_bytes(b"saved in QGIS")
    place.run(out)
    assert (out / "buildings.gpkg").exists()
    assert (out / "project.qgz").read_bytes() == b"saved in QGIS"


@pytest.mark.parametrize("given", ["dxf", ""])
def test_a_format_that_there_is_not_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match=rf"`formats={given}` is not a known format\. Choose from gpkg, parquet, fgb"):
        RunSettings(formats=("gpkg", given))


def test_longitude_and_latitude_without_a_CRS_are_refused_before_any_work(
    place: Any, blocks: Any, tmp_path: Path
) -> None:
    plan = place.plan(write_scene(tmp_path / "picture.tif"))
    with pytest.raises(MissingCRSError, match=r"^picture has no CRS .* which `formats=geojson,pmtiles` needs.*`crs`"):
        place.run(tmp_path / "out", plan=plan, formats=("fgb", "geojson", "pmtiles"))
    assert blocks.take() == []
    assert not (tmp_path / "out").exists()
    place.run(tmp_path / "out", plan=plan, formats=("fgb",))
    with pytest.raises(MissingCRSError, match="`formats=geojson`"):
        place.run(tmp_path / "out", plan=plan, formats=("geojson",))


def test_a_result_gives_its_footprints_and_probabilities(place: Any, tmp_path: Path) -> None:
    result = place.run(tmp_path / "out")
    footprints = result.footprints
    assert list(footprints.columns) == [
        *("id", "area_m2", "perimeter_m", "confidence", "confidence_min", "edge"),
        *("orientation_deg", "vertices", "outline", "geometry"),
    ]
    assert len(footprints) == result.report["counts"]["buildings"]
    probability = result.probability
    assert probability.chunks is not None
    assert probability.notnull().sum().compute() == result.report["counts"]["valid_pixels"]
    west, south, east, north = footprints.total_bounds
    assert float(probability.x.min()) - 0.15 <= west < east <= float(probability.x.max()) + 0.15
    assert float(probability.y.min()) - 0.15 <= south < north <= float(probability.y.max()) + 0.15


def test_the_report_says_how_the_area_came_into_the_CRS_of_the_scene(place: Any, tmp_path: Path) -> None:
    plan = place.plan()
    grid = plan.scene.grid
    whole = geopandas.GeoDataFrame(geometry=[shapely.box(*grid.bounds)], crs=grid.crs.to_wkt())
    found = []
    for area in (whole, whole.to_crs(4258)):  # ETRS89
        own = replace(plan, aoi=read_aoi(area, grid))
        found.append(place.run(tmp_path / str(len(found)), plan=own).report["datum_shifts"])
    assert found[0] == []
    (shift,) = found[1]
    assert (shift["source"], shift["target"], shift["missing_grids"]) == ("EPSG:4258", "EPSG:32630", [])
    assert "accuracy_m" in shift
    assert shift["operation"]


def test_an_area_may_be_a_shape_and_another_shape_is_another_run(place: Any, tmp_path: Path) -> None:
    from geoseg.run.settings import run_facts

    bundle = place.actors.make_bundle("0")
    one, two = shapely.box(0, 0, 1, 1), shapely.box(0, 0, 2, 1)
    frame = geopandas.GeoDataFrame(geometry=[one], crs=32630)
    found = [run_facts([place.scene], bundle, RunSettings(aoi=aoi))["aoi"] for aoi in (one, one, two, frame)]
    assert found[0] == found[1]
    assert len({str(facts) for facts in found}) == 3
    place.run(tmp_path / "out", aoi=one)
    with pytest.raises(ExistingResultError, match=r"another run\. `aoi`: a geometry before, another geometry now"):
        place.run(tmp_path / "out", aoi=two)
    assert not place.run(tmp_path / "out", aoi=one).is_new
