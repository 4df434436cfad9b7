"""`geoseg evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli.app import (
    CRS,
    TTA,
    Alpha,
    AOIWhere,
    Device,
    LabelColumn,
    LabelInstances,
    LabelLayer,
    Nodata,
    OldPath,
    OldText,
    Overwrite,
    Precision,
    Quiet,
    Threads,
    Threshold,
    app,
    log_to_stderr,
    renamed,
    split_pairs,
)


@app.command("evaluate", no_args_is_help=True)
def evaluate(
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            "-l",
            help="Reference labels: a raster (class indices; nodata and 255 are unknown), polygons, or a folder of "
            "files named like the scenes.",
            show_default=False,
        ),
    ],
    scene: Annotated[
        list[str] | None,
        typer.Argument(help="Rasters, URLs, folders of rasters, or result folders of geoseg run.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Shipped model or bundle; the default model if omitted.", show_default=False
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Score this class raster from any tool, or a folder of them, instead.", show_default=False),
    ] = None,
    footprints: Annotated[
        Path | None,
        typer.Option(help="Score these polygons from any tool, alone or together with --mask.", show_default=False),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="Confidence column of --footprints; found automatically if called confidence, score or probability.",
            show_default=False,
        ),
    ] = None,
    codes: Annotated[
        list[str] | None,
        typer.Option(
            "--code",
            help="Class of a number or color in the labels: 255=building, #3C1098=building, "
            "#000000=unknown. Repeatable.",
            show_default=False,
        ),
    ] = None,
    mask_codes: Annotated[
        list[str] | None, typer.Option("--mask-code", help="The same for --mask. Repeatable.", show_default=False)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class names of --mask in index order, such as land,road,building.", show_default=False),
    ] = None,
    target: Annotated[str, typer.Option(help="Name of the building class in --mask.", show_default=False)] = "",
    target_only: Annotated[
        bool, typer.Option("--target-only", help="Score only the target class of a model with several classes.")
    ] = False,
    unscored: Annotated[
        list[str] | None,
        typer.Option(help="Class to leave out of the means; unlabelled by default. Repeatable.", show_default=False),
    ] = None,
    layer: LabelLayer = "",
    column: LabelColumn = "",
    instances: LabelInstances = False,
    elsewhere: Annotated[
        bool, typer.Option("--no-buildings-here", help="Accept label polygons even if none of them touches the scene.")
    ] = False,
    aoi: Annotated[Path | None, typer.Option(help="Vector file with the area to score.", show_default=False)] = None,
    aoi_where: AOIWhere = None,
    area: OldPath = None,
    where: OldText = None,
    threshold: Threshold = None,
    curve: Annotated[
        bool,
        typer.Option("--curve", help="Also score every threshold. Choose one on validation data, never on test data."),
    ] = False,
    boundary_m: Annotated[
        float | None,
        typer.Option(help="Boundary width for boundary IoU in meters; 1 if omitted.", show_default=False),
    ] = None,
    boundary_px: Annotated[int | None, typer.Option(help="Boundary width in pixels.", show_default=False)] = None,
    pixels_only: Annotated[
        bool, typer.Option("--pixels-only", help="Skip the scores of individual buildings.")
    ] = False,
    crs: CRS = None,
    nodata: Nodata = None,
    alpha: Alpha = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for metrics.json and pictures.", show_default=False),
    ] = None,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Write only metrics.json to --out.")] = False,
    blend: Annotated[bool, typer.Option("--blend", help="Blend neighboring chips.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    tta: TTA = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Score a model, a finished run or the output of any tool against reference labels.

    Pixels, boundaries, probabilities and individual buildings are scored; pixels without data or without a label are
    ignored. If --labels is a folder, each scene is scored against the file with its name, and then all scenes together.
    docs/evaluation.md has the formula of every metric.
    """
    log_to_stderr(quiet=quiet)
    label_codes, codes_of_mask = split_pairs("--code", codes), split_pairs("--mask-code", mask_codes)
    from geoseg.evaluate import EvaluateSettings, LabelSettings, evaluate_scenes

    settings = EvaluateSettings(
        labels=labels,
        label_settings=LabelSettings(
            codes=label_codes, layer=layer, column=column, instances=instances, elsewhere=elsewhere
        ),
        model=model,
        mask=mask,
        footprints=footprints,
        confidence=confidence,
        mask_codes=codes_of_mask,
        classes=tuple(classes.split(",")) if classes else (),
        target=target,
        target_only=target_only,
        unscored=tuple(unscored) if unscored is not None else None,
        aoi=renamed(aoi, area, name="--aoi", old_name="--area"),
        aoi_where=renamed(aoi_where, where, name="--aoi-where", old_name="--where"),
        threshold=threshold,
        boundary_m=boundary_m,
        boundary_px=boundary_px,
        buildings=not pixels_only,
        curve=curve,
        out=out,
        pictures=not no_pictures,
        blend=blend,
        device=device,
        precision=precision,
        tta=tta,
        threads=threads,
        overwrite=overwrite,
        crs=crs,
        nodata=nodata,
        alpha=alpha,
    )
    typer.echo(evaluate_scenes(scene or [], settings).table())
