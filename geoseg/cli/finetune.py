"""`geoseg finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr
from geoseg.cli.evaluate import parse_codes
from geoseg.cli.train import Set, parse_overrides


@app.command("finetune", no_args_is_help=True)
def finetune(
    scene: Annotated[
        list[str], typer.Argument(help="Rasters on this machine, or folders of them.", show_default=False)
    ],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            "-l",
            help="The truth: polygons (a GeoPackage is enough), a raster, or a folder of files named like the scenes.",
            show_default=False,
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Shipped model or bundle to begin with.")] = (
        "buildings-30cm"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the results; SCENE_finetune.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new model; MODEL-SCENE.", show_default=False)] = "",
    minutes: Annotated[float, typer.Option(help="Time to train.", min=0.01)] = 5.0,
    areas: Annotated[
        Path | None,
        typer.Option(
            help="Polygons of what is labelled; outside nothing is known. Without it, all that no polygon of --labels "
            "covers is background.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Which of their features, such as \"split = 'train'\".", show_default=False)
    ] = None,
    layer: Annotated[str, typer.Option(help="Layer of the labels, if they have several.", show_default=False)] = "",
    column: Annotated[str, typer.Option(help="Column of label polygons with their class.", show_default=False)] = "",
    code: Annotated[
        list[str] | None,
        typer.Option(
            help="What a number or colour of a label raster means: 255=building, #000000=unknown.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which blocks are held out, and which crops are drawn.", min=0)] = 0,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a model further on your own scenes, and keep it if it is better on blocks of them that it never saw.

    Prints how good the old and the new model are there. A model that is not better is not written, and the old one
    stays as it is. The same command resumes.
    """
    log_to_stderr(quiet=quiet)
    codes, overrides = parse_codes(code, "--code"), parse_overrides(set_)
    from geoseg.training.finetune import FinetuneSettings
    from geoseg.training.finetune import finetune as run

    settings = FinetuneSettings(
        labels=labels,
        model=model,
        out=out,
        name=name,
        minutes=minutes,
        areas=areas,
        where=where,
        layer=layer,
        column=column,
        codes=codes,
        seed=seed,
        overrides=overrides,
    )
    result = run(scene, settings)
    typer.echo(f"{result.table()}\n\n{result.verdict()}")
    if result.bundle is not None:
        typer.echo(result.bundle)
