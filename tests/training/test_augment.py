"""Augmentation: image and label move together, colors do what they say; steps of kornia too."""

from typing import Any

import pytest
import torch
from torch import Tensor

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError
from geoseg.training.augment import STEPS, augment_batch, check_augmentations, kornia_step
from geoseg.training.recipe import Augmentation


def step(name: str, probability: float = 1.0, **options: Any) -> Augmentation:
    return Augmentation(step=name, probability=probability, options=options)


def noise(n: int = 4, size: int = 48, bands: int = 3) -> Tensor:
    return torch.rand(n, bands, size, size, generator=torch.Generator().manual_seed(1))


def no_labels(image: Tensor) -> Tensor:
    return torch.zeros(len(image), *image.shape[-2:], dtype=torch.uint8)


@pytest.mark.parametrize("size", [32, 47, 48])
def test_without_steps_a_crop_is_the_middle_of_its_window(size: int) -> None:
    image = noise(size=size)
    crop, _ = augment_batch(image, no_labels(image), [], crop_px=32)
    first = (size - 32) // 2
    torch.testing.assert_close(crop, image[..., first : first + 32, first : first + 32], atol=1e-5, rtol=0)


def test_a_dihedral_step_moves_every_pixel_and_invents_none() -> None:
    torch.manual_seed(0)
    image = noise(n=64, size=16)
    crop, _ = augment_batch(image, no_labels(image), [step("dihedral")], crop_px=16)
    turned = [torch.rot90(image, k, (2, 3)) for k in range(4)]
    eight = torch.stack([*turned, *(t.flip(3) for t in turned)])
    distance = (eight - crop).abs().amax(dim=(2, 3, 4))
    assert float(distance.amin(dim=0).max()) < 1e-4
    assert len(set(distance.argmin(dim=0).tolist())) == 8


def test_labels_move_with_the_image() -> None:
    torch.manual_seed(0)
    smooth = torch.linspace(0, 1, 64).repeat(8, 1, 64, 1) + torch.linspace(0, 1, 64)[:, None]
    image = (smooth / 2).repeat(1, 3, 1, 1)
    mask = (image[:, 0] > 0.5).to(torch.uint8)
    crop, label = augment_batch(
        image, mask, [step("dihedral"), step("affine", rotate_deg=180, scale=[0.9, 1.5])], crop_px=32
    )
    known = label != IGNORED
    far = (crop[:, 0] - 0.5).abs() > 0.02
    assert ((crop[:, 0] > 0.5) == (label == 1))[known & far].all()
    assert {0, 1} <= set(label.unique().tolist())


def test_what_lies_outside_the_window_has_no_truth() -> None:
    image = noise(size=32)
    _, label = augment_batch(image, no_labels(image), [step("affine", rotate_deg=0, scale=[0.5, 0.5])], crop_px=32)
    assert (label[:, :7] == IGNORED).all()
    assert (label[:, 9:-9, 9:-9] == 0).all()


def test_every_label_value_survives() -> None:
    image = noise(n=1, size=32)
    mask = torch.arange(256, dtype=torch.uint8).repeat(4).view(1, 32, 32)
    _, label = augment_batch(image, mask, [], crop_px=32)
    assert torch.equal(label, mask)


def test_a_gain_is_one_factor_per_band() -> None:
    torch.manual_seed(0)
    image = noise() * 0.5 + 0.2
    crop, _ = augment_batch(image, no_labels(image), [step("gain", amount=0.2)], crop_px=48)
    ratio = crop / image
    assert float(ratio.std(dim=(2, 3)).max()) < 1e-4
    assert float(ratio.mean(dim=(2, 3)).std()) > 0.02


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_gray_stays_gray(name: str) -> None:
    image = noise(bands=1).repeat(1, 3, 1, 1)
    crop, _ = augment_batch(image, no_labels(image), [step(name)], crop_px=48)
    torch.testing.assert_close(crop, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_changes_pixels_within_the_range(name: str) -> None:
    torch.manual_seed(0)
    image = noise()
    crop, _ = augment_batch(image.clone(), no_labels(image), [step(name)], crop_px=48)
    assert not torch.allclose(crop, image)
    assert float(crop.min()) >= 0.0
    assert float(crop.max()) <= 1.0


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_step_of_probability_zero_does_nothing(name: str) -> None:
    image = noise()
    crop, _ = augment_batch(image.clone(), no_labels(image), [step(name, probability=0.0)], crop_px=48)
    torch.testing.assert_close(crop, image.clamp_min(1e-4), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (step("blur"), "soften"),
        (step("gain", amout=1.0), "amount"),
        (step("affine", scale=2.0), "low, high"),
        (step("affine", scale=[0.0, 2.0]), "above 0"),
        (step("noise", sigma="big"), "big"),
    ],
)
def test_a_wrong_step_or_option_is_named_with_what_is_allowed(wrong: Augmentation, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_augmentations([wrong])


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = (torch.arange(size)[None, None, :] + torch.arange(size)[None, :, None]) % 5
    return torch.rand(2, 3, size, size), mask.expand(2, size, size).to(torch.uint8).contiguous()


def test_a_geometric_step_takes_the_mask_along() -> None:
    image, mask = batch()
    turned, moved = kornia_step("kornia:RandomHorizontalFlip", 1.0, {})(image, mask)
    assert torch.allclose(turned, image.flip(-1))
    assert torch.equal(moved, mask.flip(-1))
    assert moved.dtype == torch.uint8


def test_a_step_of_intensity_leaves_the_mask() -> None:
    image, mask = batch()
    blurred, same = kornia_step("kornia:RandomGaussianBlur", 1.0, {"kernel_size": [3, 3], "sigma": [1.0, 2.0]})(
        image, mask
    )
    assert torch.equal(same, mask)
    assert (blurred - image).abs().mean() > 0.05


def test_what_a_geometric_step_leaves_empty_has_no_truth() -> None:
    image, mask = batch(32)
    step = kornia_step("kornia:RandomAffine", 1.0, {"degrees": 0.0, "translate": [0.4, 0.4]})
    _, moved = step(image, mask)
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3, 4, IGNORED}
    assert (moved == IGNORED).any()


