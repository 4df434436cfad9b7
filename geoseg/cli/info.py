"""`geoseg info`."""

import json
from typing import Annotated

import typer

from geoseg.cli.app import app


@app.command("info")
def info(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Print versions, devices and models, for bug reports."""
    from geoseg.info import describe_installation, format_installation

    facts = describe_installation()
    typer.echo(json.dumps(facts, indent=2) if as_json else format_installation(facts))
