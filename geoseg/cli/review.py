"""`geoseg review`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Overwrite, Quiet, app, log_to_stderr
from geoseg.io.tables import plural


@app.command("review", no_args_is_help=True)
def review(
    run: Annotated[
        str,
        typer.Argument(help="Result folder of geoseg run; with --answers the review.gpkg.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Result folder; <run>_review by default.", show_default=False)
    ] = None,
    cell_m: Annotated[float, typer.Option("--cell-m", help="Side of the squares that are ranked, in meters.")] = 15.0,
    most: Annotated[int, typer.Option("--most", help="Number of squares and of buildings to list.")] = 1000,
    sample: Annotated[
        int, typer.Option("--sample", help="Also draw this many buildings, and as many squares, for a check.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.")] = 1,
    answers: Annotated[
        bool, typer.Option("--answers", help="Estimate precision and recall from a sample that was filled in.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Show where a map is most doubtful, and how good it is by a sample that you check.

    Writes review.gpkg, for QGIS: places has the squares with the largest area that is expected to be wrong, buildings
    those of the lowest confidence, the most doubtful first.

    With --sample 50 it also has two layers to fill in: sample_buildings (is_right: right or wrong) and sample_places
    (missed: how many buildings with their center in the square are missed). geoseg review REVIEW.gpkg --answers then
    prints precision and recall with their intervals; rows that were not filled in are left out.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.evaluate import ReviewSettings, count_answers, review_run

    if answers:
        found = count_answers(run)
        typer.echo(found.table())
        left = [(found.open_buildings, "building"), (found.open_places, "place")]
        for count, noun in left:
            if count:
                typer.echo(f"{plural(count, f'sampled {noun}')} without an answer left out", err=True)
        return
    settings = ReviewSettings(out=out, cell_m=cell_m, most=most, sample=sample, seed=seed, overwrite=overwrite)
    for path in review_run(run, settings).paths:
        typer.echo(path)
