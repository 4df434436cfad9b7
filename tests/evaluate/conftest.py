"""Small scenes with labels, and models without a network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.engines import ClassSegmenter, IdentitySegmenter
from geoseg.inference import EngineRecipe
from geoseg.scene import close_readers
from geoseg.third_party import allow_no_georeference

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
CRS = "EPSG:32630"
SPEC = ModelSpec(
    name="fake", network="unet", bands=("gray",), gsd_m=0.3, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
)
LAND = ("land", "building", "road", "unlabelled")

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _closed_readers() -> Iterator[None]:
    yield
    close_readers()


@pytest.fixture
def write() -> Write:
    """Write one band or three: a GeoTIFF, or without a CRS a PNG."""

    def written(
        path: Path, pixels: np.ndarray, *, place: Affine = PLACE, crs: str | None = CRS, nodata: float | None = None
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = pixels if pixels.ndim == 3 else pixels[None]
        profile = {"driver": "GTiff", "crs": crs, "transform": place} if crs else {"driver": "PNG"}
        shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
        with allow_no_georeference(), rasterio.open(path, "w", dtype="uint8", nodata=nodata, **shape, **profile) as dst:
            dst.write(bands.astype("uint8"))
        return path

    return written


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose probability is the pixel's value by 254, and whose threshold is one half."""
    import torch

    monkeypatch.setattr(EngineRecipe, "open", lambda self: IdentitySegmenter())
    return save_bundle(tmp_path / "fake.safetensors", SPEC, {"unused": torch.zeros(1)})


@pytest.fixture
def land_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of four classes: equal steps of the pixel's value."""
    from dataclasses import replace

    import torch

    monkeypatch.setattr(EngineRecipe, "open", lambda self: ClassSegmenter(4))
    spec = replace(SPEC, name="land", classes=LAND, target="building")
    return save_bundle(tmp_path / "land.safetensors", spec, {"unused": torch.zeros(1)})


def blobs(height: int, width: int, seed: int = 5) -> np.ndarray:
    """Return `(y, x)` uint8 from 1 to 254: random squares of 6 px, bright ones are buildings."""
    coarse = np.random.default_rng(seed).integers(1, 255, (height // 6 + 2, width // 6 + 2))
    return np.kron(coarse, np.ones((6, 6)))[1 : height + 1, 2 : width + 2].astype(np.uint8)


@pytest.fixture
def painted(tmp_path: Path, write: Write) -> tuple[Path, np.ndarray]:
    """A scene with bright buildings and its pixels; the value 0 is nodata."""
    pixels = blobs(150, 170)
    pixels[100:, 120:] = 0
    return write(tmp_path / "scene.tif", pixels, nodata=0), pixels
