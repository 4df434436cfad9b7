"""The command line: parse, one public call, print the paths. Heavy imports wait until a command needs them."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geoseg.bundle import DEFAULT_MODEL
from geoseg.errors import GeosegError, UsageError

app = typer.Typer(
    name="geoseg",
    help="Building footprints from georeferenced imagery: scenes in, rasters and polygons out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class GridOption(StrEnum):
    """On which pixels the results lie."""

    MODEL = "model"
    SCENE = "scene"


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


@app.command("run", no_args_is_help=True)
def run(
    scene: Annotated[
        list[str], typer.Argument(help="Raster, URL or folder; several of one grid are one scene.", show_default=False)
    ],
    model: Model = DEFAULT_MODEL,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Result folder; <scene name>_geoseg by default.", show_default=False),
    ] = None,
    aoi: Annotated[Path | None, typer.Option(help="Vector file with the area asked for.", show_default=False)] = None,
    aoi_where: Annotated[
        str | None, typer.Option(help="Which of its features, such as \"split = 'test'\".", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which a pixel is a building; the model's by default.", show_default=False),
    ] = None,
    min_area_m2: Annotated[
        float | None,
        typer.Option(help="Smallest footprint, square metres; the model's by default.", show_default=False),
    ] = None,
    simplify_px: Annotated[
        float, typer.Option(help="Tolerance of simplification, pixels; 0 keeps every pixel corner.")
    ] = 1.0,
    bands: Annotated[
        str | None, typer.Option(help="Bands of the scene for the model's, such as 1,2,3.", show_default=False)
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of a scene that has none, such as EPSG:32630.", show_default=False)
    ] = None,
    grid: Annotated[
        GridOption, typer.Option(help="Resample to the model's pixel size, or keep the scene's.")
    ] = GridOption.MODEL,
    blend: Annotated[
        bool, typer.Option("--blend", help="Blend neighbouring chips, for networks that pool over the whole chip.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Segment a scene: probability.tif, mask.tif, buildings.gpkg, buildings.parquet and run.json.

    The scene may have any CRS and pixel size: it is resampled on the fly to the model's. Files, /vsicurl/, https:// and
    s3:// are read in place. Exit code 2 means that the input cannot be used; the message says why.
    """
    _log_to_stderr(quiet=quiet)
    from geoseg.run import RunSettings, run_scene

    settings = RunSettings(
        model=model,
        out=out,
        aoi=aoi,
        aoi_where=aoi_where,
        threshold=threshold,
        min_area_m2=min_area_m2,
        simplify_px=simplify_px,
        bands=_parse_bands(bands),
        crs=crs,
        grid=grid.value,
        blend=blend,
        device=device.value,
        threads=threads,
        overwrite=overwrite,
    )
    result = run_scene(scene, settings, quiet=quiet)
    counts, seconds = result.report["counts"], result.report["seconds"]
    logging.getLogger(__name__).info("%s", _summary(counts, seconds, result.report["peak_memory_mb"]))
    for path in result.paths:
        typer.echo(path)


def _summary(counts: dict[str, int], seconds: dict[str, float], peak_mb: float | None) -> str:
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    memory = f"; peak memory {peak_mb:,.0f} MB" if peak_mb else ""
    return f"{counts['buildings']:,} buildings on {counts['valid_pixels'] / 1e6:.1f} Mpx; {stages}{memory}"


def _parse_bands(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as err:
        raise UsageError(
            f"--bands {text} is no list of band numbers. Give numbers from 1, such as --bands 1,2,3."
        ) from err


@app.command("evaluate", no_args_is_help=True)
def evaluate(
    scene: Annotated[list[str], typer.Argument(help="Raster, URL or folder.", show_default=False)],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", "-l", help="Raster (0/1, nodata = unknown) or vector file of buildings.", show_default=False
        ),
    ],
    model: Model = DEFAULT_MODEL,
    area: Annotated[Path | None, typer.Option(help="Vector file with the area to score.", show_default=False)] = None,
    where: Annotated[
        str | None, typer.Option(help="Which of its features, such as \"split = 'test'\".", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which a pixel is a building.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write metrics.json here.", show_default=False)
    ] = None,
    blend: Annotated[bool, typer.Option("--blend", help="Blend neighbouring chips.")] = False,
    device: DeviceOption = Device.AUTO,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on a scene with labels: IoU, Dice, precision and recall of building pixels.

    Pixels without data or label count for nothing. With --labels a folder of rasters, every scene is scored against the
    one of its name, and all together.
    """
    _log_to_stderr(quiet=quiet)
    from geoseg.evaluate import EvaluateSettings, evaluate_scenes

    settings = EvaluateSettings(
        model=model,
        labels=labels,
        area=area,
        where=where,
        threshold=threshold,
        out=out,
        blend=blend,
        device=device.value,
        threads=threads,
        overwrite=overwrite,
    )
    typer.echo(evaluate_scenes(scene, settings).table())


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
    _log_to_stderr(quiet=quiet)
    from geoseg.training import train_recipe

    typer.echo(train_recipe(recipe, data=data, out=out, overrides=_parse_overrides(set_ or [])))


def _parse_overrides(pairs: list[str]) -> dict[str, str]:
    """Split key=value pairs; the recipe knows what a value may be."""
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--set {pair} is no key=value. Give for example --set fit.steps=2000.")
    return {key.strip(): value for key, _, value in (pair.partition("=") for pair in pairs)}


@app.command("info")
def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Print versions, devices and models, for a bug report."""
    from geoseg.info import describe_installation, format_installation

    facts = describe_installation()
    typer.echo(json.dumps(facts, indent=2) if as_json else format_installation(facts))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Building footprints from georeferenced imagery."""
    if show:
        from geoseg import __version__

        typer.echo(f"geoseg {__version__}")
        raise typer.Exit


def _log_to_stderr(*, quiet: bool) -> None:
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


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Turn what a user can act upon into one line and exit code 2."""
    try:
        yield
    except GeosegError as err:
        typer.echo(f"Error: {err}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing was written.", err=True)
        sys.exit(130)


def main() -> None:
    """Run the command line."""
    # Several engines and dask threads share the cores; a BLAS with threads of its own would only get in their way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _errors_as_messages():
        app()


if __name__ == "__main__":
    main()
