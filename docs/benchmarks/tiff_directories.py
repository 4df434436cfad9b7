"""Could tifffile, async-tiff or GDAL read TIFF directories in place of `geoseg.scene.tiff`? Prints what each needs.

    python -m venv spike && spike/bin/pip install . tifffile async-tiff
    spike/bin/python docs/benchmarks/tiff_directories.py

Files of 270 MB with a mask, overviews and tiles that were never written are made in a temporary folder (1.4 GB) and
served on loopback, by a server that takes 20 ms to answer. virtual-tiff reads directories with async-tiff, kerchunk
with tifffile, so these two are not tried.
"""

import asyncio
import io
import logging
import multiprocessing as mp
import re
import resource
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geoseg.io.remote import REMOTE_ENV
from geoseg.scene.tiff import BYTE_COUNTS, OFFSETS, SUBFILE_TYPE, Tiff
from geoseg.third_party import ignore_warnings

Question = Literal["kinds", "size", "window"]
Read = Callable[[str, Question], object]
"""From a path or URL: what each directory holds (tag 254), the size they promise, the bytes of some tiles."""

TILES = list(product(range(8, 12), range(8, 12)))
"""Rows and columns of the tiles that a window touches."""

DELAY_S = 0.02
"""A server's time to answer."""

LAYOUTS: dict[str, dict[str, Any]] = {
    "GTiff": {},
    "COG": {"driver": "COG", "blocksize": 256, "compress": "NONE"},
    "COG, BigTIFF": {"driver": "COG", "blocksize": 256, "compress": "NONE", "BIGTIFF": "YES"},
    "big-endian": {"ENDIANNESS": "BIG"},
    "big-endian BigTIFF": {"ENDIANNESS": "BIG", "BIGTIFF": "YES"},
}

CUTS = 60

PIECE = 1 << 14
"""Bytes that GDAL fetches at a time."""


class Served(BaseHTTPRequestHandler):
    """Ranges of files, counted; those beyond a limit are refused."""

    protocol_version = "HTTP/1.1"
    folder: Path
    counts: Any
    limit: Any

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        time.sleep(DELAY_S)
        self.counts[0] += 1
        path = self.folder / self.path.rpartition("/")[2]
        if not path.is_file():
            self.send_error(404)
            return
        size, asked = path.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, size) if asked and asked[2] else size
        if start >= self.limit.value:
            self.send_error(500)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self.counts[1] += stop - start
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(stop - start))


def serve(folder: Path, counts: Any, limit: Any, port: Any) -> None:
    """Serve a folder, in a process of its own: GDAL may ask with Python's lock held."""
    Served.folder, Served.counts, Served.limit = folder, counts, limit
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    port.put(server.server_port)
    server.serve_forever()


