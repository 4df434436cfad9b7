"""Pictures of predictions: which chips are shown, and which colour means what."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.training.pictures import Example, _Palette, _visible, collect_examples, draw_predictions

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
LAND = ("building", "land", "water")


class Chips(Dataset[Mapping[str, Tensor]]):
    """Chips whose image says which chip they are; the network of these tests finds what the second band says."""

    def __init__(self, masks: list[Tensor], sources: list[int]) -> None:
        self.masks, self.sources = masks, sources

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, n: int) -> Mapping[str, Tensor]:
        image = torch.full((2, *self.masks[n].shape), n, dtype=torch.uint8)
        image[1] = self.masks[n] == 1
        return {"image": image, "mask": self.masks[n], "source": torch.tensor(self.sources[n])}


def predict(image: Tensor) -> Tensor:
    return image[:, 1:].float() * 2 - 1


def masks(*shares: float, size: int = 20) -> list[Tensor]:
    """Make masks of which a share of the rows is building."""
    made = []
    for share in shares:
        mask = torch.zeros(size, size, dtype=torch.uint8)
        mask[: round(share * size)] = 1
        made.append(mask)
    return made


def chosen(examples: list[Example]) -> list[int]:
    return [int(example.image[0, 0, 0]) for example in examples]


def test_chips_that_show_both_classes_are_chosen_from_every_source_in_turn() -> None:
    chips = Chips(masks(0.0, 0.5, 0.4, 0.05, 0.1, 0.0), [0, 0, 0, 0, 1, 1])
    examples = collect_examples(chips, predict, names=("accra", "banepa"), count=3)
    assert chosen(examples) == [1, 2, 4]
    assert [example.name for example in examples] == ["accra", "accra", "banepa"]


def test_chips_with_more_truth_are_preferred_and_few_chips_are_all_shown() -> None:
    half, whole = masks(0.5, 0.5)
    half[:, 5:] = IGNORED
    assert chosen(collect_examples(Chips([half, whole], [0, 0]), predict, count=1)) == [1]
    assert chosen(collect_examples(Chips([half, whole], [0, 0]), predict, count=9)) == [0, 1]


def test_context_without_truth_is_cut_off_image_truth_and_prediction_alike() -> None:
    (mask,) = masks(0.5)
    mask[:3], mask[:, :4], mask[-2:], mask[8, 8] = IGNORED, IGNORED, IGNORED, IGNORED
    (example,) = collect_examples(Chips([mask], [0]), predict)
    assert example.image.shape == (2, 15, 16)
    assert np.array_equal(example.truth, mask[3:18, 4:].numpy())
    assert np.array_equal(example.predicted, (mask[3:18, 4:] == 1).numpy())


@pytest.mark.parametrize(("threshold", "found"), [(0.7, 1), (0.75, 0)])
def test_the_threshold_decides_for_one_and_two_channels(threshold: float, found: int) -> None:
    (mask,) = masks(1.0)  # the logit is 1, its sigmoid 0.731
    for network, target in (
        (predict, 0),
        (lambda image: torch.cat([predict(image) * 0, predict(image)], 1), 1),
        (lambda image: torch.cat([predict(image), predict(image) * 0], 1), 0),
    ):
        (example,) = collect_examples(Chips([mask], [0]), network, threshold=threshold, target=target)
        is_target = example.predicted == (1 if network is predict else target)
        assert is_target.all() == bool(found)


def test_several_classes_are_predicted_by_the_likeliest() -> None:
    logits = torch.randn(1, 3, 20, 20)
    (example,) = collect_examples(Chips(masks(0.5), [0]), lambda image: logits)
    assert np.array_equal(example.predicted, logits[0].argmax(0).numpy())


@pytest.mark.parametrize(
    ("classes", "target", "value"),
    [(("building",), "building", 1), (("background", "building"), "building", 1), (("roof", "rest"), "roof", 0)],
)
def test_buildings_are_white_on_black_and_errors_have_their_own_colours(
    classes: tuple[str, ...], target: str, value: int
) -> None:
    palette, other = _Palette.of(classes, {}, target), 1 - value
    truth = np.array([[value, value, other, other, IGNORED, UNSURE]], np.uint8)
    found = np.array([[value, other, value, other, value, other]], np.uint8)
    assert colours(palette.paint(truth)) == [WHITE, WHITE, BLACK, BLACK, GREY, GREY]
    right, missed, false, nothing, *unknown = colours(palette.compare(truth, found))
    assert (right, nothing, unknown) == (WHITE, BLACK, [GREY, GREY])
    assert len({right, missed, false, nothing, GREY}) == 5


def test_several_classes_have_the_colours_that_are_given_and_different_others() -> None:
    palette = _Palette.of(LAND, {"water": "#0102FF"}, "building")
    truth = np.array([[2, 0, 1, IGNORED]], np.uint8)
    painted = colours(palette.paint(truth))
    assert (painted[0], painted[3]) == ((1, 2, 255), GREY)
    assert len(set(painted)) == 4
    wrong = colours(palette.compare(truth, np.array([[2, 1, 1, 0]], np.uint8)))
    assert wrong[0] == wrong[2] != wrong[1]
    assert wrong[3] == GREY


def colours(painted: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in painted[0].tolist()]


def test_pixels_of_other_types_are_stretched_and_gaps_stay_black() -> None:
    image = np.linspace(100, 4000, 3 * 64, dtype=np.float32).reshape(3, 8, 8)
    image[0, 0, 0] = np.nan
    shown = _visible(image)
    assert shown.dtype == np.uint8
    assert shown[0, 0, 0] == 0
    assert shown.max() == 255
    assert len(np.unique(shown)) > 100


@pytest.mark.parametrize("classes", [("building",), LAND])
@pytest.mark.parametrize("bands", [("grey",), ("red", "green", "blue"), ("nir", "blue", "green", "red")])
def test_a_picture_is_drawn_of_any_bands_and_classes(
    tmp_path: Path, classes: tuple[str, ...], bands: tuple[str, ...]
) -> None:
    image = np.zeros((len(bands), 12, 9), np.uint8)
    truth = np.zeros((12, 9), np.uint8)
    truth[4:], truth[:2] = 1, IGNORED
    samples = [Example("a", image, truth, truth * 0), Example("", image, truth * 0, truth * 0)]
    path = draw_predictions(samples, tmp_path / "p.png", classes=classes, target="building", bands=bands, title="t")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_red_green_and_blue_are_found_by_name(tmp_path: Path) -> None:
    from PIL import Image

    image = np.zeros((4, 10, 10), np.uint8)
    image[3] = 250  # red, behind near infrared, blue and green
    truth = np.zeros((10, 10), np.uint8)
    bands = ("nir", "blue", "green", "red")
    sample = Example("", image, truth, truth)
    path = draw_predictions([sample], tmp_path / "p.png", classes=("building",), bands=bands)
    with Image.open(path) as picture:
        shown = {colour for _, colour in picture.convert("RGB").getcolors(1_000_000) or []}
    assert (250, 0, 0) in shown
