"""Where a run keeps its files: a folder, or a place in a bucket. Every object is written whole or not at all."""

import http
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlparse

from geoseg.errors import MissingFileError, MissingPackageError, OutputError, ReadError
from geoseg.io.aside import put_in_place, remove_side_files, reported, sync, sync_folder
from geoseg.io.remote import is_remote, read_headers, read_remote

S3_ATTEMPTS = 8
"""A busy bucket answers 503 for seconds; boto3 waits longer after every attempt."""

REMOVALS = 8
"""Objects removed at a time: a run leaves thousands of parts, and not every bucket takes a list of them."""

ASIDE = ".aside-"
"""Prefix of files under construction."""


class Store(Protocol):
    """Named objects below one place. Names are relative and use `/`, such as `parts/r0_c0.npz`. Pickles as its url."""

    @property
    def url(self) -> str:
        """The place, as a user names it."""

    def read(self, name: str) -> bytes:
        """Return an object; raise `MissingFileError` where there is none, `ReadError` where it cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all, in the place of an older one; raise `OutputError` where it cannot."""

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; return whether it was written."""

    def upload(self, path: Path, name: str) -> None:
        """Put a local file in the place of an object; the file itself may be moved."""

    def names(self, prefix: str) -> list[str]:
        """Return the names of all objects below a folder, sorted, those under construction left out."""

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of the objects directly in this place, by name."""

    def has(self, name: str) -> bool:
        """Tell whether there is such an object."""

    def remove(self, prefix: str) -> None:
        """Remove an object, or a folder with everything below; it is not an error if there is none."""