def write(path: Path, side: int, block: int, *, rows: slice, levels: Sequence[int] = ()) -> None:
    """Write noise with a mask into rows of tiles, and leave the other tiles out."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "SPARSE_OK": True}
    grid = {"height": side, "width": side, "transform": rasterio.Affine(0.3, 0, 5e5, 0, -0.3, 6e5)}
    noise = np.random.default_rng(0).integers(1, 255, (block, side), dtype=np.uint8)
    with rasterio.open(path, "w", **profile, **grid, tiled=True, blockxsize=block, blockysize=block) as dst:
        windows = [Window(0, row * block, side, block) for row in range(rows.start, rows.stop)]
        for row, window in enumerate(windows):
            dst.write(np.roll(noise, row, 1), 1, window=window)
        for window in windows:
            dst.write_mask(np.full((block, side), 255, np.uint8), window=window)
        if levels:
            dst.build_overviews(levels, Resampling.nearest)


def layouts_of(base: Path) -> Iterator[tuple[str, Path]]:
    """Yield a file in all layouts."""
    for name, options in LAYOUTS.items():
        path = base.with_stem(f"{base.stem}-{name.replace(', ', '-').replace(' ', '-')}")
        if options:
            plain = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "copy_src_overviews": True}
            rasterio.shutil.copy(base, path, **(options if "driver" in options else plain | options), SPARSE_OK=True)
        else:
            path = base
        yield name, path


def is_url(location: str) -> bool:
    return location.startswith("http")


def end_of(starts: Any, lengths: Any) -> int:
    """Return the end of the last tile that was written."""
    first, bytes_of = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
    return int((first + bytes_of)[first > 0].max(initial=0))


class RangeFile(io.RawIOBase):
    """A remote file, read in pieces that are fetched once, as GDAL does, but without a cache that outlives it."""

    def __init__(self, url: str) -> None:
        self.url, self.at, self.pieces = url, 0, dict[int, bytes]()

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 2:
            with urllib.request.urlopen(urllib.request.Request(self.url, method="HEAD")) as answer:
                offset += int(answer.headers["Content-Length"])
        self.at = self.at + offset if whence == 1 else offset
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        numbers = range(self.at // PIECE, (self.at + size - 1) // PIECE + 1)
        for number in set(numbers) - set(self.pieces):
            asked = {"Range": f"bytes={number * PIECE}-{(number + 1) * PIECE - 1}"}
            with urllib.request.urlopen(urllib.request.Request(self.url, headers=asked)) as answer:
                self.pieces[number] = answer.read()
        start = self.at % PIECE
        content = b"".join(self.pieces[number] for number in numbers)[start : start + size]
        self.at += len(content)
        return content


def by_geoseg(location: str, question: Question) -> object:
    size = sys.maxsize if is_url(location) else Path(location).stat().st_size
    with RangeFile(location) if is_url(location) else Path(location).open("rb") as file:
        tiff = Tiff.of(file)
        if question == "kinds":
            directories = tiff.directories(size)
            return [int(tiff.values(f[SUBFILE_TYPE])[0]) if SUBFILE_TYPE in f else 0 for _, f in directories]
        ends = [0]
        for end, fields in tiff.directories(size):
            ends.append(end)
            for places, lengths in zip(OFFSETS, BYTE_COUNTS, strict=True):
                if places in fields and question == "window":
                    pairs = np.column_stack([tiff.values(fields[tag]) for tag in (places, lengths)])
                    return [tuple(map(int, pairs[at])) for at in tiles_of(len(pairs))]
                if places in fields:
                    ends.append(tiff.data_end(fields[places], fields[lengths], size))
        return max(ends)


def tiles_of(number: int) -> list[int]:
    """Return the numbers of the tiles that the window touches, in a square image."""
    return [row * int(number**0.5) + col for row, col in TILES]


def by_tifffile(location: str, question: Question) -> object:
    from tifffile import TiffFile

    with TiffFile(RangeFile(location) if is_url(location) else location) as tiff:
        if question == "kinds":
            return [int(page.subfiletype) for page in tiff.pages]
        if question == "window":
            page = tiff.pages[0]
            return [(int(page.dataoffsets[i]), int(page.databytecounts[i])) for i in tiles_of(len(page.dataoffsets))]
        return max(end_of(page.dataoffsets, page.databytecounts) for page in tiff.pages)


def by_async_tiff(location: str, question: Question) -> object:
    from async_tiff import TIFF
    from async_tiff.store import HTTPStore, LocalStore

    folder, _, name = location.rpartition("/")
    retries = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 1}}
    store = HTTPStore(folder, **retries) if is_url(location) else LocalStore(folder)

    async def open_() -> TIFF:
        return await TIFF.open(name, store=store)

    tiff = asyncio.run(open_())
    if question == "kinds":
        return [ifd.new_subfile_type or 0 for ifd in tiff.ifds]
    tables = [(ifd.tile_offsets, ifd.tile_byte_counts) for ifd in tiff.ifds]
    if question == "window":
        starts, lengths = tables[0]
        return [(starts[i], lengths[i]) for i in tiles_of(len(starts))]
    return max(end_of(*table) for table in tables)


def by_gdal(location: str, question: Question) -> object:
    """Ask GDAL, which numbers the directories from 1 and keeps their kinds to itself; where it fails they end."""
    path = f"/vsicurl/{location}" if is_url(location) else location
    with rasterio.Env(**REMOTE_ENV), ignore_warnings(NotGeoreferencedWarning):
        if question == "window":
            with rasterio.open(path) as src:
                return [tile_in(src, row, col) for row, col in TILES]
        found: list[int] = []
        for number in count(1):
            try:
                src = rasterio.open(f"GTIFF_DIR:{number}:{path}")
            except RasterioError:
                return found if question == "kinds" else max(found, default=0)
            with src:
                if question == "kinds":
                    found.append(-1)
                    continue
                height, width = src.block_shapes[0]
                places = product(range(-(-src.height // height)), range(-(-src.width // width)))
                found += [sum(tile_in(src, row, col)) for row, col in places]
    raise AssertionError("unreachable")


def tile_in(src: rasterio.DatasetReader, row: int, col: int) -> tuple[int, int]:
    facts = (src.get_tag_item(f"BLOCK_{fact}_{col}_{row}", "TIFF", bidx=1) for fact in ("OFFSET", "SIZE"))
    return tuple(int(fact or 0) for fact in facts)


READERS: dict[str, Read] = {
    "geoseg": by_geoseg,
    "tifffile": by_tifffile,
    "async-tiff": by_async_tiff,
    "GDAL": by_gdal,
}


def print_costs(files: dict[str, Path], url: str, counts: Any) -> None:
    """Print what each question takes of each file."""
    print("file                 question reader     requests      kB   ms  local ms")
    for (name, path), question in product(files.items(), ("kinds", "size", "window")):
        answers = []
        for reader, read in READERS.items():
            counts[0] = counts[1] = 0
            start = time.perf_counter()
            answers.append(read(f"{url}/{reader}/{question}/{path.name}", question))  # which GDAL has not cached
            middle = time.perf_counter()
            answers.append(read(str(path), question))
            ms, local_ms = 1000 * (middle - start), 1000 * (time.perf_counter() - middle)
            note = "" if answers[-1] == answers[-2] == answers[0] else "  another answer"
            print(f"{name:20} {question:8} {reader:10} {counts[0]:8} {counts[1] / 1000:7.0f} ", end="")
            print(f"{ms:4.0f} {local_ms:9.1f}{note}")


def print_cuts(files: dict[str, Path]) -> None:
    """Print how many of the files that were cut short are recognized."""
    log = Log()
    for name in ("tifffile", "rasterio"):
        logging.getLogger(name).addHandler(log)
        logging.getLogger(name).propagate = False
    print(f"\nof {CUTS} files cut short are noticed by an error or the promised size (by the log, too):")
    for name, path in files.items():
        whole, cut, found = path.read_bytes(), path.with_stem("cut"), []
        for reader, read in READERS.items():
            noticed = logged = 0
            for end in np.linspace(300, len(whole) - 1, CUTS).astype(int):
                cut.write_bytes(whole[:end])
                log.has_seen = False
                try:
                    is_noticed = read(str(cut), "size") > end
                except Exception:  # noqa: BLE001 - each library has errors of its own
                    is_noticed = True
                noticed += is_noticed
                logged += is_noticed or log.has_seen
            found.append(f"{reader} {noticed} ({logged})")
        print(f"  {name:20} {', '.join(found)}")


class Log(logging.Handler):
    """Whether a library logs something."""

    has_seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.has_seen = True


def print_circle(path: Path) -> None:
    """Print which readers come to an end where a directory is its own successor."""
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[link : link + 4] = content[4:8]
    path.with_stem("circle").write_bytes(content)
    print("\na directory that is its own successor:")
    for reader in READERS:
        process = mp.get_context("spawn").Process(target=ask, args=(reader, str(path.with_stem("circle"))))
        process.start()
        process.join(15)
        print(f"  {reader:10} {'does not end in 15 s' if process.is_alive() else f'exit code {process.exitcode}'}")
        process.kill()


def ask(reader: str, path: str) -> None:
    """Ask with bounded memory."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    READERS[reader](path, "kinds")


