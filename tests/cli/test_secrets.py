"""Passwords, signatures and tokens in URLs and in the environment reach no message, no log and no file."""

import json
import logging
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.bundle import load_bundle
from geoseg.io.remote import REMOTE_ENV
from geoseg.run.settings import RunSettings, run_facts
from geoseg.scene import close_readers

Run = Callable[..., tuple[int, list[str], str]]

SECRET = "hunter2"
URL = "http://me:hunter2@{place}?X-Amz-Credential=hunter2%2Fus&X-Amz-Signature=hunter2&sig=hunter2%3D&access_token=hunter2"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_SESSION_TOKEN": "hunter2",
    "AZURE_STORAGE_SAS_TOKEN": "hunter2",
    "GDAL_HTTP_BEARER": "hunter2",
    "GDAL_HTTP_HEADERS": "Authorization: Bearer hunter2",
    "GDAL_HTTP_PROXYUSERPWD": "me:hunter2",
    "GDAL_HTTP_USERPWD": "me:hunter2",
}


@pytest.fixture
def server(tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A web server of the scene, an area, a table and STAC documents, that refuses a part of a file when told to."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(REMOTE_ENV, "GDAL_HTTP_RETRY_DELAY", "0.01")
    files: dict[str, bytes] = {"scene.tif": scene.read_bytes(), "text.tif": b"no raster" * 99}
    state = SimpleNamespace(files=files, refused=lambda _: False)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            whole = files.get(self.path.partition("?")[0].rpartition("/")[2])
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if whole is None or state.refused(int(asked[2]) if asked else 0):
                return self.answer(404 if whole is None else 403, b"")
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

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.at = f"127.0.0.1:{httpd.server_port}"
    yield state
    close_readers()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def texts_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """All files, and those in archives."""
    for path in sorted(folder.rglob("*")):
        yield path, str(path).encode()
        if path.is_file():
            yield path, path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    yield from ((path / name, archive.read(name)) for name in archive.namelist())


def leaks(folder: Path, out: list[str], err: str, records: list[logging.LogRecord]) -> list[str]:
    found = [f"{path.relative_to(folder)}" for path, text in texts_of(folder) if SECRET.encode() in text]
    found += [f"stdout: {line}" for line in out if SECRET in line]
    found += [f"stderr: {line}" for line in err.splitlines() if SECRET in line]
    return found + [f"log: {record.getMessage()}" for record in records if SECRET in record.getMessage()]


def item(href: str) -> bytes:
    box = {"type": "Polygon", "coordinates": [[[-3, 5], [-2, 5], [-2, 6], [-3, 6], [-3, 5]]]}
    assets = {"image": {"href": href, "type": "image/tiff", "roles": ["data"]}}
    fields = {"type": "Feature", "stac_version": "1.0.0", "id": "one", "geometry": box, "bbox": [-3, 5, -2, 6]}
    fields |= {"properties": {"datetime": "2023-05-01T00:00:00Z"}, "links": [], "assets": assets}
    return json.dumps(fields).encode()


REFUSED, HEAD_BYTES = "run while the server refuses most of the scene", 32_768

COMMANDS: dict[str, Callable[[Callable[[str], str], Path, Path], list[list[object]]]] = {
    "run": lambda url, model, _: [["run", url("scene.tif"), "-m", model, "-o", "out"], ["status", "out"]] * 2,
    "run with facts in JSON": lambda url, model, _: [["run", url("scene.tif"), "-m", model, "-o", "out", "--json"]],
    "run what is not there": lambda url, model, _: [["run", url("gone.tif"), "-m", model, "-o", "out"]],
    "run what is no raster": lambda url, model, _: [["run", url("text.tif"), "-m", model, "-o", "out"]],
    REFUSED: lambda url, model, _: [
        ["run", url("large.tif"), "-m", model, "-o", "out", "--block-px", "512"],
        ["status", "out"],
    ],
    "run several": lambda url, model, local: [
        ["run", url("scene.tif"), url("a/scene.tif"), local, "-m", model, "-o", "out"],
        ["status", "out"],
    ],
    "run a broken one among several": lambda url, model, local: [
        ["run", url("scene.tif"), url("text.tif"), "-m", model, "-o", "out"],
        ["status", "out"],
    ],
    "run a mosaic": lambda url, model, local: [
        ["run", url("scene.tif"), local, "--mosaic", "first", "-m", model, "-o", "out"]
    ],
    "run an area": lambda url, model, local: [["run", local, "--aoi", url("area.geojson"), "-m", model, "-o", "out"]],
    "run an area that is not there": lambda url, model, local: [
        ["run", local, "--aoi", url("gone.geojson"), "-m", model, "-o", "out"]
    ],
    "run a table": lambda url, model, _: [["run", url("table.csv"), "-m", model, "-o", "out"], ["status", "out"]],
    "run a table that is not there": lambda url, model, _: [["run", url("gone.csv"), "-m", model, "-o", "out"]],
    "run STAC": lambda url, model, _: [["run", url("item.json"), "-m", model, "-o", "out"]],
    "run a catalog": lambda url, model, _: [["run", url("catalog.json"), "-m", model, "-o", "out"]],
    "run broken STAC": lambda url, model, _: [["run", url("broken.json"), "-m", model, "-o", "out"]],
    "run into a server": lambda url, model, local: [["run", local, "-m", model, "-o", url("out")]],
    "a scheduler": lambda url, model, local: [
        ["run", local, "-m", model, "-o", "out", "--scheduler", "tcp://me:hunter2@127.0.0.1:1"]
    ],
    "a model": lambda url, _, local: [["run", local, "-m", url("a.safetensors"), "-o", "out"]],
    "evaluate": lambda url, model, local: [
        ["evaluate", url("scene.tif"), "-l", "area.geojson", "-m", model, "-o", "out"]
    ],
    "evaluate labels": lambda url, model, local: [
        ["evaluate", local, "-l", url("area.geojson"), "-m", model, "-o", "out"]
    ],
    "vectorize": lambda url, *_: [["vectorize", url("scene.tif"), "-o", "out"]],
    "finetune": lambda url, model, _: [["finetune", url("scene.tif"), "-l", "area.geojson", "-m", model, "-o", "out"]],
    "train": lambda url, *_: [
        ["train", "buildings-1m", "-o", "out", "--set", f"sources.massachusetts.images={url('scene.tif')}"],
        ["train", url("recipe.toml"), "-o", "out"],
    ],
    "status": lambda url, *_: [["status", url("out")]],
    "show a model": lambda url, *_: [["models", "show", url("a.safetensors")]],
    "info": lambda *_: [["info"]],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_secrets_reach_neither_messages_nor_files(
    name: str,
    geoseg: Run,
    server: SimpleNamespace,
    scene: Path,
    bright: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)

    def url(path: str) -> str:
        return URL.format(place=f"{server.at}/{path}")

    box = gpd.GeoSeries([shapely.box(500_010, 599_975, 500_040, 599_995)], crs="EPSG:32630")
    box.to_file("area.geojson")
    server.files["area.geojson"] = Path("area.geojson").read_bytes()
    server.files["table.csv"] = f"path,name\n{url('scene.tif')},one\n{url('a/scene.tif')},two\n".encode()
    server.files["item.json"] = item(url("scene.tif"))
    server.files["broken.json"] = item(url("scene.tif")).replace(b"assets", b"asset")
    links = [{"rel": "item", "href": url("item.json")}, {"rel": "child", "href": url("gone.json")}]
    catalog: dict[str, Any] = {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "", "links": links}
    server.files["catalog.json"] = json.dumps(catalog).encode()
    pixels = np.random.default_rng(1).integers(1, 255, (3, 200, 200), "uint8")
    grid = {"crs": "EPSG:32630", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 600_000)}
    with rasterio.MemoryFile() as file:
        with file.open(driver="GTiff", count=3, height=200, width=200, dtype="uint8", **grid) as dst:
            dst.write(pixels)
        server.files["large.tif"] = file.read()
    server.refused = (lambda last: last >= HEAD_BYTES) if name == REFUSED else (lambda _: False)
    found = []
    for command in COMMANDS[name](url, bright, scene):
        caplog.clear()
        _, out, err = geoseg(*command)
        found += leaks(tmp_path, out, err, caplog.records)
    assert not found


def test_the_plan_of_a_run_has_no_secrets_and_a_URL_signed_again_is_the_same_scene(
    server: SimpleNamespace, bright: Path
) -> None:
    url = URL.format(place=f"{server.at}/scene.tif")
    before, now = (
        run_facts([one], load_bundle(bright), RunSettings()) for one in (url, url.replace(SECRET, "signed-again"))
    )
    assert before == now
    assert server.at in json.dumps(now)
    assert SECRET not in json.dumps(before)
