"""The learning rate over progress, progress over steps and time, and precision."""

import pytest
import torch
from torch import nn

from geoseg.training.optimizer import Progress, keep_depthwise_full, learning_rate_factor


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
    monkeypatch.setattr("geoseg.training.optimizer.time.monotonic", lambda: next(clock))
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


def test_a_run_without_steps_ends_by_time_alone() -> None:
    assert Progress(0, 1.0, step=10**6, used_s=30.0).done == 0.5


def test_depthwise_convolutions_stay_in_full_precision_and_keep_their_names() -> None:
    torch.manual_seed(0)
    depthwise, dense = nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3)
    network = nn.Sequential(depthwise, dense)
    names, seen = set(network.state_dict()), []
    image = torch.rand(1, 4, 8, 8)
    exact = depthwise(image)
    keep_depthwise_full(network)
    depthwise.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(image)
    assert torch.equal(seen[0], exact)
    assert result.dtype == torch.bfloat16
    assert set(network.state_dict()) == names
