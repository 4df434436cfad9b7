"""The five published systems: each recipe trains on its own folder layout, and its network runs on a scene."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from geoseg.bundle import load_bundle
from geoseg.errors import RecipeError
from geoseg.run import RunSettings, run_scene
from geoseg.third_party import allow_no_georeference
from geoseg.training import load_recipe, train_recipe
from geoseg.training.folder import read_history
from geoseg.training.library import list_recipes

SMALL = {
    "network.encoder_weights": "",
    "fit.batch": 2,
    "fit.crop_px": 64,
    "fit.window_px": 64,
    "fit.steps": 2,
    "fit.epochs": 0,
    "fit.validate_every": 1,
    "fit.precision": "32-true",
    "chip_px": 64,
    "halo_px": 8,
}
SMALL_ENCODER = {"network.encoder": "resnet18"}
SMALL_PLAIN = {"network.options.filters": 4, "network.options.depth": 2}

Paint = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def write_picture(path: Path, values: NDArray[np.uint8]) -> None:
    """Write (band, y, x) or (y, x) pixels without georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = values if values.ndim == 3 else values[None]
    drivers = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
    size = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2]}
    with allow_no_georeference(), rasterio.open(path, "w", driver=drivers[path.suffix], dtype="uint8", **size) as file:
        file.write(values)


def split_folders(root: Path, paint: Paint) -> None:
    for n, part in enumerate(("train", "train", "val", "test")):
        image, truth = paint(n)
        write_picture(root / "tiff" / part / f"{n}.tif", image)
        write_picture(root / "tiff" / f"{part}_labels" / f"{n}.tif", 255 * truth)


def suffix(root: Path, paint: Paint) -> None:
    for n in range(20):
        image, truth = paint(n)
        write_picture(root / "images" / "images" / f"roof{n}{('.tif', '.jpg', '.png')[n % 3]}", image)
        write_picture(root / "label" / "label" / f"roof{n}_label.tif", 255 * truth)


def paired(root: Path, paint: Paint) -> None:
    for n in range(4):
        image, truth = paint(n)
        write_picture(root / "images" / f"{n}.png", image)
        write_picture(root / "masks" / f"{n}.png", 255 * truth)


def numbered(root: Path, paint: Paint) -> None:
    for n in range(10):
        image, truth = paint(n)
        write_picture(root / "train" / "images" / f"img_{n}.tif", image)
        write_picture(root / "train" / "masks" / f"mask_{n}.tif", 255 * truth)
    write_picture(root / "test" / "test_image_0.tif", paint(99)[0])


COLORS = np.array([[60, 16, 152], [132, 41, 246], [110, 193, 228], [254, 221, 58], [226, 169, 41], [0, 0, 0]], np.uint8)


def areas(root: Path, paint: Paint) -> None:
    for n in range(16):
        image, truth = paint(n)
        bands = np.arange(truth.size).reshape(truth.shape) % 6
        colors = COLORS[np.where(truth == 1, 0, bands)].transpose(2, 0, 1)
        folder = root / "dubai" / f"Tile {n // 2 + 1}"
        write_picture(folder / "images" / f"part_{n}.jpg", image)
        write_picture(folder / "masks" / f"part_{n}.png", colors)


SYSTEMS = {
    "massachusetts-unet": (split_folders, SMALL_ENCODER),
    "rooftop-deeplab": (suffix, SMALL_ENCODER),
    "cross-building-unet": (paired, {**SMALL_ENCODER, "network.options.decoder_channels": [32, 16, 16, 8]}),
    "satellite-unet": (numbered, SMALL_PLAIN),
    "landcover-unet": (areas, SMALL_PLAIN),
}


@pytest.fixture
def paint(kit: SimpleNamespace) -> Paint:
    return lambda seed: kit.squares(seed, 96)


QUICK = ("satellite-unet", "landcover-unet")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SYSTEMS])
def test_a_published_system_trains_on_its_own_layout_and_runs_on_a_scene(
    name: str, tmp_path: Path, paint: Paint, kit: SimpleNamespace
) -> None:
    write, changes = SYSTEMS[name]
    write(tmp_path / "data", paint)
    bundle = train_recipe(name, data=tmp_path / "data", out=tmp_path / "out", overrides={**SMALL, **changes})
    spec = load_bundle(bundle).spec
    history = read_history(tmp_path / "out" / "history.csv")
    assert len(history["step"]) == 2
    losses = list(load_recipe(list_recipes()[name]).loss)
    assert all(f"{part}_{loss}" in history for part in ("train", "validation") for loss in losses)
    scene = kit.write_tif(tmp_path / "scene.tif", paint(7)[0], gsd_m=spec.gsd_m)
    result = run_scene([scene], RunSettings(model=str(bundle), out=tmp_path / "run"), quiet=True)
    written = {Path(path).name for path in result.paths}
    assert {"probability.tif", "mask.tif", "buildings.gpkg"} <= written
    assert ("classes.tif" in written) == (len(spec.classes) > 2)


def test_every_recipe_that_comes_with_geoseg_is_valid() -> None:
    alone = {name: path for name, path in list_recipes().items() if not name.startswith(("data-", "short-"))}
    assert set(SYSTEMS) < set(alone)
    for path in alone.values():
        assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("over", [name for name in list_recipes() if name.startswith(("data-", "short-"))])
def test_data_and_settings_fit_over_a_recipe_and_are_none_alone(over: str) -> None:
    path = list_recipes()[over]
    assert load_recipe(list_recipes()["massachusetts-unet"], over=[path]).name == "massachusetts-unet"
    with pytest.raises(RecipeError, match="given as `over`"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["massachusetts-unet", "rooftop-deeplab", "cross-building-unet", "satellite-unet"])
@pytest.mark.parametrize("loss", ["bce", "dice", "jaccard", "focal", "tversky", "lovasz"])
def test_any_network_takes_any_loss(name: str, loss: str) -> None:
    classes = len(load_recipe(list_recipes()[name]).network.classes)
    loss = "ce" if loss == "bce" and classes > 1 else loss
    old = load_recipe(list_recipes()[name]).loss
    recipe = load_recipe(list_recipes()[name], {**{f"loss.{k}": 0 for k in old}, f"loss.{loss}": 1.0})
    assert recipe.loss[loss] == 1.0
