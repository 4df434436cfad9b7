"""Cross-validation: every file or block validates once, finished folds stay, and the spread is arithmetic."""

import json
import os
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import pytest

from geoseg.datasets.prepared import NO_PIXEL, PreparedScene
from geoseg.errors import LabelError, RecipeError, UsageError
from geoseg.training.crossval import CrossValidation, cross_validate

WriteScript = Callable[..., Path]

BY_BLOCKS = (
    'images = "images/*.tif"\nlabels = "labels"\nvalidate_scenes = ["b"]',
    'images = "big.tif"\nlabels = "big_labels.tif"',
)


def run(recipe: Path, world: Path, folds: int, **overrides: Any) -> CrossValidation:
    return cross_validate(recipe, folds=folds, data=world, out=world.parent / "cv", overrides=overrides)


def prepared(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f"*-{part}-*.npy"))


def test_every_file_validates_in_one_fold_and_scenes_are_prepared_once(write_script: WriteScript, world: Path) -> None:
    found = run(write_script(), world, 3)
    assert len(found.folds) == 3
    validated = [
        json.loads((world.parent / "cv" / f"fold-{n}" / "recipe.json").read_text())["sources"][0]["fold"]
        for n in range(3)
    ]
    assert validated == [[0, 3], [1, 3], [2, 3]]
    for part in ("train", "validate"):
        assert [p.name[0] for p in prepared(world.parent / "cv" / "prepared" / "streets", part)] == ["a", "b", "c"]
    assert found.ways == {"streets": "3 files"}
    kept = json.loads((world.parent / "cv" / "crossval.json").read_text())
    assert kept["spread"]["iou"]["mean"] == pytest.approx(statistics.mean(fold["iou"] for fold in found.folds))
    assert kept["spread"]["iou"]["std"] == pytest.approx(statistics.stdev(fold["iou"] for fold in found.folds))
    assert found.table().count("| fold ") == 3


def test_a_class_that_one_fold_alone_has_is_not_spread(tmp_path: Path) -> None:
    figures = dict.fromkeys(("iou", "dice", "precision", "recall"), 0.5)
    classes = [
        {"road": figures, "lake": dict.fromkeys(figures)},
        {"road": dict.fromkeys(figures), "lake": dict.fromkeys(figures)},
    ]
    table = CrossValidation(tmp_path, [{"iou": 0.5}, {"iou": 0.7}], classes, {}).table()
    assert "| road | 0.5000 | 0.5000 |" in table
    assert "| lake | - | - |" in table
    assert "nan" not in table


def test_folds_of_images_that_overlap_are_refused(write_script: WriteScript, world: Path, kit: SimpleNamespace) -> None:
    for name in "abc":
        kit.write_tif(world / "images" / f"{name}.tif", kit.squares(0)[0])
        kit.write_tif(world / "labels" / f"{name}.tif", kit.squares(0)[1][None])
    with pytest.raises(RecipeError, match=r"100 % of the ground of 1 validation image .* fold = \[0, 3\]"):
        run(write_script(), world, 3)


def test_a_finished_fold_is_not_trained_again_and_an_unfinished_one_is(write_script: WriteScript, world: Path) -> None:
    first = run(write_script(), world, 2)
    folder = world.parent / "cv"
    (folder / "fold-1" / "metrics.json").unlink()
    stamps = [(folder / f"fold-{n}" / "play.safetensors").stat().st_mtime_ns for n in range(2)]
    second = run(write_script(), world, 2)
    again = [(folder / f"fold-{n}" / "play.safetensors").stat().st_mtime_ns for n in range(2)]
    assert again[0] == stamps[0]
    assert again[1] > stamps[1]
    assert second.folds == first.folds
    with pytest.raises(RecipeError, match=r"sources\.streets\.fold\.1 was 2 and is 3.*`out`"):
        run(write_script(), world, 3)
    kept = (world / "labels" / "a.tif").stat().st_mtime_ns
    os.utime(world / "labels" / "a.tif", ns=(1, kept + 1))  # mended between two calls
    with pytest.raises(RecipeError, match=r"a\.tif has changed since.*`out`"):
        run(write_script(), world, 2)
    os.utime(world / "labels" / "a.tif", ns=(1, kept))
    assert run(write_script(), world, 2).folds == first.folds