def open_store(location: str | Path) -> Store:
    """Return the store at a folder or at `s3://bucket/prefix`.

    Raises:
        OutputError: If it is another kind of URL.
        MissingPackageError: If boto3 is needed and missing.
    """
    scheme = urlparse(str(location)).scheme
    if scheme == "s3":
        _require_boto3(str(location))
        return S3Store(str(location).rstrip("/"))
    if "://" in str(location):
        raise OutputError(f"{location} is not a place that geoseg can write to. Give a folder or s3://bucket/prefix.")
    return LocalStore(Path(location))


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder; made at the first write.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def absolute(self) -> "LocalStore":
        """Return the store with the absolute path of its folder."""
        return LocalStore(self.folder.absolute())

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError as err:
            raise MissingFileError(
                f"There is no {self.folder / name}. Check the path; the working folder is {Path.cwd()}."
            ) from err
        except OSError as err:
            raise ReadError(
                f"{self.folder / name} cannot be read ({err.strerror}). Get permission to read it, or check its disk."
            ) from err

    def write(self, name: str, data: bytes) -> None:
        """See `Store.write`."""
        with self._aside(name) as (aside, target):
            _write_through(aside, data)
            put_in_place(aside, target)

    def create(self, name: str, data: bytes) -> bool:
        """See `Store.create`: a hard link fails where the name is taken, on network folders too."""
        with self._aside(name) as (aside, target):
            _write_through(aside, data)
            try:
                os.link(aside, target)
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                try:
                    _write_through(target, data, mode="xb")
                except FileExistsError:
                    return False
                return True
            sync_folder(target.parent)
            return True

    def upload(self, path: Path, name: str) -> None:
        """See `Store.upload`: renamed where it can be, else copied aside."""
        with self._aside(name) as (aside, target):
            shutil.move(path, aside)
            sync(aside)
            put_in_place(aside, target)

    def names(self, prefix: str) -> list[str]:
        """See `Store.names`."""
        found = (p for p in (self.folder / prefix).rglob("*") if p.is_file() and not p.name.startswith(ASIDE))
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def sizes(self) -> dict[str, int]:
        """See `Store.sizes`."""
        if not self.folder.is_dir():
            return {}
        return {path.name: path.stat().st_size for path in self.folder.iterdir() if path.is_file()}

    def has(self, name: str) -> bool:
        """See `Store.has`."""
        return (self.folder / name).is_file()

    def remove(self, prefix: str) -> None:
        """See `Store.remove`."""
        path = self.folder / prefix
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
            remove_side_files(path)

    @contextmanager
    def _aside(self, name: str) -> Iterator[tuple[Path, Path]]:
        """Give a place beside an object, of this writer alone, and the object's own."""
        target = self.folder / name
        aside = target.with_name(f"{ASIDE}{uuid.uuid4().hex}-{target.name}")
        try:
            with reported(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                yield aside, target
        finally:
            aside.unlink(missing_ok=True)


def _write_through(path: Path, data: bytes, mode: str = "wb") -> None:
    """Write a file down to the disk: a power failure could otherwise leave its name without its bytes."""
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True, slots=True)
class S3Store:
    """A place in a bucket, by boto3: credentials, region and endpoint come from where boto3 and GDAL look for them.

    Attributes:
        url: `s3://bucket/prefix`.
    """

    url: str

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        with _s3_errors(f"{self.url}/{name}"):
            return _read_object(self._object(name))

    def write(self, name: str, data: bytes) -> None:
        """See `Store.write`: buckets show an object when all of it is there."""
        with _s3_errors(f"{self.url}/{name}", writing=True):
            s3_client().put_object(**self._object(name), Body=data)

    def create(self, name: str, data: bytes) -> bool:
        """See `Store.create`, by a conditional write."""
        with _s3_errors(f"{self.url}/{name}", writing=True):
            try:
                s3_client().put_object(**self._object(name), Body=data, IfNoneMatch="*")
            except s3_client().exceptions.ClientError as err:
                if err.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                    return False
                raise
            return True

    def upload(self, path: Path, name: str) -> None:
        """See `Store.upload`: large files go in parts, and appear when the last one is there."""
        where = self._object(name)
        with _s3_errors(f"{self.url}/{name}", writing=True):
            s3_client().upload_file(str(path), where["Bucket"], where["Key"])

    def names(self, prefix: str) -> list[str]:
        """See `Store.names`."""
        root = self._object("")
        below = f"{root['Key']}{prefix.strip('/')}".rstrip("/") + "/"
        with _s3_errors(f"{self.url}/{prefix}"):
            keys = list_keys(root["Bucket"], below.lstrip("/"))
        return sorted(key.removeprefix(root["Key"]) for key in keys)

    def sizes(self) -> dict[str, int]:
        """See `Store.sizes`."""
        root = self._object("")
        with _s3_errors(self.url):
            pages = s3_client().get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=root["Bucket"], Prefix=root["Key"], Delimiter="/")
            return {
                item["Key"].removeprefix(root["Key"]): item["Size"]
                for page in found
                for item in page.get("Contents", [])
            }

    def has(self, name: str) -> bool:
        """See `Store.has`."""
        try:
            with _s3_errors(f"{self.url}/{name}"):
                s3_client().head_object(**self._object(name))
        except MissingFileError:
            return False
        return True

    def remove(self, prefix: str) -> None:
        """See `Store.remove`."""
        with _s3_errors(f"{self.url}/{prefix}", writing=True):
            names, client = (prefix, *self.names(prefix)), s3_client()
            with ThreadPoolExecutor(REMOVALS) as pool:
                for _ in pool.map(lambda name: client.delete_object(**self._object(name)), names):
                    pass

    def _object(self, name: str) -> dict[str, str]:
        bucket, key = split_s3(f"{self.url}/{name}")
        return {"Bucket": bucket, "Key": key}


