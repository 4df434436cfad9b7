"""STAC as pystac writes it, and as it is found: what it leads to, and which asset is the scene."""

import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pystac
import pytest
import shapely
from pystac import Asset, CatalogType, Collection, Extent, Item, MediaType

from geoseg.errors import AssetError, CatalogError, MissingFileError, SourceError
from geoseg.sources import list_sources

Bucket = Callable[[dict[str, bytes]], str]

TAKEN = datetime(2023, 5, 1, 10, 30, tzinfo=UTC)
BOX = shapely.box(6.0, 50.0, 6.1, 50.1)
TYPES = [CatalogType.SELF_CONTAINED, CatalogType.RELATIVE_PUBLISHED, CatalogType.ABSOLUTE_PUBLISHED]


def make_item(name: str, href: str = "./image.tif", **fields: Any) -> Item:
    item = Item(name, shapely.geometry.mapping(BOX), list(BOX.bounds), fields.pop("datetime", TAKEN), {}, **fields)
    item.add_asset("image", Asset(href, media_type=MediaType.COG, roles=["data"]))
    return item


def make_catalog(folder: Path, kind: CatalogType = CatalogType.SELF_CONTAINED, base: str | None = None) -> Path:
    """Write `catalog.json` with an Item, and a Collection with two; their images lie beside the Items."""
    extent = Extent(pystac.SpatialExtent([list(BOX.bounds)]), pystac.TemporalExtent([[TAKEN, None]]))
    catalog, collection = pystac.Catalog("all", "All."), Collection("north", "Some.", extent)
    catalog.add_item(make_item("one"))
    collection.add_items([make_item("two"), make_item("three")])
    catalog.add_child(collection)
    catalog.normalize_hrefs(base or str(folder))
    catalog.save(kind, dest_href=str(folder))
    for name in ("one/one", "north/two/two", "north/three/three"):
        (folder / name).with_name("image.tif").write_bytes(b"not opened")
    return folder / "catalog.json"


def write_item(path: Path, item: Item) -> Path:
    path.write_text(json.dumps(item.to_dict(include_self_link=False)))
    return path


def rasters(*inputs: str | Path, asset: str | None = None) -> list[str]:
    return [source.paths[0] for source in list_sources(inputs, asset=asset)]


@pytest.mark.parametrize("kind", TYPES)
def test_a_catalog_leads_to_what_pystac_finds_in_it(tmp_path: Path, kind: CatalogType) -> None:
    path = make_catalog(tmp_path, kind)
    items = list(pystac.Catalog.from_file(str(path)).get_items(recursive=True))
    sources = list_sources([path])
    assert [source.name for source in sources] == [item.id for item in items] == ["one", "two", "three"]
    assert [source.paths for source in sources] == [(item.assets["image"].get_absolute_href(),) for item in items]
    assert {source.datetime for source in sources} == {TAKEN}
    assert all(source.footprint is not None and source.footprint.equals(BOX) for source in sources)


def test_collections_and_items_may_be_named_themselves(tmp_path: Path) -> None:
    make_catalog(tmp_path)
    below = [str(tmp_path / "north" / name / "image.tif") for name in ("two", "three")]
    assert rasters(tmp_path / "north" / "collection.json") == below
    assert rasters(tmp_path / "north" / "two" / "two.json") == below[:1]
    assert rasters(f"{tmp_path}/north/*/*.json") == below[::-1], "a pattern sorts"


def test_a_catalog_on_a_web_server_is_followed(tmp_path: Path, web: SimpleNamespace) -> None:
    make_catalog(tmp_path)
    places = ("one", "north/two", "north/three")
    assert rasters(f"{web.url}/catalog.json") == [f"{web.url}/{place}/image.tif" for place in places]
    assert sorted(web.asked) == sorted(set(web.asked)), "each document is asked for once"
    assert not any(path.endswith(".tif") for path in web.asked), "no raster is opened"


def test_absolute_links_lead_to_their_server(tmp_path: Path, web: SimpleNamespace) -> None:
    make_catalog(tmp_path, CatalogType.ABSOLUTE_PUBLISHED, base=web.url)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "catalog.json", tmp_path / "copy" / "catalog.json")
    assert rasters(tmp_path / "copy" / "catalog.json")[0] == f"{web.url}/one/image.tif"


