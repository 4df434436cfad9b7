"""The model card: what the recipe and the figures say, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geoseg.datasets.labels import IGNORED
from geoseg.networks.facts import NetworkFacts
from geoseg.training import load_recipe
from geoseg.training.card import CARD, write_card
from geoseg.training.recipe import Recipe
from geoseg.training.scores import Scores

WriteRecipe = Callable[..., Path]

SIX = ("building", "land", "road", "vegetation", "water", "unlabelled")
FACTS = NetworkFacts(
    parameters=1_234_567, gflop_per_mpx=98.7, receptive_px=120, local_px=120, effective_px=60, stride_px=32
)


@pytest.fixture
def recipe(write_recipe: WriteRecipe) -> Recipe:
    return load_recipe(write_recipe())


@pytest.fixture
def six(write_recipe: WriteRecipe) -> Recipe:
    classes = ", ".join(f'"{name}"' for name in SIX)
    path = write_recipe(
        ('name = "unet"', f'name = "unet"\nclasses = [{classes}]'),
        ("bce = 1.0\ndice = 1.0", "ce = 0.6\nfocal = { weight = 0.4, gamma = 1.5 }"),
        ("[fit]", '[fit]\nunscored = ["unlabelled"]'),
    )
    return load_recipe(path)


def figures(recipe: Recipe, sources: tuple[str, ...] = ("squares",)) -> dict[str, Any]:
    """Count a few pixels: of every two one is right."""
    spec = recipe.network
    scores = Scores(sources, spec.classes, target=spec.target_class, unscored=recipe.fit.unscored)
    truth = torch.tensor([[[1, 1, 0, 0, IGNORED]]], dtype=torch.uint8)
    found = torch.tensor([[[1, 0, 0, 1, 0]]])
    logits = torch.nn.functional.one_hot(found, max(2, len(spec.classes))).movedim(-1, 1).float() * 8
    logits = logits if len(spec.classes) > 1 else logits[:, 1:] - 4
    for number in range(len(sources)):
        scores.update(logits, truth, torch.tensor([number]))
    return scores.figures(recipe.threshold) | {"steps": 8, "step": 4, "minutes": 2.0, "losses": {"dice": 0.25}}


def write(recipe: Recipe, folder: Path, metrics: dict[str, Any], facts: NetworkFacts | None = None) -> str:
    bundle = folder / "squares.safetensors"
    bundle.write_bytes(bytes(2_500_000))
    path = write_card(folder, recipe, metrics, bundle=bundle, facts=facts)
    assert path == folder / CARD
    return path.read_text(encoding="utf-8")


def row_of(card: str, first: str) -> list[str]:
    """Return the other cells of the row whose first cell is `first`."""
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def section(card: str, title: str) -> str:
    (text,) = [part for part in card.split("\n## ") if part.startswith(f"{title}\n")]
    return text


def test_the_card_says_what_it_is_and_how_to_run_it(recipe: Recipe, tmp_path: Path) -> None:
    card = write(recipe, tmp_path, figures(recipe), FACTS)
    assert card.startswith("# Model card: `squares`, version 1\n")
    assert "geoseg run scene.tif --model squares.safetensors" in card
    assert row_of(card, "network")[0].startswith("`unet` on `mobilenet_v2`, `encoder_depth = 3`")
    assert row_of(card, "input") == ["red, green, blue; 0.5 m per pixel; 255 counts as 1"]
    assert row_of(card, "output") == ["one probability per pixel: building or not"]
    assert row_of(card, "cost") == ["1.23 M parameters, 99 GFLOP per Mpx"]
    assert row_of(card, "a pixel depends on") == ["pixels up to 120 px away"]
    assert row_of(card, "file") == ["`squares.safetensors`, 2.5 MB"]
    assert row_of(card, "trained")[0].startswith("8 steps, 2 minutes, weights of step 4, geoseg ")
    assert row_of(card, "license of the weights") == ["not stated in the recipe"]


def test_figures_of_sources_and_classes_are_those_of_the_scores(recipe: Recipe, tmp_path: Path) -> None:
    card = section(write(recipe, tmp_path, figures(recipe)), "Figures")
    assert row_of(card, "squares") == ["0.333", "0.500", "0.500", "0.500", "0.333", "0.500", "0.00"]
    assert "IoU, mean over the sources: **0.333**." in card
    assert row_of(card, "building") == ["0.333", "0.500", "0.500", "0.500", "0.00"]
    assert row_of(card, "`dice`") == ["0.2500"]
    assert "all pixels together |" not in card.replace("class, all pixels together", "")


def test_several_sources_are_pooled_too(recipe: Recipe, tmp_path: Path) -> None:
    card = write(recipe, tmp_path, figures(recipe, ("a", "b")))
    assert row_of(card, "a") == row_of(card, "b")
    assert row_of(card, "all pixels together")[0] == "0.333"


def test_several_classes_have_their_table_their_confusion_and_their_options(six: Recipe, tmp_path: Path) -> None:
    card = write(six, tmp_path, figures(six))
    assert row_of(card, "unlabelled (not in the mean)") == ["-", "-", "-", "-", "0.00"]
    confusion = card[card.index("| truth, of which predicted as") :]
    assert row_of(confusion, "land") == ["50.0%", "50.0%", "0.0%", "0.0%", "0.0%", "0.0%"]
    assert row_of(confusion, "water") == ["-"] * 6
    assert "Classes without any validation pixel: road, vegetation, water, unlabelled." in card
    assert "focal = {weight = 0.4, gamma = 1.5}" in card
    assert "`classes.tif`" in card


def test_settings_and_sources_are_quoted_from_the_recipe(recipe: Recipe, tmp_path: Path) -> None:
    card = write(recipe, tmp_path, figures(recipe))
    assert "learning_rate = 0.005\n" in card
    assert 'precision = "32-true"\n' in card
    assert "Augmentation: `dihedral`." in card
    told = row_of(section(card, "Data"), "squares")
    assert told == ["100%", "`images = 'images/*.tif'`, `labels = 'labels'`, `validate_scenes = ['c']`"]


def test_shares_of_the_crops_follow_the_weights(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    more = '[[sources]]\nname = "more"\nimages = "more/*.tif"\nlabels = "more"\nweight = 3.0\n'
    path = write_recipe()
    path.write_text(f"{path.read_text()}\n{more}")
    card = write(load_recipe(path), tmp_path, {})
    assert [row_of(section(card, "Data"), name)[0] for name in ("squares", "more")] == ["25%", "75%"]


def test_incomplete_labels_are_told(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(('labels = "labels"', 'labels = "labels"\ncomplete = false')))
    assert "Labels of squares are incomplete" in write(recipe, tmp_path, figures(recipe))


def test_without_validation_the_card_says_that_nothing_was_measured(recipe: Recipe, tmp_path: Path) -> None:
    card = write(recipe, tmp_path, {})
    assert "the quality of this network has not been measured" in card
    assert "Measured on nothing" in card


def test_pictures_are_linked_where_they_are(recipe: Recipe, tmp_path: Path) -> None:
    assert "## Pictures" not in write(recipe, tmp_path, {})
    (tmp_path / "curves.png").touch()
    card = write(recipe, tmp_path, {})
    assert "](curves.png)" in card
    assert "predictions.png" not in card


def test_auxiliary_channels_and_the_interior_are_named(recipe: Recipe, tmp_path: Path) -> None:
    plain = write(recipe, tmp_path, {})
    assert "interior.tif" not in plain
    assert "auxiliary" not in row_of(plain, "output")[0]
    distance = replace(recipe, network=replace(recipe.network, auxiliary=("distance",)))
    assert "interior.tif" not in write(distance, tmp_path, {})
    card = write(replace(recipe, network=replace(recipe.network, auxiliary=("distance", "edge"))), tmp_path, {})
    assert row_of(card, "output")[0].endswith("; auxiliary channels distance, edge")
    assert "`mask.tif`, `interior.tif`, `buildings.gpkg`" in card


def test_auxiliary_channels_are_told_with_their_scores_and_settings(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(), {"network.auxiliary": ["edge"], "auxiliary.edge_m": 0.75})
    scores = {"edge": {"squares": {"iou": 0.25, "f1": 0.4, "precision": 0.5, "recall": None}}}
    card = write(recipe, tmp_path, figures(recipe) | {"auxiliary": scores})
    assert row_of(card, "output") == ["one probability per pixel: building or not; auxiliary channels edge"]
    assert row_of(section(card, "Figures"), "edge") == ["squares", "0.250", "0.400", "0.500", "-"]
    assert "edge_m = 0.75" in section(card, "Training")
