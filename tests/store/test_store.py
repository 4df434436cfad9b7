"""Objects are there whole or not at all, in a folder and in a bucket."""

import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from geoseg import store as module
from geoseg.errors import MissingFileError, OutputError
from geoseg.store import LocalStore, S3Store, Store, glob, list_names, open_store, read_bytes, stamp


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


def test_a_write_that_fails_leaves_the_older_object_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left on device.*same command again"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_files_under_construction_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / f"{module.ASIDE}1-a").write_bytes(b"half")
    assert LocalStore(tmp_path).names("") == []


def test_create_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", refuse)
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
    endpoint = module.os.environ["AWS_ENDPOINT_URL"]
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


class Flaky(http.server.BaseHTTPRequestHandler):
    failures = 2

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
        elif Flaky.failures:
            Flaky.failures -= 1
            self.send_error(503)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b"{}")
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_that_recovers_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert read_bytes(f"{base}/item.json") == b"{}"
        with pytest.raises(MissingFileError, match="404"):
            read_bytes(f"{base}/missing")
        with pytest.raises(MissingFileError, match="IncompleteRead"):
            read_bytes(f"{base}/short")
        server.shutdown()
