"""From a recipe to a bundle: it learns, resumes, and leaves what it promises."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geoseg.bundle import load_bundle
from geoseg.errors import RecipeError, TrainingError
from geoseg.networks import Segmenter, build_network
from geoseg.training import train_recipe

WriteRecipe = Callable[..., Path]


def train(recipe: Path, world: Path, **overrides: object) -> Path:
    return train_recipe(recipe, data=world, out=world.parent / "out", overrides=overrides)


def test_a_bundle_finds_the_squares_it_was_trained_on(
    write_recipe: WriteRecipe, world: Path, kit: SimpleNamespace
) -> None:
    path = train(write_recipe(("steps = 8", "steps = 40"), ("validate_every = 4", "validate_every = 20")), world)
    bundle = load_bundle(path)
    spec = bundle.spec
    network = build_network(spec.network, bands=3, classes=1, **spec.network_options)
    network.load_state_dict(bundle.weights())
    image, truth = kit.squares(2)
    with torch.inference_mode():
        probability = Segmenter(network, spec).eval()(torch.from_numpy(image)[None].float())[0, 0].numpy()
    found, true = probability >= 0.5, truth == 1
    iou = (found & true).sum() / (found | true).sum()
    assert iou > 0.8
    measured = json.loads((path.parent / "metrics.json").read_text())
    assert measured["iou"]["squares"] == pytest.approx(iou, abs=0.02)
    assert spec.metrics["validation"]["iou"] == measured["iou"]
    assert np.isclose(spec.gsd_m, 0.5)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    write_recipe: WriteRecipe, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0] * 7)  # four steps, one validation, two steps
    monkeypatch.setattr(
        "geoseg.training.task.add_terms", lambda losses_, terms: terms["bce"] * 0 + next(losses, float("nan"))
    )
    with pytest.raises(TrainingError, match="loss is nan at step"):
        train(write_recipe(), world)
    kept = sorted(path.name for path in (world.parent / "out" / "checkpoints").iterdir())
    assert kept == ["best-iou.ckpt", "best-loss.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("key", "counts"),
    [('validate_scenes = ["d*"]', "3 / 0"), ("split = [1.0, 0.0]", "3 / 0"), ('split_file = "split.json"', "2 / 0")],
)
def test_a_split_that_leaves_nothing_to_validate_on_is_refused(
    write_recipe: WriteRecipe, world: Path, key: str, counts: str
) -> None:
    (world / "split.json").write_text(json.dumps({"train": ["a", "b"], "validate": [], "test": ["c"]}))
    said = re.escape(f"sources.squares.{key} leaves {counts} files for train / validate")
    with pytest.raises(RecipeError, match=said):
        train(write_recipe(('validate_scenes = ["c"]', key)), world)


def test_a_batch_of_one_is_refused_where_the_network_normalizes_what_it_pools(
    write_recipe: WriteRecipe, world: Path
) -> None:
    network = (
        'name = "unet"\nencoder = "mobilenet_v2"',
        'name = "deeplabv3plus"\nencoder = "resnet18"',
    )
    options = ("options = { encoder_depth = 3, decoder_channels = [32, 16, 8] }", "")
    with pytest.raises(RecipeError, match=r"fit\.batch = 1: deeplabv3plus normalizes .* Set fit\.batch = 2"):
        train(write_recipe(network, options, ("batch = 4", "batch = 1")), world)
    assert not (world.parent / "out" / "prepared").exists()


def test_a_recipe_without_any_split_trains_without_validation(
    write_script: WriteRecipe, world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = train(write_script(('validate_scenes = ["b"]', "")), world)
    assert f"wrote {path}: no validation" in caplog.text
    assert "headline" not in json.loads((path.parent / "metrics.json").read_text())


def test_where_slurm_is_installed_nothing_is_said_of_it(
    play: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    play()  # warnings are errors here


def test_missing_encoder_weights_are_named_before_anything_is_written(write_recipe: WriteRecipe, world: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.safetensors' is not in .*imagenet"):
        train(write_recipe(), world, **{"network.encoder_weights": "none.safetensors"})
    assert not (world.parent / "out").exists()
