"""`geoseg run`."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.bundle import DEFAULT_MODEL
from geoseg.cli.app import Device, DeviceOption, Model, Overwrite, Quiet, Threads, app, log_to_stderr
from geoseg.errors import UsageError

if TYPE_CHECKING:
    from geoseg.run import BatchResult, RunSettings

SOME_FAILED = 3
"""Exit code of a batch in which some scenes failed."""


class PrecisionOption(StrEnum):
    """Of the network's arithmetic."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"


class MosaicOption(StrEnum):
    """What holds where scenes overlap."""

    FIRST = "first"
    LATEST = "latest"
    MEAN = "mean"


class ErrorsOption(StrEnum):
    """What becomes of blocks that cannot be done."""

    STOP = "stop"
    NODATA = "nodata"


class GridOption(StrEnum):
    """On which pixels the results lie."""

    MODEL = "model"
    SCENE = "scene"


@app.command("run", no_args_is_help=True)
def run(
    scene: Annotated[
        list[str],
        typer.Argument(
            help="Rasters, folders, 'globs', URLs, s3://, STAC items, collections and catalogues, manifests (CSV, "
            "GeoParquet). Several scenes give a result each, or one with --mosaic.",
            show_default=False,
        ),
    ],
    model: Model = DEFAULT_MODEL,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Result folder or s3://bucket/prefix; <scene name>_geoseg by default. Of several scenes, the folder "
            "of their result folders.",
            show_default=False,
        ),
    ] = None,
    mosaic: Annotated[
        MosaicOption | None,
        typer.Option(
            help="One mosaic of all scenes; where they overlap the first named holds, the latest, or the mean "
            "probability.",
            show_default=False,
        ),
    ] = None,
    target_crs: Annotated[
        str | None, typer.Option(help="CRS of the mosaic; by default the first scene's.", show_default=False)
    ] = None,
    asset: Annotated[
        str | None, typer.Option(help="Asset of STAC items that holds the pixels.", show_default=False)
    ] = None,
    aoi: Annotated[Path | None, typer.Option(help="Vector file with the area asked for.", show_default=False)] = None,
    aoi_where: Annotated[
        str | None, typer.Option(help="Which of its features, such as \"split = 'test'\".", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which a pixel is a building; the model's by default.", show_default=False),
    ] = None,
    min_area_m2: Annotated[
        float | None,
        typer.Option(help="Smallest footprint, square metres; the model's by default.", show_default=False),
    ] = None,
    simplify_px: Annotated[
        float, typer.Option(help="Tolerance of simplification, pixels; 0 keeps every pixel corner.")
    ] = 1.0,
    bands: Annotated[
        str | None, typer.Option(help="Bands of the scene for the model's, such as 1,2,3.", show_default=False)
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of a scene that has none, such as EPSG:32630.", show_default=False)
    ] = None,
    grid: Annotated[
        GridOption, typer.Option(help="Resample to the model's pixel size, or keep the scene's.")
    ] = GridOption.MODEL,
    blend: Annotated[
        bool, typer.Option("--blend", help="Blend neighbouring chips, for networks that pool over the whole chip.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    precision: Annotated[
        PrecisionOption, typer.Option(help="On a GPU bf16 and f16 are faster, and not the same to the last digit.")
    ] = PrecisionOption.F32,
    threads: Threads = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Worker processes on this machine, --threads each; by default one process. With GPUs each takes one.",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A dask cluster to work on: tcp://HOST:PORT or a scheduler file.", show_default=False),
    ] = None,
    block_px: Annotated[
        int | None,
        typer.Option(help="Side of what one worker computes at a time, pixels; chosen by itself.", show_default=False),
    ] = None,
    errors: Annotated[
        ErrorsOption,
        typer.Option(
            help="Blocks that cannot be read after several attempts: stop without a result, or leave them nodata."
        ),
    ] = ErrorsOption.STOP,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", help="Write footprints in this format, too: fgb for FlatGeobuf. Repeatable.", show_default=False
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="Also write preview.png: image and prediction side by side.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Segment a scene: probability.tif, mask.tif, buildings.gpkg, buildings.parquet and run.json.

    Models of more than two classes also give classes.tif. The scene may have any CRS and pixel size: it is resampled
    on the fly to the model's. Files, /vsicurl/, https:// and s3:// are read in place.

    Several scenes give a result each, in folders of their names inside --out; --mosaic makes one result of them.

    A run that was stopped, whatever stopped it, goes on where it was when the same command is given again. Exit code 2
    means that the input cannot be used, and 3 that some blocks or scenes could not be done: the message says why.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.run import RunSettings

    settings = RunSettings(
        model=model,
        out=out,
        aoi=aoi,
        aoi_where=aoi_where,
        threshold=threshold,
        min_area_m2=min_area_m2,
        simplify_px=simplify_px,
        bands=_parse_bands(bands),
        crs=crs,
        grid=grid.value,
        blend=blend,
        device=device.value,
        precision=precision.value,
        threads=threads,
        block_px=block_px,
        overwrite=overwrite,
        also=tuple(also or ()),
        picture=picture,
        mosaic=mosaic.value if mosaic is not None else None,
        target_crs=target_crs,
        asset=asset,
        errors=errors.value,
        scheduler=scheduler,
        workers=workers,
    )
    _run(scene, settings, quiet=quiet)


def _run(inputs: list[str], settings: "RunSettings", *, quiet: bool) -> None:
    """Run one scene, one mosaic or many scenes; print what was made."""
    from geoseg.run import BatchResult, run_inputs

    result = run_inputs(inputs, settings, quiet=quiet)
    if isinstance(result, BatchResult):
        _report_batch(result)
        return
    counts, seconds = result.report["counts"], result.report["seconds"]
    if result.is_new:
        logging.getLogger(__name__).info("%s", _summary(counts, seconds, result.report["peak_memory_mb"]))
    for path in result.paths:
        typer.echo(path)


def _report_batch(result: "BatchResult") -> None:
    """Print the result folders; list what failed, and leave with exit code 3 then."""
    for folder in (*result.skipped, *result.done):
        typer.echo(folder)
    done, skipped, failed = len(result.done), len(result.skipped), len(result.failed)
    outside = f", {len(result.outside)} outside the AOI" if result.outside else ""
    logging.getLogger(__name__).info(
        "%d scenes segmented, %d finished before, %d failed%s", done, skipped, failed, outside
    )
    for file, message in result.failed.items():
        typer.echo(f"Failed: {file}: {message}", err=True)
    if result.failed:
        raise typer.Exit(SOME_FAILED)


def _summary(counts: dict[str, int], seconds: dict[str, float], peak_mb: float | None) -> str:
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    memory = f"; peak memory {peak_mb:,.0f} MB" if peak_mb else ""
    return f"{counts['buildings']:,} buildings on {counts['valid_pixels'] / 1e6:.1f} Mpx; {stages}{memory}"


def _parse_bands(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as err:
        raise UsageError(
            f"--bands {text} is no list of band numbers. Give numbers from 1, such as --bands 1,2,3."
        ) from err
