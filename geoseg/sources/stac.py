"""STAC: an Item, a Collection or Catalog with all that it links to, or the Items of a saved search.

https://github.com/radiantearth/stac-spec. Documents are read and brought to today's version by pystac; links are
followed here, several at a time, each once.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlparse

import pystac
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from geoseg.errors import AssetError, CatalogError, MissingFileError
from geoseg.io.remote import is_there
from geoseg.io.store import read_bytes
from geoseg.io.suffixes import SCENE_SUFFIXES
from geoseg.io.tables import plural
from geoseg.sources.location import API_SEARCH, identity, is_local, is_web, join, suffix_of
from geoseg.sources.source import Found, as_utc, is_footprint
from geoseg.third_party import ignore_warnings

log = logging.getLogger(__name__)

READERS = 8
"""Documents read at a time: a catalog of a thousand Items on a web server is a thousand waits."""

RASTER_TYPES = ("image/", "application/x-geotiff", "application/geotiff")
"""How the media types of rasters begin: https://github.com/radiantearth/stac-spec/blob/master/best-practices.md."""

LESSER_ROLES = frozenset(("thumbnail", "overview", "metadata"))
"""Roles of pictures about a scene, which are not it."""

MAIN_ROLES = frozenset(("data", "visual"))
MAIN_KEYS = ("visual", "image", "data")
"""Tried in this order where several rasters are left."""

SAVE_A_SEARCH = (
    "Save the Items that you want as a file and name that: with pystac-client, "
    "client.search(...).item_collection().save_object('items.json')"
)


NOT_STAC = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError)
"""What reading a document as STAC raises if it is something else: pystac takes its parts as they come."""


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
    """What one document gives: scenes, and documents to read next."""

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
        CatalogError: If a document is not STAC, is a STAC API, or leads to no Item.
        AssetError: If an Item's asset cannot be chosen, or is a local file that does not exist.
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
    return [replace(scene, is_direct=first.kind == "Item") for scene in scenes]


def _walk(first: Document, asset: str | None) -> Iterator[Document]:
    """Yield all documents that one leads to, depth first, each once: catalogs may link in circles."""
    seen, waiting = {identity(first.location)}, [first]

    def follow(link: str, origin: str) -> Document:
        try:
            return _read(link, asset)
        except MissingFileError as err:
            raise MissingFileError(f"{origin} links to {link}, which does not exist. {err}") from err

    with ThreadPoolExecutor(READERS) as pool:
        while waiting:
            document = waiting.pop()
            yield document
            links = {identity(link): link for link in document.links if identity(link) not in seen}
            seen.update(links)
            linked = list(pool.map(partial(follow, origin=document.location), links.values()))
            yield from (one for one in linked if not one.links)
            waiting += [one for one in reversed(linked) if one.links]


def _read(location: str, asset: str | None) -> Document:
    try:
        with ignore_warnings():  # of pystac on what it mends, and of coordinates that are no numbers
            return _parse(location, asset)
    except (*NOT_STAC, pystac.STACError, pystac.STACTypeError) as err:
        raise CatalogError(
            f"{location} cannot be read as STAC ({type(err).__name__}: {err}). "
            "The JSON of an Item, Collection, Catalog or ItemCollection is expected."
        ) from err


def _parse(location: str, asset: str | None) -> Document:
    reader = StoreIO()
    text = reader.read_json(location)
    if text.get("type") == "FeatureCollection":
        return _read_items(text, location, asset)
    thing = reader.stac_object_from_dict(text, href=location, preserve_dict=False)
    if isinstance(thing, pystac.Item):
        return Document(location, (_scene(thing, location, location, asset),), kind="Item")
    links = {rel: [join(location, str(link.target)) for link in thing.get_links(rel)] for rel in ("item", "child")}
    rels = {link.rel for link in thing.links if "parquet" not in (link.media_type or "")}
    if "search" in rels or ("items" in rels and not links["item"]):
        raise CatalogError(f"{location} belongs to a STAC API, which geoseg does not search. {SAVE_A_SEARCH}.")
    return Document(location, links=(*links["item"], *links["child"]), kind=thing.STAC_OBJECT_TYPE.value.title())


