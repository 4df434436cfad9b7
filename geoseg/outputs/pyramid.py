"""Blocks of pixels in any layout to the compressed TIFF tiles of all levels, in one pass and in little memory.

A tile of full resolution is complete when all its pixels are there; a tile of the next level when the tiles below it
are, each of which gives it a quarter. So every tile is a function of the scene's pixels alone, whatever the blocks.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.inference import NODATA
from geoseg.outputs.overviews import Halving
from geoseg.outputs.tiles import TILE_PX, Key, PendingTiles, Spool, TileTable, encode_tile, encode_uniform

Pixels = NDArray[np.uint8]
Derivation = Callable[[Pixels, int, int], Pixels]
"""`(input, y, x)` pixels of one tile, its row and its column, to `(raster, y, x)`; 255 stays 255. Runs in threads."""

PENDING_BYTES = 8 * 2**20
"""Memory for tiles that wait, at full resolution and once more for all overviews."""

MOST_THREADS = 8
"""Blocks are read by one thread; more than a few that compress would wait for it."""

TASKS_PER_THREAD = 3
"""Tiles in progress: enough that no thread waits for blocks, few enough to use little memory."""


@dataclass(frozen=True, slots=True)
class Layer:
    """How one raster's tiles are made.

    Attributes:
        halve: How its overviews are made.
        predict: See `encode_tile`.
    """

    halve: Halving
    predict: bool


@dataclass(frozen=True, slots=True)
class MadeTile:
    """One raster's tile: its bytes (none without data), the value if it has but one, its quarter of the next level."""

    data: bytes
    value: int | None
    quarter: Pixels | int


