"""A whole scene's probabilities as one lazy array."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from geoseg.bundle import DEFAULT_MODEL, load_bundle
from geoseg.errors import UsageError
from geoseg.grid import Block, Grid, Window
from geoseg.inference.aoi import Area
from geoseg.inference.block import NODATA, PROBABILITY_ONE, predict_block
from geoseg.inference.plan import (
    APART,
    BLOCK_PX,
    GridChoice,
    InferenceOptions,
    Plan,
    ViewChoice,
    plan_inference,
)
from geoseg.scene import Paths, read_grid
from geoseg.third_party import allow_no_georeference

if TYPE_CHECKING:
    import xarray
    from numpy.typing import NDArray

LayerChoice = Literal["probability", "classes", "interior"]
"""What `predict_scene` returns, as in the rasters of a run."""

SPATIAL_REF = "spatial_ref"
"""Name of the grid mapping that rioxarray looks for."""


def predict_scene(
    scene: Paths | Plan,
    *,
    model: str | Path = DEFAULT_MODEL,
    block_px: int = BLOCK_PX,
    layer: LayerChoice = "probability",
    classes: bool = False,
    bands: Sequence[int] | None = None,
    crs: str | None = None,
    nodata: float | None = None,
    alpha: bool | None = None,
    grid: GridChoice = "model",
    aoi: Area | None = None,
    aoi_where: str | None = None,
    blend: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    chip_px: int | None = None,
    halo_px: int | None = None,
    tta: ViewChoice | None = None,
) -> "xarray.DataArray":
    """Return probabilities or classes of a scene as a lazy array, computed block by block.

    Args:
        scene: What `geoseg.scene.open_scene` takes; or a plan, from `plan_inference` or `plan_mosaic`.
        model: Name of a shipped model, or path of a bundle; a plan has its own.
        block_px: Height and width of a dask chunk, about.
        layer: `probability` of the target; `classes` for the likeliest class, of models of more than two classes; or
            `interior`, the probability that a pixel lies inside a building, away from its edge and from other
            buildings, of models with a channel `edge` or `contact`.
        classes: The same as `layer="classes"`.
        bands: This and all that follow: see `InferenceOptions`; a plan has its own.
        crs: CRS of a scene that has none.
        nodata: Nodata value that counts instead of the scene's own.
        alpha: True if a band marked alpha is a mask, False if it is an image; found out by default.
        grid: `model` resamples to the model's GSD; `scene` keeps the scene's own pixels.
        aoi: A vector file, a GeoDataFrame, or a geometry in the scene's CRS.
        aoi_where: OGR attribute filter on a file.
        blend: Blend chips over their halos.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `f32`, `bf16` or `f16`.
        threads: CPU threads in all.
        chip_px: Another chip size than the model's.
        halo_px: Another halo than the model's.
        tta: `d4` averages the predictions of the eight views of each chip.

    Returns:
        `(y, x)` probabilities, float32 in [0, 1], NaN where there is nodata or no AOI; for `classes` the index of the
        likeliest class, uint8, 255 where there is nodata or no AOI. `x` and `y` are the coordinates of the pixel
        centers (pixel numbers plus a half where the scene is rotated). The coordinate `spatial_ref` holds CRS and
        transform as rioxarray, GDAL and the CF conventions expect them; `attrs` hold `crs` (WKT), `transform` and
        `units`, for `classes` also `nodata` and the names of the `classes`.

    Raises:
        UsageError: If the model has no such layer, or options are given together with a plan.
        GeosegError: See `plan_inference`.
    """
    from dask.delayed import delayed

    options = InferenceOptions(
        bands=bands,
        crs=crs,
        nodata=nodata,
        alpha=alpha,
        grid=grid,
        aoi=aoi,
        aoi_where=aoi_where,
        blend=blend,
        device=device,
        precision=precision,
        threads=threads,
        chip_px=chip_px,
        halo_px=halo_px,
        tta=tta,
    )
    if not isinstance(scene, Plan):
        plan = plan_inference(scene, load_bundle(model), options)
    else:
        plan, given = scene, [f.name for f in fields(options) if repr(getattr(options, f.name)) != repr(f.default)]
        if given:
            raise UsageError(f"A plan has its own options: {', '.join(given)} would have no effect. Make another plan.")
    layer = _choose_layer(plan, layer, classes)
    load, shared = delayed(_predict, pure=False), delayed(plan, traverse=False)  # the graph holds the plan once
    chunks = [(block.window, load(shared, block, layer)) for block in plan.lattice.plan_blocks(block_px)]
    if layer == "classes":
        return _as_array(chunks, np.uint8, plan.scene.grid, "class", nodata=NODATA, classes=plan.classes)
    return _as_array(chunks, np.float32, plan.scene.grid, layer)


def _choose_layer(plan: Plan, layer: LayerChoice, classes: bool) -> LayerChoice:
    """Return the layer that is asked for; raise `UsageError` if the model does not have it."""
    if layer not in get_args(LayerChoice):
        raise UsageError(f"There is no `layer={layer!r}`. Choose one of {', '.join(get_args(LayerChoice))}.")
    if classes:
        if layer == "interior":
            raise UsageError("`classes=True` means `layer='classes'`, but `layer='interior'` is given. Omit one.")
        layer = "classes"
    if layer == "classes" and not plan.has_class_raster:
        raise UsageError(
            f"The model has {len(plan.classes)} classes ({', '.join(plan.classes)}); a class raster needs more than "
            "two. Compare the probability with a threshold instead."
        )
    if layer == "interior" and not plan.has_interior:
        raise UsageError(
            f"The model's channels are {', '.join((*plan.classes, *plan.auxiliary))}; an interior needs one of "
            f"{' and '.join(APART)}. Use the probability instead."
        )
    return layer


def _predict(plan: Plan, block: Block, layer: LayerChoice) -> "NDArray[Any]":
    if plan.aoi is not None and not plan.aoi.touches(block.window):
        stored: NDArray[np.uint8] = np.full(block.window.shape, NODATA, np.uint8)
    else:
        stored = getattr(predict_block(plan, block), layer)
    return stored if layer == "classes" else _probability(stored)


def _probability(stored: "NDArray[np.uint8]") -> "NDArray[np.float32]":
    """Return probabilities from their stored values, NaN where there is no data."""
    return np.where(stored == NODATA, np.nan, stored / np.float32(PROBABILITY_ONE)).astype(np.float32)


def open_probability(path: str, *, block_px: int = BLOCK_PX) -> "xarray.DataArray":
    """Return the probabilities of a finished run as `predict_scene` gives them: lazy, but read from `probability.tif`.

    Args:
        path: Local file, or an object on S3.
        block_px: Height and width of a dask chunk, about.
    """
    import rasterio
    from dask.delayed import delayed

    def read(window: Window) -> "NDArray[np.float32]":
        with allow_no_georeference(), rasterio.open(path) as file:
            return _probability(file.read(1, window=((window.row, window.rows.stop), (window.col, window.cols.stop))))

    with allow_no_georeference(), rasterio.open(path) as file:
        grid = read_grid(file, path)
    corners = [(row, col) for row in range(0, grid.height, block_px) for col in range(0, grid.width, block_px)]
    windows = (Window(row, col, block_px, block_px).intersect(grid.window) for row, col in corners)
    chunks = [(window, delayed(read)(window)) for window in windows if window is not None]
    return _as_array(chunks, np.float32, grid, "probability")


def _as_array(
    chunks: Sequence[tuple[Window, Any]], dtype: type, grid: Grid, name: str, **attrs: Any
) -> "xarray.DataArray":
    """Return a lazy `(y, x)` array: pixel centers as coordinates, CRS and transform as a grid mapping.

    Args:
        chunks: Windows in reading order, and what dask computes for each.
        dtype: Type of the pixels.
        grid: Where they lie; the grid mapping follows the CF conventions 1.10, section 5.6.
        name: Name of the array.
        attrs: More attributes.
    """
    import dask.array
    import xarray

    from geoseg.datasets.scenes import query_frame

    rows = [
        [dask.array.from_delayed(value, window.shape, dtype) for window, value in row]  # type: ignore[no-untyped-call]
        for _, row in groupby(chunks, key=lambda chunk: chunk[0].row)
    ]
    crs, frame = grid.crs.to_wkt() if grid.crs is not None else None, query_frame(grid)
    mapping = {"GeoTransform": " ".join(repr(value) for value in grid.transform.to_gdal())}
    if crs is not None:
        mapping |= {"crs_wkt": crs, "spatial_ref": crs}
    array = xarray.DataArray(
        dask.array.block(rows),  # type: ignore[no-untyped-call]
        dims=("y", "x"),
        coords={
            "y": frame.f + frame.e * (np.arange(grid.height) + 0.5),
            "x": frame.c + frame.a * (np.arange(grid.width) + 0.5),
            SPATIAL_REF: ((), np.int64(0), mapping),
        },
        name=name,
        attrs={"crs": crs, "transform": tuple(grid.transform)[:6], "units": "1"} | attrs,
    )
    array.encoding["grid_mapping"] = SPATIAL_REF
    return array