def _read_items(text: dict[str, Any], location: str, asset: str | None) -> Document:
    """Read an ItemCollection; hrefs start from the Item's own address, as the file is only a list of them."""
    if not pystac.ItemCollection.is_item_collection(text):
        raise CatalogError(
            f"{location} is GeoJSON whose features are not STAC Items. To name scenes, save a STAC search, or write a "
            "manifest (a CSV with the column path); an area of interest goes to `aoi`."
        )
    if any(link.get("rel") == "next" for link in text.get("links", ())):
        count = plural(len(text["features"]), "Item")
        log.warning("%s is one page of a search: %s; the next pages are not in it.", location, count)
    selves = []
    for item in text["features"]:
        hrefs = (str(link.get("href")) for link in item.get("links", ()) if link.get("rel") == "self")
        selves.append(next((href for href in hrefs if "://" in href), None))
    items = pystac.ItemCollection.from_dict(text, preserve_dict=False).items
    pairs = zip(items, selves, strict=True)
    return Document(
        location, tuple(_scene(one, own or location, location, asset) for one, own in pairs), kind="ItemCollection"
    )


def _scene(item: pystac.Item, base: str, location: str, asset: str | None) -> Found:
    """Return the scene of an Item whose hrefs start from `base`."""
    called = f"The STAC Item {item.id} ({location})"
    key = choose_asset(item.assets, asset, called)
    path = join(base, item.assets[key].href)
    if is_local(path) and not is_there(path):
        raise AssetError(
            f"{called} has its asset {key} at {path}, where no file is. Copy it there, or name the address that the "
            "Item came from."
        )
    return Found(
        path,
        is_item=True,
        name=str(item.id),
        parent=None if item.collection_id is None else str(item.collection_id),
        datetime=as_utc(item.datetime or item.common_metadata.start_datetime),
        footprint=_footprint(item),
    )


def _footprint(item: pystac.Item) -> BaseGeometry | None:
    """Return the ground that an Item covers; None if its geometry is none."""
    try:
        found = shape(item.geometry) if item.geometry else None
    except (*NOT_STAC, shapely.errors.ShapelyError):
        found = None
    return found if found is not None and is_footprint(found) else None


def choose_asset(assets: Mapping[str, pystac.Asset], wanted: str | None, item: str) -> str:
    """Return the key of the scene among an Item's assets.

    The wanted one; else the only raster that is not a thumbnail; else the only one with the role data or visual; else
    the one with the key visual, image or data.

    Args:
        assets: Of one Item, by key.
        wanted: Key of the asset that the user asked for.
        item: The Item, for messages.

    Raises:
        AssetError: If the wanted one is not there, there is no raster, or several and no rule to choose.
    """

    def show(keys: Iterable[str]) -> str:
        listed = []
        for key in keys:
            facts = [assets[key].media_type or "no media type", ", ".join(assets[key].roles or ())]
            listed.append(f"{key} ({'; '.join(fact for fact in facts if fact)})")
        return ", ".join(listed) or "no assets at all"

    if wanted is not None:
        if wanted not in assets:
            raise AssetError(f"{item} has no asset {wanted}. Found: {show(assets)}. Name one of these with `asset`.")
        return wanted
    rasters = []  # by media type or else by suffix, without pictures about the scene
    for key, asset in assets.items():
        media_type, roles = asset.media_type, set(asset.roles or ())
        is_raster = suffix_of(asset.href) in SCENE_SUFFIXES
        if media_type:
            is_raster = media_type.strip().lower().startswith(RASTER_TYPES)
        if is_raster and (not LESSER_ROLES & roles or MAIN_ROLES & roles):
            rasters.append(key)
    if not rasters:
        raise AssetError(
            f"{item} has no raster among its assets. Found: {show(assets)}. "
            "Name one with `asset` if GDAL can read it all the same."
        )
    main = [key for key in rasters if MAIN_ROLES & set(assets[key].roles or ())] or rasters
    if len(main) == 1:
        return main[0]
    usual = next((key for key in MAIN_KEYS if key in rasters), None)
    if usual is None:
        raise AssetError(
            f"{item} has {len(main)} rasters that could be the scene: {show(main)}. "
            f"Name one with `asset`, such as `asset='{main[0]}'`."
        )
    return usual
