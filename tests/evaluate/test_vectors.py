"""Files of buildings: where they lie, what they say, and what they are refused for."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import LabelError, ScoredFileError
from geoseg.evaluate.polygons import BuildingPolygons, read_buildings, say_elsewhere
from geoseg.grid import Grid, Window

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 600_000)
GRID = Grid(CRS.from_epsg(32630), PLACE, (60, 80))
PIXELS = [shapely.box(10, 20, 30, 40), shapely.box(50, 5, 70, 15)]


def on_the_ground(*pixels: shapely.Geometry) -> list[shapely.Geometry]:
    return [shapely.transform(p, lambda xy: np.column_stack(PLACE @ (xy[:, 0], xy[:, 1]))) for p in pixels]


def save(path: Path, shapes: list, crs: int | None = 32630, **columns: list) -> Path:
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


def read(path: Path, grid: Grid = GRID, **options: object) -> BuildingPolygons:
    return read_buildings(path, grid, what="footprints", error=ScoredFileError, **options)


@pytest.mark.parametrize("name", ["b.gpkg", "b.geojson", "b.parquet"])
@pytest.mark.parametrize("crs", [32630, 4326])
def test_buildings_come_back_in_pixels_from_any_file_and_crs(tmp_path: Path, name: str, crs: int) -> None:
    ground = geopandas.GeoSeries(on_the_ground(*PIXELS), crs=32630).to_crs(crs)
    found = read(save(tmp_path / name, list(ground), crs=crs, score=[0.25, 0.75]))
    for polygon, expected in zip(found.polygons, PIXELS, strict=True):
        assert polygon.symmetric_difference(expected).area < 0.01
    assert found.confidence is not None
    assert found.confidence.tolist() == [0.25, 0.75]


def test_what_lies_far_away_is_not_even_read(tmp_path: Path) -> None:
    far = shapely.box(700_000, 600_000, 700_010, 600_010)
    path = save(tmp_path / "b.gpkg", [*on_the_ground(*PIXELS), far])
    assert len(read(path).polygons) == 2
    lonely = save(tmp_path / "far.gpkg", [far])
    assert not read(lonely).is_on(GRID)
    message = say_elsewhere(lonely, GRID, "footprints")
    assert "(700000.0, 600000.0, 700010.0, 600010.0) in EPSG:32630" in message
    assert "(500000.0, 599970.0, 500040.0, 600000.0)" in message


def test_the_column_of_confidence_is_found_or_named(tmp_path: Path) -> None:
    path = save(tmp_path / "b.gpkg", on_the_ground(*PIXELS), quality=[0.1, 0.2])
    assert read(path).confidence is None
    named = read(path, confidence="quality").confidence
    assert named is not None
    assert named.tolist() == [0.1, 0.2]
    with pytest.raises(ScoredFileError, match=r"no column 'sure'.*quality"):
        read(path, confidence="sure")


def test_the_layer_is_the_only_one_with_geometry_or_is_named(tmp_path: Path) -> None:
    path = tmp_path / "b.gpkg"
    frame = geopandas.GeoDataFrame(geometry=on_the_ground(*PIXELS), crs=32630)
    frame.to_file(path, layer="houses")
    assert len(read(path).polygons) == 2
    frame[:1].to_file(path, layer="sheds")
    assert len(read(path, layer="sheds").polygons) == 1
    with pytest.raises(ScoredFileError, match="houses, sheds"):
        read(path)


def test_files_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.gpkg").write_text("no database")
    with pytest.raises(ScoredFileError, match="cannot be read"):
        read(tmp_path / "b.gpkg")
    with pytest.raises(LabelError, match="no labels file"):
        read_buildings(tmp_path / "gone.gpkg", GRID, what="labels", error=LabelError)
    with pytest.raises(ScoredFileError, match="no CRS"):
        read(save(tmp_path / "c.parquet", on_the_ground(*PIXELS), crs=None))


def test_burning_does_not_depend_on_the_window() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (30, 2))
    found = BuildingPolygons(shapely.box(*corners.T, *(corners + rng.uniform(0.5, 9, (30, 2))).T))
    whole = found.burn(GRID.window)
    centres = shapely.points(*np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5))
    assert np.array_equal(whole.astype(bool), shapely.contains(shapely.union_all(found.polygons), centres))
    window = Window(13, 17, 21, 30)
    assert np.array_equal(found.burn(window), whole[window.slices])
    assert found.burn(Window(55, 75, 3, 3)).max() == 0
