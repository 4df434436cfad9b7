"""`geoseg recipes list` and `geoseg recipes show`."""

from typing import Annotated

import typer

from geoseg.cli.app import app, log_to_stderr
from geoseg.cli.train import RecipeArgument, Set, With, parse_overrides
from geoseg.io.tables import align_columns

recipes = typer.Typer(help="List and show the training recipes that come with geoseg.", no_args_is_help=True)
app.add_typer(recipes, name="recipes")


@recipes.command("list")
def list_() -> None:
    """List the recipes that come with geoseg, with a description of each."""
    from geoseg.training.library import describe_recipes

    if found := describe_recipes():
        typer.echo(align_columns([*found.items()]))


@recipes.command("show", no_args_is_help=True)
def show(
    recipe: RecipeArgument,
    over: With = None,
    set_: Set = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every key with its value, defaults included, as JSON.")
    ] = False,
) -> None:
    """Print a recipe's file, to copy and change; with --resolved, --with or --set, the resulting recipe as JSON."""
    log_to_stderr(quiet=True)
    from geoseg.training.library import show_recipe

    typer.echo(show_recipe(recipe, over=over or (), overrides=parse_overrides(set_), resolved=resolved).rstrip())
