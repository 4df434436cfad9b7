"""Footprints on their way into files: record batches of a fixed size, so that no more than one is held."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.io.aside import reported
from geoseg.vectorize.footprints import name_places
from geoseg.vectorize.generalize import KINDS

if TYPE_CHECKING:
    import pyarrow
    from geopandas import GeoDataFrame

    from geoseg.vectorize import Footprints

BATCH = 50_000
"""Footprints held at once: about 20 MB."""

ROW_GROUP = 10_000
"""Footprints in a row group of GeoParquet: of those that a box does not meet, readers skip 2 MB each."""

LEVEL = 16
"""Level of the Hilbert curve: it visits 2^16 x 2^16 cells of the scene."""

CELL_BITS = 16
"""Bits of a place on the curve that are left out where footprints are counted: 256 x 256 cells of the scene."""

BOX = ("xmin", "ymin", "xmax", "ymax")


def to_batch(footprints: "Footprints") -> "pyarrow.RecordBatch":
    """Return footprints as a record batch, in reading order: attributes, `geometry` as WKB, `bbox`."""
    import pyarrow as pa

    count = len(footprints)
    offset, wkb = pa.py_buffer(footprints.wkb_offset.astype(np.int64)), pa.py_buffer(footprints.wkb)
    columns = {
        "id": pa.array(name_places(footprints.place), pa.string()),
        "area_m2": footprints.area_m2,
        "perimeter_m": footprints.perimeter_m,
        "confidence": footprints.confidence,
        "confidence_min": footprints.confidence_min,
        "edge": footprints.edge,
        "orientation_deg": footprints.orientation_deg,
        "vertices": footprints.vertices,
        "outline": pa.array(np.array(KINDS)[footprints.kind].tolist(), pa.string()),
        "geometry": pa.Array.from_buffers(pa.large_binary(), count, [None, offset, wkb]),
        "bbox": boxes_of(footprints.bounds),
    }
    return pa.record_batch(columns).take(np.lexsort((footprints.col, footprints.row)))


def frame_batch(footprints: "GeoDataFrame") -> "pyarrow.RecordBatch":
    """Return a frame as `to_batch` does, rows and attributes as they are."""
    import pyarrow as pa

    attributes = footprints.drop(columns=footprints.geometry.name)
    columns = {str(name): pa.array(values.to_numpy()) for name, values in attributes.items()}
    for name, values in columns.items():
        if pa.types.is_null(values.type):  # a column of text without any
            columns[name] = values.cast(pa.string())
    columns["geometry"] = pa.array(footprints.geometry.to_wkb(), pa.binary())
    columns["bbox"] = boxes_of(footprints.bounds.to_numpy())
    return pa.record_batch(columns)


def rebatch(batches: Iterable["pyarrow.RecordBatch"], rows_each: int) -> Iterator["pyarrow.RecordBatch"]:
    """Yield the rows of batches of any size in batches of one size; the last one is smaller, and may be empty."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) > rows_each:
            rows = pa.Table.from_batches(held)
            yield as_one(rows.slice(0, rows_each))
            held = rows.slice(rows_each).to_batches()
    yield as_one(pa.Table.from_batches(held))


def sort_along_curve(
    batches: Iterable["pyarrow.RecordBatch"], bounds: Sequence[float], spool: Path
) -> Iterator["pyarrow.RecordBatch"]:
    """Yield footprints in the order in which a Hilbert curve through the scene meets the middles of their boxes.

    Neighbors in the file are then neighbors on the ground, so that a reader that asks for a box needs few row groups.
    Batches are sorted one by one into a file; from there each stretch of the curve is read from all of them. No more
    than about `BATCH` footprints are held, unless more lie in a 256th of the scene's width and height.

    Args:
        batches: What `to_batch` or `rebatch` gives; one at least.
        bounds: Left, bottom, right, top of the scene.
        spool: Where the file is put meanwhile; it is removed.

    Yields:
        Batches of up to about `BATCH` rows; an empty one where there is none.

    Raises:
        OutputError: If there is not enough space.
    """
    import pyarrow as pa

    count = np.zeros(1 << (2 * LEVEL - CELL_BITS), np.int64)
    batches = iter(batches)
    first = next(batches)
    schema = first.schema.append(pa.field("place", pa.uint32()))
    try:
        with reported(spool), pa.ipc.new_file(spool, schema) as file:
            for batch in chain([first], batches):
                place = places_on_curve(batch, bounds)
                order = np.argsort(place, kind="stable")
                file.write_batch(batch.append_column("place", pa.array(place)).take(order))
                count += np.bincount(place >> CELL_BITS, minlength=len(count))
        yield first.slice(0, 0)
        for begin, end in cut_evenly(count, BATCH):
            yield _read_stretch(spool, begin << CELL_BITS, (end << CELL_BITS) - 1)
    finally:
        spool.unlink(missing_ok=True)


def places_on_curve(batch: "pyarrow.RecordBatch", bounds: Sequence[float]) -> NDArray[np.uint32]:
    """Return where on a Hilbert curve through some bounds the middles of the footprints' boxes lie, `(row,)`."""
    from geopandas import GeoSeries

    left, bottom, right, top = (batch["bbox"].field(name).to_numpy() for name in BOX)
    x, y = np.clip((left + right) / 2, bounds[0], bounds[2]), np.clip((bottom + top) / 2, bounds[1], bounds[3])
    found: NDArray[np.uint32] = GeoSeries.from_xy(x, y).hilbert_distance(total_bounds=bounds, level=LEVEL).to_numpy()
    return found


def cut_evenly(count: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges `(begin, end)` of cells that hold up to `most` items, or a single cell."""
    total, begin = np.cumsum(count), 0
    while begin < len(count):
        before = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, before + most, side="right")))
        yield begin, end
        begin = end


def _read_stretch(spool: Path, first: int, last: int) -> "pyarrow.RecordBatch":
    """Return the rows of a stretch of the curve, of which each batch of a file holds some in a row."""
    import pyarrow as pa

    with pa.memory_map(str(spool)) as source:  # of what is mapped, only these rows are read, and released at the end
        file = pa.ipc.open_file(source)
        parts = []
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            place = batch["place"].to_numpy()
            low, high = place.searchsorted(np.uint32(first)), place.searchsorted(np.uint32(last), side="right")
            parts.append(batch.slice(low, high - low))
        rows = pa.Table.from_batches(parts, file.schema)
        rows = rows.take(np.argsort(rows["place"].to_numpy(), kind="stable"))
        return as_one(rows.drop_columns("place"))


def as_one(rows: "pyarrow.Table") -> "pyarrow.RecordBatch":
    """Return rows as one batch of fresh memory, geometries with 32-bit offsets, which every reader knows."""
    import pyarrow as pa

    geometry = rows.schema.get_field_index("geometry")
    rows = rows.set_column(geometry, "geometry", rows["geometry"].cast(pa.binary()))
    rows = rows.combine_chunks()
    return rows.to_batches()[0] if len(rows) else pa.RecordBatch.from_pylist([], schema=rows.schema)


def boxes_of(bounds: np.ndarray[Any, np.dtype[np.float64]]) -> "pyarrow.StructArray":
    """Return boxes, `(row, 4)` as left, bottom, right, top, as the column `bbox`."""
    import pyarrow as pa

    return pa.StructArray.from_arrays([pa.array(side) for side in bounds.T.copy()], names=BOX)
