"""Objects are there whole or not at all, in a folder and in a bucket."""

import http.server
import os
import pickle
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from geoseg.errors import MissingFileError, OutputError
from geoseg.io import store as module
from geoseg.io.remote import REMOTE_ENV, open_remote
from geoseg.io.store import LocalStore, S3Store, Store, glob, list_names, open_store, read_bytes, stamp


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        patch.delenv("AWS_S3_ENDPOINT", raising=False)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="runs")
        yield "s3://runs"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "run")
    return open_store(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_what_is_written_is_read_again(store: Store) -> None:
    store.write("parts/a.npz", b"one")
    store.write("parts/a.npz", b"two")
    assert store.read("parts/a.npz") == b"two"
    assert store.has("parts/a.npz")
    assert not store.has("parts/b.npz")


def test_names_lists_everything_below_a_folder_in_order(store: Store) -> None:
    for name in ("parts/b", "parts/a", "plan.json", "parts/deep/c", "partsx"):
        store.write(name, b"")
    assert store.names("parts") == ["parts/a", "parts/b", "parts/deep/c"]
    assert store.names("") == ["parts/a", "parts/b", "parts/deep/c", "partsx", "plan.json"]
    assert store.names("nowhere") == []


def test_create_leaves_an_older_object_alone(store: Store) -> None:
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert store.read("lock") == b"mine"


def test_remove_takes_an_object_or_a_folder(store: Store) -> None:
    for name in ("parts/a", "parts/b", "plan.json"):
        store.write(name, b"")
    store.remove("parts")
    assert store.names("") == ["plan.json"]
    store.remove("plan.json")
    store.remove("plan.json")
    assert store.names("") == []


def test_upload_moves_a_file_there(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    path.write_bytes(b"pixels")
    store.upload(path, "out/mask.tif")
    assert store.read("out/mask.tif") == b"pixels"


def test_what_is_missing_is_said(store: Store) -> None:
    with pytest.raises(MissingFileError, match=r"nothing\.json"):
        store.read("nothing.json")


def test_a_store_pickles_as_its_place(store: Store) -> None:
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


@pytest.mark.parametrize("how", ["write", "create", "upload"])
def test_a_full_disk_leaves_the_older_object_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store, new = LocalStore(tmp_path / "run"), tmp_path / "new"
    store.write("a", b"old")
    new.write_bytes(b"new")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device.*same command again"):
        store.upload(new, "a") if how == "upload" else getattr(store, how)("a", b"new")
    assert store.read("a") == b"old"
    assert [p.name for p in store.folder.iterdir()] == ["a"]


@pytest.mark.parametrize("how", ["write", "create", "upload"])
def test_bytes_are_on_the_disk_before_a_name_shows_them_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A power failure may otherwise leave an empty file under the name."""
    store, new, said = LocalStore(tmp_path), tmp_path / "new", list[str]()
    new.write_bytes(b"whole")
    sync, replace, link = os.fsync, os.replace, os.link

    def note_sync(number: int) -> None:
        found = os.fstat(number)
        said.append("names" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")
        sync(number)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", lambda *paths: (said.append("shown"), replace(*paths)))
    monkeypatch.setattr(os, "link", lambda *paths: (said.append("shown"), link(*paths)))
    if how == "upload":
        store.upload(new, "a")
    else:
        getattr(store, how)("a", b"whole")
    assert said == ["5 bytes", "shown", "names"]


def test_files_under_construction_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / f"{module.ASIDE}1-a").write_bytes(b"half")
    assert LocalStore(tmp_path).names("") == []


def test_create_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = LocalStore(tmp_path)
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert store.read("lock") == b"mine"


def test_a_missing_bucket_is_said(bucket: str) -> None:
    with pytest.raises(OutputError, match="nobodys"):
        S3Store("s3://nobodys/run").write("a", b"")


def test_other_places_are_refused() -> None:
    with pytest.raises(OutputError, match="s3://bucket/prefix"):
        open_store("ftp://host/run")


def test_gdals_name_for_the_endpoint_serves_too(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_S3_ENDPOINT", endpoint.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    S3Store(f"{bucket}/gdal").write("a", b"1")
    assert read_bytes(f"{bucket}/gdal/a") == b"1"


def test_glob_matches_part_by_part(bucket: str) -> None:
    store = S3Store(f"{bucket}/glob")
    for name in ("a.tif", "b.png", "deep/c.tif", "deep/er/d.tif"):
        store.write(name, b"")
    root = f"{bucket}/glob"
    assert glob(f"{root}/*.tif") == [f"{root}/a.tif"]
    assert glob(f"{root}/**/*.tif") == [f"{root}/a.tif", f"{root}/deep/c.tif", f"{root}/deep/er/d.tif"]
    assert list_names(f"{root}/deep/") == [f"{root}/deep/c.tif", f"{root}/deep/er/d.tif"]


def test_a_stamp_changes_with_the_object(store: Store) -> None:
    store.write("a", b"one")
    before = stamp(f"{store.url}/a")
    store.write("a", b"two and more")
    assert stamp(f"{store.url}/a") != before
    assert len(stamp(f"{store.url}/missing")) == 1


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by path: once it has failed as often as it is told, or with a status for every PUT."""

    failures = 2
    status = 200
    etag = "one"
    asked: ClassVar[list[str]] = []
    body = b"0123456789"

    def do_GET(self) -> None:
        if self.path == "/missing":
            Server.asked.append(self.path)
            self.send_error(404)
        elif self.path in ("/503", "/429") and Server.failures:
            Server.failures -= 1
            self.send_error(int(self.path[1:]))
        elif self.path == "/short":
            self.answer(200, b"{}", length=9)
        else:
            self.answer(200, self.body)

    def do_HEAD(self) -> None:
        self.answer(200, b"")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(Server.status, b"")

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        self.send_header("ETag", Server.etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a `Server`."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setitem(REMOTE_ENV, "GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setattr(Server, "failures", 2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_recovers_is_asked_again(server: str, status: int) -> None:
    Server.asked.clear()
    assert read_bytes(f"{server}/{status}") == Server.body
    assert Server.failures == 0
    with pytest.raises(MissingFileError, match="404"):
        read_bytes(f"{server}/missing")
    assert Server.asked == ["/missing"]  # once: it will not come
    with pytest.raises(MissingFileError, match=r"remaining|missing"):
        read_bytes(f"{server}/short")


def test_a_range_of_an_object_in_a_bucket_holds_its_bytes_and_no_more(bucket: str) -> None:
    S3Store(f"{bucket}/range").write("a", Server.body)
    with open_remote(f"{bucket}/range/a") as file:
        for start, wanted in ((3, b"3456"), (8, b"89")):
            file.seek(start)
            assert file.read(4) == wanted


def test_a_bucket_says_with_412_or_409_that_another_was_faster(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """409: another conditional write of the same object was under way."""
    pytest.importorskip("boto3")
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "us-east-1"}
    for name, value in (keys | {"AWS_ENDPOINT_URL": server}).items():
        monkeypatch.setenv(name, value)
    for status, created in ((200, True), (412, False), (409, False)):
        monkeypatch.setattr(Server, "status", status)
        assert S3Store("s3://runs/one").create("lock", b"mine") is created
    monkeypatch.setattr(Server, "status", 403)
    with pytest.raises(OutputError, match="lock cannot be written"):
        S3Store("s3://runs/one").create("lock", b"mine")


def test_a_stamp_tells_what_a_server_says_of_a_file(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp(f"{server}/scene.tif")
    assert stamp(f"{server}/scene.tif") == before
    monkeypatch.setattr(Server, "etag", "two")
    assert stamp(f"{server}/scene.tif") != before
    assert stamp(f"{server}/other.tif")[0] != before[0]


def test_a_stamp_tells_a_file_by_name_size_and_time_and_not_by_its_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scene.tif").write_bytes(b"one")
        os.utime(tmp_path / folder / "scene.tif", ns=(5, 5))
    before = stamp(str(tmp_path / "a" / "scene.tif"))
    assert stamp(str(tmp_path / "b" / "scene.tif")) == before
    os.utime(tmp_path / "b" / "scene.tif", ns=(5, 6))
    assert stamp(str(tmp_path / "b" / "scene.tif")) != before
    (tmp_path / "a" / "scene.tif").write_bytes(b"four")
    os.utime(tmp_path / "a" / "scene.tif", ns=(5, 5))
    assert stamp(str(tmp_path / "a" / "scene.tif")) != before
    (tmp_path / "a" / "other.tif").write_bytes(b"one")
    os.utime(tmp_path / "a" / "other.tif", ns=(5, 5))
    assert stamp(str(tmp_path / "a" / "other.tif")) != before
