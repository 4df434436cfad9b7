"""A server that does not hand out a file's mask: never is nodata taken for data."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.errors import MissingFileError, ReadError
from geoseg.grid import Window
from geoseg.scene import REMOTE_ENV, close_readers, open_scene
from geoseg.scene.files import forget
from geoseg.scene.tiff import has_mask_directory

SIDE = 600
PIECE = 1 << 14
"""Bytes that GDAL asks for at a time, and geoseg."""


def write(path: Path, *, mask: bool, big: bool = False) -> Path:
    """Write noise whose upper half is nodata by an internal mask, which lies at the end of the file."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630"}
    tiles = {"tiled": True, "blockxsize": 112, "blockysize": 112}  # so that the mask begins within a piece
    place = {"transform": rasterio.Affine(0.3, 0, 5e5, 0, -0.3, 6e5), "bigtiff": "YES" if big else "NO"}
    valid = np.arange(SIDE)[:, None] >= np.full((1, SIDE), SIDE // 2)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=SIDE, width=SIDE, **profile, **tiles, **place) as dst,
    ):
        dst.write(np.random.default_rng(0).integers(1, 255, (1, SIDE, SIDE), dtype=np.uint8))
        if mask:
            dst.write_mask(valid)
    return path


SERVER = """
import re, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder, refused = Path(sys.argv[1]), {}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): ...

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        whole = (folder / self.path.lstrip("/")).read_bytes()
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1 if asked and asked[2] else len(whole), len(whole))
        limit, times, status = map(int, (folder / "limit").read_text().split())
        is_refused = start >= limit and refused.get(self.path, 0) < times
        refused[self.path] = refused.get(self.path, 0) + is_refused
        self.send_response(status if is_refused else 206 if asked else 200)
        self.send_header("Content-Length", "0" if is_refused else str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked and not is_refused:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(whole)}")
        self.end_headers()
        if self.command == "GET" and not is_refused:
            self.wfile.write(whole[start:stop])

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""A server of ranges that refuses what begins beyond a limit, as often as it is told and with the status it is told.

In a process of its own: GDAL asks for a mask with Python's lock held, so that a server in this one could not answer.
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(REMOTE_ENV, "GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr("geoseg.scene.scene.ATTEMPT_DELAY_S", 0.0)
    (tmp_path / "limit").write_text(f"{1 << 40} 0 500")
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        close_readers()
        process.kill()


def refuse_the_end(path: Path, times: int = 10_000, status: int = 500) -> None:
    """Hand out the end of a file, where its mask lies, no more, or only after some attempts."""
    (path.parent / "limit").write_text(f"{path.stat().st_size // PIECE * PIECE} {times} {status}")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_a_tiffs_directories_say_whether_it_has_a_mask(tmp_path: Path, mask: bool, big: bool) -> None:
    with write(tmp_path / "a.tif", mask=mask, big=big).open("rb") as file:
        assert has_mask_directory(file) == mask


def test_what_is_no_tiff_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"nothing of the kind")
    with (tmp_path / "a.tif").open("rb") as file, pytest.raises(ValueError, match="not a TIFF"):
        has_mask_directory(file)


def test_a_remote_scene_whose_mask_is_not_handed_out_is_refused(server: str, tmp_path: Path) -> None:
    refuse_the_end(write(tmp_path / "refused.tif", mask=True))
    with pytest.raises(MissingFileError, match=r"cannot be opened whole .the server sent less than"):
        open_scene(f"{server}/refused.tif")


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
@pytest.mark.parametrize("big", [False, True])
def test_a_mask_that_was_not_handed_out_at_once_is_found_out(
    server: str, tmp_path: Path, prefix: str, big: bool
) -> None:
    """The server stumbles once, when GDAL opens the file; the directories themselves tell of the mask."""
    refuse_the_end(write(tmp_path / f"once{big}.tif", mask=True, big=big), times=1)
    with pytest.raises(MissingFileError, match="it has a mask that the server did not hand out"):
        open_scene(f"{prefix}{server}/once{big}.tif")


def test_a_remote_scene_with_its_mask_opens(server: str, tmp_path: Path) -> None:
    write(tmp_path / "whole.tif", mask=True)
    scene = open_scene(f"{server}/whole.tif")
    assert scene.has_mask
    assert not scene.read(Window(0, 0, 50, 50)).valid.any()


def test_a_remote_scene_without_a_mask_opens(server: str, tmp_path: Path) -> None:
    write(tmp_path / "bare.tif", mask=False)
    assert not open_scene(f"{server}/bare.tif").has_mask


def test_a_worker_that_opens_the_file_without_its_mask_reads_nothing(server: str, tmp_path: Path) -> None:
    path = write(tmp_path / "later.tif", mask=True)
    scene = open_scene(f"{server}/later.tif")
    forget(scene.paths)
    refuse_the_end(path)
    with pytest.raises(ReadError, match=r"later\.tif"):
        scene.read(Window(0, 0, 50, 50))
