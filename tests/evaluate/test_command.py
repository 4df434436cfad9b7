"""`geoseg evaluate` as it is typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import geoseg.evaluate
from geoseg.cli import app
from geoseg.errors import UsageError
from geoseg.evaluate import EvaluateSettings


class Answer:
    def table(self) -> str:
        return "| the table |"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the command asks for."""
    calls: list = []
    monkeypatch.setattr(geoseg.evaluate, "evaluate_scenes", lambda *args: calls.append(args) or Answer())
    return calls


def test_options_become_settings_and_the_table_goes_to_stdout(asked: list) -> None:
    words = (
        "evaluate a.tif b.tif -l labels.tif --code 255=building --code #000000=unknown --unscored road --pixels-only"
    )
    result = CliRunner().invoke(app, [*words.split(), "--boundary-m", "2", "--no-pictures", "--curve"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "| the table |\n"
    scenes, settings = asked[0]
    assert scenes == ["a.tif", "b.tif"]
    assert isinstance(settings, EvaluateSettings)
    assert settings.label_settings.codes == (("255", "building"), ("#000000", "unknown"))
    assert (settings.unscored, settings.boundary_m) == (("road",), 2.0)
    assert (settings.buildings, settings.pictures, settings.curve) == (False, False, True)
    assert settings.model is None


def test_files_of_another_tool_need_no_scene(asked: list) -> None:
    words = "evaluate -l labels.tif --mask m.tif --footprints f.gpkg --classes land,road,building --target road"
    assert CliRunner().invoke(app, words.split()).exit_code == 0
    scenes, settings = asked[0]
    assert scenes == []
    assert (settings.mask, settings.footprints) == (Path("m.tif"), Path("f.gpkg"))
    assert (settings.classes, settings.target) == (("land", "road", "building"), "road")


def test_a_code_without_a_class_is_refused(asked: list) -> None:
    result = CliRunner().invoke(app, ["evaluate", "a.tif", "-l", "labels.tif", "--code", "255"])
    assert isinstance(result.exception, UsageError)
    assert "255=building" in str(result.exception)
    assert asked == []
