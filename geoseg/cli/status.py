"""`geoseg status`."""

import csv
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli.app import AsJson, app, with_flags
from geoseg.errors import UsageError
from geoseg.io.tables import name_some, plural

if TYPE_CHECKING:
    from geoseg.run import RunStatus

MOST = 20
"""Maximum number of scenes or blocks that are listed."""

COLUMNS = (
    "scene",
    "state",
    "buildings",
    "area_m2",
    "seconds",
    "blocks",
    "done",
    "failed",
    "left",
    "eta_s",
    "error",
    "url",
)
"""Columns of the CSV table."""


@app.command("status", no_args_is_help=True)
def status(
    run: Annotated[
        str,
        typer.Argument(help="Run folder, or the parent folder of a batch: the value of --out, which may be on s3://."),
    ],
    every: Annotated[bool, typer.Option("--all", help="List every scene and every failed block.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table of all scenes as CSV.")] = False,
) -> None:
    """Show the progress of a run: blocks done, failed and left, and the time left.

    Of a batch, it counts the scenes that are finished, failed and not begun, and says why the failed ones failed.
    Also shows which process is working on it. Works on any machine that can access the run folder, both while the run
    is in progress and after it was stopped. Exit code 2 means that there is no run.
    """
    from geoseg.run import read_status

    if as_json and as_csv:
        raise UsageError("--json and --csv are alternatives. Give one of them.")
    listed = read_status(run)
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in listed], indent=2, ensure_ascii=False))
        return
    if as_csv:
        typer.echo(_as_csv(listed), nl=False)
        return
    found = [each for each in listed if each.is_listed]
    most = len(found) + sum(len(each.failed) for each in found) if every else MOST
    if len(found) == 1:
        _print_one(found[0], most)
    else:
        _print_many(found, most)
    others = [each.name for each in listed if not each.is_listed]
    if others:
        typer.echo(f"Also here, but not in the list of the batch: {name_some(others, most=most)}")


def _as_csv(found: "list[RunStatus]") -> str:
    """Return a table with a row per scene, those of the batch first."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for each in sorted(found, key=lambda one: not one.is_listed):
        writer.writerow(each.to_dict() | {"error": each.error or "; ".join((*each.damage, *each.failed.values()))})
    return table.getvalue()


def _print_one(found: "RunStatus", most: int) -> None:
    """Print one run."""
    typer.echo(f"{found.name}: {found.state}{_progress(found)}")
    typer.echo(f"run folder: {found.url}")
    if found.holder and found.state == "working":
        holder = found.holder
        typer.echo(f"client: process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}")
    if found.dashboard:
        typer.echo(f"dashboard: {found.dashboard}")
    if found.state == "stopped":
        typer.echo("No client is working on this run. To continue it, run the same command again.")
    _print_reasons(found)
    for name, error in list(found.failed.items())[:most]:
        typer.echo(f"failed: {name}: {with_flags(error)}")
    if len(found.failed) > most:
        typer.echo(f"and {plural(len(found.failed) - most, 'more failed block')}: --all lists them")


def _print_many(found: "list[RunStatus]", most: int) -> None:
    """Print a batch: totals, then the scenes that are not finished."""
    states = Counter(each.state for each in found)
    typer.echo(
        f"{plural(len(found), 'scene')}: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    )
    blocks, done = sum(each.blocks for each in found), sum(each.done for each in found)
    typer.echo(f"{done:,} of {blocks:,} blocks done in the scenes that have been started")
    for address in sorted({each.dashboard for each in found if each.dashboard}):
        typer.echo(f"dashboard: {address}")
    quiet = ("finished", "waiting", "outside the AOI")
    open_scenes = [each for each in found if each.state not in quiet or each.failed]
    for each in open_scenes[:most]:
        typer.echo(f"{each.name}: {each.state}{_progress(each)}")
        _print_reasons(each)
    if len(open_scenes) > most:
        typer.echo(f"and {len(open_scenes) - most} more: --all lists them")


def _print_reasons(found: "RunStatus") -> None:
    """Print why a scene failed, or what its result lacks."""
    if found.error is not None:
        typer.echo(f"  {with_flags(found.error)}")
    for what in found.damage:
        typer.echo(f"  {what}")


def _progress(found: "RunStatus") -> str:
    """Return how far a run is, after a comma; nothing for a scene of which nothing is known yet."""
    if not found.blocks:
        return ""
    eta, seconds = "", found.eta_s
    if seconds is not None:
        time = f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
        eta = f", about {f'{seconds:.0f} s' if seconds < 100 else time} left"
    return f", {found.done:,} of {found.blocks:,} blocks done, {len(found.failed):,} failed, {found.left:,} left{eta}"
