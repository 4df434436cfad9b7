"""Files of polygons: which rows are read, from which layer, and what is said where that is not clear."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import AOIError, LabelError, MissingCRSError
from geoseg.grid import Grid
from geoseg.inference import read_aoi
from geoseg.io.vectors import in_crs_of, read_polygons, to_pixels
from geoseg.outputs import write_geopackage, write_geoparquet
from geoseg.vectorize import polygonize

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 600_000)
GRID = Grid(CRS.from_epsg(32630), PLACE, (60, 80))


def on_the_ground(*pixels: shapely.Geometry) -> list[shapely.Geometry]:
    return [shapely.transform(p, lambda xy: np.column_stack(PLACE @ (xy[:, 0], xy[:, 1]))) for p in pixels]


def save(path: Path, shapes: list[Any], crs: int | None = 32630, layer: str | None = None, **columns: Any) -> Path:
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path, layer=layer)
    return path


def read(path: Path, **options: Any) -> geopandas.GeoDataFrame:
    return read_polygons(path, what="labels", error=LabelError, **options)


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.fgb", "a.parquet"])
def test_rows_come_back_in_pixels_whatever_the_format(tmp_path: Path, name: str) -> None:
    house = shapely.box(10, 20, 30, 40)
    path = save(tmp_path / name, on_the_ground(house), kind=["house"])
    found = in_crs_of(read(path), GRID, "labels")
    assert found["kind"].tolist() == ["house"]
    assert to_pixels(found.geometry.to_numpy(), GRID)[0].equals_exact(house, 1e-6, normalize=True)


def test_only_what_has_an_area_is_read_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line, house = shapely.LineString([(0, 0), (5, 5)]), shapely.box(2, 2, 5, 5)
    several, mixed = shapely.MultiPolygon([house, shapely.box(7, 7, 9, 9)]), shapely.GeometryCollection([house, line])
    shapes = [shapely.Point(1, 1), None, shapely.Polygon(), line, house, several, mixed, line]
    for _ in range(2):
        found = read(save(tmp_path / "a.geojson", shapes, number=range(8)))
        assert found["number"].tolist() == [4, 5, 6]
    assert caplog.messages == [
        f"The labels {tmp_path / 'a.geojson'}: 3 of 8 features have no area and are left out: 2 LineString, 1 Point."
    ]


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.parquet"])
def test_polygons_are_taken_out_of_collections(tmp_path: Path, name: str) -> None:
    house, shed, line = shapely.box(2, 2, 5, 5), shapely.box(4, 2, 9, 5), shapely.LineString([(0, 0), (5, 5)])
    inner = shapely.GeometryCollection([shed, shapely.Point(0, 0)])
    found = read(save(tmp_path / name, [shapely.GeometryCollection([house, inner, line]), shapely.box(20, 2, 21, 5)]))
    assert set(found.geom_type) <= {"Polygon", "MultiPolygon"}
    assert found.area.tolist() == [house.union(shed).area, 3.0]


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.parquet"])
def test_a_file_of_lines_and_points_is_refused_and_one_of_nothing_is_empty(tmp_path: Path, name: str) -> None:
    ring = shapely.box(2, 2, 5, 5).exterior
    path = save(tmp_path / name, [shapely.LineString(ring.coords), shapely.Point(1, 1), shapely.Point(1, 2)])
    for near in (None, GRID):
        with pytest.raises(LabelError, match=r"no polygon in the labels .*, only 2 Point, 1 LineString\. .*convert"):
            read(path, near=near)
    assert read(save(tmp_path / f"empty_{name}", [])).empty


def test_points_near_the_scene_do_not_hide_that_there_are_polygons_elsewhere(tmp_path: Path) -> None:
    (point,) = on_the_ground(shapely.Point(5, 5))
    path = save(tmp_path / "a.gpkg", [point, *on_the_ground(shapely.box(9_000, 0, 9_010, 9))])
    assert read(path, near=GRID).empty


@pytest.mark.parametrize("name", ["a.parquet", "a.geoparquet", "a.pq", "A.PARQUET", "a.gpq", "parquet"])
def test_parquet_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    geopandas.GeoDataFrame(geometry=on_the_ground(shapely.box(1, 1, 2, 2)), crs=32630).to_parquet(tmp_path / name)
    assert len(read(tmp_path / name)) == 1


def test_a_table_without_geometry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,floors\nhouse,2\n")
    with pytest.raises(LabelError, match=r"1 row without geometry\. Give a vector file with polygons"):
        read(tmp_path / "a.csv")


def test_what_geoseg_writes_is_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are errors here: GDAL's about the table of styles, too."""
    footprints = polygonize(np.ones((5, 5), bool), transform=PLACE, crs=GRID.crs)
    write_geopackage(footprints, tmp_path / "buildings.gpkg")
    write_geoparquet(footprints, tmp_path / "buildings.parquet")
    for name in ("buildings.gpkg", "buildings.parquet"):
        assert len(read(tmp_path / name)) == len(read(tmp_path / name, near=GRID)) == 1
        assert read_aoi(tmp_path / name, GRID).touches(GRID.window)
    assert caplog.messages == []


