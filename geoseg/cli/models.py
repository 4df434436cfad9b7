"""`geoseg models list`, `models show`, `models export` and `geoseg info`: what is installed."""

import json
import logging
from typing import Annotated, Literal

import typer

from geoseg.bundle import DEFAULT_MODEL
from geoseg.cli.app import AsJson, Overwrite, Quiet, app, log_to_stderr

models_app = typer.Typer(help="List, show and export models.", no_args_is_help=True)
app.add_typer(models_app, name="models")

ModelArgument = Annotated[str, typer.Argument(help="Name of a shipped model, or path to a bundle or an exported file.")]


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the shipped models."""
    from geoseg.export import describe_models, format_models

    found = describe_models()
    typer.echo(json.dumps(found, indent=2) if as_json else format_models(found))


@models_app.command("show")
def show_model(
    model: ModelArgument = DEFAULT_MODEL,
    as_json: AsJson = False,
    stac: Annotated[
        bool, typer.Option("--stac", help="Print a STAC Item with the fields of the MLM extension.")
    ] = False,
) -> None:
    """Show a model's specification, parameters, checksums, training and scores."""
    from geoseg.bundle import load_bundle
    from geoseg.export import describe_item, describe_model, format_model

    bundle = load_bundle(model)
    if stac:
        typer.echo(json.dumps(describe_item(bundle), indent=2))
    else:
        facts = describe_model(bundle)
        typer.echo(json.dumps(facts, indent=2) if as_json else format_model(facts))


@models_app.command("export", no_args_is_help=True)
def export(
    model: ModelArgument,
    to: Annotated[
        Literal["onnx", "openvino", "pt2", "tensorrt"],
        typer.Option("--to", help="Export format.", show_default=False),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Output file or folder (a new one ends in /); <model name>.<suffix> by default.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Literal["f32", "f16"],
        typer.Option("--weights", help="f16 halves the OpenVINO file, and lets TensorRT compute in half precision."),
    ] = "f32",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Export a model for another runtime.

    The file contains the model's specification and is checked against torch before it is written. The network takes
    raw pixels (n, band, y, x) of any batch size and chip size and returns probabilities. `geoseg run --model` also
    takes .onnx, .xml (OpenVINO) and .pt2 files.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.export import export_model

    done = export_model(model, to, out=out, weights=weights, overwrite=overwrite)
    logging.getLogger(__name__).info(
        "checked against torch in %s: largest difference of a probability %.2g (allowed: %g)",
        done.check["runtime"],
        done.check["max_difference"],
        done.check["tolerance"],
    )
    for path in done.paths:
        typer.echo(path)


@app.command("info")
def info(as_json: AsJson = False) -> None:
    """Print versions, devices and models, for bug reports."""
    from geoseg.info import describe_installation, format_installation

    facts = describe_installation()
    typer.echo(json.dumps(facts, indent=2) if as_json else format_installation(facts))
