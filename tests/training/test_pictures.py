"""Pictures: which chips are shown, which color means what, and what curves there are."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.training.folder import write_row
from geoseg.training.pictures import Example, collect_examples, draw_curves, draw_predictions

DRAWS = True
WHITE, BLACK, GRAY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
MISSED, FALSE = (0x5D, 0x9B, 0xFF), (0xE6, 0x61, 0x00)
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


Pixels = NDArray[np.uint8]


def read_picture(path: Path) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def draw_plain(path: Path, cases: list[tuple[int, int]], **look: Any) -> list[tuple[tuple[int, ...], ...]]:
    """Draw samples of one truth and one prediction each; return what the columns are filled with, truth, found, wrong.

    Every sample's image has a color of its own, by which its row is found in the picture.
    """
    plain = np.ones((16, 16), np.uint8)
    tints = [(200, 40, 10 * n) for n in range(len(cases))]
    images = [np.reshape(np.uint8(tint), (3, 1, 1)) * plain for tint in tints]
    samples = [
        Example("", image, truth * plain, found * plain) for image, (truth, found) in zip(images, cases, strict=True)
    ]
    pixels = read_picture(draw_predictions(samples, path, **look))
    width = pixels.shape[1]
    filled = []
    for tint in tints:
        rows = np.flatnonzero((pixels[:, width // 8] == tint).all(axis=-1))
        boxes = [pixels[rows[0] : rows[-1], (2 * n + 1) * width // 8 - 10 :][:, :20].reshape(-1, 3) for n in (1, 2, 3)]
        filled.append(tuple(Counter(map(tuple, box.tolist())).most_common(1)[0][0] for box in boxes))
    return filled


@pytest.mark.parametrize(
    ("classes", "target", "value"),
    [(("building",), "building", 1), (("background", "building"), "building", 1), (("roof", "rest"), "roof", 0)],
)
def test_buildings_are_white_on_black_and_errors_have_their_own_colors(
    tmp_path: Path, classes: tuple[str, ...], target: str, value: int
) -> None:
    other = 1 - value
    cases = [(value, value), (value, other), (other, value), (other, other), (IGNORED, value), (UNSURE, other)]
    drawn = draw_plain(tmp_path / "p.png", cases, classes=classes, target=target)
    assert [truth for truth, _, _ in drawn] == [WHITE, WHITE, BLACK, BLACK, GRAY, GRAY]
    assert [found for _, found, _ in drawn] == [WHITE, BLACK, WHITE, BLACK, WHITE, BLACK]
    right, missed, false, nothing, *unknown = (wrong for _, _, wrong in drawn)
    assert (right, nothing, unknown) == (WHITE, BLACK, [GRAY, GRAY])
    assert (missed, false) == (MISSED, FALSE)


def test_several_classes_have_the_colors_that_are_given_and_different_others(tmp_path: Path) -> None:
    cases = [(2, 2), (0, 1), (1, 1), (IGNORED, 0)]
    drawn = draw_plain(tmp_path / "p.png", cases, classes=LAND, colors={"water": "#0102FF"}, target="building")
    truth, found, wrong = zip(*drawn, strict=True)
    assert (truth[0], truth[3]) == ((1, 2, 255), GRAY)
    assert len(set(truth)) == 4
    assert found == (truth[0], truth[2], truth[2], truth[1])
    assert wrong[0] == wrong[2] != wrong[1]
    assert wrong[3] == GRAY


def test_pixels_of_other_types_are_stretched_and_gaps_stay_black(tmp_path: Path) -> None:
    image = np.tile(np.linspace(100, 4000, 64, dtype=np.float32), (3, 64, 1))
    image[:, :8] = [[[np.nan]], [[4000]], [[4000]]]
    truth = np.zeros((64, 64), np.uint8)
    pixels = read_picture(draw_predictions([Example("", image, truth, truth)], tmp_path / "p.png", classes=("b",)))
    left = pixels[:, : pixels.shape[1] // 4].reshape(-1, 3)
    assert (left == (0, 255, 255)).all(axis=1).sum() > 1000
    grays = np.bincount(left[(left == left[:, :1]).all(axis=1), 0])
    assert (grays > 100).sum() > 50


def test_a_run_draws_its_curves_and_what_it_finds(play: Callable[..., Path]) -> None:
    out = play(network__options__cuts=[0.7], network__options__pull=0.0, fit__steps=2)
    shown = read_picture(out / "predictions.png")
    missed, false = (int((shown == color).all(axis=-1).sum()) for color in (MISSED, FALSE))
    assert missed > 10_000
    assert false < 1000  # in the legend alone
    assert min(read_picture(out / "curves.png").shape[:2]) > 300


@pytest.mark.parametrize("classes", [("building",), LAND])
@pytest.mark.parametrize("bands", [("gray",), ("red", "green", "blue"), ("nir", "blue", "green", "red")])
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
    image = np.zeros((4, 10, 10), np.uint8)
    image[3] = 250  # red, behind near infrared, blue and green
    truth = np.zeros((10, 10), np.uint8)
    bands = ("nir", "blue", "green", "red")
    sample = Example("", image, truth, truth)
    path = draw_predictions([sample], tmp_path / "p.png", classes=("building",), bands=bands)
    assert (read_picture(path) == (250, 0, 0)).all(axis=-1).sum() > 1000


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "history.csv"


@pytest.mark.parametrize(
    "row",
    [
        {"step": 1, "loss": 1.0, "iou_a": 0.5},
        {
            "step": 1,
            "train_loss": 1.0,
            "validation_loss": 1.1,
            "iou": 0.5,
            "train_bce": 0.5,
            "validation_bce": 0.6,
            "iou_a": math.nan,
            "dice": 0.3,
            "learning_rate": 0.0,
        },
        {"step": 1, **{f"iou_class {n}": n / 9 for n in range(9)}},
        {"step": 1},
    ],
)
def test_curves_are_drawn_of_any_columns(tmp_path: Path, table: Path, row: dict[str, float]) -> None:
    for step in (1, 2):
        write_row(table, {**row, "step": step})
    assert draw_curves(table, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "history.csv"]


@pytest.fixture
def panels(table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, list[float]]]]:
    """Draw columns that hold their number and twice it; return the panels of the figure: title, labels, heights."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: [figures.append(self), Path(path).touch()])

    def draw(*names: str) -> dict[str, dict[str, list[float]]]:
        for factor in (1, 2):
            write_row(table, {"step": 100 * factor, **{name: factor * n / 32 for n, name in enumerate(names)}})
        draw_curves(table, table.with_suffix(".png"))
        axes = [axis for axis in figures.pop().axes if axis.axison]
        assert all(list(line.get_xdata()) == [100, 200] for axis in axes for line in axis.lines)
        return {
            axis.get_title(): {str(line.get_label()): list(line.get_ydata()) for line in axis.lines} for axis in axes
        }

    return draw


