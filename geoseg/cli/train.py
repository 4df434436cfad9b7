"""`geoseg train`, `crossval`, `search`, `data show` and `recipes`: the commands that take a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr, split_pairs, with_flags
from geoseg.io.tables import align_columns

data_app = typer.Typer(help="Inspect training data before training.", no_args_is_help=True)
app.add_typer(data_app, name="data")
recipes_app = typer.Typer(help="List and show the training recipes that come with geoseg.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")

RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe (see geoseg recipes list), or a TOML or YAML file.", show_default=False)
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help="Recipe whose keys override the first one's, for example with other data. Repeatable.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None, typer.Option(help="Folder that the recipe's data paths are relative to.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the recipe: key=value. Repeatable.", show_default=False),
]


@app.command("train", no_args_is_help=True)
def train(
    recipe: RecipeArgument,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for checkpoints, curves and the bundle.", show_default=False),
    ] = None,
    over: With = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a network from a recipe.

    Writes a bundle for `geoseg run --model`. The same command resumes.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.training.library import find_recipe

    # Before torch is imported, so that misspelled arguments are reported at once
    path, overrides = find_recipe(recipe), dict(split_pairs("--set", set_))
    from geoseg.training import train_recipe

    typer.echo(train_recipe(path, data=data, out=out, overrides=overrides, over=over or ()))


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
    overrides = dict(split_pairs("--set", set_))
    from geoseg.training.crossval import cross_validate

    found = cross_validate(recipe, folds=folds, data=data, out=out, overrides=overrides, over=over or ())
    typer.echo(f"{found.table()}\n\n{found.folder / 'crossval.json'}")


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

    varied, overrides = read_space(space, vary or ()), dict(split_pairs("--set", set_))
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
    typer.echo(f"{with_flags(found.table())}\n\n{found.recipe}")
    if found.bundle is not None:
        typer.echo(found.bundle)


@data_app.callback()
def _group() -> None:
    """Inspect training data before training."""  # a callback keeps `show` a command of its own


@data_app.command("show", no_args_is_help=True)
def show_data(
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

    path, overrides = find_recipe(recipe), dict(split_pairs("--set", set_))
    from geoseg.training.survey import survey_data

    survey = survey_data(path, data=data, out=out, overrides=overrides, over=over or ())
    typer.echo(survey.table())
    for written in survey.paths:
        typer.echo(written)


@recipes_app.command("list")
def list_recipes() -> None:
    """List the recipes that come with geoseg, with a description of each."""
    from geoseg.training.library import describe_recipes

    if found := describe_recipes():
        typer.echo(align_columns([*found.items()]))


@recipes_app.command("show", no_args_is_help=True)
def show_recipe(
    recipe: RecipeArgument,
    over: With = None,
    set_: Set = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every key with its value, defaults included, as JSON.")
    ] = False,
) -> None:
    """Print a recipe's file, to copy and change; with --resolved, --with or --set, the resulting recipe as JSON."""
    log_to_stderr(quiet=True)
    from geoseg.training import library

    overrides = dict(split_pairs("--set", set_))
    typer.echo(library.show_recipe(recipe, over=over or (), overrides=overrides, resolved=resolved).rstrip())
