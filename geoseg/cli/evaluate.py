"""`geoseg evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.bundle import DEFAULT_MODEL
from geoseg.cli.app import Device, DeviceOption, Model, Overwrite, Quiet, Threads, app, log_to_stderr


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
    log_to_stderr(quiet=quiet)
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
