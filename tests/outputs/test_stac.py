"""A result as a STAC Item, held to STAC's own schema; to those of the extensions, which cannot be fetched, by hand."""

import copy
import json
import re
from itertools import pairwise
from typing import Any

import pyproj
import pystac
import pytest
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geoseg.outputs.stac import EXTENSIONS, describe_collection, describe_result
from geoseg.run import ledger

SHA = "ab" * 32
FILES = [name for name in ledger.RESULTS if name not in ("run.json", "item.json")]
REPORT: dict[str, Any] = {
    "geoseg": "1.2.3",
    "started": "2026-11-30T08:25:12+01:00",
    "threshold": 0.5,
    "area_m2": 100.0,
    "counts": {"buildings": 2},
    "model": {
        "name": "lite model",
        "version": "2",
        "key": "k",
        "license": "Apache-2.0",
        "target": "tin roof",
        "classes": ["bare land", "tin roof"],
    },
    "scene": {
        "name": "a scene",
        "paths": ["/data/a scene.tif"],
        "crs": "EPSG:32630",
        "grid": {
            "shape": [100, 200],
            "gsd_m": [0.3, 0.31],
            "bounds": [500_000.0, 599_970.0, 500_060.0, 600_000.0],
            "transform": [0.3, 0.0, 500_000.0, 0.0, -0.3, 600_000.0],
        },
    },
    "files": {name: {"bytes": 7, "sha256": SHA} for name in FILES},
}


def report(**scene: Any) -> dict[str, Any]:
    found = copy.deepcopy(REPORT)
    found["scene"] |= scene
    return found


def describe(document: dict[str, Any], tmp_path: Any = None) -> dict[str, Any]:
    item = json.loads(json.dumps(describe_result(document, tmp_path), allow_nan=False))
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    return item


def test_an_item_is_valid_and_has_every_file_with_its_checksum() -> None:
    item = describe(report())
    read = pystac.Item.from_dict(item)
    files = {asset.href.removeprefix("./"): asset for asset in read.assets.values()}
    assert files.keys() == {*FILES, "run.json"}
    for name in FILES:
        fields = files[name].extra_fields
        assert fields["file:size"] == 7
        assert fields["file:checksum"] == f"1220{SHA}"  # a multihash: SHA-256 (0x12) of 32 bytes (0x20)
        assert re.fullmatch("[a-f0-9]+", fields["file:checksum"])
    assert read.assets["probability"].media_type == pystac.MediaType.COG
    assert read.assets["buildings-parquet"].media_type == pystac.MediaType.VND_APACHE_PARQUET
    assert read.assets["buildings-fgb"].media_type == pystac.MediaType.FLATGEOBUF
    assert read.assets["buildings-gpkg"].media_type == pystac.MediaType.GEOPACKAGE
    assert read.datetime is not None
    assert item["properties"]["datetime"] == "2026-11-30T07:25:12Z"
    assert set(item["stac_extensions"]) == set(EXTENSIONS.values())
    assert item["properties"]["processing:software"] == {"geoseg": "1.2.3", "lite model": "2"}


def test_rasters_say_what_their_values_are() -> None:
    assets = describe(report())["assets"]
    for name in ("probability", "interior"):
        assert (assets[name]["data_type"], assets[name]["nodata"]) == ("uint8", 255)
        assert assets[name]["raster:scale"] == pytest.approx(1 / 254)
        assert assets[name]["raster:spatial_resolution"] == 0.31
    assert [one["name"] for one in assets["mask"]["classification:classes"]] == ["other", "tin-roof"]
    assert [one["description"] for one in assets["classes"]["classification:classes"]] == ["bare land", "tin roof"]
    assert all(re.fullmatch("[0-9A-Za-z-_]+", one["name"]) for one in assets["classes"]["classification:classes"])


