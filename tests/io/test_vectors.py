"""Files of polygons: which rows are read, from which layer, and what is said where that is not clear."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import LabelError
from geoseg.grid import Grid
from geoseg.io.vectors import in_crs_of, read_polygons, to_pixels

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


def test_only_what_has_an_area_is_read(tmp_path: Path) -> None:
    line, house = shapely.LineString([(0, 0), (5, 5)]), shapely.box(2, 2, 5, 5)
    several, mixed = shapely.MultiPolygon([house, shapely.box(7, 7, 9, 9)]), shapely.GeometryCollection([house, line])
    shapes = [shapely.Point(1, 1), None, shapely.Polygon(), line, house, several, mixed]
    found = read(save(tmp_path / "a.geojson", shapes, number=range(7)))
    assert found["number"].tolist() == [4, 5, 6]


def test_what_lies_along_the_sides_of_a_grid_is_near_it_and_what_lies_far_away_is_not(tmp_path: Path) -> None:
    sides = [shapely.box(*box) for box in ((0, 9, 3, 20), (77, 9, 80, 20), (9, 0, 20, 3), (9, 57, 20, 60))]
    path = save(tmp_path / "b.gpkg", on_the_ground(*sides, shapely.box(900, 900, 910, 910)), number=range(5))
    assert read(path, near=GRID)["number"].tolist() == [0, 1, 2, 3]


def test_of_several_layers_one_has_to_be_named_unless_any_will_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.gpkg"
    for number, layer in enumerate(("roofs", "parks")):
        save(path, on_the_ground(shapely.box(number, 0, 9, 9)), layer=layer, kind=[layer])
    with pytest.raises(LabelError, match="has the layers roofs, parks; name one"):
        read(path)
    with pytest.raises(LabelError, match="has the layers roofs, parks, not trees"):
        read(path, layer="trees")
    assert read(path, layer="parks")["kind"].tolist() == ["parks"]
    assert read(path, any_layer=True)["kind"].tolist() == ["roofs"]
    assert "layers roofs, parks: the first one is read" in caplog.text


def test_a_filter_is_applied_or_refused(tmp_path: Path) -> None:
    shapes = on_the_ground(shapely.box(0, 0, 9, 9), shapely.box(10, 0, 19, 9))
    assert len(read(save(tmp_path / "a.gpkg", shapes, kind=["a", "b"]), where="kind = 'b'")) == 1
    with pytest.raises(LabelError, match="filter is not supported for GeoParquet"):
        read(save(tmp_path / "a.parquet", shapes, kind=["a", "b"]), where="kind = 'b'")


def test_a_file_that_is_missing_or_holds_no_geometry_is_told_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"There is no labels file .*working folder is"):
        read(tmp_path / "a.gpkg")
    (tmp_path / "a.geojson").write_text("{")
    with pytest.raises(LabelError, match=r"labels .*a\.geojson cannot be read .*vector file with polygons"):
        read(tmp_path / "a.geojson")
    assert read(save(tmp_path / "b.gpkg", [shapely.Point(1, 1)])).empty
