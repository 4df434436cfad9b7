"""Whatever GDAL is told of a server, geoseg's own requests know too: there is one set of credentials and options."""

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from geoseg.errors import GeosegError, MissingFileError
from geoseg.grid import Window
from geoseg.io.remote import REMOTE_ENV, open_remote
from geoseg.io.store import list_names, read_bytes, stamp
from geoseg.scene import open_scene

LISTING = (
    "<?xml version='1.0'?><ListBucketResult><Name>naip</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>"
    "<Contents><Key>a.tif</Key><Size>1</Size><ETag>x</ETag><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
    "</Contents></ListBucketResult>"
)


def handler_of(folder: Path, log: SimpleNamespace) -> type[BaseHTTPRequestHandler]:
    """A handler of one folder, as a web server or a bucket, that refuses what `log.admits` does not admit."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            log.asked.append(self.path)
            path = folder / self.path.rsplit("/", 1)[-1].partition("?")[0]
            path = path.with_name(unquote(path.name))
            if not log.admits(self):
                return self.answer(log.refusal, b"")
            if "list-type" in self.path:
                return self.answer(200, LISTING.encode())
            if not path.is_file():
                return self.answer(404, b"")
            whole = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if log.ranges else None
            if asked is None:
                return self.answer(200, whole)
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(whole))
            return self.answer(206, whole[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(whole)}"})

        def answer(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            headers = {"Content-Length": str(len(body)), "ETag": '"one"', "Accept-Ranges": "bytes"} | (more or {})
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write, noise) -> Iterator[SimpleNamespace]:
    """A server of `a.tif`, which asks for nothing until it is told to."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(REMOTE_ENV, "GDAL_HTTP_RETRY_DELAY", "0.01")
    write("a.tif", noise(1, 150, 150))  # more than GDAL asks for at a time
    log = SimpleNamespace(asked=[], admits=lambda _: True, ranges=True, refusal=403)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(tmp_path, log))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    log.url = f"http://127.0.0.1:{httpd.server_port}"
    log.bytes = (tmp_path / "a.tif").read_bytes()
    yield log
    httpd.shutdown()
    httpd.server_close()
    thread.join()


BASIC = "Basic " + base64.b64encode(b"me:pw").decode()
TOLD = {
    "a header": ({"GDAL_HTTP_HEADERS": "Authorization: Bearer secret"}, "Bearer secret"),
    "a file of headers": ({"GDAL_HTTP_HEADER_FILE": "{folder}/headers"}, "Bearer secret"),
    "a token": ({"GDAL_HTTP_AUTH": "BEARER", "GDAL_HTTP_BEARER": "secret"}, "Bearer secret"),
    "a password": ({"GDAL_HTTP_AUTH": "BASIC", "GDAL_HTTP_USERPWD": "me:pw"}, BASIC),
    "netrc": ({"HOME": "{folder}"}, BASIC),
}


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
@pytest.mark.parametrize("told", TOLD)
def test_what_GDAL_is_told_opens_scenes_documents_and_stamps(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, prefix: str
) -> None:
    options, wanted = TOLD[told]
    (tmp_path / "headers").write_text("Authorization: Bearer secret")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pw")
    for name, value in options.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    server.admits = lambda request: request.headers.get("Authorization") == wanted
    url = f"{prefix}{server.url}/a.tif"
    assert open_scene(url).native.shape == (150, 150)
    assert read_bytes(url) == server.bytes
    assert stamp(url) == [url, '"one"', str(len(server.bytes))]


