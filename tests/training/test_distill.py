"""A network that learns from another one, and parts of a network that do not learn."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.bundle import load_bundle
from geoseg.errors import BundleError, RecipeError
from geoseg.training.folder import read_history

Play = Callable[..., Path]

TEACHER: dict[str, Any] = {"network__options": {"cuts": [0.3], "gains": [6.0], "pull": 0.0}}
STUDENT: dict[str, Any] = {"network__options": {"cuts": [0.5], "gains": [4.0], "pull": 0.0}}


def sigmoid(logit: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return 1 / (1 + np.exp(-logit))


def test_the_distillation_loss_is_the_divergence_from_the_teacher_and_labels_have_no_part_in_it(
    play: Play, kit: SimpleNamespace, tmp_path: Path
) -> None:
    image, truth = kit.street()
    truth[:, 50:] = 255  # unknown
    kit.write_tif(tmp_path / "data" / "labels" / "a.tif", truth[None], nodata=255)
    teacher = play("teacher", **TEACHER) / "play.safetensors"
    distill = {"fit__distill_from": str(teacher), "sources__streets__distill": True}
    out = play("student", **STUDENT, **distill)
    history = read_history(out / "history.csv")
    assert f"distilled from | `{teacher}`" in (out / "model-card.md").read_text()

    brightness = image[0] / 255
    p, q = sigmoid(6.0 * (brightness - 0.3)), sigmoid(4.0 * (brightness - 0.5))
    away = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert history["train_distillation"] == pytest.approx([away.mean()], rel=1e-3)
    assert history["train_loss"] == history["train_bce"]  # of the labels, as without a teacher

    same = {**distill, "network__options": TEACHER["network__options"]}
    assert read_history(play("same", **same) / "history.csv")["train_distillation"] == pytest.approx([0.0], abs=1e-6)


def test_of_several_classes_it_is_the_divergence_of_the_softmax(play: Play, kit: SimpleNamespace) -> None:
    classes = {"network__classes": ["background", "building", "road"], "network__target": "building"}
    classes |= {"loss": {"ce": 1.0}, "fit__unscored": ["road"]}
    teacher = play("teacher", **TEACHER, **classes) / "play.safetensors"
    distill = {"fit__distill_from": str(teacher), "sources__streets__distill": True}
    history = read_history(play("student", **STUDENT, **classes, **distill) / "history.csv")
    brightness = kit.street()[0][0] / 255
    teaches, learns = (
        torch.from_numpy(np.stack([-logit, logit, logit])).softmax(dim=0)
        for logit in (6.0 * (brightness - 0.3), 4.0 * (brightness - 0.5))
    )
    away = (teaches * (teaches / learns).log()).sum(dim=0).mean()
    assert history["train_distillation"] == pytest.approx([float(away)], rel=1e-3)


def gradient(folder: Path) -> Tensor:
    """Return ten times the first moments after one step of Adam: the gradient."""
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    states = kept["optimizer_states"][0]["state"]
    return torch.cat([10 * states[key]["exp_avg"].ravel() for key in sorted(states)])


def test_the_weight_of_the_distillation_scales_its_gradient(play: Play) -> None:
    teacher = play("teacher", **TEACHER) / "play.safetensors"
    learns = {"network__options": {"cuts": [0.5], "gains": [4.0], "pull": 1.0}, "fit__clip_norm": 0.0}
    none = gradient(play("none", **learns))
    distill = {**learns, "fit__distill_from": str(teacher), "sources__streets__distill": True}
    one, three = (gradient(play(str(weight), **distill, fit__distill_weight=weight)) for weight in (1.0, 3.0))
    assert float((one - none).norm()) > 0.01
    torch.testing.assert_close(three - none, 3 * (one - none), rtol=1e-3, atol=1e-5)


def test_only_sources_that_say_so_are_distilled(play: Play) -> None:
    teacher = play("teacher", **TEACHER) / "play.safetensors"
    never = {"name": "never", "images": "images/*.tif", "labels": "labels", "weight": 1e-9, "distill": True}
    plain = {"name": "streets", "images": "images/*.tif", "labels": "labels", "validate_scenes": ["b"]}
    out = play("student", **STUDENT, fit__distill_from=str(teacher), sources=[plain, never])
    assert read_history(out / "history.csv")["train_distillation"] == [0.0]


def test_a_teacher_is_kept_out_of_the_checkpoint_and_the_bundle(play: Play) -> None:
    teacher = play("teacher", **TEACHER) / "play.safetensors"
    out = play("student", **STUDENT, fit__distill_from=str(teacher), sources__streets__distill=True)
    plain = play("plain", **STUDENT)
    files = (folder / "checkpoints" / "last.ckpt" for folder in (out, plain))
    kept, expected = (torch.load(file, weights_only=True)["state_dict"] for file in files)
    assert set(kept) == set(expected)
    assert set(load_bundle(out / "play.safetensors").weights()) == set(load_bundle(teacher).weights())


def test_a_distillation_that_is_half_said_or_does_not_fit_is_refused(play: Play) -> None:
    teacher = play("teacher", **TEACHER) / "play.safetensors"
    with pytest.raises(RecipeError, match=r"sources\.streets\.distill = true, but fit\.distill_from names no bundle"):
        play("a", sources__streets__distill=True)
    with pytest.raises(RecipeError, match=r"fit\.distill_from = .* has no effect; give sources distill = true"):
        play("b", fit__distill_from=str(teacher))
    halls = {"network__classes": ["hall"], "sources__streets__distill": True, "fit__distill_from": str(teacher)}
    with pytest.raises(BundleError, match=r"has classes = \('building',\), the recipe \('hall',\)"):
        play("c", **halls)


def test_an_encoder_whose_rate_is_0_stays_as_it_is_with_its_normalization(play: Play) -> None:
    small = {"network__name": "unet", "network__encoder": "mobilenet_v2"}
    small |= {"network__options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}, "fit__learning_rate": 0.01}
    first = play("first", **small) / "play.safetensors"
    start = {**small, "network__start_from": str(first), "fit__steps": 3, "fit__average_decay": 0.0}
    frozen, free = (
        load_bundle(play(str(rate), **start, fit__encoder_rate=rate) / "play.safetensors").weights()
        for rate in (0.0, 1.0)
    )
    for name, before in load_bundle(first).weights().items():
        if name.startswith("encoder."):
            assert torch.equal(frozen[name], before), name
        elif name.endswith("weight"):
            assert not torch.equal(frozen[name], before), name
    moved = [name for name, value in free.items() if not torch.equal(value, frozen[name])]
    assert any(name.startswith("encoder.") and "running_mean" in name for name in moved)


def test_normalization_that_is_fixed_keeps_its_statistics_while_its_weights_learn(play: Play) -> None:
    small = {"network__name": "unet", "network__encoder": "mobilenet_v2"}
    small |= {"network__options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}, "fit__learning_rate": 0.01}
    first = play("first", **small) / "play.safetensors"
    start = {**small, "network__start_from": str(first), "fit__steps": 4, "fit__validate_every": 2}
    out = play("fixed", **start, fit__average_decay=0.0, fit__fixed_normalization=True)
    after = load_bundle(out / "play.safetensors").weights()
    for name, before in load_bundle(first).weights().items():
        if "running_" in name or "num_batches" in name:
            assert torch.equal(after[name], before), name
        elif name.startswith(("decoder.", "segmentation_head.")):
            assert not torch.equal(after[name], before), name
