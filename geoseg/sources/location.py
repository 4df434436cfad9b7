"""A location: a local path, a URL or a path of GDAL's virtual file systems; nothing is opened."""

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse
from urllib.request import url2pathname

from geoseg.errors import SourceError
from geoseg.io.remote import is_there
from geoseg.io.store import open_store
from geoseg.io.suffixes import SCENE_SUFFIXES
from geoseg.scene import is_remote, path_of, web_address

MAGIC = "*?["
"""Wildcards of patterns."""

API_SEARCH = re.compile(r"/(search|collections/[^/]+/items)/?$")
API_DOCUMENT = re.compile(r"/collections/[^/]+(/items/[^/]+)?/?$")
"""Paths of a STAC API: https://api.stacspec.org/v1.0.0/ogcapi-features."""


def clean(text: str) -> str:
    """Return a location as the rest of geoseg takes it.

    `file://` and `~` become local paths; what a web URL must not contain, such as spaces, is escaped.

    Raises:
        SourceError: If it is a URL that cannot be parsed.
    """
    try:
        urlparse(text)
    except ValueError as err:
        raise SourceError(f"{text} is not a URL that can be read ({err}). Check it.") from err
    if text.startswith("file:"):
        return url2pathname(unquote(urlparse(text).path))
    if is_web(text):
        return web_address(text)
    return os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111 - Path would drop a last slash


def is_local(location: str) -> bool:
    """Return True for a path of the local file system."""
    return not is_remote(location) and not location.startswith("/vsi")


def is_web(location: str) -> bool:
    """Return True for http(s) URLs."""
    return urlparse(location).scheme in ("http", "https")


def is_s3(location: str) -> bool:
    """Return True for `s3://bucket/key`."""
    return location.startswith("s3://")


def is_folder(location: str) -> bool:
    """Return True for a local folder that exists."""
    return is_local(location) and is_there(location) and Path(location).is_dir()


def is_pattern(location: str) -> bool:
    """Return True for a location with wildcards, unless such a file exists; a `?` in a URL begins its query."""
    if not is_local(location) and not is_s3(location):
        return "*" in location.partition("?")[0]
    if not any(sign in location for sign in MAGIC):
        return False
    if is_local(location):
        return not is_there(location)
    folder, _, name = location.rpartition("/")
    return "*" in location if not name else not open_store(folder).has(name)


def is_prefix(location: str) -> bool:
    """Return True for a location that ends in a slash: a folder of a bucket or a server, or one that does not exist."""
    return location.endswith("/")


def is_missing(location: str) -> bool:
    """Return True for a local file that does not exist."""
    return is_local(location) and not (is_there(location) and Path(location).is_file())


def is_stac(location: str) -> bool:
    """Return True for a STAC document, by its suffix or by the paths of a STAC API."""
    suffix = suffix_of(location)
    if suffix in (".json", ".geojson"):
        return True
    path = urlparse(location).path
    is_api = bool(API_SEARCH.search(path) or API_DOCUMENT.search(path))
    return is_web(location) and suffix not in SCENE_SUFFIXES and is_api


def suffix_of(location: str) -> str:
    """Return the last suffix of the file, in lower case."""
    return path_of(location).suffix.lower()


def folders_of(location: str) -> tuple[str, ...]:
    """Return the names of the folders that a file lies in, the innermost last, after its bucket's or server's name."""
    place = identity(location)
    above = () if is_local(place) else tuple(filter(None, [urlparse(place).netloc.rpartition("@")[2]]))
    return *above, *(part for part in path_of(place).parent.parts if part.strip("/"))


def parent_of(location: str) -> str:
    """Return the name of the folder that a file lies in; of a bucket's or a server's top, its own."""
    return next(reversed(folders_of(location)), "")


def join(base: str, href: str) -> str:
    """Return where `href` leads from the document at `base`: beside it, unless it is absolute."""
    href = clean(href)
    if not is_local(href) or (is_local(base) and Path(href).is_absolute()):
        return href
    if is_web(base):
        return web_address(urljoin(base, href))
    if is_local(base) or base.startswith("/vsi"):
        return os.path.normpath(Path(base).parent / href)
    scheme, rest = base.split("://", 1)
    bucket, _, key = rest.partition("/")
    inside = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), href)).lstrip("/")
    return f"{scheme}://{bucket}/{inside}"


def identity(location: str) -> str:
    """Return a text that two spellings of one place share."""
    for prefix, scheme in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://"), ("/vsiaz/", "az://")):
        if location.startswith(prefix):
            return scheme + location.removeprefix(prefix)
    return str(Path(os.path.normpath(Path(location).absolute()))) if is_local(location) else location
