"""The command line: parse, make one public call, print the paths. Commands import heavy packages only when run."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from geoseg.cli import evaluate, finetune, models, run, status, train, vectorize  # each registers its commands
from geoseg.cli.app import Interrupted, app, with_flags
from geoseg.errors import ClusterError, GeosegError, UnfinishedError

__all__ = ["app", "evaluate", "finetune", "main", "models", "run", "status", "train", "vectorize"]

INPUT_REFUSED, UNFINISHED, INTERRUPTED, TERMINATED = 2, 3, 130, 143
"""Exit codes; after 3 the same command continues from what is done."""


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn errors that a user can act on into a message and an exit code."""
    try:
        yield
    except GeosegError as err:
        typer.echo(f"Error: {with_flags(str(err))}", err=True)
        sys.exit(UNFINISHED if isinstance(err, UnfinishedError | ClusterError) else INPUT_REFUSED)
    except (Interrupted, KeyboardInterrupt):
        typer.echo("Interrupted. Run the same command again: it continues if it can.", err=True)
        sys.exit(INTERRUPTED)


def _avoid_settings_folder() -> None:
    """Prevent matplotlib, which torchgeo imports, from creating an empty settings folder."""
    with suppress(RuntimeError):  # a user without a home folder
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "matplotlib"
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
        has_two = sys.platform.startswith(("linux", "freebsd"))  # elsewhere settings and caches share a folder
        if has_two and not settings.exists():
            os.environ.setdefault("MPLCONFIGDIR", str(caches))


def main() -> None:
    """Run the command line."""
    # Several engines and dask threads share the cores; BLAS threads would only compete with them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _avoid_settings_folder()
    # Exit cleanly when a job scheduler asks for it, which releases the lease on the run folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    with errors_as_messages():
        app()