def test_a_single_scene_is_cut_into_blocks_and_no_crop_sees_the_fold_that_validates(
    write_script: WriteScript, world: Path, kit: SimpleNamespace
) -> None:
    image, truth = kit.squares(5, size=256)
    kit.write_tif(world / "big.tif", image)
    kit.write_tif(world / "big_labels.tif", truth[None], nodata=255)
    found = run(write_script(BY_BLOCKS), world, 2)
    assert found.ways == {"streets": "9 blocks of 1 scenes"}
    areas = geopandas.read_file(world.parent / "cv" / "blocks" / "streets.gpkg")
    assert Counter(areas["split"]) == {"train-0": 5, "validate-0": 5, "train-1": 4, "validate-1": 4}
    whole = areas[areas["split"].isin(["train-0", "train-1"])].union_all()
    assert whole.area == pytest.approx(128.0**2)
    blocks, scored = (areas[areas["split"].str.startswith(part)].geometry for part in ("train", "validate"))
    for outline in scored:  # what is scored lies a strip of a sixteenth inside its block
        (block,) = blocks[blocks.contains(outline)]
        assert outline.hausdorff_distance(block) == pytest.approx(0.5 * 5 * 2**0.5)
    shares = [
        float((PreparedScene(path).pixels[..., -1] == NO_PIXEL).mean())
        for path in prepared(world.parent / "cv" / "prepared" / "streets", "train")
    ]
    assert sorted(shares) == pytest.approx([4 / 9, 5 / 9], abs=0.01)


def test_blocks_stay_inside_the_sources_own_areas(write_script: WriteScript, world: Path, kit: SimpleNamespace) -> None:
    image, truth = kit.squares(5, size=256)
    kit.write_tif(world / "big.tif", image)
    kit.write_tif(world / "big_labels.tif", truth[None], nodata=255)
    shapes = [kit.box_of(slice(0, 256), slice(0, 160)), kit.box_of(slice(0, 256), slice(160, 256))]
    kit.write_polygons(world / "splits.geojson", shapes, split=["train", "test"])
    own = (BY_BLOCKS[0], f'{BY_BLOCKS[1]}\nareas = "splits.geojson"\ntrain = ["train"]')
    run(write_script(own), world, 2)
    areas = geopandas.read_file(world.parent / "cv" / "blocks" / "streets.gpkg")
    assert areas.total_bounds[2] == pytest.approx(500_000 + 80, abs=0.1)


def test_scenes_kept_for_the_test_are_not_cut_into_blocks(
    write_script: WriteScript, world: Path, kit: SimpleNamespace
) -> None:
    for name, seed in (("big", 5), ("kept", 6)):
        image, truth = kit.squares(seed, size=256)
        kit.write_tif(world / "large" / f"{name}.tif", image)
        kit.write_tif(world / "truth" / f"{name}.tif", truth[None], nodata=255)
    source = 'images = "large/*.tif"\nlabels = "truth"\ntest_scenes = ["kept"]'
    found = run(write_script((BY_BLOCKS[0], source)), world, 2)
    assert found.ways == {"streets": "9 blocks of 1 scenes"}


def test_too_little_ground_or_too_few_folds_are_refused(
    write_script: WriteScript, world: Path, kit: SimpleNamespace
) -> None:
    with pytest.raises(UsageError, match="`folds=1`"):
        run(write_script(), world, 1)
    kit.write_tif(world / "big.tif", kit.squares(5, size=96)[0])
    kit.write_tif(world / "big_labels.tif", kit.squares(5, size=96)[1][None])
    with pytest.raises(LabelError, match=r"1 blocks of 64 px.*`folds`"):
        run(write_script(BY_BLOCKS), world, 3)
    painted = (BY_BLOCKS[0], "paint_seeds = [0, 2]\npaint_size_px = 128")
    with pytest.raises(RecipeError, match="paints 2 scenes; expected 3"):
        run(write_script(painted), world, 3)


def test_mean_and_standard_deviation_are_those_of_a_sample() -> None:
    classes = [{"building": dict.fromkeys(("iou", "dice", "precision", "recall"), value)} for value in (0.5, 0.7, None)]
    found = CrossValidation(Path(), [{"iou": 0.5}, {"iou": 0.7}, {"iou": None}], classes, {})
    assert found.spread()["iou"] == pytest.approx({"mean": 0.6, "std": 0.02**0.5})
    assert found.class_spread()["building"]["dice"] == pytest.approx({"mean": 0.6, "std": 0.02**0.5})
    assert "0.6000 ± 0.1414" in found.table()
    assert "| fold 2 | - |" in found.table()
