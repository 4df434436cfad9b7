"""The learning rate over progress, and progress over steps and time."""

import pytest
import torch

from geoseg.training.schedule import Plateau, Progress, learning_rate_factor


def test_the_learning_rate_rises_to_one_and_falls_to_its_last_value() -> None:
    factors = [learning_rate_factor(p / 100, schedule="cosine", warm_up=0.1, last=0.01) for p in range(101)]
    assert factors.index(max(factors)) == 10
    assert max(factors) == pytest.approx(1.0)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0.01)


def test_halfway_down_the_cosine_is_the_middle() -> None:
    assert learning_rate_factor(0.5, schedule="cosine", warm_up=0.0, last=0.2) == pytest.approx(0.6)


def test_the_step_before_any_progress_still_learns() -> None:
    assert learning_rate_factor(0.0, schedule="cosine", warm_up=0.1, last=0.0) > 0


def test_a_run_on_a_slow_machine_anneals_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 30.0, 60.0])
    monkeypatch.setattr("geoseg.training.schedule.time.monotonic", lambda: next(clock))
    progress = Progress(steps=1000, minutes=1.0)
    progress.advance()
    assert progress.done == pytest.approx(0.5)
    progress.advance()
    assert progress.done == 1.0


def test_a_run_on_a_fast_machine_anneals_by_steps() -> None:
    progress = Progress(steps=4, minutes=1e6)
    for _ in range(3):
        progress.advance()
    assert progress.done == pytest.approx(0.75)


def test_one_cycle_is_highest_after_three_tenths_and_ends_at_its_last_value() -> None:
    factors = [learning_rate_factor(p / 100, schedule="one-cycle", warm_up=0.0, last=0.02) for p in range(101)]
    assert factors.index(max(factors)) == 30
    assert factors[0] == pytest.approx(0.02)
    assert factors[-1] == pytest.approx(0.02)
    assert max(factors) == pytest.approx(1.0)


def test_a_constant_rate_and_a_plateau_stay_after_warming_up() -> None:
    for schedule in ("constant", "plateau"):
        assert learning_rate_factor(0.05, schedule=schedule, warm_up=0.1, last=0.0) == pytest.approx(0.5)
        assert learning_rate_factor(0.9, schedule=schedule, warm_up=0.1, last=0.0) == 1.0


def test_a_plateau_lowers_the_rate_as_torch_does() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=2, min_lr=0.1)
    ours = Plateau(0.5, 2, 0.1)
    for loss in (1.0, 0.9, 0.9, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8):
        theirs.step(loss)
        ours.see(loss)
        assert ours.factor == optimiser.param_groups[0]["lr"]
    assert ours.factor == 0.1


def test_a_plateau_taken_up_again_goes_on_as_if_never_stopped() -> None:
    first = Plateau(0.5, 1, 0.01)
    for loss in (1.0, 1.0):
        first.see(loss)
    second = Plateau(0.5, 1, 0.01, **first.state())
    for plateau in (first, second):
        plateau.see(1.0)
    assert second == first
    assert second.factor == 0.5


def test_a_run_without_steps_ends_by_time_alone() -> None:
    assert Progress(0, 1.0, step=10**6, used_s=30.0).done == 0.5