def _read_object(where: dict[str, str]) -> bytes:
    """Return an object; boto3 asks again for an answer that does not come, but not for one that is cut short."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    for attempt in range(S3_ATTEMPTS):
        try:
            body: bytes = s3_client().get_object(**where)["Body"].read()
            return body
        except (HTTPClientError, IncompleteReadError):
            if attempt == S3_ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def read_bytes(location: str) -> bytes:
    """Return a small object: a local file, or one on the web or in a bucket, as GDAL reads it.

    Raises:
        MissingFileError: If it is not there or cannot be reached.
    """
    try:
        return read_remote(location) if is_remote(location) else Path(location).read_bytes()
    except OSError as err:
        next_step = f"Check the path; the working folder is {Path.cwd()}"
        if is_remote(location):
            next_step = "Check the address and the " + (
                "credentials" if isinstance(err, PermissionError) else "connection"
            )
        raise MissingFileError(f"{location} cannot be read ({err.strerror or err}). {next_step}.") from err


def parse_json(data: bytes | str) -> Any:
    """Return what a JSON document holds.

    Raises:
        ValueError: If it is not JSON, not text, or deeper than Python's stack.
    """
    try:
        return json.loads(data)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def list_names(location: str) -> list[str]:
    """Return the full names of all objects below `s3://bucket/prefix/`, sorted."""
    _require_boto3(location)
    bucket, prefix = split_s3(location)
    with _s3_errors(location):
        return sorted(f"s3://{bucket}/{key}" for key in list_keys(bucket, prefix))


def glob(pattern: str) -> list[str]:
    """Return the objects of a bucket that match a pattern; `*` stays within a folder, `**` crosses folders."""
    fixed, parts = pattern[: min(i for i in map(pattern.find, "*?[") if i >= 0)], PurePosixPath(pattern).parts
    names = list_names(fixed.rpartition("/")[0] + "/")
    return [name for name in names if _match_parts(PurePosixPath(name).parts, parts)]


def _match_parts(name: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Match part by part, as a path: `**` stands for any number of folders."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_match_parts(name[i:], pattern[1:]) for i in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _match_parts(name[1:], pattern[1:])


def stamp(location: str) -> list[Any]:
    """Return what distinguishes versions of a file: name, size, time or the server's ETag.

    The location alone where a server tells nothing. A local file's folder does not count, as data may be moved.
    """
    if is_remote(location):
        headers = read_headers(location)
        size = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length")
        return [location, *filter(None, (headers.get("etag"), headers.get("last-modified"), size))]
    try:
        stat = Path(location).stat()
    except OSError:
        return [location]
    return [Path(location).name, stat.st_size, stat.st_mtime_ns]


def split_s3(url: str) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`."""
    parsed = urlparse(url, allow_fragments=False)
    return parsed.netloc, url.split("://", 1)[1].partition("/")[2]


def list_keys(bucket: str, prefix: str) -> list[str]:
    """Return the keys of a bucket that begin with a prefix."""
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


S3_OPTIONS = (
    "AWS_ENDPOINT_URL",
    "AWS_S3_ENDPOINT",
    "AWS_HTTPS",
    "AWS_REGION",
    "AWS_NO_SIGN_REQUEST",
    "AWS_REQUEST_PAYER",
    "AWS_PROFILE",
)
"""Environment variables that decide a client; half of them are GDAL's own, and mean the same here."""


def s3_client() -> Any:
    """Return this process's boto3 client, which threads share."""
    return _s3_client(os.getpid(), *(os.environ.get(name) for name in S3_OPTIONS))


@lru_cache(maxsize=4)
def _s3_client(
    pid: int,  # a client does not survive a fork
    endpoint_url: str | None,
    gdal_endpoint: str | None,
    https: str | None,
    region: str | None,
    unsigned: str | None,
    payer: str | None,
    profile: str | None,
) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    if endpoint_url is None and gdal_endpoint is not None:
        endpoint_url = f"{'https' if _is_on(https or 'YES') else 'http'}://{gdal_endpoint}"
    signing = {"signature_version": UNSIGNED} if unsigned and _is_on(unsigned) else {}
    config = Config(retries={"max_attempts": S3_ATTEMPTS, "mode": "standard"}, **signing)
    client = boto3.session.Session().client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
    if payer:
        pays = {"x-amz-request-payer": payer}
        client.meta.events.register("before-call.s3", lambda params, **_: params["headers"].update(pays))
    return client


def _is_on(option: str) -> bool:
    """Return what an option means to GDAL (`CPLTestBool`): everything but a few words is yes."""
    return option.upper() not in ("NO", "FALSE", "OFF", "0")


@contextmanager
def _s3_errors(url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn boto3's errors into geoseg's."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error) as err:
        if writing:
            raise OutputError(f"{url} cannot be written ({err}). Check bucket, credentials and endpoint.") from err
        # A missing object is distinguished from one that cannot be read now: a run would otherwise start over.
        answer = (getattr(err, "response", None) or {}).get("ResponseMetadata", {})
        is_missing = answer.get("HTTPStatusCode") == http.HTTPStatus.NOT_FOUND
        kind = MissingFileError if is_missing else ReadError
        raise kind(f"{url} cannot be read ({err}). Check bucket, credentials and endpoint.") from err


def _require_boto3(location: str) -> None:
    from importlib.util import find_spec

    if find_spec("boto3") is None:
        raise MissingPackageError(f"{location} needs the package boto3. Install it: pip install 'geoseg[cluster]'")
