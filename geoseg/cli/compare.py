"""`geoseg compare`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Overwrite, Quiet, app, log_to_stderr


@app.command("compare", no_args_is_help=True)
def compare(
    run: Annotated[str, typer.Argument(help="Result folder of geoseg run.", show_default=False)],
    map_file: Annotated[
        Path,
        typer.Argument(
            metavar="map",
            help="Polygons of buildings in any CRS, such as those of OpenStreetMap or of a cadastre.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Result folder; <run>_comparison by default.", show_default=False),
    ] = None,
    layer: Annotated[
        str, typer.Option("--layer", help="Layer of the map, if its file has several.", show_default=False)
    ] = "",
    map_id: Annotated[
        str | None,
        typer.Option(
            "--map-id",
            help="Column with the names of the map's buildings; id, osm_id and the like are found automatically.",
            show_default=False,
        ),
    ] = None,
    iou: Annotated[float, typer.Option("--iou", help="Smallest IoU of buildings that are the same.")] = 0.5,
    shift: Annotated[
        bool,
        typer.Option(
            "--shift/--no-shift",
            help="Take a constant shift between the map and the image out first, or compare where they lie.",
        ),
    ] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compare the buildings of a run with a map: matched, changed, new, missing.

    Writes comparison.gpkg with two layers: buildings has those of the run with their status, IoU, offset and the name
    of the building in the map; missing has the buildings of the map that the run has nothing of. comparison.json has
    the counts, and how far the map lies from the image. What lies where the run has no data does not count.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.evaluate import CompareSettings, compare_with_map

    settings = CompareSettings(out=out, layer=layer, map_id=map_id, iou=iou, shift=shift, overwrite=overwrite)
    found = compare_with_map(run, map_file, settings)
    if not quiet:
        typer.echo(found.table(), err=True)
    for path in found.paths:
        typer.echo(path)