class Pyramid:
    """TIFF tiles under construction for several rasters of one scene.

    Memory is bounded: `PENDING_BYTES` twice, `TASKS_PER_THREAD` tiles per thread, and 12 bytes per tile and raster for
    the tables, which is 1 MB for 10 Gpx.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        layers: Sequence[Layer],
        spool: Path,
        *,
        levels: int,
        derive: Derivation | None = None,
        inputs: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Lay out the levels.

        Args:
            shape: Height and width of the scene in pixels.
            layers: The rasters.
            spool: Where temporary files may be made: this name, and it with more at its end.
            levels: Full resolution and overviews.
            derive: How rasters follow from what is put in; None where they are the same.
            inputs: Rasters put in, where they are not those written.
            threads: Threads that compress; one per core by default.
        """
        self._shape, self._layers, self._derive = shape, layers, derive
        shapes = [(-(-shape[0] // 2**n), -(-shape[1] // 2**n)) for n in range(levels)]
        self._counts = [(-(-height // TILE_PX), -(-width // TILE_PX)) for height, width in shapes]
        self.tables = [
            [
                TileTable(size, np.zeros(count, np.int64), np.zeros(count, np.uint32))
                for size, count in zip(shapes, self._counts, strict=True)
            ]
            for _ in layers
        ]
        self._done = np.zeros(self._counts[0], bool)
        self._uniform: dict[tuple[int, int], int] = {}
        self._tasks: deque[tuple[Key, Future[list[MadeTile]]]] = deque()
        threads = threads or min(MOST_THREADS, os.cpu_count() or 1)
        self._most_tasks = threads * TASKS_PER_THREAD
        self._finished = 0
        self._stacks = [(inputs or len(layers), TILE_PX, TILE_PX), (len(layers), TILE_PX, TILE_PX)]
        self._pending = [
            PendingTiles(spool.with_name(f"{spool.name}.{name}"), stack, memory=PENDING_BYTES)
            for name, stack in zip(("tiles", "overviews"), self._stacks, strict=True)
        ]
        self.spool = Spool(spool)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="geoseg-tiles")

    def put(self, window: Window, pixels: Pixels) -> None:
        """Take the `(input, y, x)` pixels of a window that overlaps none put in before.

        Raises:
            ValueError: If pixels were there already.
            OSError: If a temporary file cannot be written.
        """
        for row in range(window.row // TILE_PX, -(-window.rows.stop // TILE_PX)):
            for col in range(window.col // TILE_PX, -(-window.cols.stop // TILE_PX)):
                self._put_tile(Key(0, row, col), window, pixels)

    def finish_above(self, row: int) -> None:
        """Complete the tiles that lie above a row of the scene: no more pixels come there, what is missing has none."""
        if row > self._finished:
            self._finished = row
            for level in range(len(self._counts)):
                self._finish_level(level, row // (TILE_PX << level))

    def finish(self) -> None:
        """Complete all tiles."""
        for level, (rows, _) in enumerate(self._counts):
            self._finish_level(level, rows)
        self._drain(0)

    def close(self) -> None:
        """Stop the threads and close the files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.spool.close()
        for store in self._pending:
            store.close()

    def _finish_level(self, level: int, rows: int) -> None:
        """Complete the tiles of the first `rows` rows of a level, when all have come that the level below gives it."""
        self._drain(0)
        pending = self._pending[level > 0]
        for key in pending.select(lambda key: key.level == level and key.row < rows):
            taken = pending.take(key)
            assert taken is not None
            self._start(key, taken[0])
            self._drain(self._most_tasks)

    def _put_tile(self, key: Key, window: Window, pixels: Pixels) -> None:
        """Copy what the window holds of one tile; compress it when it is complete."""
        frame = Window(key.row * TILE_PX, key.col * TILE_PX, TILE_PX, TILE_PX)
        inside = frame.intersect(Window(0, 0, *self._shape))
        part = frame.intersect(window)
        assert inside is not None
        assert part is not None
        stack, missing = self._pending[0].take(key) or (None, inside.height * inside.width)
        missing -= part.height * part.width
        if missing < 0 or self._done[key.row, key.col]:
            raise ValueError(f"{window} holds pixels that were written before; blocks must not overlap")
        if stack is None:
            stack = np.full(self._stacks[0], NODATA, np.uint8)
        stack[:, *part.relative_to(frame).slices] = pixels[:, *part.relative_to(window).slices]
        if missing:
            self._pending[0].keep(key, stack, missing)
        else:
            self._start(key, stack)
            self._drain(self._most_tasks)

    def _start(self, key: Key, stack: Pixels) -> None:
        if key.level == 0:
            self._done[key.row, key.col] = True
        self._tasks.append((key, self._pool.submit(self._make, key, stack)))

    def _drain(self, limit: int) -> None:
        """Store finished tiles, the oldest first, until no more than `limit` are in progress."""
        while len(self._tasks) > limit:
            key, task = self._tasks.popleft()
            tiles = task.result()
            for number, tile in enumerate(tiles):
                self._store(key, number, tile)
            if key.level + 1 < len(self._counts):
                self._put_quarter(key, tiles)

    def _store(self, key: Key, number: int, tile: MadeTile) -> None:
        """Spool a tile's bytes; those of a uniform tile once."""
        if not tile.data:
            return
        place = None if tile.value is None else self._uniform.get((number, tile.value))
        if place is None:
            place = self.spool.append(tile.data)
        if tile.value is not None:
            self._uniform[number, tile.value] = place
        table = self.tables[number][key.level]
        table.offsets[key.row, key.col], table.sizes[key.row, key.col] = place, len(tile.data)

    def _put_quarter(self, key: Key, tiles: Sequence[MadeTile]) -> None:
        """Copy a tile, halved, into the tile above it."""
        above = Key(key.level + 1, key.row // 2, key.col // 2)
        taken = self._pending[1].take(above)
        if taken is None:
            rows, cols = self._counts[key.level]  # of up to four tiles; fewer at the last row and column
            taken = (
                np.full(self._stacks[1], NODATA, np.uint8),
                min(2, rows - 2 * above.row) * min(2, cols - 2 * above.col),
            )
        stack, missing = taken
        half = TILE_PX // 2
        row, col = key.row % 2 * half, key.col % 2 * half
        for raster, tile in zip(stack, tiles, strict=True):
            raster[row : row + half, col : col + half] = tile.quarter
        if missing > 1:
            self._pending[1].keep(above, stack, missing - 1)
        else:
            self._start(above, stack)

    def _make(self, key: Key, stack: Pixels) -> list[MadeTile]:
        """Derive, halve and compress the tiles of one place; runs in a thread."""
        if key.level == 0 and self._derive is not None:
            stack = self._derive(stack, key.row, key.col)
        made = []
        for layer, pixels in zip(self._layers, stack, strict=True):
            value = int(pixels[0, 0])
            if (pixels != value).any():
                made.append(MadeTile(encode_tile(pixels, predict=layer.predict), None, layer.halve(pixels)))
            else:
                data = b"" if value == NODATA else encode_uniform(value, predict=layer.predict)
                made.append(MadeTile(data, value, value))
        return made
