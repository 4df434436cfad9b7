"""Files on the web and in buckets, whole or in parts, read by GDAL: with its credentials, options and cache.

rasterio hands out pixels, not bytes, so GDAL's C API is called (https://gdal.org/en/stable/api/cpl.html) in the library
that rasterio has loaded.
"""

import ctypes
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse, urlsplit, urlunsplit

from geoseg.errors import MissingFileError

REMOTE_ENV = {
    # No search for neighbors (.ovr, .msk, .aux.xml), each of which would be a request.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    # A transfer that receives nothing for this many seconds has failed; a slow one has not.
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # Ranges fetched in parallel bypass the cache that all threads share, so every halo would be fetched again.
    "GDAL_HTTP_MULTIRANGE": "SERIAL",
    "CPL_VSIL_CURL_CACHE_SIZE": str(256 << 20),
    # A cache of its own for every open file of every thread, besides the shared one.
    "VSI_CACHE": "FALSE",
}
"""GDAL's options for remote files (https://gdal.org/en/stable/user/configoptions.html); environment variables win."""

FETCH_ATTEMPTS = 4
PARTIAL_FILE = 18
"""What curl calls an answer that was cut short (CURLE_PARTIAL_FILE), which GDAL does not retry."""

NUMERIC_HOST = re.compile(r"\d+(\.\d+){3}(:|/|$)")

STATUS = re.compile(r"code.*?[ =](\d{3})$")
"""How GDAL's messages end that tell the status of an HTTP answer."""


def is_remote(path: str) -> bool:
    """Return True for URLs and GDAL's network file systems."""
    return urlparse(path).scheme in ("http", "https", "s3", "gs", "az") or path.startswith(
        ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz")
    )


def is_there(path: str | Path) -> bool:
    """Return True if a local path exists; names that no file can have, such as endless ones, do not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def vsi_path(location: str) -> str:
    """Return a location as GDAL's virtual file systems name it; paths are returned as they are.

    rasterio, which does the same, takes a `#` in the name of a bucket's object for the end of it.
    """
    scheme, _, rest = location.partition("://")
    if scheme in ("http", "https"):
        return f"/vsicurl/{location}"
    return f"/vsi{scheme}/{rest}" if scheme in ("s3", "gs", "az") else location


def public_url(location: str) -> str:
    """Return a location without what may be secret: user and password, and the query, in which signatures stand.

    Of GDAL's own form `/vsicurl?...&url=...` the URL is left; keys of buckets may hold any character, and stay.
    """
    if location.startswith("/vsicurl?"):
        location = "/vsicurl/" + next(iter(parse_qs(location.partition("?")[2]).get("url", ())), "")
    prefix, url = ("/vsicurl/", location.removeprefix("/vsicurl/")) if location.startswith("/vsi") else ("", location)
    if not url.startswith(("http://", "https://")):
        return location
    parts = urlsplit(url)
    return prefix + urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def remote_env(files: Iterable[str], **options: str) -> Iterator[None]:
    """Set GDAL's options for remote files, and credentials, for the calling thread; environment variables win.

    Args:
        files: The files that will be read.
        options: Options that replace those of `REMOTE_ENV`.

    Raises:
        MissingFileError: If credentials cannot be had, such as of a profile that does not exist.
    """
    import rasterio

    options = REMOTE_ENV | options | _endpoint()
    with rasterio.Env(_session(files), **{key: value for key, value in options.items() if key not in os.environ}):
        yield


def _session(files: Iterable[str]) -> Any:
    """Return where rasterio would take the credentials of files from; None where they need none, or have them.

    rasterio itself asks for none where a file in a bucket has GDAL's name (`/vsis3/...`) or is a source of a VRT.
    """
    from rasterio.env import getenv, hasenv
    from rasterio.session import DummySession, Session

    from geoseg.gdal import CREDENTIAL_ERRORS

    for file in files:
        kind = Session.cls_from_path(re.sub(r"^/vsi(s3|az)/", r"\1://", file))
        if kind is DummySession:
            continue
        if hasenv() and kind.hascreds(getenv()):
            return None
        try:
            return _new_session(kind, os.getpid(), *sorted(os.environ.items()))
        except CREDENTIAL_ERRORS as err:
            raise MissingFileError(f"{file} cannot be opened ({err}). Check the credentials.") from err
    return None


@lru_cache(maxsize=4)
def _new_session(kind: Any, pid: int, *environment: tuple[str, str]) -> Any:
    """Return a session, which renews its credentials itself; the same while process and environment are the same."""
    return kind()


def _endpoint() -> dict[str, str]:
    """Return GDAL's options for the S3 server that boto3's environment variables name, unless GDAL's are set.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "AWS_S3_ENDPOINT" in os.environ:  # buckets are no subdomains of a number
        return {"AWS_VIRTUAL_HOSTING": "FALSE"} if NUMERIC_HOST.match(os.environ["AWS_S3_ENDPOINT"]) else {}
    if not url:
        return {}
    parts = urlparse(url)
    https = "NO" if parts.scheme == "http" else "YES"
    address = (parts.netloc + parts.path).rstrip("/")
    return {"AWS_S3_ENDPOINT": address, "AWS_HTTPS": https, "AWS_VIRTUAL_HOSTING": "FALSE"}