def test_a_catalog_in_a_bucket_is_followed(tmp_path: Path, bucket: Bucket) -> None:
    make_catalog(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    url = bucket({f"deep/{path.relative_to(tmp_path).as_posix()}": path.read_bytes() for path in files})
    places = ("one", "north/two", "north/three")
    assert rasters(f"{url}/deep/catalog.json") == [f"{url}/deep/{place}/image.tif" for place in places]


def test_a_catalog_that_runs_in_circles_ends(tmp_path: Path) -> None:
    path = make_catalog(tmp_path)
    below = tmp_path / "north" / "collection.json"
    for file, href in (
        (below, "../catalog.json"),
        (path, "./north/../north/collection.json"),
        (below, "collection.json"),
    ):
        document = json.loads(file.read_text())
        document["links"].append({"rel": "child", "href": href})
        file.write_text(json.dumps(document))
    assert len(rasters(path)) == 3


def test_a_thousand_items_are_read_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    from geoseg.sources import stac

    links = [{"rel": "item", "href": f"./{i}.json"} for i in range(1000)]
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d", "links": links}
    item = make_item("i", "s3://bucket/i.tif").to_dict()
    documents = {f"{i}.json": json.dumps(item | {"id": f"{i}"}) for i in range(1000)} | {"c.json": json.dumps(catalog)}
    threads: set[int] = set()

    def read(location: str) -> bytes:
        threads.add(threading.get_ident())
        time.sleep(0.0005)
        return documents[Path(location).name].encode()

    monkeypatch.setattr(stac, "read_bytes", read)
    found = stac.read_stac(str(tmp_path / "c.json"))
    assert [one.name for one in found] == [str(i) for i in range(1000)], "in the order of the links"
    assert len(threads) > 2


def test_an_ItemCollection_gives_its_items(tmp_path: Path) -> None:
    collection = pystac.ItemCollection([make_item(name, f"https://h/{name}.tif") for name in ("b", "a")])
    collection.save_object(str(tmp_path / "items.json"))
    assert rasters(tmp_path / "items.json") == ["https://h/b.tif", "https://h/a.tif"]
    shutil.copy(tmp_path / "items.json", tmp_path / "items.geojson")
    assert len(rasters(tmp_path / "items.geojson")) == 2


def test_items_of_a_saved_search_start_from_their_own_address(tmp_path: Path) -> None:
    here, there = make_item("here"), make_item("there")
    there.set_self_href("https://h/x/there.json")
    features = [here.to_dict(), there.to_dict()]
    features[1]["assets"]["image"]["href"] = "./image.tif"
    (tmp_path / "image.tif").touch()
    (tmp_path / "s.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert rasters(tmp_path / "s.json") == [str(tmp_path / "image.tif"), "https://h/x/image.tif"]


def test_a_page_of_a_search_says_that_there_are_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    features = [make_item("a", "s3://b/a.tif").to_dict()]
    page = {"type": "FeatureCollection", "features": features, "links": [{"rel": "next", "href": "https://h/?token=2"}]}
    (tmp_path / "page.json").write_text(json.dumps(page))
    with caplog.at_level(logging.WARNING):
        rasters(tmp_path / "page.json")
    assert "is one page of a search: 1 Item;" in caplog.text


def test_a_period_counts_from_its_start_and_a_missing_zone_is_UTC(tmp_path: Path, local_time: str) -> None:
    item = make_item("a", "s3://b/a.tif", datetime=None, start_datetime=TAKEN, end_datetime=datetime(2024, 1, 1))
    (source,) = list_sources([write_item(tmp_path / "a.json", item)])
    assert source.datetime == TAKEN
    document = make_item("a", "s3://b/a.tif").to_dict()
    document["properties"]["datetime"] = "2023-05-01T10:30:00"
    (tmp_path / "b.json").write_text(json.dumps(document))
    assert list_sources([tmp_path / "b.json"])[0].datetime == TAKEN


def test_an_item_without_geometry_has_no_footprint(tmp_path: Path) -> None:
    document = make_item("a", "s3://b/a.tif").to_dict() | {"geometry": None}
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert list_sources([tmp_path / "a.json"])[0].footprint is None


def test_items_of_one_id_are_told_apart_by_collection(tmp_path: Path) -> None:
    items = [make_item("7", f"s3://b/{name}/7.tif", collection=name) for name in ("north", "south")]
    pystac.ItemCollection(items).save_object(str(tmp_path / "items.json"))
    assert [source.name for source in list_sources([tmp_path / "items.json"])] == ["north_7", "south_7"]


COG, JPEG, JSON = MediaType.COG, MediaType.JPEG, MediaType.JSON


@pytest.mark.parametrize(
    ("assets", "wanted", "chosen"),
    [
        ({"x": (COG, None), "meta": (JSON, ["metadata"])}, None, "x"),
        ({"x": (COG, None), "thumbnail": (JPEG, ["thumbnail"])}, None, "x"),
        ({"x": (COG, ["data"]), "y": (COG, None)}, None, "x"),
        ({"B04": (COG, ["data"]), "B08": (COG, ["data"]), "visual": (COG, ["visual"])}, None, "visual"),
        ({"B04": (COG, ["data"]), "B08": (COG, ["data"]), "visual": (COG, None)}, None, "visual"),
        ({"data": (COG, None), "image": (COG, None)}, None, "image"),
        ({"x": (COG, ["overview", "visual"]), "m": (JSON, None)}, None, "x"),
        ({"x": (None, None), "notes": (None, None)}, None, "x"),
        ({"x": (" Image/TIFF; application=geotiff", None), "notes": (JSON, None)}, None, "x"),
        ({"B04": (COG, ["data"]), "B08": (COG, ["data"])}, "B08", "B08"),
        ({"x": (COG, ["data"]), "h5": ("application/x-hdf5", None)}, "h5", "h5"),
    ],
)
def test_the_scene_among_the_assets(
    tmp_path: Path, assets: dict[str, tuple[str | None, list[str] | None]], wanted: str | None, chosen: str
) -> None:
    item = make_item("i")
    item.assets.clear()
    for key, (media_type, roles) in assets.items():
        suffix = ".txt" if key == "notes" else ".tif"
        item.add_asset(key, Asset(f"s3://b/{key}{suffix}", media_type=media_type, roles=roles))
    assert rasters(write_item(tmp_path / "i.json", item), asset=wanted) == [f"s3://b/{chosen}.tif"]


@pytest.mark.parametrize(
    ("keys", "wanted", "message"),
    [
        (
            ["B04", "B08"],
            None,
            r"Item i \(.*i\.json\) has 2 rasters .*: B04 \(image/tiff.*; data\), B08",
        ),
        (["B04", "B08"], None, r"such as `asset='B04'`"),
        (["B04"], "visual", r"has no asset visual\. Found: B04 \(image/tiff"),
        ([], None, r"has no raster among its assets\. Found: no assets at all"),
    ],
)
def test_assets_that_leave_a_choice_are_listed(
    tmp_path: Path, keys: list[str], wanted: str | None, message: str
) -> None:
    item = make_item("i")
    item.assets.clear()
    for key in keys:
        item.add_asset(key, Asset(f"s3://b/{key}.tif", media_type=MediaType.GEOTIFF, roles=["data"]))
    with pytest.raises(AssetError, match=message):
        rasters(write_item(tmp_path / "i.json", item), asset=wanted)


def test_a_thumbnail_is_never_the_scene(tmp_path: Path) -> None:
    item = make_item("i")
    item.assets["image"].roles = ["thumbnail"]
    with pytest.raises(AssetError, match=r"no raster among its assets\. Found: image \(.*; thumbnail\)"):
        rasters(write_item(tmp_path / "i.json", item))


def test_an_image_that_is_not_beside_its_item_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"has its asset image at .*image\.tif, where no file is"):
        rasters(write_item(tmp_path / "i.json", make_item("i")))


def test_a_link_that_leads_nowhere_names_both_ends(tmp_path: Path) -> None:
    path = make_catalog(tmp_path)
    (tmp_path / "north" / "two" / "two.json").unlink()
    with pytest.raises(MissingFileError, match=r"collection\.json links to .*two\.json, which does not exist"):
        rasters(path)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/stac/search?collections=naip&bbox=1,2,3,4",
        "https://example.org/v1/collections/naip/items",
        "https://example.org/v1/collections/naip/items/?limit=10",
    ],
)
def test_a_search_address_is_not_crawled(url: str) -> None:
    with pytest.raises(CatalogError, match=r"searches a STAC API.*Save the Items.*items\.json"):
        rasters(url)


