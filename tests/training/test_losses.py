"""Losses: values by hand, agreement with torch and others, and pixels without truth that count for nothing."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from segmentation_models_pytorch import losses as smp
from torch import Tensor
from torch.nn import functional

from geoseg.datasets.auxiliary import FULL
from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.errors import RecipeError
from geoseg.training.losses import LOSSES, LossMeans, add_terms, auxiliary_terms, check_losses, loss_terms

ONE, THREE = ("building",), ("land", "road", "water")

# three pixels of one class: probabilities 1/2, 3/4, 1/4 and their truth
LOGITS = torch.tensor([0.0, math.log(3.0), -math.log(3.0)]).view(1, 1, 1, 3)
MASK = torch.tensor([[[1, 1, 0]]], dtype=torch.uint8)

# two pixels of three classes: probabilities (1/2, 1/4, 1/4) of land, (1/8, 3/4, 1/8) of road
SOFTMAX = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]).log().T.reshape(1, 3, 1, 2)
CLASSES = torch.tensor([[[0, 1]]], dtype=torch.uint8)

BINARY = sorted(set(LOSSES) - {"ce"})
SEVERAL = sorted(set(LOSSES) - {"bce"})
EVERY = [*((name, ONE) for name in BINARY), *((name, THREE) for name in SEVERAL)]


def weigh(losses: Mapping[str, Any], logits: Tensor, mask: Tensor) -> Tensor:
    return add_terms(losses, loss_terms(losses, logits, mask))


def value(name: str, logits: Tensor = LOGITS, mask: Tensor = MASK, **options: Any) -> float:
    return float(weigh({name: {"weight": 1.0, **options}}, logits, mask))


def random_batch(channels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, channels, 6, 5, generator=generator)
    return logits, torch.randint(max(2, channels), (2, 6, 5), generator=generator, dtype=torch.uint8)


def test_cross_entropy_of_three_pixels_by_hand() -> None:
    assert value("bce") == pytest.approx(-(math.log(0.5) + 2 * math.log(0.75)) / 3)


def test_pixels_of_the_class_count_as_often_as_the_positive_weight_says() -> None:
    by_hand = -(2 * math.log(0.5) + 2 * math.log(0.75) + math.log(0.75)) / 3
    assert value("bce", positive_weight=2.0) == pytest.approx(by_hand)
    weight = torch.tensor(2.0)
    torch_says = functional.binary_cross_entropy_with_logits(LOGITS[:, 0], MASK.float(), pos_weight=weight)
    assert value("bce", positive_weight=2.0) == pytest.approx(float(torch_says))


def test_dice_of_three_pixels_by_hand() -> None:
    assert value("dice") == pytest.approx(1 - (2 * 1.25 + 1) / (1.5 + 2 + 1))


def test_jaccard_of_three_pixels_by_hand() -> None:
    assert value("jaccard") == pytest.approx(1 - (1.25 + 1) / (1.5 + 2 - 1.25 + 1))


def test_tversky_of_three_pixels_by_hand_counts_false_positives_by_alpha() -> None:
    index = (1.25 + 1) / (1.25 + 0.2 * 0.25 + 0.8 * 0.75 + 1)
    assert value("tversky", alpha=0.2, beta=0.8) == pytest.approx(1 - index)
    assert value("tversky", alpha=0.2, beta=0.8, gamma=0.75) == pytest.approx((1 - index) ** 0.75)


def test_focal_of_three_pixels_by_hand() -> None:
    by_hand = -(0.25 * math.log(0.5) + 2 * 0.0625 * math.log(0.75)) / 3
    assert value("focal", gamma=2.0) == pytest.approx(by_hand, rel=1e-5)
    weighed = -(0.3 * 0.25 * math.log(0.5) + (0.3 + 0.7) * 0.0625 * math.log(0.75)) / 3
    assert value("focal", gamma=2.0, alpha=0.3) == pytest.approx(weighed, rel=1e-5)


def test_lovasz_hinge_of_two_pixels_by_hand() -> None:
    # errors 1 - 0.5 = 0.5 of a building and 1 + 1 = 2 of background: first the background, then both, are wrong;
    # the Jaccard loss rises to 1 - 1/2 and then to 1
    logits = torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
    assert value("lovasz", logits, MASK[..., 1:]) == pytest.approx(2 * 0.5 + 0.5 * 0.5)


def test_losses_of_two_pixels_of_three_classes_by_hand() -> None:
    assert value("ce", SOFTMAX, CLASSES) == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)
    dice = [1 - (2 * 0.5 + 1) / (0.625 + 1 + 1), 1 - (2 * 0.75 + 1) / (1.0 + 1 + 1)]  # land, road; no water is there
    assert value("dice", SOFTMAX, CLASSES) == pytest.approx(sum(dice) / 2)
    jaccard = [1 - (0.5 + 1) / (0.5 + 0.5 + 0.125 + 1), 1 - (0.75 + 1) / (0.75 + 0.25 + 0.25 + 1)]
    assert value("jaccard", SOFTMAX, CLASSES) == pytest.approx(sum(jaccard) / 2)
    # the largest error of land is 1/2 (of its own pixel), of road 1/4 (twice): the loss rises to 1 with the first
    # for land, and for road to 1 or to 1/2 and then 1
    assert value("lovasz", SOFTMAX, CLASSES) == pytest.approx((0.5 + 0.25) / 2)


def test_class_weights_do_what_they_do_in_torch() -> None:
    logits, mask = random_batch(3)
    for weights in ([1.0, 5.0, 0.5], [1, 2.0, 0]):
        check_losses({"ce": {"class_weights": weights}}, THREE)
        expected = functional.cross_entropy(logits, mask.long(), weight=torch.tensor(weights, dtype=torch.float32))
        assert value("ce", logits, mask, class_weights=weights) == pytest.approx(float(expected))


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, mask = random_batch(3)
    assert value("focal", logits, mask, gamma=0.0) == pytest.approx(value("ce", logits, mask))


def test_focal_weighs_each_class_by_its_alpha() -> None:
    probability = [0.5, 0.75]
    terms = [-a * (1 - p) ** 2 * math.log(p) for a, p in zip([0.2, 0.9], probability, strict=True)]
    check_losses({"focal": {"alpha": [0.2, 0.9, 0.5]}}, THREE)
    assert value("focal", SOFTMAX, CLASSES, alpha=[0.2, 0.9, 0.5]) == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_binary_focal_is_the_one_of_segmentation_models_pytorch() -> None:
    logits, mask = random_batch(1)
    expected = smp.FocalLoss("binary", alpha=0.25, gamma=1.5)(logits, mask[:, None].long())
    assert value("focal", logits, mask, alpha=0.25, gamma=1.5) == pytest.approx(float(expected), rel=1e-4)


def test_multi_class_dice_is_the_one_of_segmentation_models_pytorch_where_every_class_is_present() -> None:
    logits, mask = random_batch(3)
    mask[0, 0] = IGNORED
    expected = smp.DiceLoss("multiclass", smooth=0.5, ignore_index=IGNORED)(logits, mask.long())
    assert value("dice", logits, mask) == pytest.approx(float(expected), rel=1e-5)


def test_two_softmax_channels_have_the_cross_entropy_of_one_sigmoid() -> None:
    logits, mask = random_batch(1)
    assert value("ce", torch.cat([torch.zeros_like(logits), logits], 1), mask) == pytest.approx(
        value("bce", logits, mask)
    )


@pytest.mark.parametrize(("name", "classes"), EVERY)
@pytest.mark.parametrize("unknown", [IGNORED, UNSURE])
@pytest.mark.parametrize("wild", [50.0, math.inf, math.nan])
def test_pixels_without_truth_change_neither_loss_nor_gradient(
    name: str, classes: tuple[str, ...], unknown: int, wild: float
) -> None:
    logits, mask = random_batch(len(classes))
    mask[:, 2:4], mask[1, 0, 0] = unknown, unknown
    results = []
    for there in (0.0, wild):
        here = logits.masked_fill((mask == unknown)[:, None], there).requires_grad_()
        loss = weigh({name: 1.0}, here, mask)
        loss.backward()  # type: ignore[no-untyped-call]
        assert here.grad is not None
        results.append((loss.detach(), here.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    outside = (mask == unknown)[:, None].expand_as(logits)
    assert not results[1][1][outside].any()
    assert results[1][1][~outside].any()


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_pixels_without_truth_are_as_if_cut_off(name: str, classes: tuple[str, ...]) -> None:
    logits, mask = random_batch(len(classes))
    mask[:, 3:] = IGNORED
    assert value(name, logits, mask) == pytest.approx(value(name, logits[:, :, :3], mask[:, :3]), rel=1e-6)


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_a_batch_without_truth_trains_nothing(name: str, classes: tuple[str, ...]) -> None:
    logits = torch.ones(1, len(classes), 2, 2, requires_grad=True)
    loss = weigh({name: 1.0}, logits, torch.full((1, 2, 2), IGNORED, dtype=torch.uint8))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_a_perfect_network_is_better_than_a_random_one_and_has_a_finite_gradient(
    name: str, classes: tuple[str, ...]
) -> None:
    logits, mask = random_batch(len(classes))
    truth = mask[:, None] if len(classes) == 1 else functional.one_hot(mask.long(), 3).movedim(-1, 1)
    perfect = (40.0 * (2.0 * truth - 1)).requires_grad_()
    loss = weigh({name: {"gamma": 0.5} if "gamma" in LOSSES[name] else 1.0}, perfect, mask)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) < 0.01 < value(name, logits, mask)
    assert perfect.grad is not None
    assert perfect.grad.isfinite().all()


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_half_precision_and_autocast_change_only_what_the_logits_lost(name: str, classes: tuple[str, ...]) -> None:
    logits, mask = random_batch(len(classes))
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = weigh({name: 1.0}, half, mask)
    assert loss.dtype == torch.float32
    assert float(loss) == value(name, half.float(), mask)


@pytest.mark.parametrize("name", ["bce", "dice", "focal", "jaccard", "lovasz", "tversky"])
def test_false_buildings_cost_something_in_a_batch_without_buildings(name: str) -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert value(name, torch.full((1, 1, 4, 4), 2.0), nothing) > value(name, torch.full((1, 1, 4, 4), -9.0), nothing)


def test_a_weighted_sum_with_options_is_the_sum_of_its_terms() -> None:
    losses: Mapping[str, Any] = {"ce": 0.6, "focal": {"weight": 0.4, "gamma": 1.0}, "dice": 0}
    logits, mask = random_batch(3)
    terms = loss_terms(losses, logits, mask)
    assert list(terms) == ["ce", "focal", "dice"]
    assert float(terms["focal"]) == pytest.approx(value("focal", logits, mask, gamma=1.0))
    by_hand = 0.6 * float(terms["ce"]) + 0.4 * float(terms["focal"])
    assert float(add_terms(losses, terms)) == pytest.approx(by_hand)


def test_means_over_batches_count_pixels_and_not_batches() -> None:
    logits, mask = random_batch(1)
    mask[0, :5] = IGNORED
    means = LossMeans()
    for n in (0, 1):
        means.update(loss_terms({"bce": 1.0, "dice": 1.0}, logits[n : n + 1], mask[n : n + 1]), mask[n : n + 1])
    assert means.means()["bce"] == pytest.approx(value("bce", logits, mask))
    dice = [value("dice", logits[n : n + 1], mask[n : n + 1]) for n in (0, 1)]
    assert means.means()["dice"] == pytest.approx((5 * dice[0] + 30 * dice[1]) / 35)


def test_the_mean_over_no_truth_is_no_number() -> None:
    means = LossMeans()
    mask = torch.full((1, 1, 3), IGNORED, dtype=torch.uint8)
    means.update(loss_terms({"bce": 1.0}, LOGITS, mask), mask)
    assert math.isnan(means.means()["bce"])


@pytest.mark.parametrize(
    ("losses", "classes", "said"),
    [
        ({"bcee": 1.0}, ONE, r"unknown key loss\.bcee = 1\.0; expected among bce, ce, dice"),
        ({"bce": -1.0}, ONE, r"loss\.bce = -1\.0; expected a weight of at least 0"),
        ({"bce": "much"}, ONE, r"loss\.bce = 'much'; expected a weight"),
        ({"bce": True}, ONE, r"loss\.bce = True; expected a weight"),
        ({"bce": float("nan")}, ONE, r"loss\.bce = nan"),
        ({"bce": {"weight": -1}}, ONE, r"loss\.bce\.weight = -1"),
        ({"bce": 0.0}, ONE, "at least one loss with a weight above 0"),
        ({}, ONE, "at least one loss"),
        ({"dice": {"gamma": 2.0}}, ONE, r"unknown key loss\.dice\.gamma = 2\.0; expected among weight$"),
        ({"focal": {"gama": 2.0}}, ONE, r"loss\.focal\.gama = 2\.0; expected among weight, alpha, gamma"),
        ({"bce": 1.0}, THREE, r"loss\.bce is for one class, and network\.classes = .*'road'.*; expected loss\.ce"),
        ({"ce": 1.0}, ONE, r"loss\.ce is for several classes, .*'building'.*; expected loss\.bce, or \"background\""),
        ({"ce": {"class_weights": [1.0, 2.0]}}, THREE, r"class_weights = \[1\.0, 2\.0\]; expected 3 weights"),
        ({"ce": {"class_weights": "balanced"}}, THREE, r"class_weights = 'balanced'; expected 3 weights"),
        ({"ce": {"class_weights": [0, 0, 0]}}, THREE, r"class_weights = \[0, 0, 0\]"),
        ({"bce": {"positive_weight": 0}}, ONE, r"positive_weight = 0; expected a number above 0"),
        ({"focal": {"alpha": 1.5}}, ONE, r"loss\.focal\.alpha = 1\.5; expected a number between 0 and 1"),
        ({"focal": {"alpha": 0.25}}, THREE, r"loss\.focal\.alpha = 0\.25; expected 3 weights"),
        ({"focal": {"gamma": -1}}, ONE, r"loss\.focal\.gamma = -1; expected a number of at least 0"),
        ({"tversky": {"alpha": 0, "beta": 0}}, ONE, "expected one of them above 0"),
        ({"tversky": {"gamma": 0}}, ONE, r"loss\.tversky\.gamma = 0; expected a number above 0"),
    ],
)
def test_a_loss_that_is_not_allowed_is_named(losses: dict[str, Any], classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_losses(losses, classes)


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_every_loss_is_the_same_with_its_defaults_written_out(name: str, classes: tuple[str, ...]) -> None:
    logits, mask = random_batch(len(classes))
    whole = value(name, logits, mask)
    for entry, weight in (({"weight": 0.5, **LOSSES[name]}, 0.5), (1, 1.0), ({}, 1.0), ({"weight": 2}, 2.0)):
        check_losses({name: entry}, classes)
        assert float(weigh({name: entry}, logits, mask)) == pytest.approx(weight * whole)


BCE, DICE = -(math.log(0.5) + 2 * math.log(0.75)) / 3, 1 - (2 * 1.25 + 1) / (1.5 + 2 + 1)


def test_an_auxiliary_channel_costs_its_cross_entropy_plus_dice() -> None:
    logits = torch.cat([LOGITS, torch.zeros_like(LOGITS)], dim=1)
    targets = torch.stack([MASK, torch.full_like(MASK, IGNORED)], dim=1)
    targets[0, 1, 0, 0] = 1
    terms = auxiliary_terms(["edge", "contact"], logits, targets)
    assert float(terms["edge"]) == pytest.approx(BCE + DICE)
    assert float(terms["contact"]) == pytest.approx(math.log(2) + 1 - (2 * 0.5 + 1) / (0.5 + 1 + 1))
    assert list(terms) == ["edge", "contact"]


def test_an_auxiliary_channel_may_focus_on_what_is_wrong() -> None:
    focal = -(0.25 * math.log(0.5) + 2 * 0.0625 * math.log(0.75)) / 3
    assert float(auxiliary_terms(["edge"], LOGITS, MASK[:, None], gamma=2.0)["edge"]) == pytest.approx(focal + DICE)


def test_a_distance_costs_its_cross_entropy_against_a_share() -> None:
    targets = torch.tensor([[[[FULL, FULL // 2, 0]]]], dtype=torch.uint8)
    by_hand = -(math.log(0.5) + 0.5 * (math.log(0.75) + math.log(0.25)) + math.log(0.75)) / 3
    for gamma in (0.0, 2.0):
        assert float(auxiliary_terms(["distance"], LOGITS, targets, gamma=gamma)["distance"]) == pytest.approx(by_hand)


@pytest.mark.parametrize("channel", ["edge", "distance"])
@pytest.mark.parametrize("wild", [50.0, math.inf, math.nan])
def test_unknown_pixels_of_an_auxiliary_channel_change_neither_loss_nor_gradient(channel: str, wild: float) -> None:
    logits, mask = random_batch(1)
    mask[:, 2:4] = IGNORED
    results = []
    for there in (0.0, wild):
        here = logits.masked_fill((mask == IGNORED)[:, None], there).requires_grad_()
        loss = auxiliary_terms([channel], here, mask[:, None])[channel]
        loss.backward()  # type: ignore[no-untyped-call]
        assert here.grad is not None
        results.append((loss.detach(), here.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][1][:, :, 0].any()
    cut = auxiliary_terms([channel], torch.cat([logits[:, :, :2], logits[:, :, 4:]], 2), mask[:, None, [0, 1, 4, 5]])
    assert float(cut[channel]) == pytest.approx(float(results[0][0]), rel=1e-6)
    nothing = auxiliary_terms([channel], logits, torch.full_like(mask, IGNORED)[:, None])
    assert float(nothing[channel]) == 0.0


def test_auxiliary_channels_add_to_the_loss_by_their_weights() -> None:
    terms = loss_terms({"bce": 1.0}, LOGITS, MASK) | auxiliary_terms(["edge"], LOGITS, MASK[:, None])
    assert float(add_terms({"bce": 1.0, "edge": 0.25}, terms)) == pytest.approx(BCE + 0.25 * (BCE + DICE))
    assert float(add_terms({"bce": 1.0, "edge": 0.0}, terms)) == pytest.approx(BCE)
