"""`geoseg report`."""

from typing import Annotated

import typer

from geoseg.cli.app import Quiet, app, log_to_stderr


@app.command("report", no_args_is_help=True)
def report(
    run: Annotated[str, typer.Argument(help="Local result folder of geoseg run, or of a batch.", show_default=False)],
    quiet: Quiet = False,
) -> None:
    """Write the page and the QGIS project of a finished result again.

    For results of older versions, after --no-page, and when the scene has been moved back or has overviews now:
    index.html and project.qgz are replaced, and nothing else; a project in which something was saved is kept. Prints
    their paths.
    """
    log_to_stderr(quiet=quiet)
    from geoseg.run import write_report

    for path in write_report(run):
        typer.echo(path)
