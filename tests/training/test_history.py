"""The table and the curves of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from geoseg.training.history import read_history, write_row
from geoseg.training.pictures import draw_curves

DRAWS = True
ROW = {"step": 1, "minutes": 0.5, "learning_rate": 1e-3, "train_loss": 1.0, "validation_loss": 1.1, "iou": 0.5}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "history.csv"


def test_rows_come_back_as_columns_also_after_a_resumed_run(table: Path) -> None:
    for step in (10, 20):
        write_row(table, {"step": step, "loss": 1 / step, "iou_a": 0.5})
    assert read_history(table) == {"step": [10, 20], "loss": [0.1, 0.05], "iou_a": [0.5, 0.5]}


def test_a_resumed_run_replaces_the_rows_that_it_repeats(table: Path) -> None:
    for step, loss in ((10, 1.0), (20, 0.9), (30, 0.8), (20, 0.7)):
        write_row(table, {"step": step, "loss": loss})
    assert read_history(table) == {"step": [10, 20], "loss": [1.0, 0.7]}


def test_a_table_with_other_columns_is_kept_aside_and_not_mixed(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    for names in ("ab", "cd", "ef"):
        write_row(table, {"step": 1, **dict.fromkeys(names, 0.0)})
    assert list(read_history(table)) == ["step", "e", "f"]
    assert list(read_history(table.with_name("history-1.csv"))) == ["step", "a", "b"]
    assert list(read_history(table.with_name("history-2.csv"))) == ["step", "c", "d"]
    assert "kept as history-2.csv" in caplog.text


def test_large_step_numbers_are_kept_to_the_unit(table: Path) -> None:
    write_row(table, {"step": 12_345_678, "loss": 0.1234567891})
    assert read_history(table) == {"step": [12_345_678], "loss": [0.123457]}


def test_a_kill_while_a_row_is_written_leaves_the_table_of_before(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_row(table, ROW)
    before = table.read_bytes()

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_row(table, {**ROW, "step": 2})
    assert table.read_bytes() == before


def test_a_row_that_was_cut_short_is_left_out_aloud(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    table.write_text("step,loss,iou\n1,0.5,0.6\n2,0.4")
    assert read_history(table) == {"step": [1], "loss": [0.5], "iou": [0.6]}
    assert "1 of 2 rows are incomplete" in caplog.text


def test_a_figure_that_does_not_exist_stays_none(table: Path) -> None:
    write_row(table, {**ROW, "iou": math.nan})
    assert math.isnan(read_history(table)["iou"][0])


def test_there_is_no_history_before_the_first_row(table: Path) -> None:
    assert read_history(table) == {}


@pytest.mark.parametrize(
    "row",
    [
        {"step": 1, "loss": 1.0, "iou_a": 0.5},
        {**ROW, "train_bce": 0.5, "validation_bce": 0.6, "iou_a": math.nan, "dice": 0.3, "learning_rate": 0.0},
        {"step": 1, **{f"iou_class {n}": n / 9 for n in range(9)}},
        {"step": 1},
    ],
)
def test_curves_are_drawn_of_any_columns(tmp_path: Path, table: Path, row: dict[str, float]) -> None:
    for step in (1, 2):
        write_row(table, {**row, "step": step})
    assert draw_curves(table, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "history.csv"]


@pytest.fixture
def panels(table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, list[float]]]]:
    """Draw columns that hold their number and twice it; return the panels of the figure: title, labels, heights."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: [figures.append(self), Path(path).touch()])

    def draw(*names: str) -> dict[str, dict[str, list[float]]]:
        for factor in (1, 2):
            write_row(table, {"step": 100 * factor, **{name: factor * n / 32 for n, name in enumerate(names)}})
        draw_curves(table, table.with_suffix(".png"))
        axes = [axis for axis in figures.pop().axes if axis.axison]
        assert all(list(line.get_xdata()) == [100, 200] for axis in axes for line in axis.lines)
        return {
            axis.get_title(): {str(line.get_label()): list(line.get_ydata()) for line in axis.lines} for axis in axes
        }

    return draw


def test_training_and_validation_of_a_term_share_a_panel(panels: Callable[..., Any]) -> None:
    names = ("learning_rate", "train_loss", "train_dice", "validation_loss", "validation_dice", "iou_a", "dice")
    drawn = panels(*names, "minutes", "progress")
    assert list(drawn) == ["loss", "loss: dice", "IoU", "scores", "learning rate"]
    assert drawn["loss"] == {"training": [1 / 32, 2 / 32], "validation": [3 / 32, 6 / 32]}
    assert drawn["loss: dice"] == {"training": [2 / 32, 4 / 32], "validation": [4 / 32, 8 / 32]}
    assert drawn["IoU"] == {"a": [5 / 32, 10 / 32]}
    assert drawn["scores"] == {"dice": [6 / 32, 12 / 32]}
    assert drawn["learning rate"] == {"learning rate": [0, 0]}


def test_the_mean_over_classes_is_an_iou_where_several_classes_are_scored(panels: Callable[..., Any]) -> None:
    assert list(panels("iou_land", "iou_water", "mean_iou")["IoU"]) == ["land", "water", "mean of classes"]
    drawn = panels("iou", "iou_accra", "mean_iou")
    assert (list(drawn["IoU"]), list(drawn["scores"])) == (["mean", "accra"], ["mean of classes"])
