"""The command line: parse, one public call, print the paths. Heavy imports wait until a command needs them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from geoseg.cli import crossval, data, evaluate, finetune, info, models, recipes, run, search, train  # each registers
from geoseg.cli.app import app
from geoseg.errors import GeosegError

__all__ = [
    "app",
    "crossval",
    "data",
    "evaluate",
    "finetune",
    "info",
    "main",
    "models",
    "recipes",
    "run",
    "search",
    "train",
]


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Turn what a user can act upon into one line and exit code 2."""
    try:
        yield
    except GeosegError as err:
        typer.echo(f"Error: {err}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command begins again, or continues where it can.", err=True)
        sys.exit(130)


def main() -> None:
    """Run the command line."""
    # Several engines and dask threads share the cores; a BLAS with threads of its own would only get in their way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _errors_as_messages():
        app()
