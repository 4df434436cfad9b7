"""Splits: by shares and by folds, the same whatever the order; files of splits that do not fit are refused."""

import json
import random
from pathlib import Path

import pytest

from geoseg.datasets.splits import draw_fold, draw_split, read_split, write_split
from geoseg.errors import RecipeError

NAMES = [f"scene_{n}" for n in range(40)]


def test_shares_are_kept_and_every_name_is_in_one_part() -> None:
    split = draw_split(NAMES, (0.9, 0.05, 0.05), 1)
    assert {part: len(names) for part, names in split.items()} == {"train": 36, "validate": 2, "test": 2}
    assert sorted(sum(split.values(), ())) == sorted(NAMES)


@pytest.mark.parametrize(("total", "counts"), [(36, (25, 5, 6)), (26, (18, 4, 4)), (10, (7, 1, 2))])
def test_a_part_has_its_share_rounded_to_the_nearest(total: int, counts: tuple[int, ...]) -> None:
    split = draw_split(NAMES[:total], (0.7, 0.14, 0.16), 1)
    assert tuple(len(split[part]) for part in ("train", "validate", "test")) == counts


def test_order_does_not_decide_and_the_seed_does() -> None:
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    assert draw_split(NAMES, (0.5, 0.5), 1) == draw_split(shuffled, (0.5, 0.5), 1)
    assert draw_split(NAMES, (0.5, 0.5), 1) != draw_split(NAMES, (0.5, 0.5), 2)


def test_a_small_share_still_gets_a_file() -> None:
    split = draw_split(NAMES[:4], (0.9, 0.05, 0.05), 0)
    assert [len(split[part]) for part in ("train", "validate", "test")] == [2, 1, 1]


def test_an_empty_part_is_refused_with_the_counts() -> None:
    with pytest.raises(RecipeError, match=r"of 2 files leaves 0 / 1 / 1 for train / validate / test"):
        draw_split(NAMES[:2], (0.9, 0.05, 0.05), 0)


def test_every_name_validates_in_one_fold() -> None:
    folds = [draw_fold(NAMES[:11], k, 3, 0) for k in range(3)]
    assert sorted(name for fold in folds for name in fold["validate"]) == sorted(NAMES[:11])
    assert all(set(fold["train"]) == set(NAMES[:11]) - set(fold["validate"]) for fold in folds)
    with pytest.raises(RecipeError, match=r"fold = \[3, 3\] of 11 files"):
        draw_fold(NAMES[:11], 3, 3, 0)


def test_another_seed_deals_other_folds() -> None:
    of_three = [draw_fold(NAMES[:11], 0, 3, seed)["validate"] for seed in range(5)]
    assert len(set(of_three)) > 3
    assert all(fold == draw_fold(reversed(NAMES[:11]), 0, 3, seed)["validate"] for seed, fold in enumerate(of_three))


def test_a_written_split_is_read_again(tmp_path: Path) -> None:
    split = draw_split(NAMES, (0.8, 0.2), 0)
    assert read_split(write_split(tmp_path / "s" / "split.json", split), NAMES) == split


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"train": ["scene_0", "gone"], "validate": ["scene_1"]}, "names 1 files that are missing: gone"),
        ({"train": ["scene_0"], "validate": ["scene_0"]}, "listed twice: scene_0"),
        ({"train": ["scene_0", "scene_0"]}, "listed twice: scene_0"),
        ({"training": ["scene_0"]}, "is not a split; expected"),
        (["scene_0"], "is not a split; expected"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(tmp_path: Path, table: object, said: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(table))
    with pytest.raises(RecipeError, match=said):
        read_split(path, NAMES)


def test_files_that_a_split_does_not_name_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_split(tmp_path / "split.json", {"train": ("scene_0",), "validate": (), "test": ()})
    assert read_split(path, NAMES[:3])["train"] == ("scene_0",)
    assert "does not list 2 of 3 files (scene_1, scene_2)" in caplog.text


def test_a_damaged_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(RecipeError, match=r"split\.json cannot be read"):
        read_split(tmp_path / "split.json", NAMES)