def test_a_proxy_that_GDAL_is_told_is_asked(server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_PROXY", server.url.removeprefix("http://"))
    url = "http://scenes.invalid/a.tif"
    assert open_scene(url).native.shape == (150, 150)
    assert read_bytes(url) == server.bytes
    assert len(stamp(url)) > 1
    assert set(server.asked) == {url}


@pytest.fixture
def bucket(server, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The server as the bucket `naip` of S3; nobody has credentials."""
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    return server


def check_bucket(server: SimpleNamespace, prefix: str) -> None:
    """Ask for everything that geoseg asks of a bucket."""
    path = f"{prefix}naip/a.tif"
    assert open_scene(path).native.shape == (150, 150)
    assert read_bytes(path) == server.bytes
    assert stamp(path) == [path, '"one"', str(len(server.bytes))]
    assert list_names("s3://naip/") == ["s3://naip/a.tif"]


@pytest.mark.parametrize("prefix", ["s3://", "/vsis3/"])
def test_a_bucket_whose_requests_are_paid_is_read(bucket, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    bucket.admits = lambda request: request.headers.get("x-amz-request-payer") == "requester"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    check_bucket(bucket, prefix)


@pytest.mark.parametrize("value", ["YES", "TRUE", "1", "true", "ON"])
def test_a_public_bucket_is_read_without_a_signature(bucket, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    bucket.admits = lambda request: "Authorization" not in request.headers
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", value)
    check_bucket(bucket, "s3://")


@pytest.mark.parametrize("prefix", ["s3://", "/vsis3/"])
def test_credentials_that_only_boto3_finds_count_too(
    bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str
) -> None:
    bucket.admits = lambda request: "Credential=mine/" in request.headers.get("Authorization", "")
    (tmp_path / "keys").write_text('{"Version": 1, "AccessKeyId": "mine", "SecretAccessKey": "b"}')
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/keys\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    check_bucket(bucket, prefix)
    (tmp_path / "b.tif").write_bytes(bucket.bytes)
    sheets = open_scene([f"{prefix}naip/a.tif", f"{prefix}naip/b.tif"])
    assert sheets.read(Window(0, 0, 150, 150)).values.any()


def test_a_profile_that_does_not_exist_is_named(bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    for ask in (open_scene, read_bytes, stamp, list_names):
        with pytest.raises(GeosegError, match=r"a\.tif cannot be .*nobodys.*credentials"):
            ask("s3://naip/a.tif")


def test_an_object_of_any_name_is_read(bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    (tmp_path / "a b#1%20.tif").write_bytes(bucket.bytes)
    scene = open_scene("s3://naip/a b#1%20.tif")
    assert scene.read(Window(0, 0, 150, 150)).values.any()


def test_a_server_that_refuses_is_said_to_and_credentials_are_the_advice(server) -> None:
    server.admits = lambda _: False
    for ask in (open_scene, read_bytes):
        with pytest.raises(MissingFileError, match=r"a\.tif cannot be .*403.*credentials"):
            ask(f"{server.url}/a.tif")
    assert stamp(f"{server.url}/a.tif") == [f"{server.url}/a.tif"]


def test_a_refusal_of_the_check_alone_is_no_error(
    server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(location: str) -> AbstractContextManager[object]:
        raise PermissionError("HTTP response code: 403")

    monkeypatch.setattr("geoseg.scene.tiff.open_remote", refuse)
    assert open_scene(f"{server.url}/a.tif").native.shape == (150, 150)
    assert "not checked whether it has a mask" in caplog.text


def test_a_server_without_ranges_is_said_to_be_one(server, noise, write) -> None:
    server.ranges = False
    write("large.tif", noise(3, 600, 600))
    with pytest.raises(GeosegError, match=r"Range downloading not supported .*Download it") as error:
        open_scene(f"{server.url}/large.tif")
    assert "credentials" not in str(error.value)
    assert read_bytes(f"{server.url}/a.tif") == server.bytes


def test_a_file_is_read_in_parts_that_end_where_it_ends(server) -> None:
    whole = server.bytes
    with open_remote(f"{server.url}/a.tif") as file:
        file.seek(3)
        assert (file.read(4), file.tell()) == (whole[3:7], 7)
        file.seek(len(whole) - 2)
        assert file.read(100) == whole[-2:]
        assert file.read() == b""
        file.seek(5)
        assert file.read() == whole[5:]


def test_a_refusal_is_told_from_another_failure(server) -> None:
    server.admits = lambda _: False
    for status, kind in ((401, PermissionError), (403, PermissionError), (404, OSError), (500, OSError)):
        server.refusal = status
        with pytest.raises(OSError, match=str(status)) as error, open_remote(f"{server.url}/{status}.tif"):
            pass
        assert type(error.value) is kind
