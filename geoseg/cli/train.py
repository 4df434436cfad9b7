"""`geoseg train`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr
from geoseg.errors import UsageError

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
    path, overrides = find_recipe(recipe), parse_overrides(set_)
    from geoseg.training import train_recipe

    typer.echo(train_recipe(path, data=data, out=out, overrides=overrides, over=over or ()))


def parse_overrides(pairs: list[str] | None) -> dict[str, str]:
    """Split key=value pairs; the recipe checks the values."""
    for pair in pairs or []:
        if "=" not in pair:
            raise UsageError(f"--set {pair} is not key=value. Give for example --set fit.steps=2000.")
    return {key.strip(): value for key, _, value in (pair.partition("=") for pair in pairs or [])}
