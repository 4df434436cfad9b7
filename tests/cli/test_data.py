"""`geoseg data show` at the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from geoseg.cli import app
from geoseg.errors import RecipeError


def test_help_says_what_is_counted() -> None:
    result = CliRunner().invoke(app, ["data", "show", "--help"])
    assert result.exit_code == 0
    assert "classes and unknown" in " ".join(result.output.split())


def test_a_recipe_that_is_not_there_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="none"):
        CliRunner().invoke(app, ["data", "show", str(tmp_path / "none.toml")], catch_exceptions=False)
