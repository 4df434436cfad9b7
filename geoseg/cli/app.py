"""The Typer application and what the commands share: their order, common options and logging."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from geoseg._version import __version__
from geoseg.errors import UsageError
from geoseg.redaction import redact


class Interrupted(BaseException):
    """Ctrl-C, under a name that Typer passes on to `main`: a KeyboardInterrupt would end without a message."""


ORDER = (
    "run",
    "vectorize",
    "status",
    "merge",
    "report",
    "evaluate",
    "review",
    "compare",
    "finetune",
    "train",
    "crossval",
    "search",
    "models",
    "recipes",
    "data",
    "info",
)
"""Commands in the order in which `geoseg --help` lists them; any others follow."""


class Commands(TyperGroup):
    """The commands of geoseg."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the declared order, then those it does not name."""
        names = super().list_commands(ctx)
        return [*(name for name in ORDER if name in names), *(name for name in names if name not in ORDER)]

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the arguments, for which Typer imports packages."""
        with _interruptible():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the given command."""
        with _interruptible():
            return super().invoke(ctx)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as err:
        raise Interrupted from err


app = typer.Typer(
    name="geoseg",
    cls=Commands,
    help="Building footprints from georeferenced imagery: scenes in, rasters and polygons out.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress and no log lines, only warnings and the result paths.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Name of a shipped model (see geoseg models list) or path to a bundle.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Device; auto uses a GPU if one is available.")
]
Precision = Annotated[
    Literal["auto", "f32", "bf16", "f16"],
    typer.Option(
        "--precision",
        help="What the network computes in: bf16 is about twice as fast on processors that have it, and a little less "
        "exact; f16 is for GPUs. auto is bf16 for 8-bit scenes on such processors, else f32; a run that was started "
        "keeps what it was started in.",
    ),
]
TTA = Annotated[
    Literal["d4"] | None,
    typer.Option(
        "--tta",
        help="Average the predictions of the eight views of each chip, its rotations and mirror images; takes eight "
        "times as long.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Total number of CPU threads; all cores by default.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")]
CRS = Annotated[
    str | None, typer.Option("--crs", help="CRS for a scene that has none, such as EPSG:32630.", show_default=False)
]
Nodata = Annotated[
    float | None,
    typer.Option(
        "--nodata",
        help="Pixel value that means nodata where all bands have it, instead of the value in the file.",
        show_default=False,
    ),
]
Alpha = Annotated[
    bool | None,
    typer.Option(
        "--alpha/--no-alpha",
        help="A band marked alpha is a mask, or an image such as near infrared; found out by default.",
        show_default=False,
    ),
]
AOIWhere = Annotated[
    str | None,
    typer.Option(
        "--aoi-where", help="Filter on the features of --aoi, such as \"split = 'test'\".", show_default=False
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold", help="Minimum probability of a building pixel; the model's by default.", show_default=False
    ),
]
FillHoles = Annotated[
    float | None,
    typer.Option(
        "--fill-holes-m2",
        help="Fill holes in footprints that are smaller than this, in square meters; by default those smaller than "
        "--min-area-m2, which is also the most.",
        show_default=False,
    ),
]
OutlineKind = Annotated[
    Literal["raw", "simple", "regular"],
    typer.Option("--outline", help="Outlines: straight walls and right angles, fewer corners, or those of the pixels."),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance-m",
        help="Smallest step in a wall that is kept, in meters; 0.5 by default, and at least a pixel.",
        show_default=False,
    ),
]
SplitDepth = Annotated[
    float | None,
    typer.Option(
        "--split-depth",
        help="How much the smoothed probability must fall to divide a building that stands alone, less where many "
        "touch: smaller values split more of them, 1 none; chosen by geoseg by default.",
        show_default=False,
    ),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Formats of the footprints: gpkg (GeoPackage), parquet (GeoParquet, always written), fgb (FlatGeobuf), "
        "geojson (longitude and latitude), pmtiles (vector tiles for web maps). Separated by commas; gpkg,parquet by "
        "default.",
        show_default=False,
    ),
]
Also = Annotated[list[str] | None, typer.Option("--also", hidden=True)]
LabelLayer = Annotated[
    str, typer.Option("--layer", help="Layer of the labels, if the file has several.", show_default=False)
]
LabelColumn = Annotated[
    str, typer.Option("--column", help="Column with the class of each label polygon.", show_default=False)
]
LabelInstances = Annotated[
    bool,
    typer.Option(
        "--instances", help="The numbers of a label raster are those of single buildings; 0 is the background."
    ),
]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Building footprints from georeferenced imagery."""
    if show:
        typer.echo(f"geoseg {__version__}")
        raise typer.Exit


OldPath = Annotated[Path | None, typer.Option(hidden=True)]
OldText = Annotated[str | None, typer.Option(hidden=True)]


def parse_numbers(text: str | None, flag: str, what: str, example: str) -> list[int] | None:
    """Return the numbers of an option, which are separated by commas."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as err:
        raise UsageError(
            f"{flag} {text} is not a list of {what}. Give whole numbers, such as {flag} {example}."
        ) from err