def test_an_item_of_an_API_is_read_without_suffix(tmp_path: Path, web: SimpleNamespace) -> None:
    place = tmp_path / "v1" / "collections" / "naip" / "items" / "m_1.2"
    place.parent.mkdir(parents=True)
    write_item(place, make_item("m_1.2", "https://h/m.tif"))
    assert rasters(f"{web.url}/v1/collections/naip/items/m_1.2") == ["https://h/m.tif"]


@pytest.mark.parametrize("rel", ["items", "search"])
def test_a_collection_of_an_API_is_not_crawled(tmp_path: Path, rel: str) -> None:
    links = [{"rel": rel, "href": "https://h/x", "type": "application/geo+json"}]
    document = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d", "links": links}
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(CatalogError, match="belongs to a STAC API"):
        rasters(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot be read as STAC \(JSONDecodeError"),
        ("[]", "cannot be read as STAC"),
        ('{"a": 1}', "cannot be read as STAC"),
        ('{"type": "Feature", "stac_version": "1.0.0", "id": "x"}', "cannot be read as STAC"),
        ('{"type": "Catalog", "stac_version": "1.0.0", "id": "x"}', "cannot be read as STAC"),
        ('{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}}]}', "not STAC Items.*`aoi`"),
        ('{"type": "FeatureCollection", "features": []}', "ItemCollection that leads to no Item"),
        (
            '{"type": "Catalog", "stac_version": "1.0.0", "id": "x", "description": "d", "links": []}',
            "Catalog that leads to no Item",
        ),
    ],
)
def test_what_is_no_STAC_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CatalogError, match=message):
        rasters(path)


def test_every_error_of_sources_is_one(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError):
        rasters(tmp_path / "x.json")
