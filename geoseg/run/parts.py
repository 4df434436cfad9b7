"""What a block leaves on disk: its pixels and its polygons, written aside and renamed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Block
from geoseg.inference import BlockPixels
from geoseg.vectorize import BlockPolygons

COLUMNS = ("pixel_count", "probability_sum", "edge", "open")


def write_part(folder: Path, block: Block, pixels: BlockPixels, polygons: BlockPolygons) -> Path:
    """Write one block's `(y, x)` probabilities, classes where there are any, and polygons; nothing to unpickle."""
    path = folder / f"{block.name}.npz"
    aside = folder / f".{block.name}-{os.getpid()}.npz"
    _, coords, offsets = shapely.to_ragged_array(polygons.polygons) if len(polygons) else (None, np.zeros((0, 2)), None)
    rings, parts = offsets if offsets is not None else (np.zeros(1, np.int64), np.zeros(1, np.int64))
    arrays: dict[str, Any] = {name: getattr(polygons, name) for name in COLUMNS}
    if pixels.classes is not None:
        arrays["classes"] = pixels.classes
    np.savez(
        aside,
        probability=pixels.probability,
        vertices=coords.astype(np.int32),
        ring_offsets=rings,
        polygon_offsets=parts,
        **arrays,
    )
    aside.replace(path)
    return path


def read_probability(folder: Path, block: Block) -> NDArray[np.uint8]:
    """Return the `(y, x)` probabilities of a block."""
    with np.load(folder / f"{block.name}.npz", allow_pickle=False) as part:
        return np.asarray(part["probability"], np.uint8)


def read_classes(folder: Path, block: Block) -> NDArray[np.uint8]:
    """Return the `(y, x)` class indices of a block."""
    with np.load(folder / f"{block.name}.npz", allow_pickle=False) as part:
        return np.asarray(part["classes"], np.uint8)


def read_polygons(folder: Path, block: Block) -> BlockPolygons:
    """Return the polygons of a block."""
    with np.load(folder / f"{block.name}.npz", allow_pickle=False) as part:
        if not len(part["pixel_count"]):
            return BlockPolygons.empty()
        offsets = (part["ring_offsets"], part["polygon_offsets"])
        vertices = part["vertices"].astype(np.float64)
        polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, vertices, offsets)
        return BlockPolygons(np.asarray(polygons, object), *(part[name] for name in COLUMNS))
