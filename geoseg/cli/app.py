"""The Typer application, and what the commands share: options and log lines."""

import logging
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from geoseg._version import __version__


class Interrupted(BaseException):
    """Ctrl-C, under a name that Typer leaves to `main`: it ends a KeyboardInterrupt itself, without a word."""


class Commands(TyperGroup):
    """The commands of geoseg."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as err:
            raise Interrupted from err


app = typer.Typer(
    name="geoseg",
    cls=Commands,
    help="Building footprints from georeferenced imagery: scenes in, rasters and polygons out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no log lines, only warnings and the paths.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Name of a shipped model (geoseg info lists them) or path of a bundle.")
]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto takes a GPU where there is one.")]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads in all; every core by default.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Building footprints from georeferenced imagery."""
    if show:
        typer.echo(f"geoseg {__version__}")
        raise typer.Exit


def log_to_stderr(*, quiet: bool) -> None:
    """Send log lines to stderr; keep other libraries to their warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("geoseg").setLevel(logging.WARNING if quiet else logging.INFO)
    for name in ("rasterio", "distributed", "pyogrio", "fontTools", "openvino"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _ignore_known_warnings()


def _ignore_known_warnings() -> None:
    import warnings

    # The scene says so itself, in words that name the next step.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