def test_training_and_validation_of_a_term_share_a_panel(panels: Callable[..., Any]) -> None:
    names = ("learning_rate", "train_loss", "train_dice", "validation_loss", "validation_dice", "iou_a", "dice")
    drawn = panels(*names, "minutes", "progress")
    assert list(drawn) == ["loss", "loss: dice", "IoU", "scores", "learning rate"]
    assert drawn["loss"] == {"training": [1 / 32, 2 / 32], "validation": [3 / 32, 6 / 32]}
    assert drawn["loss: dice"] == {"training": [2 / 32, 4 / 32], "validation": [4 / 32, 8 / 32]}
    assert drawn["IoU"] == {"a": [5 / 32, 10 / 32]}
    assert drawn["scores"] == {"dice": [6 / 32, 12 / 32]}
    assert drawn["learning rate"] == {"learning rate": [0, 0]}


def test_the_mean_over_classes_is_an_iou_where_several_classes_are_scored(panels: Callable[..., Any]) -> None:
    assert list(panels("iou_land", "iou_water", "mean_iou")["IoU"]) == ["land", "water", "mean of classes"]
    drawn = panels("iou", "iou_accra", "mean_iou")
    assert (list(drawn["IoU"]), list(drawn["scores"])) == (["mean", "accra"], ["mean of classes"])
