import json
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from datetime import date
from itertools import pairwise

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from geoseg.errors import OutputError
from geoseg.outputs import batches, write_geopackage, write_geoparquet
from geoseg.outputs.footprints import write_footprint_files, write_footprints
from geoseg.outputs.gdal import FlatGeobuf, GeoJSON, PMTiles

QGIS_COLUMNS = [
    *("id", "f_table_catalog", "f_table_schema", "f_table_name", "f_geometry_column", "styleName", "styleQML"),
    *("styleSLD", "useAsDefault", "description", "owner", "ui", "update_time"),
]


def footprints(count=5, crs="EPSG:32630"):
    left = 500_000 + np.arange(count) * 10.0
    columns = {
        "area_m2": np.full(count, 64.0),
        "perimeter_m": np.full(count, 32.0),
        "confidence": np.linspace(0.5, 1, count),
        "edge": np.arange(count) % 2 == 0,
    }
    return geopandas.GeoDataFrame(columns, geometry=shapely.box(left, 0, left + 8, 8), crs=crs)


CASES = {
    "with CRS": footprints(),
    "degrees": footprints(crs="EPSG:4326"),
    "own CRS": footprints(crs=pyproj.CRS("+proj=tmerc +lat_0=1 +lon_0=3 +ellps=bessel +units=m +type=crs")),
    "without CRS": footprints(crs=None),
    "empty": footprints(0),
    "empty without CRS": footprints(0, None),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def frame(request):
    return request.param


def write_flatgeobuf(frame, path):
    return write_footprints(frame, path, FlatGeobuf())


def write_geojson(frame, path):
    return write_footprints(frame, path, GeoJSON())


def write_pmtiles(frame, path):
    return write_footprints(frame, path, PMTiles())


def rows(path, query):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_geopackage_holds_the_footprints(tmp_path, frame):
    path = write_geopackage(frame, tmp_path / "a.gpkg")
    found = geopandas.read_file(path, layer="buildings")
    if frame.crs is None:
        assert rows(path, "select srs_id from gpkg_geometry_columns") == [(-1,)]
        found = found.set_crs(None, allow_override=True)
    assert_geodataframe_equal(found, frame, check_like=True)
    info = pyogrio.read_info(path, layer="buildings")
    assert info["geometry_type"] == "Polygon"
    assert info["dtypes"].tolist() == ["float64", "float64", "float64", "bool"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.gpkg"]


def test_geopackage_has_a_default_style_where_QGIS_looks_for_it(tmp_path, frame):
    path = write_geopackage(frame, tmp_path / "a.gpkg", layer="roofs")
    assert [row[1] for row in rows(path, "pragma table_info(layer_styles)")] == QGIS_COLUMNS
    assert rows(path, "select data_type, identifier from gpkg_contents where table_name = 'layer_styles'") == [
        ("attributes", "layer_styles")
    ]
    ((table, column, default),) = rows(path, "select f_table_name, f_geometry_column, useAsDefault from layer_styles")
    assert (table, column, default) == ("roofs", "geom", 1)
    assert rows(path, "select table_name, column_name from gpkg_geometry_columns") == [("roofs", "geom")]


def test_style_is_a_document_that_draws_by_confidence_and_dashes_the_edge(tmp_path):
    path = write_geopackage(footprints(), tmp_path / "a.gpkg")
    ((document,),) = rows(path, "select styleQML from layer_styles")
    renderer = ET.fromstring(document).find("renderer-v2")  # written by geoseg itself
    assert renderer.get("attr") == "confidence"
    limits = [(float(part.get("lower")), float(part.get("upper"))) for part in renderer.iter("range")]
    assert (limits[0][0], limits[-1][1]) == (0, 1)
    assert all(upper == lower for (_, upper), (lower, _) in pairwise(limits))
    assert {part.get("symbol") for part in renderer.iter("range")} == {
        part.get("name") for part in renderer.find("symbols")
    }
    assert [option.get("value") for option in renderer.iter("Option") if option.get("name") == "expression"] == [
        "if(\"edge\", 'dash', 'solid')"
    ] * len(limits)


def test_geopackage_is_sound_for_SQLite_and_old_enough_for_QGIS_LTR(tmp_path):
    path = write_geopackage(footprints(), tmp_path / "a.gpkg")
    assert rows(path, "pragma integrity_check") == [("ok",)]
    assert rows(path, "pragma foreign_key_check") == []
    assert rows(path, "pragma user_version") == [(10200,)]
    assert rows(path, "select count(*) from rtree_buildings_geom") == [(5,)]


def test_geoparquet_is_version_1_1_with_covering_boxes(tmp_path, frame):
    path = write_geoparquet(frame, tmp_path / "a.parquet")
    assert_geodataframe_equal(geopandas.read_parquet(path), frame)
    geo = json.loads(pyarrow.parquet.read_metadata(path).metadata[b"geo"], parse_constant=pytest.fail)
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert (geo["columns"]["geometry"]["crs"] is None) == (frame.crs is None)
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_geoparquet_reads_only_what_a_box_asks_for(tmp_path):
    path = write_geoparquet(footprints(), tmp_path / "a.parquet")
    assert len(geopandas.read_parquet(path, bbox=(500_011, 1, 500_025, 2))) == 2


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_box_of_a_file_holds_the_footprints_of_all_row_groups(tmp_path, is_reversed):
    frame = footprints(10_010)
    frame = frame.iloc[::-1] if is_reversed else frame
    path = write_geoparquet(frame, tmp_path / "a.parquet")
    metadata = pyarrow.parquet.read_metadata(path)
    assert metadata.num_row_groups == 2
    assert json.loads(metadata.metadata[b"geo"])["columns"]["geometry"]["bbox"] == list(frame.total_bounds)


def test_coordinates_survive_to_the_last_bit(tmp_path):
    frame = footprints(1)
    frame.geometry = [shapely.Polygon([(0.1, 1 / 3), (1e6 + 0.2, 1 / 7), (5e5 / 3, 6e6 / 7)])]
    for write, read in ((write_geopackage, geopandas.read_file), (write_geoparquet, geopandas.read_parquet)):
        path = write(frame, tmp_path / f"a.{'gpkg' if write is write_geopackage else 'parquet'}")
        found = read(path, **({"layer": "buildings"} if write is write_geopackage else {}))
        assert found.geometry[0].wkb == frame.geometry[0].wkb


def test_older_result_is_replaced_and_not_added_to(tmp_path):
    for write, name in ((write_geopackage, "a.gpkg"), (write_geoparquet, "a.parquet")):
        write(footprints(5), tmp_path / name)
        write(footprints(2), tmp_path / name)
    assert len(geopandas.read_file(tmp_path / "a.gpkg", layer="buildings")) == 2
    assert len(geopandas.read_parquet(tmp_path / "a.parquet")) == 2
    assert rows(tmp_path / "a.gpkg", "select count(*) from layer_styles") == [(1,)]


@pytest.mark.parametrize("limit", [100, 20_000, 200_000])
@pytest.mark.parametrize(
    ("write", "name"),
    [
        *((write_geopackage, "a.gpkg"), (write_geoparquet, "a.parquet")),
        *((write_flatgeobuf, "a.fgb"), (write_geojson, "a.geojson"), (write_pmtiles, "a.pmtiles")),
    ],
)
def test_full_disk_is_an_error_and_leaves_nothing(tmp_path, full_disk, write, name, limit):
    frame = footprints(20_000)
    frame["confidence"] = np.random.default_rng(0).random(len(frame))
    with full_disk(limit), pytest.raises(OutputError, match=rf"{name} cannot be written \(.*Make room"):
        write(frame, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_result_in_every_format_without_loss_holds_the_same_in_one_pass(tmp_path, frame):
    stream = batches.rebatch([batches.frame_batch(frame)], 3)
    paths = write_footprint_files(stream, frame.crs, tmp_path / "houses", ["gpkg", "parquet", "fgb"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["houses.fgb", "houses.gpkg", "houses.parquet"]
    for path in paths:
        layer = {"layer": "buildings"} if path.suffix == ".gpkg" else {}
        found = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path, **layer)
        if path.suffix == ".fgb":  # along a curve, not in reading order
            found = found.sort_values("confidence", ignore_index=True)
        found = found.drop(columns="bbox", errors="ignore")
        found = found.set_crs(None, allow_override=True) if frame.crs is None else found
        assert_geodataframe_equal(found, frame, check_like=True)


def test_flatgeobuf_reads_only_what_a_box_asks_for(tmp_path):
    path = write_footprints(footprints(200), tmp_path / "a.fgb", FlatGeobuf())
    info = pyogrio.read_info(path)
    assert (info["driver"], info["geometry_type"], info["features"]) == ("FlatGeobuf", "Polygon", 200)
    assert info["capabilities"]["fast_spatial_filter"]
    assert len(geopandas.read_file(path, bbox=(500_000, 0, 500_017, 8))) == 2


@pytest.mark.parametrize("name", ["with CRS", "degrees", "own CRS", "empty"])
def test_geojson_is_rfc_7946(tmp_path, name):
    frame = CASES[name]
    if name == "degrees":
        frame = frame.set_geometry(frame.scale(1e-5, 1e-5, origin=(0, 0)))
    path = write_geojson(frame, tmp_path / "a.geojson")
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    assert document.keys() <= {"type", "features", "xy_coordinate_resolution"}  # no crs, no name
    found = [feature["properties"] for feature in document["features"]]
    assert found == frame.drop(columns="geometry").to_dict("records")
    shapes = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in document["features"]])
    assert shapely.is_valid(shapes).all()
    assert all(shape.exterior.is_ccw for shape in shapes)
    expected = frame.to_crs("OGC:CRS84").geometry.array
    assert shapely.hausdorff_distance(shapes, expected).max(initial=0) < 1e-8
    with path.open() as lines:
        assert sum(1 for line in lines if '"Feature"' in line) == len(frame)
    assert path.read_bytes() == write_geojson(frame, tmp_path / "b.geojson").read_bytes()


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:32601", "EPSG:3832", "EPSG:4326"])
def test_geojson_cuts_what_crosses_the_antimeridian(tmp_path, crs):
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(179.99999, 9.0)
    size = 1e-4 if crs == "EPSG:4326" else 20
    yard = shapely.box(x + size / 8, y + size / 4, x + size / 4, y + size / 2)
    shape = shapely.box(x, y, x + size, y + size) - yard
    path = write_geojson(geopandas.GeoDataFrame({"a": [1]}, geometry=[shape], crs=crs), tmp_path / "a.geojson")
    (feature,) = json.loads(path.read_text())["features"]
    found = shapely.from_geojson(json.dumps(feature["geometry"]))
    assert (found.geom_type, len(found.geoms)) == ("MultiPolygon", 2)
    assert found.is_valid
    east, west = sorted(found.geoms, key=lambda part: part.bounds[0], reverse=True)
    assert 179 < east.bounds[0] < east.bounds[2] == 180
    assert -180 == west.bounds[0] < west.bounds[2] < -179
    geod = pyproj.Geod(ellps="WGS84")
    area = geopandas.GeoSeries([shape], crs=crs)
    expected = area.area[0] if crs != "EPSG:4326" else abs(geod.geometry_area_perimeter(shape)[0])
    factor = pyproj.Proj(crs).get_factors(180, 9).areal_scale if crs != "EPSG:4326" else 1
    assert abs(geod.geometry_area_perimeter(found)[0]) == pytest.approx(expected / factor, rel=1e-3)


def test_a_geojson_file_that_is_cut_short_is_an_error(tmp_path, monkeypatch):
    def write_half(*args, **kwargs):
        real(*args, **kwargs)
        args[1].write_bytes(args[1].read_bytes()[:-200])

    real = pyogrio.write_arrow
    monkeypatch.setattr(pyogrio, "write_arrow", write_half)
    with pytest.raises(OutputError, match=r"a\.geojson cannot be written \(0 of 5 footprints after writing"):
        write_geojson(footprints(), tmp_path / "a.geojson")
    assert list(tmp_path.iterdir()) == []


def test_dates_in_geojson_are_those_of_the_standard(tmp_path):
    frame = footprints().assign(date=date(2023, 5, 1))
    document = json.loads(write_geojson(frame, tmp_path / "a.geojson").read_text())
    assert {feature["properties"]["date"] for feature in document["features"]} == {"2023-05-01"}