def renamed(value: Any, old_value: Any, *, name: str, old_name: str) -> Any:
    """Return the value of an option that used to have another name, which is accepted for one version."""
    if old_value is None:
        return value
    if value is not None:
        raise UsageError(f"{name} and {old_name} were given; {old_name} is the old name of {name}. Give {name} only.")
    logging.getLogger(__name__).warning("%s is now called %s; the old name will be removed.", old_name, name)
    return old_value


def parse_formats(text: str | None, also: list[str] | None) -> tuple[str, ...]:
    """Return the formats of --format; those of its old name --also are added to the usual ones."""
    from geoseg.outputs.footprints import DEFAULT_FORMATS

    given = tuple(name.strip() for name in text.split(",")) if text is not None else None
    older = (*DEFAULT_FORMATS, *also) if also else None
    formats: tuple[str, ...] | None = renamed(given, older, name="--format", old_name="--also")
    return DEFAULT_FORMATS if formats is None else formats


CODE = "a code. Give a number or a color and a class: 255=building."
PAIRS = {"--set": "key=value. Give for example --set fit.steps=2000.", "--code": CODE, "--mask-code": CODE}
"""What an error says that the values of options should be."""


def split_pairs(option: str, pairs: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Split the key=value pairs of an option; the recipe itself parses the values of --set."""
    for pair in pairs or ():
        if "=" not in pair:
            raise UsageError(f"{option} {pair} is not {PAIRS[option]}")
    found = [(key.strip(), value) for key, _, value in (pair.partition("=") for pair in pairs or ())]
    return tuple(found if option == "--set" else [(key, name.strip()) for key, name in found])


QUOTES = "\"'"


@cache
def _flags() -> dict[str, str]:
    """Return the flag of every option by the name of its argument; no name has two flags."""

    def options(command: Any) -> Iterator[tuple[str, str]]:
        for one in getattr(command, "commands", {}).values():
            yield from options(one)
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield parameter.name.rstrip("_"), max(parameter.opts, key=len)

    return dict(options(typer.main.get_command(app)))


def with_flags(text: str) -> str:
    """Return a message of the library with the arguments that it names in backticks as flags.

    `aoi_where` becomes --aoi-where, `workers=4` becomes --workers 4, and `alpha=False` becomes --no-alpha. What is not
    an option stays as it is. An argument of a class of settings is an option like any other:
    `label_settings=LabelSettings(layer='a')`.
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in _flags():
            return match[0]
        if value == "False":
            return f"--no-{_flags()[name].removeprefix('--')}"
        return _flags()[name] + (f" {value.strip(QUOTES)}" if value not in (None, "True") else "")

    text = re.sub(r"`[a-z_]+=[A-Z]\w*\(([^`]+)\)`", r"`\1`", text)
    return re.sub(r"`([a-z][a-z0-9_]*)(?:=([^`]+))?`", flag, text)


class FlagFormatter(logging.Formatter):
    """Format log lines of the library with flags instead of arguments."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return redact(with_flags(super().format(record)))


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Show a warning of a library as one line, such as GDAL's on a polygon that is not closed."""
    parts = Path(filename).parts
    library = parts[parts.index("site-packages") + 1] if "site-packages" in parts else Path(filename).stem
    logging.getLogger("geoseg").warning("%s: %s", library, " ".join(str(message).split()))


def log_to_stderr(*, quiet: bool) -> None:
    """Send log lines to stderr; show only warnings and errors of other libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FlagFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("geoseg").setLevel(logging.WARNING if quiet else logging.INFO)
    for name in ("rasterio", "distributed", "pyogrio", "fontTools", "openvino"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.showwarning = _show_warning
    # The scene logs this itself, with a message that names the next step.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
