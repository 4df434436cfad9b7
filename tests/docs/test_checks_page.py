"""docs/checks.md names options that there are, and all that geoseg sets of GDAL for remote files."""

import re
from pathlib import Path

import typer

from geoseg.cli import app
from geoseg.io.remote import REMOTE_ENV

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "checks.md").read_text()


def test_the_page_names_every_option_of_GDAL_that_geoseg_sets_and_its_value() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name, value in REMOTE_ENV.items():
        (row,) = [row for row in rows if f"`{name}`" in row]
        shown = {"268435456": "256 MB"}.get(value, value)
        assert re.search(rf"\b{re.escape(shown)}\b", row.split("|")[2]), f"{row} does not say {shown}"


def test_the_page_names_options_that_there_are() -> None:
    commands = typer.main.get_command(app).commands.values()
    options = {flag for one in commands for option in one.params for flag in (*option.opts, *option.secondary_opts)}
    named = set(re.findall(r"`(--[a-z0-9-]+)", PAGE))
    assert len(named) > 10
    assert named <= options
