"""Buildings as polygons: read from files, made comparable, cut to the scored area."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import LabelError, ScoredFileError
from geoseg.evaluate.polygons import (
    BuildingPolygons,
    Clipped,
    clip_to_area,
    count_vertices,
    describe_mismatch,
    read_buildings,
    repair_polygons,
)
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
    message = describe_mismatch(lonely, GRID, "footprints")
    assert "(700000.0, 600000.0, 700010.0, 600010.0) in EPSG:32630" in message
    assert "(500000.0, 599970.0, 500040.0, 600000.0)" in message


@pytest.mark.parametrize("name", ["b.gpkg", "b.parquet"])
def test_buildings_are_found_from_wherever_a_file_counts_longitudes(tmp_path: Path, name: str) -> None:
    ground = geopandas.GeoSeries(on_the_ground(*PIXELS), crs=32630).to_crs(4326).translate(360)
    found = read(save(tmp_path / name, list(ground), crs=4326))
    for polygon, expected in zip(found.polygons, PIXELS, strict=True):
        assert polygon.symmetric_difference(expected).area < 0.01


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
    centers = shapely.points(*np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5))
    assert np.array_equal(whole.astype(bool), shapely.contains(shapely.union_all(found.polygons), centers))
    window = Window(13, 17, 21, 30)
    assert np.array_equal(found.burn(window), whole[window.slices])
    assert found.burn(Window(55, 75, 3, 3)).max() == 0


def as_array(*polygons: object) -> np.ndarray:
    return np.array(polygons, object)


AREA = as_array(shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10))  # two blocks side by side


def test_corners_are_counted_once_with_those_of_holes_and_parts() -> None:
    holed = shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4))
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.Polygon([(5, 5), (6, 5), (6, 6)])])
    assert count_vertices(as_array(shapely.box(0, 0, 1, 1), holed, parts)).tolist() == [4, 8, 7]
    assert count_vertices(as_array()).tolist() == []


def test_a_polygon_across_the_border_of_two_blocks_is_whole() -> None:
    shapes = clip_to_area(as_array(shapely.box(8, 2, 13, 5)), AREA)
    assert shapes.share.tolist() == [1]
    assert shapes.is_whole.all()
    assert shapes.polygons[0].equals(shapely.box(8, 2, 13, 5))


def test_polygons_across_the_border_of_the_area_are_cut_and_count_from_one_half_on() -> None:
    sixty, forty, outside = shapely.box(-4, 1, 6, 3), shapely.box(14, 1, 29, 3), shapely.box(30, 0, 40, 5)
    shapes = clip_to_area(as_array(sixty, forty, outside), AREA, np.array([0.1, 0.2, 0.3]))
    assert shapes.share == pytest.approx([0.6, 0.4])
    assert shapes.counts.tolist() == [True, False]
    assert not shapes.is_whole.any()
    assert shapes.polygons[0].equals(shapely.box(0, 1, 6, 3))
    assert shapes.confidence.tolist() == [0.1, 0.2]


def test_a_polygon_that_only_touches_the_area_is_left_out() -> None:
    assert len(clip_to_area(as_array(shapely.box(20, 0, 25, 5)), AREA)) == 0
    assert len(clip_to_area(as_array(), AREA)) == 0


def test_what_is_no_valid_polygon_is_mended_or_left_out() -> None:
    bow = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    flat = shapely.Polygon([(0, 0), (4, 0), (2, 0)])
    spiked = shapely.Polygon([(0, 0), (4, 0), (4, 4), (2, 4), (2, 9), (2, 4), (0, 4)])
    polygons, kept = repair_polygons(as_array(bow, None, flat, shapely.Polygon(), spiked, shapely.box(0, 0, 1, 1)))
    assert kept.tolist() == [0, 4, 5]
    assert shapely.area(polygons).tolist() == [8, 16, 1]
    assert set(shapely.get_type_id(polygons)) <= {shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON}


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        Clipped(as_array(shapely.box(0, 0, 1, 1)), np.ones(2))
