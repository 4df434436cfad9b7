"""`geoseg run`."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geoseg.bundle import DEFAULT_MODEL
from geoseg.cli.app import (
    CRS,
    TTA,
    Alpha,
    Also,
    AOIWhere,
    Device,
    FillHoles,
    Formats,
    Model,
    Nodata,
    OutlineKind,
    Overwrite,
    Precision,
    Quiet,
    SplitDepth,
    Threads,
    Threshold,
    Tolerance,
    app,
    log_to_stderr,
    parse_formats,
    parse_numbers,
    with_flags,
)
from geoseg.io.tables import plural
from geoseg.redaction import redact

if TYPE_CHECKING:
    from geoseg.run import BatchResult

log = logging.getLogger(__name__)

SOME_FAILED = 3
"""Exit code of a batch in which some scenes failed."""


@app.command("run", no_args_is_help=True)
def run(
    scene: Annotated[
        list[str],
        typer.Argument(
            help="Rasters, folders, 'globs', URLs, s3://, STAC items, collections and catalogs, manifests (CSV, "
            "GeoParquet). Each scene gets its own result, or all get one with --mosaic.",
            show_default=False,
        ),
    ],
    model: Model = DEFAULT_MODEL,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Result folder or s3://bucket/prefix; <scene name>_geoseg by default. For several scenes, the parent "
            "of their result folders.",
            show_default=False,
        ),
    ] = None,
    mosaic: Annotated[
        Literal["first", "latest", "mean"] | None,
        typer.Option(
            help="Make one mosaic of all scenes. Where they overlap, use the first one given, the latest one, or the "
            "mean probability.",
            show_default=False,
        ),
    ] = None,
    target_crs: Annotated[
        str | None, typer.Option(help="CRS of the mosaic; the first scene's by default.", show_default=False)
    ] = None,
    asset: Annotated[str | None, typer.Option(help="Key of the STAC asset to read.", show_default=False)] = None,
    aoi: Annotated[Path | None, typer.Option(help="Vector file with the area of interest.", show_default=False)] = None,
    aoi_where: AOIWhere = None,
    threshold: Threshold = None,
    min_area_m2: Annotated[
        float | None,
        typer.Option(help="Minimum area of a footprint in square meters; the model's by default.", show_default=False),
    ] = None,
    fill_holes_m2: FillHoles = None,
    outline: OutlineKind = "regular",
    tolerance_m: Tolerance = None,
    split_depth: SplitDepth = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands of the scene in the order of the model's bands, such as 1,2,3.", show_default=False),
    ] = None,
    crs: CRS = None,
    nodata: Nodata = None,
    alpha: Alpha = None,
    grid: Annotated[
        Literal["model", "scene"], typer.Option(help="Resample to the model's pixel size, or keep the scene's.")
    ] = "model",
    blend: Annotated[
        bool, typer.Option("--blend", help="Blend neighboring chips, for networks that pool over the whole chip.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    tta: TTA = None,
    threads: Threads = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of worker processes on this machine, each with --threads threads and its own GPU if there "
            "are any; one process by default.",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask cluster to use: tcp://HOST:PORT or a scheduler file.", show_default=False),
    ] = None,
    block_px: Annotated[
        int | None,
        typer.Option(
            help="Side length in pixels of the blocks that workers compute; automatic by default.", show_default=False
        ),
    ] = None,
    errors: Annotated[
        Literal["stop", "nodata"],
        typer.Option(
            help="If blocks still cannot be read after several attempts: stop without a result, or make them nodata."
        ),
    ] = "stop",
    formats: Formats = None,
    also: Also = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="Also write preview.png: image and prediction side by side.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Write index.html, a page to look at the result without a GIS.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print counts, times and files of the result as JSON instead of paths.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Map the buildings of scenes: rasters, polygons and a report.

    Writes probability.tif, mask.tif, buildings.gpkg, buildings.parquet (other formats with --format) and run.json;
    classes.tif for models of more than two classes; interior.tif for models with a channel edge or contact. A scene
    may have any CRS and pixel size: it is resampled on the fly to the model's pixel size. Local files, /vsicurl/,
    https:// and s3:// are read in place.

    A scene that is named itself has its result in --out. Of several scenes, and of a folder, pattern, list or catalog
    even if it has only one, each gets a result folder with its name inside --out; --mosaic combines them into one
    result.

    To continue a run that was stopped for any reason, run the same command again. With --overwrite, another
    --threshold, --min-area-m2, --fill-holes-m2, --outline, --tolerance-m or --split-depth makes the polygons of a
    finished result anew from its probabilities, in seconds. Exit code 2 means that the input
    cannot be used, and 3 that some blocks or scenes failed: the message says why.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.run import BatchResult, RunSettings, run_inputs

    settings = RunSettings(
        model=model,
        out=out,
        aoi=aoi,
        aoi_where=aoi_where,
        threshold=threshold,
        min_area_m2=min_area_m2,
        fill_holes_m2=fill_holes_m2,
        outline=outline,
        tolerance_m=tolerance_m,
        split_depth=split_depth,
        bands=parse_numbers(bands, "--bands", "band numbers", "1,2,3"),
        crs=crs,
        nodata=nodata,
        alpha=alpha,
        grid=grid,
        blend=blend,
        device=device,
        precision=precision,
        tta=tta,
        threads=threads,
        block_px=block_px,
        overwrite=overwrite,
        formats=parse_formats(formats, also),
        picture=picture,
        page=page,
        mosaic=mosaic,
        target_crs=target_crs,
        asset=asset,
        errors=errors,
        scheduler=scheduler,
        workers=workers,
    )
    result = run_inputs(scene, settings, quiet=quiet)
    if as_json:
        found = asdict(result) if isinstance(result, BatchResult) else result.to_dict()
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    if isinstance(result, BatchResult):
        _report_batch(result, names=not as_json)
        return
    if result.is_new:
        counts, peak_mb = result.report["counts"], result.report["peak_memory_mb"]
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in result.report["seconds"].items())
        memory = f"; peak memory {peak_mb:,.0f} MB" if peak_mb else ""
        buildings, mpx = plural(counts["buildings"], "building"), counts["valid_pixels"] / 1e6
        log.info("%s on %.1f Mpx; %s%s", buildings, mpx, stages, memory)
    _report_lost(result.out.url, len(result.report.get("failed_blocks") or ()))
    for path in [] if as_json else result.paths:
        typer.echo(path)


def _report_lost(folder: str, count: int) -> None:
    """Warn of a result without all of its blocks: `errors` may be `nodata`, but no one should take it for complete."""
    if count:
        log.warning(
            "%s: %s could not be read and %s nodata in the result; run.json lists %s. Give the same command with "
            "`overwrite` to compute all again.",
            folder,
            plural(count, "block"),
            "is" if count == 1 else "are",
            "it" if count == 1 else "them",
        )


def _report_batch(result: "BatchResult", *, names: bool) -> None:
    """Print the result folders if asked to; if scenes failed, list them and exit with code 3."""
    for folder in (*result.skipped, *result.done) if names else ():
        typer.echo(folder)
    done, skipped, failed = len(result.done), len(result.skipped), len(result.failed)
    outside = f", {len(result.outside)} outside the AOI" if result.outside else ""
    lost = f", {len(result.lost_blocks)} with blocks that are nodata" if result.lost_blocks else ""
    log.info("%s segmented, %d finished before, %d failed%s%s", plural(done, "scene"), skipped, failed, outside, lost)
    for folder, count in result.lost_blocks.items():
        _report_lost(folder, count)
    for file, message in result.failed.items():
        typer.echo(redact(f"Failed: {file}: {with_flags(message)}"), err=True)
    if result.failed:
        raise typer.Exit(SOME_FAILED)
