"""The moving average of the weights."""

import torch
from torch import nn

from geoseg.training.averaging import WeightAverage


def test_the_average_follows_its_formula() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.3)
    expected = 1.0
    for n, value in enumerate([5.0, 7.0, 9.0], start=1):
        nn.init.constant_(network.weight, value)
        average.update()
        keep = min(0.3, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * value
    assert torch.allclose(average.average["weight"], torch.tensor([expected]))


def test_statistics_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm1d(1, momentum=1.0)
    average = WeightAverage(network, decay=0.5)
    network(torch.tensor([[1.0], [3.0]]))
    average.update()
    keep = 2 / 11
    assert torch.allclose(average.average["running_mean"], torch.tensor([(1 - keep) * 2.0]))
    assert int(average.average["num_batches_tracked"]) == 1


def test_swapping_in_and_out_leaves_the_weights_as_they_were() -> None:
    network = nn.Linear(2, 2)
    average = WeightAverage(network, decay=0.9)
    nn.init.zeros_(network.weight)
    average.swap_in()
    assert network.weight.any()
    average.swap_out()
    assert not network.weight.any()


def test_a_checkpoint_holds_the_average() -> None:
    first, second = (WeightAverage(nn.Linear(2, 2), decay=0.9) for _ in range(2))
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(first.average[k], second.average[k]) for k in first.average)
