"""Validation in training and `geoseg evaluate` see the same chips and count the same pixels."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import shapely

from geoseg.bundle import load_bundle
from geoseg.datasets import SceneDataset
from geoseg.datasets.labels import IGNORED, rasterize_areas, read_labels
from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.grid import fit_lattice
from geoseg.scene import open_scene
from geoseg.training import load_recipe, train_recipe
from geoseg.training.sources import prepare_sources
from geoseg.training.task import ValidationChips

AREAS = """validate = ["val"]
areas = "splits.geojson"
train = ["train"]"""


@pytest.fixture
def torn(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """A scene of 0.25 m with missing pixels, whose validation area lies askew and reaches the scene's border."""
    image, truth = (np.tile(part.repeat(2, -1).repeat(2, -2), 3)[..., :700] for part in kit.squares(4, size=350))
    image[:, :90, 300:] = image[:, 300:380, 300:450] = 0
    data = tmp_path / "data"
    kit.write_tif(data / "images" / "a.tif", image, nodata=0, gsd_m=0.25)
    kit.write_tif(data / "labels" / "a.tif", truth[None], nodata=255, gsd_m=0.25)
    corners = [(70, 20), (175, 40), (150, 175), (90, 150)]
    area = shapely.Polygon([(500_000 + x, 1_000_000 - y) for x, y in corners])
    kit.write_polygons(
        data / "splits.geojson", [area, kit.box_of(slice(0, 340), slice(0, 120))], split=["val", "train"]
    )
    return data


def test_a_validation_chip_is_inferences_chip_to_the_pixel(torn: Path, write_recipe: Callable[..., Path]) -> None:
    plan = load_recipe(write_recipe(('validate_scenes = ["c"]', AREAS)))
    source = prepare_sources(plan, data=torn, cache=torn / "cache")
    chips = ValidationChips(source, chip_px=plan.chip_px, halo_px=plan.halo_px, stride_px=8)
    scene = open_scene(torn / "images" / "a.tif").at_gsd(0.5)
    lattice, dataset = fit_lattice((350, 350), chip_px=96, halo_px=16, multiple_px=8), SceneDataset(scene)
    counted = np.full(scene.grid.shape, IGNORED, np.uint8)
    for number, (_, chip) in enumerate(chips.chips):
        window, core = lattice.chip_window(*chip), lattice.core_window(*chip)
        sample = chips[number]
        assert np.array_equal(sample["image"].numpy(), dataset.read_chip(window).values)
        counted[core.slices] = sample["mask"][core.relative_to(window).slices]
    valid = scene.read(scene.grid.window).valid
    inside = rasterize_areas(torn / "splits.geojson", ["val"], scene.grid)
    truth = read_labels(torn / "labels" / "a.tif", scene.grid)
    assert 0.05 < (inside & ~valid).sum() / inside.sum() < 0.5
    assert np.array_equal(counted, np.where(inside & valid, truth, IGNORED))


def test_training_and_evaluate_count_alike(torn: Path, write_recipe: Callable[..., Path], scripted: None) -> None:
    labels = torn / "labels" / "a.tif"
    with rasterio.open(labels, "r+") as file:  # labels beside the squares: wrong in both ways, on any machine
        file.write(np.roll(file.read(), 12, axis=2))
    network = ('name = "unet"\nencoder = "mobilenet_v2"', 'name = "scripted"')
    options = ("encoder_depth = 3, decoder_channels = [32, 16, 8]", "cuts = [0.2]")
    recipe = write_recipe(('validate_scenes = ["c"]', AREAS), network, options, ("steps = 8", "steps = 1"))
    bundle = train_recipe(recipe, data=torn, out=torn.parent / "out")
    settings = EvaluateSettings(
        model=bundle, labels=torn / "labels" / "a.tif", aoi=torn / "splits.geojson", aoi_where="split = 'val'"
    )
    scored = evaluate_scenes([torn / "images" / "a.tif"], settings).to_dict()["total"]
    said = load_bundle(bundle).spec.metrics["validation"]["all"]
    confusion, expected = (np.array(metrics["confusion"]) for metrics in (said, scored))
    assert (expected > 20).all()
    assert confusion.sum() == expected.sum()
    assert abs(confusion - expected).max() <= 0.001 * expected.sum()
    assert said["iou"] == pytest.approx(scored["iou"], abs=0.002)
