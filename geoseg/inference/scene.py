"""A whole scene's probabilities as one lazy array."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.bundle import DEFAULT_MODEL, load_bundle
from geoseg.errors import UsageError
from geoseg.grid import Block, Grid, Window
from geoseg.inference.aoi import Area
from geoseg.inference.block import NODATA, PROBABILITY_ONE, predict_block
from geoseg.inference.fit import GridChoice
from geoseg.inference.plan import BLOCK_PX, InferenceOptions, Plan, plan_inference
from geoseg.scene import Paths
from geoseg.third_party import allow_no_georeference

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
    bands: Sequence[int] | None = None,
    crs: str | None = None,
    grid: GridChoice = "model",
    aoi: Area | None = None,
    aoi_where: str | None = None,
    blend: bool = False,
    device: str = "auto",
    precision: str = "f32",
    threads: int | None = None,
    chip_px: int | None = None,
    halo_px: int | None = None,
) -> "xarray.DataArray":
    """Return the probabilities, or the classes, of a scene, computed block by block when they are asked for.

    Args:
        scene: What `geoseg.scene.open_scene` takes; or a plan, from `plan_inference` or `plan_mosaic`.
        model: Name of a shipped model, or path of a bundle; a plan has its own.
        block_px: Height and width of a dask chunk, about.
        classes: Return the likeliest class instead of the target's probability; for models of more than two classes.
        bands: This and all that follow: see `InferenceOptions`; a plan has its own.
        crs: CRS of a scene that has none.
        grid: `model` resamples to the model's GSD; `scene` keeps the scene's own pixels.
        aoi: A vector file, a GeoDataFrame, or a geometry in the scene's CRS.
        aoi_where: OGR attribute filter on a file.
        blend: Blend chips over their halos.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `f32`, or `bf16` or `f16` on a GPU.
        threads: CPU threads in all.
        chip_px: Another chip size than the model's.
        halo_px: Another halo than the model's.

    Returns:
        `(y, x)` probability of the target class, float32 in [0, 1], NaN where there is nodata or no AOI; with
        `classes` the index of the likeliest class, uint8, 255 where there is nodata or no AOI. `x` and `y` are the
        coordinates of the pixel centers (pixel numbers plus a half where the scene is rotated). The coordinate
        `spatial_ref` holds CRS and transform as rioxarray, GDAL and the CF conventions want them; `attrs` hold `crs`
        (WKT), `transform` and `units`, with `classes` also `nodata` and the names of the `classes`.

    Raises:
        UsageError: If `classes` are asked of a model that has one or two, or options are given beside a plan.
        GeosegError: See `plan_inference`.
    """
    options = InferenceOptions(
        bands=bands,
        crs=crs,
        grid=grid,
        aoi=aoi,
        aoi_where=aoi_where,
        blend=blend,
        device=device,
        precision=precision,
        threads=threads,
        chip_px=chip_px,
        halo_px=halo_px,
    )
    if not isinstance(scene, Plan):
        plan = plan_inference(scene, load_bundle(model), options)
    else:
        plan, given = scene, [f.name for f in fields(options) if repr(getattr(options, f.name)) != repr(f.default)]
        if given:
            raise UsageError(f"A plan is made already: {', '.join(given)} would change nothing. Make another plan.")
    if classes and not plan.has_class_raster:
        raise UsageError(
            f"The model has {len(plan.classes)} classes ({', '.join(plan.classes)}); a class raster needs more than "
            "two. Compare the probability with a threshold instead."
        )
    data = _lazy_blocks(plan, block_px, _classes if classes else _probability, np.uint8 if classes else np.float32)
    attrs: dict[str, Any] = {"nodata": NODATA, "classes": plan.classes} if classes else {}
    return _as_array(data, plan.scene.grid, "class" if classes else "probability", attrs)


def open_probability(path: str, *, block_px: int = BLOCK_PX) -> "xarray.DataArray":
    """Return the probabilities of a finished run as `predict_scene` gives them: lazy, but read from `probability.tif`.

    Args:
        path: What a run wrote, a local file or on S3.
        block_px: Height and width of a dask chunk, about.
    """
    import dask.array
    import rasterio
    from dask.delayed import delayed

    def read(window: Window) -> "NDArray[np.float32]":
        with allow_no_georeference(), rasterio.open(path) as file:
            stored = file.read(1, window=((window.row, window.rows.stop), (window.col, window.cols.stop)))
        return np.where(stored == NODATA, np.nan, stored / np.float32(PROBABILITY_ONE)).astype(np.float32)

    with allow_no_georeference(), rasterio.open(path) as file:
        grid = Grid(file.crs, file.transform, file.shape)
    rows = [
        [
            dask.array.from_delayed(delayed(read)(part), part.shape, np.float32)  # type: ignore[no-untyped-call]
            for col in range(0, grid.width, block_px)
            if (part := Window(row, col, block_px, block_px).intersect(grid.window)) is not None
        ]
        for row in range(0, grid.height, block_px)
    ]
    return _as_array(dask.array.block(rows), grid, "probability", {})  # type: ignore[no-untyped-call]


def _as_array(data: Any, grid: Grid, name: str, attrs: dict[str, Any]) -> "xarray.DataArray":
    """Return `(y, x)` pixels with coordinates, CRS and transform."""
    import xarray

    crs = grid.crs.to_wkt() if grid.crs is not None else None
    place = {"crs": crs, "transform": tuple(grid.transform)[:6], "units": "1"}
    array = xarray.DataArray(data, dims=("y", "x"), coords=_coordinates(grid), name=name, attrs=place | attrs)
    array.encoding["grid_mapping"] = SPATIAL_REF
    return array


def _coordinates(grid: Grid) -> dict[str, Any]:
    """Return the pixel centers, and CRS and transform as a grid mapping (CF conventions 1.10, section 5.6)."""
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
