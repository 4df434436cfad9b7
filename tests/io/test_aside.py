import pytest

from geoseg.errors import OutputError
from geoseg.io.aside import reported, write_aside


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
