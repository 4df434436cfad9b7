"""What `geoseg run` was given: which scenes are opened, and what is made of them."""

from datetime import UTC, datetime
from pathlib import Path

import geopandas
import pytest
import shapely

from geoseg.errors import OutsideAOIError, UsageError
from geoseg.run import RunSettings, inputs, run_mosaic
from geoseg.run.inputs import sources_within
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


def test_an_aoi_that_no_scene_meets_is_refused(aoi: Path) -> None:
    with pytest.raises(OutsideAOIError, match="None of the 2 scenes meets the AOI"):
        sources_within(SOURCES[:2], RunSettings(aoi=aoi))


def test_a_mosaic_needs_a_rule() -> None:
    with pytest.raises(UsageError, match="'first', 'latest' or 'mean'"):
        run_mosaic(SOURCES, RunSettings())


@pytest.mark.parametrize(("count", "mosaic", "made"), [(1, None, "one"), (3, None, "each"), (3, "first", "mosaic")])
def test_one_scene_many_or_a_mosaic(count: int, mosaic: str | None, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "list_sources", lambda *_, **__: SOURCES[:count])
    for name, what in (("_run_source", "one"), ("run_sources", "each"), ("run_mosaic", "mosaic")):
        monkeypatch.setattr(inputs, name, lambda *_, what=what, **__: what)
    assert inputs.run_inputs(["scenes"], RunSettings(mosaic=mosaic)) == made
