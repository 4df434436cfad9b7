"""`geoseg vectorize`."""

import logging
from typing import Annotated

import typer

from geoseg.cli.app import (
    CRS,
    Also,
    FillHoles,
    Formats,
    OutlineKind,
    Overwrite,
    Quiet,
    SplitDepth,
    Tolerance,
    app,
    log_to_stderr,
    parse_formats,
    parse_numbers,
)
from geoseg.io.tables import plural

log = logging.getLogger(__name__)


@app.command("vectorize", no_args_is_help=True)
def vectorize(
    raster: Annotated[
        str,
        typer.Argument(
            help="Raster of probabilities, a mask or classes, of any tool; or the folder of a finished run.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Result folder or s3://bucket/prefix; <raster name>_buildings by default.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Minimum probability of a building pixel; that of the run, or 0.5, by default.", show_default=False
        ),
    ] = None,
    min_area_m2: Annotated[
        float | None,
        typer.Option(
            help="Minimum area of a footprint in square meters; that of the run, or 0, by default.", show_default=False
        ),
    ] = None,
    fill_holes_m2: FillHoles = None,
    outline: OutlineKind = "regular",
    tolerance_m: Tolerance = None,
    split_depth: SplitDepth = None,
    band: Annotated[int, typer.Option(help="Number of the raster's band, from 1.")] = 1,
    full_scale: Annotated[
        float | None,
        typer.Option(
            help="Pixel value that stands for probability 1, such as 100 or 255; by default what the file says.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="Pixel values of buildings in a raster of classes, such as 2 or 2,3.", show_default=False),
    ] = None,
    crs: CRS = None,
    formats: Formats = None,
    also: Also = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make building polygons of a raster, without a network.

    Writes buildings.gpkg, buildings.parquet and vectorize.json. Pixels may be probabilities (floats from 0 to 1, or
    whole numbers with --full-scale), a mask (0 and 1, or 0 and 255) or classes (with --values).

    The probabilities in the folder of a finished run are outlined again with other settings, into another folder. To
    replace the polygons of the result itself, give geoseg run the new settings and --overwrite.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.run import VectorizeSettings, vectorize_raster

    settings = VectorizeSettings(
        out=out,
        threshold=threshold,
        min_area_m2=min_area_m2,
        fill_holes_m2=fill_holes_m2,
        outline=outline,
        tolerance_m=tolerance_m,
        split_depth=split_depth,
        band=band,
        full_scale=full_scale,
        values=tuple(parse_numbers(values, "--values", "pixel values", "2,3") or ()),
        crs=crs,
        formats=parse_formats(formats, also),
        overwrite=overwrite,
    )
    result = vectorize_raster(raster, settings)
    seconds = sum(result.report["seconds"].values())
    log.info("%s in %.1f s", plural(result.report["counts"]["buildings"], "building"), seconds)
    for path in result.paths:
        typer.echo(path)
