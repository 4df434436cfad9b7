"""STAC: an Item, a Collection or Catalog with all that it links to, or the Items of a saved search.

https://github.com/radiantearth/stac-spec. Documents are read and brought to today's version by pystac; links are
followed here, several at a time, each once.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pystac
from shapely.geometry import shape

from geoseg.errors import AssetError, CatalogError, MissingFileError
from geoseg.io.store import read_bytes
from geoseg.sources.assets import Asset, choose_asset
from geoseg.sources.location import API_SEARCH, identity, is_local, is_web, join
from geoseg.sources.source import Found, as_utc

log = logging.getLogger(__name__)

READERS = 8
"""Documents read at a time: a catalog of a thousand Items on a web server is a thousand waits."""

SAVE_A_SEARCH = (
    "Save the Items that you want as a file and name that: with pystac-client, "
    "client.search(...).item_collection().save_object('items.json')"
)


class StoreIO(pystac.StacIO):
    """Reads STAC documents from wherever geoseg reads small files: disk, HTTP, S3."""

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Return a document's text."""
        return read_bytes(os.fspath(source)).decode()

    def write_text(self, dest: Any, txt: str, *args: Any, **kwargs: Any) -> None:
        """Refuse: sources are only read."""
        raise NotImplementedError("geoseg reads catalogs and does not write them")


@dataclass(frozen=True, slots=True)
class Document:
    """What one document gives: scenes, and documents to go on with."""

    location: str
    scenes: tuple[Found, ...] = ()
    links: tuple[str, ...] = ()
    kind: str = "document"


def read_stac(location: str, asset: str | None = None) -> list[Found]:
    """Return the scenes of an Item, an ItemCollection, or all Items that a Catalog or Collection leads to.

    Args:
        location: Path, http(s) or s3 URL of a JSON document.
        asset: Key of the asset to take of every Item.

    Returns:
        Scenes in the order of the links: a catalog's own Items before those of its children.

    Raises:
        MissingFileError: If a document is not there.
        CatalogError: If a document is no STAC, is a STAC API, or there is no Item.
        AssetError: If an Item's asset cannot be chosen, or is no local file.
    """
    if is_web(location) and API_SEARCH.search(urlparse(location).path):
        raise CatalogError(f"{location} searches a STAC API, which geoseg does not do. {SAVE_A_SEARCH}.")
    first = _read(location, asset)
    scenes = [scene for document in _walk(first, asset) for scene in document.scenes]
    if not scenes:
        raise CatalogError(
            f"{location} is a STAC {first.kind} that leads to no Item. Name a document with Items, or with links "
            "(item, child) that end in some."
        )
    if len(scenes) > 1:
        log.info("%s: %d scenes", location, len(scenes))
    return scenes


def _walk(first: Document, asset: str | None) -> Iterator[Document]:
    """Yield all documents that one leads to, depth first, each once: catalogs may run in circles."""
    seen, waiting = {identity(first.location)}, [first]
    with ThreadPoolExecutor(READERS) as pool:
        while waiting:
            document = waiting.pop()
            yield document
            links = {identity(link): link for link in document.links if identity(link) not in seen}
            seen.update(links)
            linked = list(pool.map(partial(_follow, origin=document.location, asset=asset), links.values()))
            yield from (one for one in linked if not one.links)
            waiting += [one for one in reversed(linked) if one.links]


def _follow(link: str, *, origin: str, asset: str | None) -> Document:
    try:
        return _read(link, asset)
    except MissingFileError as err:
        raise MissingFileError(f"{origin} links to {link}, which is not there. {err}") from err


def _read(location: str, asset: str | None) -> Document:
    reader = StoreIO()
    try:
        text = reader.read_json(location)
        if text.get("type") == "FeatureCollection":
            return _read_items(text, location, asset)
        thing = reader.stac_object_from_dict(text, href=location, preserve_dict=False)
    except (pystac.STACError, pystac.STACTypeError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise CatalogError(
            f"{location} cannot be read as STAC ({type(err).__name__}: {err}). "
            "The JSON of an Item, Collection, Catalog or ItemCollection is expected."
        ) from err
    if isinstance(thing, pystac.Item):
        return Document(location, (_scene(thing, location, location, asset),), kind="Item")
    return _read_catalog(thing, location)


def _read_items(text: dict[str, Any], location: str, asset: str | None) -> Document:
    """Read an ItemCollection; hrefs start from the Item's own address, as the file is only a list of them."""
    if not pystac.ItemCollection.is_item_collection(text):
        raise CatalogError(
            f"{location} is GeoJSON whose features are not STAC Items. To name scenes, save a STAC search, or write a "
            "manifest (a CSV with the column path); an area of interest goes to `aoi`."
        )
    if any(link.get("rel") == "next" for link in text.get("links", ())):
        count = len(text["features"])
        log.warning("%s is one page of a search: %d Items; the next pages are not in it.", location, count)
    selves = []
    for item in text["features"]:
        hrefs = (str(link.get("href")) for link in item.get("links", ()) if link.get("rel") == "self")
        selves.append(next((href for href in hrefs if "://" in href), None))
    items = pystac.ItemCollection.from_dict(text, preserve_dict=False).items
    pairs = zip(items, selves, strict=True)
    return Document(
        location, tuple(_scene(one, own or location, location, asset) for one, own in pairs), kind="ItemCollection"
    )


def _read_catalog(thing: pystac.STACObject, location: str) -> Document:
    links = {rel: [join(location, str(link.target)) for link in thing.get_links(rel)] for rel in ("item", "child")}
    rels = {link.rel for link in thing.links if "parquet" not in (link.media_type or "")}
    if "search" in rels or ("items" in rels and not links["item"]):
        raise CatalogError(f"{location} belongs to a STAC API, which geoseg does not search. {SAVE_A_SEARCH}.")
    return Document(location, links=(*links["item"], *links["child"]), kind=thing.STAC_OBJECT_TYPE.value.title())


def _scene(item: pystac.Item, base: str, location: str, asset: str | None) -> Found:
    """Return the scene of an Item whose hrefs start from `base`."""
    called = f"The STAC Item {item.id} ({location})"
    assets = [Asset(key, one.href, one.media_type, tuple(one.roles or ())) for key, one in item.assets.items()]
    chosen = choose_asset(assets, asset, called)
    path = join(base, chosen.href)
    if is_local(path) and not Path(path).exists():
        raise AssetError(
            f"{called} has its asset {chosen.key} at {path}, where no file is. Copy it there, or name the address that "
            "the Item came from."
        )
    return Found(
        path,
        is_item=True,
        name=item.id,
        parent=item.collection_id,
        datetime=as_utc(item.datetime or item.common_metadata.start_datetime),
        footprint=shape(item.geometry) if item.geometry else None,
    )
