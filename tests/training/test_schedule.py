"""The learning rate over progress, and progress over steps and time."""

import pytest

from geoseg.training.schedule import Progress, learning_rate_factor


def test_the_learning_rate_rises_to_one_and_falls_to_its_last_value() -> None:
    factors = [learning_rate_factor(p / 100, warm_up=0.1, last=0.01) for p in range(101)]
    assert factors.index(max(factors)) == 10
    assert max(factors) == pytest.approx(1.0)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0.01)


def test_halfway_down_the_cosine_is_the_middle() -> None:
    assert learning_rate_factor(0.5, warm_up=0.0, last=0.2) == pytest.approx(0.6)


def test_the_step_before_any_progress_still_learns() -> None:
    assert learning_rate_factor(0.0, warm_up=0.1, last=0.0) > 0


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
