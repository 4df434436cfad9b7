"""A small world to train in: bright squares on dark ground, 0.5 m, with truth as raster and as polygons."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.networks import register_network
from geoseg.networks.registry import NETWORKS
from geoseg.training import train_recipe

CRS = "EPSG:32631"

RECIPE = """
name = "squares"
gsd_m = 0.5
chip_px = 96
halo_px = 16

[network]
name = "unet"
encoder = "mobilenet_v2"
mean = [0.4, 0.45, 0.5]
std = [0.2, 0.25, 0.3]
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


@pytest.fixture(scope="module", autouse=True)
def cheap_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Write empty pictures, which else take most of a short training, but in modules that say `DRAWS = True`."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWS", False):
            patch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).write_bytes(b""))
        yield


class Scripted(nn.Module):
    """A network whose every step is known beforehand, on any machine.

    After n training steps its logits are `gains[n] * (brightness - cuts[n])` of an image's mean over the bands (the
    last entries hold for all further steps), plus `pull` times what two convolutions say, which learn. `step` counts
    the steps, as a whole number that an average copies; `trace` counts them as a number that an average averages.
    `signs` are factors of the channels: by default -1 of the first of several, else 1.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        cuts: Sequence[float] = (0.5,),
        gains: Sequence[float] = (40.0,),
        pull: float = 1e-4,
        encoder_depth: int = 3,
        signs: Sequence[float] | None = None,
    ) -> None:
        """Make a network without any training."""
        super().__init__()
        self.stride_px, self.pull = 2**encoder_depth, pull
        self.encoder, self.head = nn.Conv2d(bands, 2, 1), nn.Conv2d(2, classes, 1)
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("trace", torch.tensor(0.0))
        signs = signs or ([1.0] if classes == 1 else [-1.0, *[1.0] * (classes - 1)])
        for name, values in (("cuts", cuts), ("gains", gains), ("signs", signs)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Give logits of the class that is looked for, and of several channels their opposites for the others."""
        cut, gain = (v.index_select(0, self.step.clamp(max=len(v) - 1).view(1)) for v in (self.cuts, self.gains))
        logits = gain * (image.mean(dim=1, keepdim=True) - cut)
        if self.training:
            self.step += 1
            self.trace += 1
        return logits * self.signs[:, None, None] + self.pull * self.head(self.encoder(image))


@pytest.fixture(scope="module")
def scripted() -> Iterator[None]:
    """Let recipes and bundles name the network `scripted`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geoseg.networks.registry.NETWORKS", dict(NETWORKS))
        register_network("scripted")(Scripted)
        yield


SCRIPT = """
name = "play"
gsd_m = 0.5
chip_px = 64
halo_px = 0
network = { name = "scripted", mean = [0, 0, 0], std = [1, 1, 1] }
loss = { bce = 1.0 }
fit = { batch = 2, crop_px = 64, window_px = 64, steps = 1, validate_every = 1, precision = "32-true" }

[[sources]]
name = "streets"
images = "images/*.tif"
labels = "labels"
validate_scenes = ["b"]
"""


def street(size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint one wide building over dark ground, brighter from west to east; return image and truth as `squares`."""
    rows, cols = np.indices((size, size))
    truth = (rows < size // 2).astype(np.uint8)
    image = np.where(truth == 1, 130 + 120 * cols // size, 60 * cols // size)
    return np.stack([image] * 3).astype(np.uint8), truth


@pytest.fixture
def write_script(tmp_path: Path, scripted: None) -> Callable[..., Path]:
    """Write the recipe of the scripted network, with text replaced."""
    return lambda *changes: _write_changed(tmp_path / "play.toml", SCRIPT, changes)


@pytest.fixture
def play(tmp_path: Path, write_script: Callable[..., Path]) -> Callable[..., Path]:
    """Train the scripted network on two small scenes, one to validate on; return the folder of the results."""
    recipe = write_script()
    for name in "ab":
        image, truth = street()
        write_tif(tmp_path / "data" / "images" / f"{name}.tif", image)
        write_tif(tmp_path / "data" / "labels" / f"{name}.tif", truth[None], nodata=255)

    def train(out: str = "out", *, data: Path = tmp_path / "data", **changes: Any) -> Path:
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        return train_recipe(recipe, data=data, out=tmp_path / out, overrides=overrides).parent

    return train


def write_tif(
    path: Path, values: NDArray[Any], *, nodata: int | None = None, gsd_m: float = 0.5, east_m: float = 0
) -> Path:
    """Write (band, y, x) pixels as a GeoTIFF whose corner is (500 km, 1000 km), or east of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(gsd_m, 0, 500_000 + east_m, 0, -gsd_m, 1_000_000)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
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
    return SimpleNamespace(
        box_of=box_of, squares=squares, street=street, write_polygons=write_polygons, write_tif=write_tif
    )


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A data folder of three scenes side by side, `a`, `b`, `c`, with label rasters of the same names."""
    for seed, name in enumerate("abc"):
        image, truth = squares(seed)
        write_tif(tmp_path / "data" / "images" / f"{name}.tif", image, east_m=100 * seed)
        write_tif(tmp_path / "data" / "labels" / f"{name}.tif", truth[None], nodata=255, east_m=100 * seed)
    return tmp_path / "data"


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write the small recipe, with text replaced."""
    return lambda *changes: _write_changed(tmp_path / "recipe.toml", RECIPE, changes)


def _write_changed(path: Path, text: str, changes: Sequence[tuple[str, str]]) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def box_of(rows: slice, cols: slice) -> shapely.Polygon:
    """Return the polygon over whole pixels of 0.5 m."""
    left, right = (500_000 + 0.5 * col for col in (cols.start, cols.stop))
    top, bottom = (1_000_000 - 0.5 * row for row in (rows.start, rows.stop))
    return shapely.box(left, bottom, right, top)


def write_polygons(path: Path, shapes: list[shapely.Polygon], **columns: list[str]) -> Path:
    """Write polygons given in `CRS` as GeoJSON, in degrees."""
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=CRS).to_crs(4326).to_file(path)
    return path
