"""A whole scene's probabilities as one lazy array."""

from typing import TYPE_CHECKING

import numpy as np

from geoseg.grid import Block
from geoseg.inference.block import PROBABILITY_ONE, predict_block
from geoseg.inference.plan import BLOCK_PX, Plan

if TYPE_CHECKING:
    import xarray
    from numpy.typing import NDArray


def predict_scene(plan: Plan, *, block_px: int = BLOCK_PX) -> "xarray.DataArray":
    """Return the probabilities of a scene, computed block by block when they are asked for.

    Args:
        plan: What to predict, from `plan_inference`.
        block_px: Height and width of a dask chunk, about.

    Returns:
        `(y, x)` float32 in [0, 1], NaN where there is nodata or no AOI; `x` and `y` are the coordinates of the pixel
        centres (pixel numbers plus a half where the scene is rotated), `attrs` hold `crs` (WKT), `transform` and
        `units`.
    """
    import dask.array
    import xarray
    from dask.delayed import delayed

    from geoseg.datasets.scenes import query_frame

    blocks = plan.lattice.plan_blocks(block_px)
    load = delayed(_predict, pure=False)
    arrays = [
        dask.array.from_delayed(load(plan, b), b.window.shape, np.float32)  # type: ignore[no-untyped-call]
        for b in blocks
    ]
    per_row = sum(b.window.row == 0 for b in blocks)
    rows = [arrays[i : i + per_row] for i in range(0, len(arrays), per_row)]
    data = dask.array.block(rows)  # type: ignore[no-untyped-call]
    grid, frame = plan.scene.grid, query_frame(plan.scene.grid)
    y = frame.f + frame.e * (np.arange(grid.height) + 0.5)
    x = frame.c + frame.a * (np.arange(grid.width) + 0.5)
    crs = grid.crs.to_wkt() if grid.crs is not None else None
    attrs = {"crs": crs, "transform": tuple(grid.transform)[:6], "units": "1"}
    return xarray.DataArray(data, dims=("y", "x"), coords={"y": y, "x": x}, name="probability", attrs=attrs)


def _predict(plan: Plan, block: Block) -> "NDArray[np.float32]":
    if plan.aoi is not None and not plan.aoi.touches(block.window):
        return np.full(block.window.shape, np.nan, np.float32)
    pixels = predict_block(plan, block)
    valid = pixels.valid[1:-1, 1:-1]
    return np.where(valid, pixels.probability / np.float32(PROBABILITY_ONE), np.nan).astype(np.float32)
