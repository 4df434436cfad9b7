"""preview.png: the image and what was found in it, side by side."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ClassSegmenter, ThresholdSegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import Plan
from geoseg.run import RunSettings, run_plan
from geoseg.run.results import NODATA_GRAY, PREVIEW_PX, preview_shape
from geoseg.scene import open_scene

SPEC = ModelSpec("fake", "none", ("red", "green", "blue"), 0.3, (0.0,) * 3, (1.0,) * 3)
TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def write_scene(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """Write `(band, y, x)` pixels."""
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "crs": "EPSG:32630", "transform": TRANSFORM} | profile
    with rasterio.open(path, "w", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], **profile) as dst:
        dst.write(pixels)
    return path


def preview(scene: Path, out: Path, *, spec: ModelSpec = SPEC, engine: object = None) -> np.ndarray:
    """Run and return the picture as `(y, x, color)`."""
    opened = open_scene(scene)
    lattice = fit_lattice(opened.grid.shape, chip_px=512, halo_px=0)
    plan = Plan(opened, lattice, engine or ThresholdSegmenter(), spec.target_index, classes=spec.classes)
    run_plan(plan, Bundle(spec, Path("none"), "0"), RunSettings(out=out, picture=True), quiet=True)
    assert not (out / "preview.png.aux.xml").exists()
    with Image.open(out / "preview.png") as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def test_image_stands_beside_the_prediction_with_buildings_in_white(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (3, 40, 60), "uint8")
    pixels[:, :10, :10] = 0
    found = preview(write_scene(tmp_path / "scene.tif", pixels, nodata=0), tmp_path / "out")
    image, prediction = found[:, :60], found[:, -60:]
    valid = ~(pixels == 0).all(axis=0)
    np.testing.assert_array_equal(image, np.where(valid[..., None], pixels.transpose(1, 2, 0), NODATA_GRAY))
    expected = np.where(valid, np.where(pixels[0] >= 128, 255, 0), NODATA_GRAY)
    np.testing.assert_array_equal(prediction, np.repeat(expected[..., None], 3, axis=2))


def test_classes_have_their_colors(tmp_path: Path) -> None:
    spec = ModelSpec("f", "none", ("gray",), 0.3, (0.0,), (1.0,), classes=("land", "building", "water"))
    pixels = np.tile(np.arange(250, dtype=np.uint8), (30, 1))[None]
    found = preview(write_scene(tmp_path / "scene.tif", pixels), tmp_path / "out", spec=spec, engine=ClassSegmenter(3))
    np.testing.assert_array_equal(found[:, :250], np.repeat(pixels[0, ..., None], 3, axis=2))
    for col, color in ((10, spec.class_colors[0]), (120, spec.class_colors[1]), (240, spec.class_colors[2])):
        assert tuple(found[15, col - 250]) == tuple(bytes.fromhex(color[1:]))


def test_16_bit_pixels_are_shown_in_8(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(3000, 9000, (3, 40, 60)).astype("uint16")
    found = preview(write_scene(tmp_path / "scene.tif", pixels), tmp_path / "out")
    assert found[:, :60].min() == 0
    assert found[:, :60].max() == 255


@pytest.mark.parametrize(
    ("shape", "small"),
    [((40, 60), (40, 60)), ((1024, 1024), (1024, 1024)), ((4096, 2048), (1024, 512)), ((9_000_000, 3), (1024, 1))],
)
def test_a_panel_is_at_most_1024_pixels_high_and_wide(shape: tuple[int, int], small: tuple[int, int]) -> None:
    assert preview_shape(shape) == small


def test_a_large_scene_is_shown_small_and_in_place(tmp_path: Path) -> None:
    pixels = np.zeros((3, 1500, 2500), np.uint8)
    pixels[:, 300:600, 500:1500] = 200
    found = preview(write_scene(tmp_path / "scene.tif", pixels), tmp_path / "out")
    assert found.shape[0] == round(1500 * PREVIEW_PX / 2500)
    for panel, value in ((found[:, :PREVIEW_PX, 0], 200), (found[:, -PREVIEW_PX:, 0], 255)):
        rows, cols = np.nonzero(panel == value)
        scale = PREVIEW_PX / 2500
        corners = [rows.min(), rows.max() + 1, cols.min(), cols.max() + 1]
        assert corners == pytest.approx([300 * scale, 600 * scale, 500 * scale, 1500 * scale], abs=1.5)
