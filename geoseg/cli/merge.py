"""`geoseg merge`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Overwrite, Quiet, app, log_to_stderr
from geoseg.io.tables import plural

log = logging.getLogger(__name__)


@app.command("merge", no_args_is_help=True)
def merge(
    batch: Annotated[
        str, typer.Argument(help="Folder of a batch: the value of --out, which may be on s3://.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File for the layer: .gpkg, .parquet, .fgb, .geojson or .pmtiles; <batch>_buildings.gpkg by default.",
            show_default=False,
        ),
    ] = None,
    target_crs: Annotated[
        str | None,
        typer.Option("--target-crs", help="CRS of the layer; the first scene's by default.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Merge the buildings of all scenes of a batch into one layer.

    Adds the columns scene and date (when it was taken, if a catalog or a manifest says so). Buildings where scenes
    overlap are in the layer several times; geoseg run --mosaic has each once.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.run import MergeSettings, merge_results

    found = merge_results(batch, MergeSettings(out=out, target_crs=target_crs, overwrite=overwrite))
    log.info("%s of %s", plural(found.buildings, "building"), plural(len(found.scenes), "scene"))
    typer.echo(found.path)