@contextmanager
def _calling_gdal(location: str) -> Iterator[Any]:
    """Give GDAL's C API, with the options and the credentials for a location."""
    from geoseg.gdal import calling_gdal

    with remote_env([location]), calling_gdal() as gdal:
        yield gdal


class RemoteFile(io.RawIOBase):
    """An open file behind a network, which reads the ranges that GDAL does not have in its cache."""

    def __init__(self, gdal: Any, location: str) -> None:
        """Open a file; see `open_remote`."""
        self._gdal = gdal
        self._handle = gdal.VSIFOpenExL(vsi_path(location).encode(), b"rb", True)
        if not self._handle:
            raise _error(gdal)
        self._size = self.seek(0, os.SEEK_END)
        self.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        self._gdal.VSIFSeekL(self._handle, offset, whence)
        return self.tell()

    def tell(self) -> int:
        """Return the current byte."""
        return int(self._gdal.VSIFTellL(self._handle))

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, by default all that are left; fewer where the file ends before.

        Raises:
            OSError: If they cannot be read.
        """
        left = max(0, self._size - self.tell())
        size = left if size < 0 else min(size, left)
        buffer = ctypes.create_string_buffer(max(1, size))
        if self._gdal.VSIFReadL(buffer, 1, size, self._handle) < size:
            raise _error(self._gdal)
        return buffer.raw[:size]

    def close(self) -> None:
        """Close the file."""
        if not self.closed and self._handle:
            self._gdal.VSIFCloseL(self._handle)
        super().close()


@contextmanager
def open_remote(location: str) -> Iterator[RemoteFile]:
    """Open a file behind a network, for the calling thread.

    Raises:
        PermissionError: If the server refuses it (HTTP status 401 or 403).
        OSError: If it cannot be opened.
    """
    with _calling_gdal(location) as gdal, RemoteFile(gdal, location) as file:
        yield file


def read_remote(location: str) -> bytes:
    """Return a whole file, in one request over HTTP: few servers of documents know ranges.

    Raises:
        PermissionError: If the server refuses it (HTTP status 401 or 403).
        OSError: If it cannot be read.
    """
    url = location.removeprefix("/vsicurl/")
    if not url.startswith(("http://", "https://")):
        with open_remote(location) as file:
            return file.read()
    with _calling_gdal(location) as gdal:
        for _ in range(FETCH_ATTEMPTS):
            result = gdal.CPLHTTPFetch(url.encode(), None)
            try:
                answer = result.contents
                if not answer.status and not answer.error:
                    return ctypes.string_at(answer.data, answer.size) if answer.size else b""
                failure = _error(gdal, (answer.error or b"").decode(errors="replace"))
                if answer.status != PARTIAL_FILE:
                    break
            finally:
                gdal.CPLHTTPDestroyResult(result)
        raise failure


def read_headers(location: str) -> dict[str, str]:
    """Return what a server tells of a file, by the names of HTTP headers in lower case; nothing where it does not."""
    with _calling_gdal(location) as gdal:
        lines = gdal.VSIGetFileMetadata(vsi_path(location).encode(), b"HEADERS", None)
        try:
            texts = [line.decode(errors="replace") for line in iter_strings(lines)]
        finally:
            gdal.CSLDestroy(lines)
    return {name.strip().lower(): value.strip() for name, _, value in (text.partition("=") for text in texts)}


def iter_strings(lines: Any) -> Iterator[bytes]:
    """Yield the texts of a list of GDAL's, which ends with a null pointer and may be one itself."""
    at = 0
    while lines and lines[at] is not None:
        yield lines[at]
        at += 1


def _error(gdal: Any, text: str = "") -> OSError:
    """Return what GDAL says of a call that failed."""
    told = text.encode() or gdal.CPLGetLastErrorMsg() or gdal.VSIGetLastErrorMsg()
    text = told.decode(errors="replace") or "the server sent less than was asked for"
    status = STATUS.search(text)
    return PermissionError(text) if status and status[1] in ("401", "403") else OSError(text)