def main() -> None:
    """Print a table per question."""
    folder = Path(tempfile.mkdtemp())
    context = mp.get_context("spawn")
    counts, limit, port = context.Array("q", 2), context.Value("q", sys.maxsize), context.Queue()
    server = context.Process(target=serve, args=(folder, counts, limit, port), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get()}"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, SPARSE_OK_OVERVIEW=True):
        write(folder / "large.tif", 16_384, 256, rows=slice(0, 48), levels=[2, 4, 8, 16])
        write(folder / "small.tif", 2048, 256, rows=slice(0, 6), levels=[2, 4, 8, 16])
        write(folder / "wide.tif", 1 << 17, 512, rows=slice(8, 12))
        large, small = (dict(layouts_of(folder / f"{name}.tif")) for name in ("large", "small"))

    print_costs({**large, "65,536 tiles": folder / "wide.tif"}, url, counts)
    print_cuts(small)
    print_circle(small["GTiff"])

    with small["GTiff"].open("rb") as file:
        ends = [end for end, _ in Tiff.of(file).directories(sys.maxsize)]
    limit.value = max(ends) // PIECE * PIECE
    print(f"\na server that does not hand out the last of {len(ends)} directories:")
    for reader, read in READERS.items():
        try:
            found = f"{len(read(f'{url}/{reader}/small.tif', 'kinds'))} found, no error"
        except Exception as err:  # noqa: BLE001 - each library has errors of its own
            found = type(err).__name__
        print(f"  {reader:10} {found}")
    server.kill()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
