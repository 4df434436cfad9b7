"""A small world to train in: bright squares on dark ground, 0.5 m, with truth as raster and as polygons."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

CRS = "EPSG:32631"

RECIPE = """
name = "squares"
gsd_m = 0.5
chip_px = 96
halo_px = 16

[network]
name = "unet"
encoder = "mobilenet_v2"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
options = { encoder_depth = 3, decoder_channels = [32, 16, 8] }

[loss]
bce = 1.0
dice = 1.0

[[sources]]
name = "squares"
images = "images/*.tif"
labels = "labels"
validate_scenes = ["c"]

[[augment]]
step = "dihedral"

[fit]
batch = 4
crop_px = 64
window_px = 80
steps = 8
validate_every = 4
learning_rate = 5e-3
average_decay = 0.5
precision = "32-true"
seed = 3
"""


def write_tif(path: Path, values: NDArray[np.uint8], *, nodata: int | None = None, gsd_m: float = 0.5) -> Path:
    """Write (band, y, x) pixels as a GeoTIFF whose corner is (500 km, 1000 km)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(gsd_m, 0, 500_000, 0, -gsd_m, 1_000_000)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=CRS, transform=transform, nodata=nodata, **profile) as file:
        file.write(values)
    return path


def squares(seed: int, size: int = 160) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint bright squares; return the image (3, y, x) and the truth (y, x)."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((size, size), np.uint8)
    for row, col in rng.integers(0, size - 24, (14, 2)):
        truth[row : row + 20, col : col + 20] = 1
    image = rng.integers(20, 60, (3, size, size)) + 160 * truth
    return image.astype(np.uint8), truth


@pytest.fixture
def kit(module_kit: SimpleNamespace) -> SimpleNamespace:
    """The functions of this file, for tests that build a world of their own."""
    return module_kit


@pytest.fixture(scope="session")
def module_kit() -> SimpleNamespace:
    """The same for fixtures that live longer than a test."""
    return SimpleNamespace(box_of=box_of, squares=squares, write_polygons=write_polygons, write_tif=write_tif)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A data folder of three scenes, `a`, `b`, `c`, with label rasters of the same names."""
    for seed, name in enumerate("abc"):
        image, truth = squares(seed)
        write_tif(tmp_path / "data" / "images" / f"{name}.tif", image)
        write_tif(tmp_path / "data" / "labels" / f"{name}.tif", truth[None], nodata=255)
    return tmp_path / "data"


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write the small recipe, with text replaced."""

    def write(*changes: tuple[str, str]) -> Path:
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def box_of(rows: slice, cols: slice) -> shapely.Polygon:
    """Return the polygon over whole pixels of 0.5 m."""
    left, right = (500_000 + 0.5 * col for col in (cols.start, cols.stop))
    top, bottom = (1_000_000 - 0.5 * row for row in (rows.start, rows.stop))
    return shapely.box(left, bottom, right, top)


def write_polygons(path: Path, shapes: list[shapely.Polygon], **columns: list[str]) -> Path:
    """Write polygons given in `CRS` as GeoJSON, in degrees."""
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=CRS).to_crs(4326).to_file(path)
    return path
