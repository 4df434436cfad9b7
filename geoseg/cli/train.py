"""`geoseg train`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr
from geoseg.errors import UsageError


@app.command("train", no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or path of a TOML file.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the recipe's data paths start from.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for checkpoints, curves and the bundle.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: key=value, again and again.", show_default=False),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network from a recipe, and write a bundle that `geoseg run --model` takes. The same command resumes."""
    log_to_stderr(quiet=quiet)
    from geoseg.training import train_recipe

    typer.echo(train_recipe(recipe, data=data, out=out, overrides=_parse_overrides(set_ or [])))


def _parse_overrides(pairs: list[str]) -> dict[str, str]:
    """Split key=value pairs; the recipe knows what a value may be."""
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--set {pair} is no key=value. Give for example --set fit.steps=2000.")
    return {key.strip(): value for key, _, value in (pair.partition("=") for pair in pairs)}
