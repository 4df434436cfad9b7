"""Losses: hand-computed values, and pixels without truth that count for nothing."""

import math

import pytest
import torch

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError
from geoseg.training.losses import LOSSES, check_losses, weigh_losses

LOGITS = torch.tensor([0.0, math.log(3.0), -math.log(3.0)])  # probabilities 1/2, 3/4, 1/4
TRUTH = torch.tensor([1.0, 1.0, 0.0])


def test_cross_entropy_of_three_pixels_by_hand() -> None:
    expected = -(math.log(0.5) + math.log(0.75) + math.log(0.75)) / 3
    assert float(LOSSES["bce"](LOGITS, TRUTH)) == pytest.approx(expected)


def test_dice_of_three_pixels_by_hand() -> None:
    assert float(LOSSES["dice"](LOGITS, TRUTH)) == pytest.approx(1 - (2 * 1.25 + 1) / (1.5 + 2 + 1))


def test_jaccard_of_three_pixels_by_hand() -> None:
    assert float(LOSSES["jaccard"](LOGITS, TRUTH)) == pytest.approx(1 - (1.25 + 1) / (1.5 + 2 - 1.25 + 1))


def test_ignored_pixels_change_neither_loss_nor_gradient() -> None:
    logits = torch.tensor([[[[0.3, -0.2, 50.0]]]], requires_grad=True)
    mask = torch.tensor([[[1, 0, IGNORED]]], dtype=torch.uint8)
    loss = weigh_losses({"bce": 1.0, "dice": 0.5}, logits, mask)
    loss.backward()  # type: ignore[no-untyped-call]
    without = weigh_losses({"bce": 1.0, "dice": 0.5}, logits[..., :2], mask[..., :2])
    assert logits.grad is not None
    assert float(loss.detach()) == pytest.approx(float(without.detach()))
    assert float(logits.grad[..., 2]) == 0.0
    assert float(logits.grad[..., 0]) != 0.0


def test_a_batch_without_truth_trains_nothing() -> None:
    logits = torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = weigh_losses({"bce": 1.0}, logits, torch.full((1, 2, 2), IGNORED, dtype=torch.uint8))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("weights", "said"), [({"bcee": 1.0}, "loss.bcee"), ({"bce": -1.0}, "-1"), ({"bce": 0.0}, "above 0")]
)
def test_a_loss_that_is_not_allowed_is_named(weights: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_losses(weights)
