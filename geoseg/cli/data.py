"""`geoseg data show`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr
from geoseg.cli.train import Data, RecipeArgument, Set, With, parse_overrides

data_app = typer.Typer(help="Inspect training data before training.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.callback()
def _group() -> None:
    """Inspect training data before training."""  # a callback keeps `show` a command of its own


@data_app.command("show", no_args_is_help=True)
def show(
    recipe: RecipeArgument,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for data.json, pictures and prepared scenes.", show_default=False),
    ] = None,
    over: With = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Summarize a recipe's files, sizes, bands, classes and unknown labels, and plot samples with their masks.

    `geoseg train` with the same --out reuses the prepared scenes.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.training.library import find_recipe

    path, overrides = find_recipe(recipe), parse_overrides(set_)
    from geoseg.training.survey import survey_data

    survey = survey_data(path, data=data, out=out, overrides=overrides, over=over or ())
    typer.echo(survey.table())
    for written in survey.paths:
        typer.echo(written)
