"""`geoseg crossval`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr
from geoseg.cli.train import Data, RecipeArgument, Set, With, parse_overrides


@app.command("crossval", no_args_is_help=True)
def crossval(
    recipe: RecipeArgument,
    folds: Annotated[int, typer.Option("--folds", "-k", help="Number of folds.")] = 5,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for one folder per fold and crossval.json.", show_default=False),
    ] = None,
    over: With = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a recipe once per fold, and print the mean and spread of its scores.

    Each fold is validated on data that the other folds train on. Files are assigned to folds; a source with fewer
    files than folds is split into blocks instead. Finished folds are not repeated: the same command resumes.
    """
    log_to_stderr(quiet=quiet)
    overrides = parse_overrides(set_)
    from geoseg.training.crossval import cross_validate

    found = cross_validate(recipe, folds=folds, data=data, out=out, overrides=overrides, over=over or ())
    typer.echo(f"{found.table()}\n\n{found.folder / 'crossval.json'}")
