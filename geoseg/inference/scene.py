"""A whole scene's probabilities as one lazy array."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.bundle import DEFAULT_MODEL, load_bundle
from geoseg.errors import UsageError
from geoseg.grid import Block, Grid
from geoseg.inference.block import NODATA, PROBABILITY_ONE, predict_block
from geoseg.inference.plan import BLOCK_PX, Plan, plan_inference
from geoseg.scene import Paths

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray
    from numpy.typing import NDArray

SPATIAL_REF = "spatial_ref"
"""Name of the grid mapping that rioxarray looks for."""


def predict_scene(
    scene: Paths | Plan,
    *,
    model: str | Path = DEFAULT_MODEL,
    block_px: int = BLOCK_PX,
    classes: bool = False,
    **options: Any,
) -> "xarray.DataArray":
    """Return the probabilities, or the classes, of a scene, computed block by block when they are asked for.

    Args:
        scene: What `geoseg.scene.open_scene` takes; or a plan, from `plan_inference` or `plan_mosaic`.
        model: Name of a shipped model, or path of a bundle; a plan has its own.
        block_px: Height and width of a dask chunk, about.
        classes: Return the likeliest class instead of the target's probability; for models of more than two classes.
        options: What else `plan_inference` takes, such as `bands`, `aoi` or `grid`.

    Returns:
        `(y, x)` probability of the target class, float32 in [0, 1], NaN where there is nodata or no AOI; with
        `classes` the index of the likeliest class, uint8, 255 where there is nodata or no AOI. `x` and `y` are the
        coordinates of the pixel centres (pixel numbers plus a half where the scene is rotated). The coordinate
        `spatial_ref` holds CRS and transform as rioxarray, GDAL and the CF conventions want them; `attrs` hold `crs`
        (WKT), `transform` and `units`, with `classes` also `nodata` and the names of the `classes`.

    Raises:
        UsageError: If `classes` are asked of a model that has one or two, or options are given beside a plan.
        GeosegError: See `plan_inference`.
    """
    import xarray

    plan = _plan(scene, model, options)
    if classes and not plan.has_class_raster:
        raise UsageError(
            f"The model has {len(plan.classes)} classes ({', '.join(plan.classes)}); a class raster needs more than "
            "two. Compare the probability with a threshold instead."
        )
    data = _lazy_blocks(plan, block_px, _classes if classes else _probability, np.uint8 if classes else np.float32)
    grid = plan.scene.grid
    crs = grid.crs.to_wkt() if grid.crs is not None else None
    attrs: dict[str, Any] = {"crs": crs, "transform": tuple(grid.transform)[:6], "units": "1"}
    attrs |= {"nodata": NODATA, "classes": plan.classes} if classes else {}
    array = xarray.DataArray(
        data, dims=("y", "x"), coords=_coordinates(grid), name="class" if classes else "probability", attrs=attrs
    )
    array.encoding["grid_mapping"] = SPATIAL_REF
    return array


def _plan(scene: Paths | Plan, model: str | Path, options: dict[str, Any]) -> Plan:
    if not isinstance(scene, Plan):
        return plan_inference(scene, load_bundle(model), **options)
    if options:
        raise UsageError(f"A plan is made already: {', '.join(options)} would change nothing. Make another plan.")
    return scene


def _coordinates(grid: Grid) -> dict[str, Any]:
    """Return the pixel centres, and CRS and transform as a grid mapping (CF conventions 1.10, section 5.6)."""
    from geoseg.datasets.scenes import query_frame

    frame = query_frame(grid)
    y = frame.f + frame.e * (np.arange(grid.height) + 0.5)
    x = frame.c + frame.a * (np.arange(grid.width) + 0.5)
    mapping = {"GeoTransform": " ".join(repr(value) for value in grid.transform.to_gdal())}
    if grid.crs is not None:
        mapping |= {"crs_wkt": grid.crs.to_wkt(), "spatial_ref": grid.crs.to_wkt()}
    return {"y": y, "x": x, SPATIAL_REF: ((), np.int64(0), mapping)}


def _lazy_blocks(plan: Plan, block_px: int, predict: "Callable[[Plan, Block], NDArray[Any]]", dtype: type) -> Any:
    """Return a `(y, x)` dask array with a chunk per block; the graph holds the plan once."""
    import dask.array
    from dask.delayed import delayed

    blocks = plan.lattice.plan_blocks(block_px)
    load, shared = delayed(predict, pure=False), delayed(plan, traverse=False)
    arrays = [
        dask.array.from_delayed(load(shared, b), b.window.shape, dtype)  # type: ignore[no-untyped-call]
        for b in blocks
    ]
    per_row = sum(b.window.row == 0 for b in blocks)
    rows = [arrays[i : i + per_row] for i in range(0, len(arrays), per_row)]
    return dask.array.block(rows)  # type: ignore[no-untyped-call]


def _probability(plan: Plan, block: Block) -> "NDArray[np.float32]":
    if plan.aoi is not None and not plan.aoi.touches(block.window):
        return np.full(block.window.shape, np.nan, np.float32)
    pixels = predict_block(plan, block)
    valid = pixels.valid[1:-1, 1:-1]
    return np.where(valid, pixels.probability / np.float32(PROBABILITY_ONE), np.nan).astype(np.float32)


def _classes(plan: Plan, block: Block) -> "NDArray[np.uint8]":
    if plan.aoi is not None and not plan.aoi.touches(block.window):
        return np.full(block.window.shape, NODATA, np.uint8)
    classes = predict_block(plan, block).classes
    assert classes is not None
    return classes
