"""Footprints on their way into files: record batches of a fixed size, so that no more than one is held."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.vectorize.footprints import name_places
from geoseg.vectorize.generalize import KINDS

if TYPE_CHECKING:
    import pyarrow
    from geopandas import GeoDataFrame

    from geoseg.vectorize import Footprints

BATCH = 50_000
"""Footprints held at once: about 20 MB. A row group of GeoParquet as well."""

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
        "bbox": _boxes(footprints.bounds),
    }
    return pa.record_batch(columns).take(np.lexsort((footprints.col, footprints.row)))


def frame_batch(footprints: "GeoDataFrame") -> "pyarrow.RecordBatch":
    """Return a frame as `to_batch` does, rows and attributes as they are."""
    import pyarrow as pa

    attributes = footprints.drop(columns=footprints.geometry.name)
    columns = {str(name): pa.array(values.to_numpy()) for name, values in attributes.items()}
    columns["geometry"] = pa.array(footprints.geometry.to_wkb(), pa.binary())
    columns["bbox"] = _boxes(footprints.bounds.to_numpy())
    return pa.record_batch(columns)


def rebatch(batches: Iterable["pyarrow.RecordBatch"]) -> Iterator["pyarrow.RecordBatch"]:
    """Yield the rows of batches of any size in batches of `BATCH`; the last one is smaller, and may be empty."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) > BATCH:
            rows = pa.Table.from_batches(held)
            yield as_one(rows.slice(0, BATCH))
            held = rows.slice(BATCH).to_batches()
    yield as_one(pa.Table.from_batches(held))


def as_one(rows: "pyarrow.Table") -> "pyarrow.RecordBatch":
    """Return rows as one batch of fresh memory, geometries with 32-bit offsets, which every reader knows."""
    import pyarrow as pa

    geometry = rows.schema.get_field_index("geometry")
    rows = rows.set_column(geometry, "geometry", rows["geometry"].cast(pa.binary()))
    rows = rows.combine_chunks()
    return rows.to_batches()[0] if len(rows) else pa.RecordBatch.from_pylist([], schema=rows.schema)


def _boxes(bounds: np.ndarray[Any, np.dtype[np.float64]]) -> "pyarrow.StructArray":
    import pyarrow as pa

    return pa.StructArray.from_arrays([pa.array(side) for side in bounds.T.copy()], names=BOX)
