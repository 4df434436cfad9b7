"""Further vector formats of a result, and areas that are shapes instead of files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from geoseg.errors import ExistingResultError, UsageError
from geoseg.inference import read_aoi
from geoseg.outputs.footprints import FORMATS
from geoseg.run import RunSettings


def test_a_further_format_holds_the_same_footprints_and_can_be_asked_for_later(
    place: Any, blocks: Any, tmp_path: Path
) -> None:
    asked, later = tmp_path / "asked", tmp_path / "later"
    names = [Path(path).name for path in place.run(asked, also=("fgb",)).paths]
    rasters = ["probability.tif", "probability.qml", "mask.tif", "mask.qml"]
    assert names == [*rasters, *(f"buildings.{n}" for n in FORMATS), "project.qgz", "run.json"]
    place.run(later)
    assert not (later / "buildings.fgb").exists()
    blocks.take()
    assert not place.run(later, also=("fgb",)).is_new
    assert blocks.take() == []
    for out in (asked, later):
        place.assert_same(out)
        found = geopandas.read_file(out / "buildings.fgb")
        expected = geopandas.read_parquet(out / "buildings.parquet")
        assert found.crs == expected.crs is not None
        assert sorted(found.geometry.to_wkb()) == sorted(expected.geometry.to_wkb())
    place.run(asked, threshold=0.3, overwrite=True)
    assert not (asked / "buildings.fgb").exists(), "of an older result nothing stays"


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`also=dxf` is not a known format\. Choose from gpkg, parquet, fgb"):
        RunSettings(also=("dxf",))


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
