"""Augmentations of kornia as steps of a recipe."""

import pytest
import torch

from geoseg.datasets.labels import IGNORED
from geoseg.errors import RecipeError
from geoseg.training.augment import augment_batch, check_augmentations, kornia_step
from geoseg.training.recipe import Augmentation


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
