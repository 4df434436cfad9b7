"""Scenes on a web server and in an S3 bucket, through real servers on loopback."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.engines import ThresholdSegmenter
from geoseg.errors import GeosegError, MissingFileError, ReadError
from geoseg.grid import Window, fit_lattice
from geoseg.inference import Plan, predict_block
from geoseg.scene import REMOTE_ENV, gdal_env, open_scene
from geoseg.scene.files import reach_of
from geoseg.scene.reader import Fetches
from geoseg.scene.vrt import mosaic_vrt

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
WINDOW = Window(300, 333, 70, 90)

ODD_NAMES = ("a b.tif", "c#1.tif", "d+e.tif", "f%20g.tif", "what?.tif", "i;j&k=l.tif", "[m].tif", "Ü.tif", "50%.tif")


def handler_of(folder: Path, log: SimpleNamespace) -> type[BaseHTTPRequestHandler]:
    """A handler that serves a folder's files by ranges and counts requests and bytes.

    The next `log.failures` answers come as 503; the next `log.dropped` ones end in the middle.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.reply(body=False)

        def do_GET(self) -> None:
            self.reply(body=True)

        def reply(self, *, body: bool) -> None:
            path = folder / unquote(self.path.lstrip("/").split("?")[0])
            if log.failures > 0 or not path.is_file():
                self.send_response(503 if log.failures > 0 else 404)
                log.failures -= 1
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            whole = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            stop = min(int(asked[2]) + 1 if asked and asked[2] else len(whole), len(whole))
            part = whole[start:stop]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(whole)}")
            self.end_headers()
            if body and log.dropped > 0:
                log.dropped -= 1
                self.wfile.write(part[: len(part) // 2])
                self.close_connection = True
            elif body:
                log.sent += len(part)
                log.requests += 1
                self.wfile.write(part)

    return Handler


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A web server over `tmp_path`, on loopback."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    log = SimpleNamespace(sent=0, failures=0, dropped=0, requests=0)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(tmp_path, log))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    log.url = f"http://127.0.0.1:{httpd.server_port}"
    yield log
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def cog(write, noise) -> Path:
    """A COG of some megabytes."""
    return write("remote scene.tif", noise(3, 1200, 1100), driver="COG", compress="deflate", blocksize=256)


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_a_web_scene_reads_as_the_local_file_does(server, cog: Path, prefix: str) -> None:
    url = f"{prefix}{server.url}/{cog.name.replace(' ', '%20')}"
    remote, local = open_scene(url), open_scene(cog)
    assert remote.grid == local.grid
    assert remote.overviews == local.overviews
    np.testing.assert_array_equal(remote.read(WINDOW).values, local.read(WINDOW).values)


def test_what_an_address_must_not_contain_is_escaped_once(server, cog: Path) -> None:
    local = open_scene(cog)
    for name in ODD_NAMES:
        if name not in ("f%20g.tif", "what?.tif"):  # which mean another file
            (cog.parent / name).write_bytes(cog.read_bytes())
            remote = open_scene(f"{server.url}/{name}")
            assert (remote.grid, remote.name) == (local.grid, name.removesuffix(".tif"))
            np.testing.assert_array_equal(remote.read(WINDOW).values, local.read(WINDOW).values)


def test_only_the_ranges_that_are_needed_are_fetched(server, cog: Path) -> None:
    cog = cog.rename(cog.with_name("ranges.tif"))
    scene = open_scene(f"{server.url}/{cog.name}")
    scene.read(Window(0, 0, 64, 64))
    assert 0 < server.sent < cog.stat().st_size / 2


def test_several_web_files_are_one_scene(server, write, noise) -> None:
    pixels = noise(1, 50, 120)
    for n in (0, 1):
        place = Affine(0.3, 0, 500_000 + 18 * n, 0, -0.3, 600_000)
        write(f"part{n}.tif", pixels[:, :, 60 * n : 60 * n + 60], transform=place)
    scene = open_scene([f"{server.url}/part{n}.tif" for n in (0, 1)])
    np.testing.assert_array_equal(scene.read(scene.grid.window).values, pixels)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that do not keep a test waiting."""
    monkeypatch.setitem(REMOTE_ENV, "GDAL_HTTP_RETRY_DELAY", "0.02")
    # GDAL opens what a VRT names under the lock of Python, and the server of these tests is Python, too.
    monkeypatch.setitem(REMOTE_ENV, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setattr("geoseg.scene.scene.ATTEMPT_DELAY_S", 0.02)


def test_a_read_that_fails_for_a_moment_is_tried_again(server, cog: Path, quick: None) -> None:
    cog = cog.rename(cog.with_name("flaky.tif"))
    scene = open_scene(f"{server.url}/{cog.name}")
    scene.read(Window(0, 0, 8, 8))  # opens the reader
    server.failures = 2
    np.testing.assert_array_equal(
        scene.read(Window(900, 800, 200, 200)).values, open_scene(cog).read(Window(900, 800, 200, 200)).values
    )
    assert server.failures == 0


def test_a_connection_that_breaks_off_is_tried_again(server, cog: Path, quick: None) -> None:
    cog = cog.rename(cog.with_name("dropping.tif"))
    scene = open_scene(f"{server.url}/{cog.name}")
    scene.read(Window(0, 0, 8, 8))
    server.dropped = 3
    np.testing.assert_array_equal(
        scene.read(Window(900, 800, 200, 200)).values, open_scene(cog).read(Window(900, 800, 200, 200)).values
    )
    assert server.dropped == 0


def test_a_read_that_fails_for_good_names_file_and_window(server, cog: Path, quick: None) -> None:
    cog = cog.rename(cog.with_name("gone for good.tif"))
    url = f"{server.url}/gone%20for%20good.tif"
    scene = open_scene(url)
    scene.read(Window(0, 0, 8, 8))
    server.failures = 10_000
    with pytest.raises(ReadError, match=rf"rows 900-1100 and columns 800-1000 cannot be read from {url}"):
        scene.read(Window(900, 800, 200, 200))
    server.failures = 0
    assert scene.read(Window(900, 800, 200, 200)).values.any()


@pytest.mark.parametrize("shape", [(1200, 1100), (413, 379)])
def test_every_byte_is_fetched_once_by_all_threads_and_blocks(server, write, noise, shape: tuple[int, int]) -> None:
    """Blocks with halos overlap in their TIFF tiles, and threads have files of their own."""
    path = write(f"once{shape[0]}.tif", noise(3, 1200, 1100), driver="COG", compress="deflate", blocksize=128)
    with rasterio.open(path) as src:
        tiles = sum(int(src.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)) for x in range(9) for y in range(10))
    plan = plan_of(f"{server.url}/{path.name}", shape)
    server.sent = server.requests = 0
    blocks = plan.blocks(shape[0] // 5)
    assert len(blocks) >= 20
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(predict_block, plan), blocks))
    assert 0.98 * tiles < server.sent <= 1.15 * tiles
    assert server.requests <= 3 * len(blocks)


def plan_of(path: str, shape: tuple[int, int]) -> Plan:
    """A plan of small chips."""
    scene = open_scene(path).at_shape(shape)
    return Plan(
        scene, fit_lattice(shape, chip_px=shape[0] // 6, halo_px=shape[0] // 40, multiple_px=1), ThresholdSegmenter()
    )


def test_a_VRT_on_disk_reaches_its_web_files_as_they_are_reached_by_name(
    server, cog: Path, tmp_path: Path, quick: None
) -> None:
    cog = cog.rename(cog.with_name("behind.tif"))
    local = tmp_path / "local.vrt"
    local.write_text(mosaic_vrt([str(cog)]).replace(str(cog), f"/vsicurl/{server.url}/{cog.name}"))
    other = tmp_path / "other.vrt"
    other.write_text(mosaic_vrt([str(cog)]))
    with rasterio.open(other) as in_use:  # as by another thread: GDAL keeps what it knows of sources
        in_use.read(window=((0, 1), (0, 1)))
        scene = open_scene(local)
        server.failures = 2
        np.testing.assert_array_equal(scene.read(WINDOW).values, open_scene(cog).read(WINDOW).values)
    assert server.failures == 0


def test_local_files_in_a_VRT_keep_their_neighbors() -> None:
    assert reach_of(("https://host/a.tif",)) == "EMPTY_DIR"
    assert reach_of(("a.tif", "b.tif")) is None
    assert reach_of(("a.tif", "s3://bucket/b.tif")) == "TRUE"


def test_a_URL_that_leads_nowhere_is_an_error(server) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.tif cannot be opened .*Check the URL"):
        open_scene(f"{server.url}/gone.tif")


def test_the_name_of_a_web_scene_is_that_of_its_file(server, write, noise) -> None:
    write("named.tif", noise(1, 20, 20))
    assert open_scene(f"{server.url}/named.tif?token=a/b.c").name == "named"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of an S3 server with the bucket `scenes`."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_S3_ENDPOINT": f"127.0.0.1:{port}",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(port)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
    client.create_bucket(Bucket="scenes")
    yield client
    client.close()
    process.terminate()
    process.wait()


def wait_for(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"no server on port {port}")


def test_a_scene_in_a_bucket_reads_as_the_local_file_does(bucket, write, cog: Path) -> None:
    bucket.upload_file(str(cog), "scenes", "folder/a.tif")
    local = open_scene(cog)
    remote = open_scene("s3://scenes/folder/a.tif")
    assert (remote.grid, remote.name) == (local.grid, "a")
    np.testing.assert_array_equal(remote.read(WINDOW).values, local.read(WINDOW).values)
    coarse = (200, 190)
    np.testing.assert_array_equal(
        remote.at_shape(coarse).read(Window(0, 0, 50, 50)).values,
        local.at_shape(coarse).read(Window(0, 0, 50, 50)).values,
    )
    for name in ODD_NAMES:
        bucket.upload_file(str(cog), "scenes", f"odd/{name}")
        odd = open_scene(f"s3://scenes/odd/{name}")
        assert (odd.grid, odd.name) == (local.grid, name.removesuffix(".tif"))
        np.testing.assert_array_equal(odd.read(WINDOW).values, local.read(WINDOW).values)
    for n in (0, 1):
        sheet = write(
            f"sheet{n}.tif", np.full((1, 20, 20), n + 1, np.uint8), transform=PLACE @ Affine.translation(20 * n, 0)
        )
        bucket.upload_file(str(sheet), "scenes", f"folder/sheet{n}.tif")
    sheets = open_scene([f"s3://scenes/folder/sheet{n}.tif" for n in (0, 1)])
    assert sheets.read(Window(0, 18, 1, 4)).values.tolist() == [[[1, 1, 2, 2]]]
    with pytest.raises(GeosegError, match="credentials"):
        open_scene("s3://scenes/folder/gone.tif")


def test_options_for_remote_files_do_not_leak_into_the_program(server, cog: Path) -> None:
    open_scene(f"{server.url}/{cog.name.replace(' ', '%20')}").read(WINDOW)
    with rasterio.Env() as env:
        assert "GDAL_HTTP_MAX_RETRY" not in env.options


def test_the_address_that_boto3_knows_serves_GDAL_too(bucket, cog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.upload_file(str(cog), "scenes", "folder/by_url.tif")
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.meta.endpoint_url)
    found = open_scene("s3://scenes/folder/by_url.tif").read(WINDOW).values
    np.testing.assert_array_equal(found, open_scene(cog).read(WINDOW).values)


def test_options_of_the_environment_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:9000/")
    monkeypatch.setenv("AWS_HTTPS", "YES")
    monkeypatch.delenv("AWS_S3_ENDPOINT", raising=False)
    with gdal_env(["s3://bucket/a.tif"]):
        options = rasterio.env.getenv()
    assert "GDAL_HTTP_MAX_RETRY" not in options
    assert "AWS_HTTPS" not in options
    assert options["AWS_S3_ENDPOINT"] == "host:9000"
    assert options["VSI_CACHE"] in ("FALSE", False)


def test_a_part_on_its_way_is_waited_for_and_not_fetched_twice() -> None:
    fetches, order = Fetches(), []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with fetches.claim({("a", 1), ("a", 2)}):
            inside.set()
            leave.wait(60)
            order.append("first")

    def second() -> None:
        with fetches.claim({("a", 2), ("a", 3)}):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    inside.wait(60)
    threads[1].start()
    with fetches.claim({("a", 9)}):
        order.append("elsewhere")
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["elsewhere", "first", "second"]


def test_what_was_fetched_is_read_by_several_at_once_and_what_failed_was_not() -> None:
    fetches = Fetches()
    with pytest.raises(OSError, match="broken"), fetches.claim({("a", 1)}):
        raise OSError("broken")
    with fetches.claim({("a", 1)}):
        pass
    another = threading.Event()

    def read_too() -> None:
        with fetches.claim({("a", 1)}):
            another.set()

    with fetches.claim({("a", 1)}):
        threading.Thread(target=read_too, daemon=True).start()
        assert another.wait(60)
