"""`geoseg recipes list` and `geoseg recipes show`."""

from typing import Annotated

import typer

from geoseg.cli.app import app, log_to_stderr
from geoseg.cli.train import RecipeArgument, Set, With, parse_overrides
from geoseg.io.tables import align_columns

recipes = typer.Typer(help="The training recipes that come with geoseg.", no_args_is_help=True)
app.add_typer(recipes, name="recipes")


@recipes.command("list")
def list_() -> None:
    """Print the recipes that come with geoseg, and what each is."""
    from geoseg.training.library import describe_recipes

    if found := describe_recipes():
        typer.echo(align_columns([*found.items()]))


@recipes.command("show", no_args_is_help=True)
def show(
    recipe: RecipeArgument,
    with_: With = None,
    set_: Set = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every key with its value, defaults too, as JSON.")
    ] = False,
) -> None:
    """Print a recipe's file, to be copied and changed; with --resolved, --with or --set, what it comes to."""
    log_to_stderr(quiet=True)
    from geoseg.training.library import show_recipe

    typer.echo(show_recipe(recipe, over=with_ or (), overrides=parse_overrides(set_), resolved=resolved).rstrip())
