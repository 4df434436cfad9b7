"""The best is the best: what is kept of a run, when it stops, and what a run taken up again has not forgotten."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geoseg.bundle import load_bundle
from geoseg.training.folder import read_history

Play = Callable[..., Path]

# by step, from 0: the best IoU is that of step 2, the lowest loss that of step 3, the last is the worst
UPS_AND_DOWNS = {
    "network__options__cuts": [0.9, 0.9, 0.5, 0.55, 0.9, 0.96],
    "network__options__gains": [4.0, 4.0, 1.0, 60.0, 4.0, 4.0],
    "fit__steps": 5,
}


def weights(folder: Path, kind: str = "") -> dict[str, Tensor]:
    return dict(load_bundle(folder / f"play{kind}.safetensors").weights())


def own_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights that are trained, not their average, of the last checkpoint."""
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in kept.items()}


def averaged_trace(steps: int, decay: float) -> float:
    """Average the numbers 1 to `steps` after a 0, as the docstring of `WeightAverage` says."""
    mean = 0.0
    for n in range(1, steps + 1):
        keep = min(decay, (1 + n) / (10 + n))
        mean = keep * mean + (1 - keep) * n
    return mean


def test_each_bundle_holds_the_averaged_weights_of_its_best_epoch_and_says_which(play: Play) -> None:
    out = play(**UPS_AND_DOWNS, fit__average_decay=0.2)
    history = read_history(out / "history.csv")
    assert history["step"] == [1, 2, 3, 4, 5]
    for kind, column, best, step in (
        ("", "iou", max, 2),
        (".best-loss", "validation_loss", min, 3),
    ):
        figures = history[column]
        assert 1 + figures.index(best(figures)) == step
        assert int(weights(out, kind)["step"]) == step
        assert float(weights(out, kind)["trace"]) == pytest.approx(averaged_trace(step, 0.2), rel=1e-3)
        said = load_bundle(out / f"play{kind}.safetensors").spec.metrics["validation"]
        assert (said["step"], said["steps"]) == (step, 5)
        assert said["headline"] == pytest.approx(history["iou"][step - 1], abs=1e-5)
        assert said["loss"] == pytest.approx(history["validation_loss"][step - 1], rel=1e-4)


def test_the_figures_of_an_epoch_are_those_of_the_average_that_is_kept(play: Play) -> None:
    fast = {"network__options__pull": 3.0, "fit__learning_rate": 0.3, "fit__warm_up": 0.0, "fit__average_decay": 0.9}
    out = play(**fast, fit__steps=4)
    said = load_bundle(out / "play.safetensors").spec.metrics["validation"]
    logged = read_history(out / "history.csv")["validation_loss"][said["step"] - 1]
    assert said["loss"] == pytest.approx(logged, rel=1e-3)


def test_validating_the_average_does_not_change_what_is_trained(play: Play) -> None:
    averaged, plain = (own_weights(play(f"{decay}", fit__steps=3, fit__average_decay=decay)) for decay in (0.9, 0.0))
    assert float(averaged["trace"]) == 3.0
    assert all(torch.equal(averaged[name], plain[name]) for name in plain)


def test_a_run_stops_early_after_so_many_epochs_without_a_better_iou_whatever_the_loss(play: Play) -> None:
    script = {
        "network__options__cuts": [0.9, 0.9, 0.8, 0.7, 0.6, 0.7, 0.7, 0.5],
        "network__options__gains": [0.1, 0.1, 100.0, 400.0, 4000.0, 4000.0, 4000.0, 4000.0],
    }
    history = read_history(play(**script, fit__steps=9, fit__early_stopping=2) / "history.csv")
    assert history["validation_loss"][:4] == sorted(history["validation_loss"][:4])
    assert history["iou"][:4] == sorted(history["iou"][:4])
    assert history["step"][-1] == 6