def test_a_step_that_never_happens_changes_nothing() -> None:
    image, mask = batch()
    same, moved = kornia_step("kornia:RandomVerticalFlip", 0.0, {})(image, mask)
    assert torch.equal(same, image)
    assert torch.equal(moved, mask)


def test_a_recipe_mixes_kornia_with_its_own_steps() -> None:
    steps = [Augmentation(step="flip"), Augmentation(step="kornia:RandomHorizontalFlip")]
    check_augmentations(steps)
    image, mask = batch()
    twice, moved = augment_batch(image, mask, steps, crop_px=16)
    assert torch.allclose(twice, image, atol=1e-5)
    assert torch.equal(moved, mask)


def test_a_flip_mirrors_left_to_right_and_nothing_else() -> None:
    image, mask = batch()
    flipped, moved = augment_batch(image, mask, [Augmentation(step="flip")], crop_px=16)
    assert torch.allclose(flipped, image.flip(-1), atol=1e-5)
    assert torch.equal(moved, mask.flip(-1))


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        ("kornia:Mirror", {}, r"expected one of .*RandomHorizontalFlip.* of kornia"),
        ("kornia:RandomHorizontalFlip", {"degrees": 3}, r"kornia:RandomHorizontalFlip\.options.*degrees"),
        ("mirror", {}, r"or kornia:NAME of kornia's"),
    ],
)
def test_a_mistake_is_named_before_training(step: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_augmentations([Augmentation(step=step, options=options)])


@pytest.mark.parametrize(
    ("wrong", "bands", "said"),
    [
        (step("kornia:CenterCrop", size=[24, 24]), 3, r"CenterCrop.* makes crops of 24 x 24 px of those of 32 x 32"),
        (step("kornia:RandomHue", probability=0.1), 4, r"RandomHue fails on crops of 32 px with 4 bands: "),
    ],
)
def test_a_step_of_kornia_that_does_not_fit_the_crops_is_refused_before_training(
    wrong: Augmentation, bands: int, said: str
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with pytest.raises(RecipeError, match=said):
        check_augmentations([wrong], crop_px=32, bands=bands)
    check_augmentations([step("kornia:CenterCrop", size=[32, 32])], crop_px=32, bands=bands)
    assert torch.rand(1) == expected


@pytest.mark.parametrize("steps", [[step("dihedral"), step("affine")], [step("kornia:RandomAffine", degrees=90.0)]])
def test_planes_of_labels_move_together_and_keep_their_values(steps: list[Augmentation]) -> None:
    image = noise(n=6)
    mask = (image[:, 0] * 256).to(torch.uint8)
    planes = torch.stack([mask, 255 - mask, mask], dim=1)
    torch.manual_seed(3)
    crop, moved = augment_batch(image, planes, steps, crop_px=32)
    torch.manual_seed(3)
    alone, own = augment_batch(image, mask, steps, crop_px=32)
    assert torch.equal(crop, alone)
    assert torch.equal(moved[:, 0], own)
    assert torch.equal(moved[:, 2], own)
    beyond = (moved[:, 0] == IGNORED) & (moved[:, 1] == IGNORED)
    assert torch.equal(moved[:, 1][~beyond], 255 - own[~beyond])
    assert moved.shape == (6, 3, 32, 32)
    assert not torch.equal(own, mask[:, 8:40, 8:40])