def test_the_grid_and_the_ground_of_the_scene() -> None:
    item = describe(report())
    read = pystac.Item.from_dict(item)
    assert read.ext.proj.code == "EPSG:32630"
    assert read.ext.proj.shape == [100, 200]
    assert read.ext.proj.transform == [0.3, 0, 500_000, 0, -0.3, 600_000]
    west, south, east, north = item["bbox"]
    assert (west, north) == pytest.approx((-3.0, 5.4282), abs=1e-4)
    assert (east - west, north - south) == pytest.approx((60 / 110_800, 30 / 110_600), rel=0.01)
    ring = item["geometry"]["coordinates"][0]
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
    assert area > 0  # counterclockwise


def test_a_rotated_scene_has_a_rotated_outline() -> None:
    grid = REPORT["scene"]["grid"] | {"transform": [0.2, 0.2, 500_000.0, 0.2, -0.2, 600_000.0]}
    item = describe(report(grid=grid))
    west, south, east, north = item["bbox"]
    corners = item["geometry"]["coordinates"][0]
    assert not any(corner[0] in (west, east) and corner[1] in (south, north) for corner in corners)


def test_across_the_antimeridian_west_is_greater_than_east() -> None:
    x, y = pyproj.Transformer.from_crs(4326, 32660, always_xy=True).transform(179.9998, 9.0)
    grid = REPORT["scene"]["grid"] | {"transform": [0.3, 0.0, x, 0.0, -0.3, y]}
    item = describe(report(crs="EPSG:32660", grid=grid))
    assert item["geometry"]["type"] == "MultiPolygon"
    west, _, east, _ = item["bbox"]
    assert 179.9 < west < 180
    assert -180 < east < -179.9


def test_without_a_crs_there_is_no_place() -> None:
    item = describe(report(crs=None, grid=REPORT["scene"]["grid"] | {"gsd_m": None}))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert EXTENSIONS["projection"] not in item["stac_extensions"]
    assert not [name for name in item["properties"] if name.startswith("proj:")]


def test_a_crs_without_a_code_is_written_out() -> None:
    item = describe(
        report(crs="+proj=tmerc +lat_0=5 +lon_0=-3 +x_0=500000 +y_0=600000 +ellps=WGS84 +units=m +type=crs")
    )
    assert item["properties"]["proj:code"] is None
    assert item["properties"]["proj:wkt2"].startswith("PROJCRS[")


def test_links_to_the_scene_are_relative_and_without_secrets(tmp_path: Any) -> None:
    paths = [str(tmp_path / "scene.tif"), "https://me:secret@host/b.tif?sig=secret", "s3://bucket/c.tif"]
    item = describe(report(paths=paths), tmp_path / "out")
    assert [link["href"] for link in item["links"]] == ["../scene.tif", "https://host/b.tif", "s3://bucket/c.tif"]
    assert "secret" not in json.dumps(item)
    assert [link["href"] for link in describe(report(paths=paths))["links"]] == [
        "https://host/b.tif",
        "s3://bucket/c.tif",
    ]


def test_a_collection_holds_the_items_of_a_folder() -> None:
    other = report(name="b") | {"started": "2026-12-01T00:00:00+00:00"}
    other["scene"]["grid"]["transform"][2] += 1000
    items = {"b": describe(other), "a": describe(report()), "c": describe(report(crs=None))}
    found = json.loads(json.dumps(describe_collection("town", items)))
    JsonSchemaSTACValidator().validate_core(found, pystac.STACObjectType.COLLECTION, "1.1.0")
    read = pystac.Collection.from_dict(found)
    assert [link.href for link in read.links if link.rel == "item"] == [f"./{name}/item.json" for name in "abc"]
    (west, _, east, _) = read.extent.spatial.bboxes[0]
    assert (west, east) == (items["a"]["bbox"][0], items["b"]["bbox"][2])
    assert found["extent"]["temporal"]["interval"] == [["2026-11-30T07:25:12Z", "2026-12-01T00:00:00Z"]]
    assert json.dumps(describe_collection("town", items)) == json.dumps(describe_collection("town", items))