def test_a_plateau_of_the_validation_loss_lowers_the_learning_rate_as_in_torch(play: Play) -> None:
    script = {
        "network__options__cuts": [0.9, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.58, 0.56],
        "network__options__gains": [4.0, 3.0, 3.0, 3.0, 400.0, 500.0, 700.0, 1000.0, 2000.0, 4000.0],
        "fit__schedule": "plateau",
        "fit__warm_up": 0.0,
        "fit__plateau_factor": 0.25,
        "fit__plateau_patience": 1,
        "fit__last_learning_rate": 0.1,
        "fit__learning_rate": 1e-3,
    }
    for steps in (6, 9):  # in two halves: a plateau is not forgotten
        out = play(**script, fit__steps=steps)
    history = read_history(out / "history.csv")
    assert history["iou"] == sorted(history["iou"])
    assert history["validation_loss"].index(min(history["validation_loss"])) == 2
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.25, patience=1, min_lr=1e-4)
    for rate, loss in zip(history["learning_rate"], history["validation_loss"], strict=True):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        theirs.step(loss)
    assert history["learning_rate"][-1] == pytest.approx(1e-4)


@pytest.fixture
def crops() -> Iterator[list[Tensor]]:
    """The images that the network is trained on, as it sees them."""
    seen: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if type(module).__name__ == "Scripted" and module.training:
            seen.append(given[0].detach().clone())

    hook = nn.modules.module.register_module_forward_pre_hook(note)
    yield seen
    hook.remove()


SMALL: dict[str, Any] = {"fit__crop_px": 32, "fit__window_px": 32}


def test_a_run_in_two_halves_sees_the_crops_of_one_run_and_ends_as_it(play: Play, crops: list[Tensor]) -> None:
    script = {**SMALL, "fit__average_decay": 0.9, "augment": [{"step": "dihedral"}, {"step": "brightness"}]}
    play("halves", **script, fit__steps=2)
    halves = play("halves", **script, fit__steps=4)
    first, again = crops[:2], crops[2:]
    crops.clear()
    whole = play("whole", **script, fit__steps=4)
    assert all(torch.equal(seen, wanted) for seen, wanted in zip([*first, *again], crops, strict=True))
    assert not torch.equal(again[0], first[0])
    assert read_history(halves / "history.csv")["step"] == [1, 2, 3, 4]
    for found in (halves, whole):
        assert float(own_weights(found)["trace"]) == 4.0
    last = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (halves, whole)]
    steps = [{float(state["step"]) for state in kept["optimizer_states"][0]["state"].values()} for kept in last]
    assert steps == [{4.0}, {4.0}]


def test_a_run_taken_up_again_goes_on_with_the_same_average(play: Play) -> None:
    # each step is the best so far, so that the bundle holds the last average
    script = {"network__options__cuts": [0.9, 0.8, 0.75, 0.7, 0.65, 0.6], "fit__average_decay": 0.9}
    for steps in (3, 5):
        out = play(**script, fit__steps=steps)
        assert int(weights(out)["step"]) == steps
        assert float(weights(out)["trace"]) == pytest.approx(averaged_trace(steps, 0.9), rel=1e-3)


def test_the_time_given_is_for_all_tries_together(play: Play) -> None:
    given = {"fit__steps": 0, "fit__minutes": 0.01, "fit__validate_every": 5}
    out = play(**given)
    first = read_history(out / "history.csv")
    assert first["progress"][-1] == 1.0
    assert first["minutes"][-1] >= 0.01
    play(**given)
    assert read_history(out / "history.csv") == first
    play(**given | {"fit__minutes": 0.02})
    more = read_history(out / "history.csv")
    assert more["step"][-1] > first["step"][-1]
    assert more["minutes"][-1] >= 0.02
    assert more["minutes"] == sorted(more["minutes"])
    assert more["progress"][len(first["step"])] > 0.5


def test_a_folder_that_was_moved_keeps_the_best_it_had(play: Play, tmp_path: Path) -> None:
    (play(**UPS_AND_DOWNS | {"fit__steps": 3})).rename(tmp_path / "moved")
    out = play("moved", **UPS_AND_DOWNS)
    assert not (tmp_path / "out").exists()
    for kind, step in (("", 2), (".best-loss", 3)):
        assert int(weights(out, kind)["step"]) == step


def test_processes_that_read_crops_change_nothing(play: Play) -> None:
    script = {**SMALL, "fit__steps": 4, "fit__validate_every": 2, "network__options__pull": 1.0}
    script |= {"fit__learning_rate": 0.1, "augment": [{"step": "dihedral"}, {"step": "brightness"}]}
    alone, helped = (own_weights(play(f"{n}", **script, fit__workers=n)) for n in (0, 1))
    assert all(torch.equal(alone[name], helped[name]) for name in alone)
