"""The survey of a recipe's data: what it counts, what it draws, and that training uses what it prepared."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

from geoseg.third_party import allow_no_georeference
from geoseg.training import load_recipe
from geoseg.training.sources import prepare_sources
from geoseg.training.survey import survey_data

DRAWS = True
HELD = ('validate_scenes = ["c"]', 'validate_scenes = ["b"]\ntest_scenes = ["c"]')


def test_files_pixels_and_classes_are_counted_by_split(
    world: Path, write_recipe: Callable[..., Path], kit: SimpleNamespace
) -> None:
    truths = [kit.squares(seed)[1] for seed in range(3)]
    truths[0][:16] = 255
    kit.write_tif(world / "labels" / "a.tif", truths[0][None], nodata=255)
    survey = survey_data(write_recipe(HELD), data=world, out=world / "out")
    facts = json.loads((world / "out" / "data.json").read_text())
    assert facts == survey.facts
    splits = facts["sources"][0]["splits"]
    for (part, found), truth in zip(splits.items(), truths, strict=True):
        counts = {"background": int((truth == 0).sum()), "building": int((truth == 1).sum())}
        assert found["counts"] == counts, part
        assert found["unknown"] == (truth == 255).sum()
        assert found["files"] == 1
        assert found["largest_px"] == [160, 160]
    head, _, *rows = survey.table().splitlines()
    assert [cell.strip() for cell in head.split("|")][1:5] == ["source", "split", "files", "width x height"]
    assert [row.split("|")[2].strip() for row in rows] == ["train", "validate", "test"]
    assert "| 10.00 " in rows[0]
    share = 100 * (truths[0] == 1).sum() / (truths[0] != 255).sum()  # of the known pixels
    assert f"| {share:.2f} " in rows[0]


def test_a_picture_shows_image_and_mask_in_the_classes_colors(world: Path, write_recipe: Callable[..., Path]) -> None:
    colors = ("[network]", '[network]\ncolors = { building = "#12C83C" }')
    survey = survey_data(write_recipe(HELD, colors), data=world, out=world / "out")
    path = survey.paths[1]
    assert path == world / "out" / "data-squares.png"
    with allow_no_georeference(), rasterio.open(path) as file:
        shown = file.read()[:3].reshape(3, -1).T
    assert 0.01 < (shown == [0x12, 0xC8, 0x3C]).all(axis=1).mean() < 0.5


def test_training_uses_what_the_survey_prepared(world: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = write_recipe(HELD)
    survey_data(recipe, data=world, out=world / "out")
    before = {path: path.stat().st_mtime_ns for path in (world / "out" / "prepared").rglob("*.npy")}
    sources = prepare_sources(load_recipe(recipe), data=world, cache=world / "out" / "prepared")
    assert {path: path.stat().st_mtime_ns for path in (world / "out" / "prepared").rglob("*.npy")} == before
    assert {*sources[0].train, *sources[0].validate} < set(before)


def test_polygons_on_no_image_are_counted(world: Path, write_recipe: Callable[..., Path], kit: SimpleNamespace) -> None:
    here, there = kit.box_of(slice(10, 40), slice(10, 40)), kit.box_of(slice(1000, 1040), slice(10, 40))
    kit.write_polygons(world / "b.geojson", [here, there, there])
    survey = survey_data(write_recipe(('labels = "labels"', 'labels = "b.geojson"\nempty_ok = true')), data=world, out=world / "out")
    assert survey.facts["sources"][0]["polygons"] == {"all": 3, "outside": 2}
    assert "2 of 3" in survey.table()


DUBAI = """
name = "dubai"
gsd_m = 0.3
[network]
name = "unet"
encoder = "mobilenet_v2"
mean = [0, 0, 0]
std = [1, 1, 1]
classes = ["building", "land", "road", "vegetation", "water", "unlabelled"]
[network.colors]
building = "#3C1098"
land = "#8429F6"
road = "#6EC1E4"
vegetation = "#FEDD3A"
water = "#E2A929"
unlabelled = "#9B9B9B"
[loss]
ce = 1
[fit]
steps = 1
[[sources]]
name = "dubai"
layout = "areas"
root = "dubai"
also = { "#000000" = "unlabelled" } # undocumented: 0.56 % of the set
exclude = ["Tile [135678]/*", "*_00[3-9]"] # two masks with palettes stay, and two more
"""


@pytest.mark.realdata
def test_the_six_classes_of_dubai_are_told_from_their_colors(realdata: Path, tmp_path: Path) -> None:
    (tmp_path / "dubai.toml").write_text(DUBAI)
    survey = survey_data(tmp_path / "dubai.toml", data=realdata, out=tmp_path / "out")
    found = survey.facts["sources"][0]["splits"]["train"]
    assert found["files"] == 4
    assert found["unknown"] == 0
    assert min(count for name, count in found["counts"].items() if name != "unlabelled") > 10_000
    assert np.isclose(sum(found["counts"].values()), 544 * 509 + 544 * 510 + 2 * 846 * 1099, rtol=0.01)
