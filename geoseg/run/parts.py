"""Parts: the results of blocks in the run's store, each one object that is written atomically.

A part is a ZIP archive of arrays in NumPy's format, with data compressed by zstd at its lowest level: a mask takes
0.03 bytes and 0.6 ns per pixel, noisy probabilities 0.5 bytes and 2.5 ns, a quarter of the time of zlib at its fastest.
The archive's checksums reveal damage, such as by a power failure. Nothing is unpickled.
"""

import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal, get_args
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import DamagedPartError
from geoseg.grid import Block
from geoseg.inference import NODATA, BlockPixels, Stopwatch
from geoseg.io.store import Store

FOLDER = "parts"
SUFFIX = ".npy.zst"
ABOUT = "about.json"
"""File in a part with the times and the names of its arrays."""

RasterName = Literal["probability", "classes", "interior"]
"""A raster of a part, as `BlockPixels` names it."""

DAMAGES: tuple[type[Exception], ...] = (BadZipFile, zlib.error, EOFError, LookupError, ArithmeticError, OSError)
DAMAGES = (*DAMAGES, RuntimeError, TypeError, ValueError)
"""Errors that zipfile, pyarrow and NumPy raise for damaged bytes."""


def part_name(block: Block) -> str:
    """Return the name of a block's part in the store."""
    return f"{FOLDER}/{block.name}.npz"


def write_part(store: Store, block: Block, pixels: BlockPixels) -> None:
    """Write pixels and times of a block.

    Args:
        store: The parts of the run.
        block: The block.
        pixels: Its pixels. A raster that is all nodata is omitted.

    Raises:
        OutputError: If the part cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    if not pixels.is_empty:
        rasters = {name: getattr(pixels, name) for name in get_args(RasterName)}
        arrays |= {name: raster for name, raster in rasters.items() if raster is not None and (raster != NODATA).any()}
    watch = {"seconds": pixels.watch.seconds, "chips": pixels.watch.chips}
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr(ZipInfo(ABOUT), json.dumps({"watch": watch, "arrays": list(arrays)}))
        for name, values in arrays.items():
            archive.writestr(ZipInfo(f"{name}{SUFFIX}"), _squeeze(np.ascontiguousarray(values)))
    store.write(part_name(block), packed.getvalue())


def read_raster(store: Store, block: Block, name: RasterName) -> NDArray[np.uint8] | None:
    """Return a block's `(y, x)` raster; None if it is all nodata.

    Raises:
        MissingFileError: If the block has no part.
        DamagedPartError: If its part is damaged.
    """
    with _opened(store, block) as part:
        return part.read(name) if part.has(name) else None


def read_watch(store: Store, block: Block) -> Stopwatch:
    """Return the times of a block; raises like `read_raster`."""
    with _opened(store, block) as part:
        return Stopwatch(**part.about["watch"])


def is_intact(store: Store, block: Block) -> bool:
    """Return True if a block has a part that is not damaged, according to its checksums."""
    if not store.has(part_name(block)):
        return False
    try:
        with _opened(store, block) as part:
            return part.is_intact()
    except DamagedPartError:
        return False


def _squeeze(values: NDArray[Any]) -> bytes:
    """Return an array in NumPy's format: a plain header and compressed data."""
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(values))
    squeezed: bytes = _codec().compress(values.reshape(-1).view(np.uint8), asbytes=True)
    return head.getvalue() + squeezed


class _Part:
    """An archive of compressed arrays, each decompressed when it is read."""

    def __init__(self, data: bytes) -> None:
        self.archive = ZipFile(BytesIO(data))
        self.about: dict[str, Any] = json.loads(self.archive.read(ABOUT))

    def has(self, name: str) -> bool:
        """Return True if there is such an array, according to `ABOUT`: the archive's directory has no checksum."""
        return name in self.about["arrays"]

    def read(self, name: str) -> NDArray[Any]:
        """Return an array, read-only; the inverse of `_squeeze`."""
        squeezed = self.archive.read(f"{name}{SUFFIX}")
        stream = BytesIO(squeezed)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not the array that was written")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        size = math.prod(shape) * dtype.itemsize
        plain = _codec().decompress(memoryview(squeezed)[stream.tell() :], size)
        return np.frombuffer(plain, dtype).reshape(shape)

    def is_intact(self) -> bool:
        """Return True if the archive is complete and all checksums are right."""
        names = {ABOUT, *(f"{name}{SUFFIX}" for name in self.about["arrays"])}
        return names == set(self.archive.namelist()) and self.archive.testzip() is None


@contextmanager
def _opened(store: Store, block: Block) -> Iterator[_Part]:
    """Open the part of a block; raise `DamagedPartError` for any damage that reading meets."""
    name = part_name(block)
    data = store.read(name)
    try:
        yield _Part(data)
    except DAMAGES as err:
        raise DamagedPartError(
            f"{store.url}/{name} is damaged ({str(err) or type(err).__name__}). Remove it and run the same command "
            "again to compute the block again."
        ) from err


def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("zstd", compression_level=1)
