import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from geoseg.errors import OutputError
from geoseg.io.aside import check_folder, reported, write_aside, write_record


def test_file_takes_its_place_only_when_it_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with write_aside(target) as aside:
        aside.write_text("new")
        assert target.read_text() == "old"
        assert aside.name == "a.txt"
    assert target.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def write_half(target):
    with write_aside(target) as aside:
        aside.write_text("half")
        aside.with_name(f"{aside.name}-journal").write_text("half")
        raise KeyboardInterrupt


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(target)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_remains_of_a_killed_run_go_with_the_next(tmp_path):
    (tmp_path / ".tmp-a.txt").mkdir()
    (tmp_path / ".tmp-a.txt" / "a.txt-journal").write_text("from before")
    with write_aside(tmp_path / "a.txt") as aside:
        aside.write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_missing_folder_is_said(tmp_path):
    with (
        pytest.raises(OutputError, match=r"there is no folder .*Create it first"),
        write_aside(tmp_path / "b" / "a"),
    ):
        pass


def test_failure_says_what_was_found_expected_and_what_to_do(tmp_path):
    with (
        pytest.raises(OutputError, match=r"a.txt cannot be written \(No space.*; .* free\)\. Make room"),
        reported(tmp_path / "a.txt"),
    ):
        raise OSError(28, "No space left on device")


def test_record_is_sorted_indented_and_knows_numpy(tmp_path):
    record = {"b": np.float32(0.5), "a": {"n": np.int64(3), "xs": np.arange(2), "ok": np.True_}, "c": (1, None)}
    path = write_record(tmp_path / "run.json", record)
    assert json.loads(path.read_text()) == {"a": {"n": 3, "ok": True, "xs": [0, 1]}, "b": 0.5, "c": [1, None]}
    assert path.read_text().startswith('{\n  "a": {\n    "n": 3')
    assert path.read_text().endswith("}\n")


def test_what_is_not_finite_is_null(tmp_path):
    path = write_record(tmp_path / "run.json", {"a": float("nan"), "b": [np.inf], "c": np.float32("-inf")})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": None, "b": [None], "c": None}


def test_paths_dates_and_accents_are_text(tmp_path):
    path = write_record(tmp_path / "run.json", {"a": Path("x.tif"), "b": date(2025, 1, 2), "c": "Białowieża"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "x.tif", "b": "2025-01-02", "c": "Białowieża"}
    assert "Białowieża" in path.read_text(encoding="utf-8")


def test_full_disk_is_an_error_and_leaves_the_older_record(tmp_path, full_disk):
    path = write_record(tmp_path / "run.json", {"a": 1})
    with full_disk(1000), pytest.raises(OutputError, match="Make room"):
        write_record(path, {"a": "x" * 5000})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_result_folder_is_checked_without_a_trace(tmp_path):
    file = tmp_path / "file"
    file.write_text("a")
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for out in (file, file / "below"):
        with pytest.raises(OutputError, match=r"file is a file; a folder .* is expected. Choose another with `out`"):
            check_folder(out)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
def test_a_result_folder_that_cannot_be_made_is_refused():
    with pytest.raises(OutputError, match=r"/proc/geoseg/out cannot be written .* choose another place with `out`"):
        check_folder("/proc/geoseg/out")
