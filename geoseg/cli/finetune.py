"""`geoseg finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import (
    Alpha,
    LabelColumn,
    LabelInstances,
    LabelLayer,
    Nodata,
    OldPath,
    OldText,
    Quiet,
    app,
    log_to_stderr,
    renamed,
    split_pairs,
)
from geoseg.cli.train import Set


@app.command("finetune", no_args_is_help=True)
def finetune(
    scene: Annotated[list[str], typer.Argument(help="Local rasters, or folders of them.", show_default=False)],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            "-l",
            help="Reference labels: polygons (such as a GeoPackage), a raster, or a folder of files named "
            "like the scenes.",
            show_default=False,
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Shipped model or bundle to start from.")] = (
        "buildings-30cm"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Result folder; SCENE_finetune by default.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new model; MODEL-SCENE by default.", show_default=False)] = "",
    minutes: Annotated[float, typer.Option(help="Training time in minutes.", min=0.01)] = 5.0,
    aoi: Annotated[
        Path | None,
        typer.Option(
            help="Polygons of the labeled areas; everything outside them is unknown. Without this option, everything "
            "not covered by --labels is background.",
            show_default=False,
        ),
    ] = None,
    aoi_where: Annotated[
        str | None,
        typer.Option(help="Filter on the features of --aoi, such as \"split = 'train'\".", show_default=False),
    ] = None,
    areas: OldPath = None,
    where: OldText = None,
    layer: LabelLayer = "",
    column: LabelColumn = "",
    instances: LabelInstances = False,
    codes: Annotated[
        list[str] | None,
        typer.Option(
            "--code",
            help="Class of a number or color in a label raster: 255=building, #000000=unknown. Repeatable.",
            show_default=False,
        ),
    ] = None,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--no-buildings-here",
            help="Scenes that no label polygon touches have no buildings; they are left out if omitted.",
        ),
    ] = False,
    nodata: Nodata = None,
    alpha: Alpha = None,
    seed: Annotated[int, typer.Option(help="Random seed for the held-out blocks and the crops.", min=0)] = 0,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on your own scenes, and keep it only if it scores better on held-out blocks.

    Prints the scores of both models on the held-out blocks. A model that is not better is not written; the old one is
    never changed. The same command resumes.
    """
    log_to_stderr(quiet=quiet)
    label_codes, overrides = split_pairs("--code", codes), dict(split_pairs("--set", set_))
    from geoseg.training.finetune import FinetuneSettings
    from geoseg.training.finetune import finetune as run

    settings = FinetuneSettings(
        labels=labels,
        model=model,
        out=out,
        name=name,
        minutes=minutes,
        aoi=renamed(aoi, areas, name="--aoi", old_name="--areas"),
        aoi_where=renamed(aoi_where, where, name="--aoi-where", old_name="--where"),
        layer=layer,
        column=column,
        codes=label_codes,
        instances=instances,
        elsewhere=elsewhere,
        nodata=nodata,
        alpha=alpha,
        seed=seed,
        overrides=overrides,
    )
    result = run(scene, settings)
    typer.echo(f"{result.table()}\n\n{result.verdict()}")
    if result.bundle is not None:
        typer.echo(result.bundle)
