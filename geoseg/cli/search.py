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
            help="key=low..high, key=low..high:log or key=a,b,c, again and again; any key of the recipe.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="The same in a TOML or YAML file.", exists=False, show_default=False)
    ] = None,
    trials: Annotated[int, typer.Option("--trials", "-n", help="Trainings in all, earlier ones included.")] = 20,
    minutes_per_trial: Annotated[
        float | None, typer.Option(help="Time for each; as the recipe says if omitted.", show_default=False)
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="At the end train the best on training and validation data together.")
    ] = False,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the study, the trials and best.toml.", show_default=False),
    ] = None,
    with_: With = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Search for better settings with Optuna, and write the best as a recipe that `geoseg train` reads.

    The same command resumes, a half-trained trial included; more --trials add to it. Needs geoseg[search].
    """
    log_to_stderr(quiet=quiet)
    from geoseg.training.space import read_space

    varied, overrides = read_space(space, vary or ()), parse_overrides(set_)
    from geoseg.training.search import SearchSettings, search_recipe

    settings = SearchSettings(
        space=varied,
        trials=trials,
        minutes=minutes_per_trial,
        data=data,
        out=out,
        overrides=overrides,
        over=with_ or (),
        retrain=retrain,
    )
    found = search_recipe(recipe, settings)
    typer.echo(f"{found.table()}\n\n{found.recipe}")
    if found.bundle is not None:
        typer.echo(found.bundle)
