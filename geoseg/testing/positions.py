"""Scenes whose pixels say where they are, so that a misplaced chip cannot pass for a right one."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geoseg.io.aside import write_aside
from geoseg.third_party import allow_no_georeference

PRIME = 251
"""Largest prime below 256: rows and columns wrap here in 8-bit scenes, so no power-of-two step can hide."""
LARGEST_8BIT_PX = 16 * PRIME


def position_values(shape: tuple[int, int], *, dtype: str = "uint8") -> NDArray[np.generic]:
    """Encode each pixel's row and column.

    Args:
        shape: Rows and columns; at most 4,016 each for uint8, 65,536 for uint16.
        dtype: uint8 or uint16 (or anything wider).

    Returns:
        (3, y, x). Bands 1 and 2 are row and column, for uint8 modulo 251; band 3 is, for uint8,
        `row // 251 * 16 + col // 251`, else `(row * 31 + col * 17) % 65536`. The three together are unique.

    Raises:
        ValueError: If the shape is too large for the encoding.
    """
    limit = LARGEST_8BIT_PX if dtype == "uint8" else 1 << 16
    if max(shape) > limit:
        raise ValueError(f"{dtype} encodes at most {limit} rows and columns, the shape is {shape}: use a wider dtype")
    rows, cols = np.indices(shape)
    if dtype == "uint8":
        return np.stack((rows % PRIME, cols % PRIME, rows // PRIME * 16 + cols // PRIME)).astype(dtype)
    return np.stack((rows, cols, (rows * 31 + cols * 17) % (1 << 16))).astype(dtype)


def decode_positions(values: NDArray[np.generic]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Read rows and columns, (y, x) each, back from (3, y, x) values of `position_values`."""
    first, second, third = values.astype(np.int_)
    if values.dtype == np.uint8:
        return third // 16 * PRIME + first, third % 16 * PRIME + second
    return first, second


def write_position_scene(
    path: str | Path,
    shape: tuple[int, int],
    *,
    dtype: str = "uint8",
    gsd_m: float = 0.3,
    crs: str | None = "EPSG:32630",
    transform: Affine | None = None,
    nodata: float | None = None,
    **profile: object,
) -> Path:
    """Write a GeoTIFF of `position_values`.

    Args:
        path: The file.
        shape: Rows and columns.
        dtype: uint8 or uint16.
        gsd_m: Pixel size in units of the CRS, when no transform is given.
        crs: Coordinate reference system; None for a picture without georeference.
        transform: Replaces the north-up one at 811,200 E, 618,900 N.
        nodata: Declared in the file; the values are not changed.
        **profile: Further creation options, such as `tiled=True, blockxsize=256`.

    Returns:
        The path.
    """
    values = position_values(shape, dtype=dtype)
    place = transform or (Affine(gsd_m, 0, 811_200.0, 0, -gsd_m, 618_900.0) if crs else Affine.identity())
    options = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": 3, "dtype": dtype, "nodata": nodata}
    if crs:
        options |= {"crs": crs, "transform": place}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with (
        write_aside(path) as part,
        allow_no_georeference(),  # crs=None asks for just that
        rasterio.open(part, "w", **options, **profile) as target,
    ):
        target.write(values)
    return Path(path)