def test_what_lies_along_the_sides_of_a_grid_is_near_it_and_what_lies_far_away_is_not(tmp_path: Path) -> None:
    sides = [shapely.box(*box) for box in ((0, 9, 3, 20), (77, 9, 80, 20), (9, 0, 20, 3), (9, 57, 20, 60))]
    path = save(tmp_path / "b.gpkg", on_the_ground(*sides, shapely.box(900, 900, 910, 910)), number=range(5))
    assert read(path, near=GRID)["number"].tolist() == [0, 1, 2, 3]


def test_of_several_layers_one_has_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    for number, layer in enumerate(("roofs", "parks")):
        save(path, on_the_ground(shapely.box(number, 0, 9, 9)), layer=layer, kind=[layer])
    with pytest.raises(LabelError, match="has the layers roofs, parks; name one"):
        read(path)
    with pytest.raises(AOIError, match=r"has the layers roofs, parks; .* ogr2ogr"):
        read_aoi(path, GRID)
    with pytest.raises(LabelError, match="has the layers roofs, parks, not trees"):
        read(path, layer="trees")
    assert read(path, layer="parks")["kind"].tolist() == ["parks"]


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet"])
def test_a_filter_is_applied_or_refused(tmp_path: Path, name: str) -> None:
    shapes = on_the_ground(*(shapely.box(10 * n, 0, 10 * n + 9, 9) for n in range(3)))
    columns = {"kind": ["a", "b", None], "size": [1.5, 2.5, np.nan], "is_old": [True, False, True]}
    if name.endswith("parquet"):  # as `bbox` of geoseg's own results, which no filter compares
        columns["box"] = [{"left": 0.0}] * 3
    path = save(tmp_path / name, shapes, **columns)
    for where, rows in (
        ("kind = 'b'", [1]),
        ("size > 1 AND size < 2", [0]),
        ("kind IS NULL", [2]),
        ("is_old = 1", [0, 2]),
    ):
        found = read(path, where=where)
        assert [shapes.index(shape) for shape in found.geometry] == rows, where
        assert set(columns) <= set(found.columns)
    with pytest.raises(
        LabelError, match=rf"`aoi_where` is \"kind = 'c'\", which matches none of the 3 features of .*{name}"
    ):
        read(path, where="kind = 'c'")
    with pytest.raises(
        LabelError, match=rf"not a filter on the labels .*{name}\. Its columns are: kind, size, is_old\. "
    ):
        read(path, where="sort = 'b'")


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"There is no labels file .*working folder is"):
        read(tmp_path / "a.gpkg")
    (tmp_path / "a.geojson").write_text("{")
    with pytest.raises(LabelError, match=r"labels .*a\.geojson cannot be read .*vector file with polygons"):
        read(tmp_path / "a.geojson")


def test_rows_near_a_grid_in_a_CRS_without_a_place_on_earth_have_none_or_say_why(tmp_path: Path) -> None:
    site = 'LOCAL_CS["building site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]'
    moon = 'GEOGCS["Moon",DATUM["D_Moon",SPHEROID["Moon",1737400,0]],PRIMEM["R",0],UNIT["degree",0.0174532925199433]]'
    house = on_the_ground(shapely.box(10, 20, 30, 40))
    for name, crs in {"site": site, "moon": moon}.items():
        geopandas.GeoDataFrame(geometry=house, crs=crs).to_file(tmp_path / f"{name}.gpkg")
    found = read(tmp_path / "site.gpkg", near=GRID)
    assert found.crs is None
    assert len(found) == 1
    with pytest.raises(MissingCRSError, match=r"^Coordinates cannot be transformed from Moon"):
        read(tmp_path / "moon.gpkg", near=GRID)
