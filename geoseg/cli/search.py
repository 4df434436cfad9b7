"""`geoseg search`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr
from geoseg.cli.train import Data, RecipeArgument, Set, With, parse_overrides


@app.command("search", no_args_is_help=True)
def search(
    recipe: RecipeArgument,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Values to try for a recipe key: key=low..high, key=low..high:log or key=a,b,c. Repeatable.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help="TOML or YAML file with the search space, instead of or in addition to --vary.",
            exists=False,
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", "-n", help="Total number of trials, including earlier ones.")] = 20,
    minutes_per_trial: Annotated[
        float | None, typer.Option(help="Training time per trial; the recipe's if omitted.", show_default=False)
    ] = None,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Finally, train the best settings on training and validation data together."),
    ] = False,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the study, the trials and best.toml.", show_default=False),
    ] = None,
    over: With = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Search for better settings with Optuna, and write the best as a recipe.

    `geoseg train` takes the recipe. The same command resumes, including an unfinished trial; a larger --trials adds
    trials. Requires geoseg[search].
    """
    log_to_stderr(quiet=quiet)
    from geoseg.training.search import SearchSettings, read_space, search_recipe

    varied, overrides = read_space(space, vary or ()), parse_overrides(set_)
    settings = SearchSettings(
        space=varied,
        trials=trials,
        minutes=minutes_per_trial,
        data=data,
        out=out,
        overrides=overrides,
        over=over or (),
        retrain=retrain,
    )
    found = search_recipe(recipe, settings)
    typer.echo(f"{found.table()}\n\n{found.recipe}")
    if found.bundle is not None:
        typer.echo(found.bundle)
