"""Pictures of a score show what was right and wrong, in its place and no larger than a screen."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.evaluate import Confusion, Levels
from geoseg.evaluate.pictures import (
    FALSE_ALARM,
    LONGEST_PX,
    MISS,
    draw_confusion,
    draw_curve,
    draw_reliability,
    draw_scene,
    scored_window,
)
from geoseg.evaluate.prediction import Prediction
from geoseg.evaluate.rasters import Scratch
from geoseg.evaluate.scores import Stack
from geoseg.grid import Grid, Window
from geoseg.scene import Scene, open_scene
from geoseg.third_party import allow_no_georeference

PICTURE = Affine.scale(1, -1)


def read(path: Path) -> np.ndarray:
    """Return `(y, x, 3)`."""
    with allow_no_georeference(), rasterio.open(path) as src:
        return src.read([1, 2, 3]).transpose(1, 2, 0)


def stack_of(
    predicted: np.ndarray,
    truth: np.ndarray,
    classes: tuple[str, ...] = ("background", "building"),
    image: Scene | None = None,
) -> Stack:
    grid, pixels = Grid(None, PICTURE, predicted.shape), Scratch(predicted.astype(np.uint8))
    prediction = Prediction(grid=grid, native=grid, classes=classes, target=1, predicted=pixels, image=image)
    return Stack("scene", prediction, Scratch(truth.astype(np.uint8)))


def color_count(pixels: np.ndarray, color: tuple[int, ...]) -> int:
    return int((pixels == color).all(axis=2).sum())


def test_errors_have_their_colors_and_the_legend_names_them(tmp_path: Path) -> None:
    predicted, truth = np.zeros((300, 300)), np.zeros((300, 300))
    predicted[50:100, 50:100] = truth[50:100, 75:125] = 1
    drawn = read(draw_scene(tmp_path / "p.png", stack_of(predicted, truth), Window(0, 0, 300, 300)))
    alarms, misses = color_count(drawn, FALSE_ALARM), color_count(drawn, MISS)
    assert alarms == pytest.approx(50 * 25, rel=0.2)  # and a patch in the legend
    assert misses == pytest.approx(50 * 25, rel=0.2)


@pytest.mark.parametrize("shape", [(1300, 1300), (60, 4500), (4500, 60)])
def test_a_large_scene_fits_a_screen(tmp_path: Path, shape: tuple[int, int]) -> None:
    stack = stack_of(np.zeros(shape, np.uint8), np.ones(shape, np.uint8))
    drawn = read(draw_scene(tmp_path / "p.png", stack, Window(0, 0, *shape)))
    assert max(drawn.shape) <= LONGEST_PX
    assert color_count(drawn, MISS) > 1000


def test_the_image_lies_under_the_same_window_as_the_masks(tmp_path: Path) -> None:
    values = np.zeros((3, 600, 800), np.uint8)
    values[1, 310:330, 410:430] = 255  # green, where the building is
    path = tmp_path / "scene.png"
    with (
        allow_no_georeference(),
        rasterio.open(path, "w", driver="PNG", dtype="uint8", count=3, height=600, width=800) as dst,
    ):
        dst.write(values)
    stack = stack_of(values[1] > 0, values[1] > 0, image=open_scene(path))
    with_image = read(draw_scene(tmp_path / "p.png", stack, Window(300, 400, 256, 256)))
    assert with_image.shape[0] > 2 * 256
    rows, cols = np.nonzero((with_image == (0, 255, 0)).all(axis=2))
    assert len(rows) == pytest.approx(400, rel=0.1)
    assert (rows.min() - 28, cols.min() - 4) == pytest.approx((10, 10), abs=2)


def test_a_scene_of_another_extent_is_not_drawn_under_the_masks(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    with (
        allow_no_georeference(),
        rasterio.open(path, "w", driver="PNG", dtype="uint8", count=3, height=90, width=90) as dst,
    ):
        dst.write(np.full((3, 90, 90), 77, np.uint8))
    stack = stack_of(np.zeros((256, 256)), np.ones((256, 256)), image=open_scene(path))
    drawn = read(draw_scene(tmp_path / "p.png", stack, Window(0, 0, 256, 256)))
    assert color_count(drawn, (77, 77, 77)) < 50


def test_the_picture_shows_the_scored_pixels_alone() -> None:
    truth = np.full((300, 400), 255)
    truth[20:50, 70:170] = 1
    assert scored_window(stack_of(np.ones((300, 400)), truth)) == Window(20, 70, 30, 100)


def test_several_classes_have_their_colors_and_errors_one(tmp_path: Path) -> None:
    predicted = np.repeat(np.arange(3), 100)[None] + np.zeros((300, 1), int)
    stack = stack_of(predicted, np.zeros((300, 300)), ("land", "building", "road"))
    colors = ["#102030", "#405060", "#708090"]
    drawn = read(draw_scene(tmp_path / "p.png", stack, Window(0, 0, 300, 300), colors=colors))
    assert color_count(drawn, (0x10, 0x20, 0x30)) == pytest.approx(300 * 400, rel=0.05)
    assert color_count(drawn, (0x70, 0x80, 0x90)) == pytest.approx(300 * 100, rel=0.05)
    assert color_count(drawn, FALSE_ALARM) == pytest.approx(300 * 200, rel=0.05)


def test_diagrams_are_drawn(tmp_path: Path) -> None:
    counts = np.zeros((2, 255), np.int64)
    counts[0, 10], counts[1, 240] = 100, 50
    levels = Levels(counts)
    confusion = Confusion(np.array([[5, 1, 0], [0, 7, 0], [0, 0, 0]]), ("land", "building", "road"))
    paths = [
        draw_reliability(tmp_path / "r.png", levels, "building"),
        draw_confusion(tmp_path / "c.png", confusion),
        draw_curve(tmp_path / "t.png", levels.curve(), 0.5),
    ]
    assert all(read(path).std() > 10 for path in paths)
