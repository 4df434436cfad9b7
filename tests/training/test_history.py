"""The table and the curves of a run."""

from pathlib import Path

import pytest

from geoseg.training.history import draw_curves, read_history, write_row


def test_rows_come_back_as_columns_also_after_a_resumed_run(tmp_path: Path) -> None:
    for step in (10, 20):
        write_row(tmp_path / "history.csv", {"step": step, "loss": 1 / step, "iou_a": 0.5})
    assert read_history(tmp_path / "history.csv") == {"step": [10, 20], "loss": [0.1, 0.05], "iou_a": [0.5, 0.5]}


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_row(tmp_path / "history.csv", {"step": 1, "loss": 1.0, "iou_a": 0.5})
    assert draw_curves(tmp_path / "history.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
