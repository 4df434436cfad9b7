"""The moving average of the weights."""

import copy

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


def test_an_average_taken_up_from_a_checkpoint_goes_on_as_if_never_stopped() -> None:
    network = nn.Linear(2, 2)
    first = WeightAverage(network, decay=0.9)
    for value in (3.0, 4.0):
        nn.init.constant_(network.weight, value)
        first.update()
    second = WeightAverage(network, decay=0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert not torch.equal(first.average["weight"], network.weight)
    for average in (first, second):
        average.update()
    assert torch.equal(first.average["weight"], second.average["weight"])
