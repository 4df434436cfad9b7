"""A model whose results are known, a scene for it, and the command line called in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.cli import main
from geoseg.engines import ONNX_CACHE_ENV

GSD_M = 0.5
ROOFS = {  # rows, columns and brightness of the first band
    "one pixel": (slice(3, 4), slice(5, 6), 255),
    "a shed": (slice(10, 13), slice(8, 12), 255),
    "a house": (slice(20, 40), slice(10, 40), 255),
    "a dim house": (slice(20, 40), slice(60, 80), 150),
    "a house elsewhere": (slice(50, 60), slice(70, 90), 255),
}


def paint(names: tuple[str, ...] = tuple(ROOFS)) -> np.ndarray:
    """Roofs on black ground, (y, x)."""
    pixels = np.zeros((64, 96), "uint8")
    for name in names:
        rows, columns, brightness = ROOFS[name]
        pixels[rows, columns] = brightness
    return pixels


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exported networks are kept for these tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A model of 0.5 m that calls a pixel a building where its first band is bright: 255 for sure, 150 by 0.85."""
    import torch

    from geoseg.bundle import ModelSpec, load_bundle, save_bundle
    from geoseg.engines.onnx import onnx_path

    options = {"depth": 0, "filters": 1, "convolutions": 1, "norm": False}
    kernel = torch.zeros(1, 3, 3, 3)
    kernel[0, 0, 1, 1] = 1
    weights = {
        "down.0.0.weight": kernel,
        "down.0.0.bias": torch.zeros(1),
        "head.weight": torch.full((1, 1, 1, 1), 20.0),
        "head.bias": torch.tensor([-10.0]),
    }
    spec = ModelSpec(
        name="bright",
        network="unet-plain",
        network_options=options,
        bands=("red", "green", "blue"),
        gsd_m=GSD_M,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        chip_px=32,
        halo_px=1,
        stride_px=1,
    )
    path = save_bundle(tmp_path_factory.mktemp("bright") / "bright.safetensors", spec, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ONNX_CACHE_ENV, str(cache))
        onnx_path(load_bundle(path))  # once, not in every process
    return path


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roofs in the third band, their mirror image in the first, 64 x 96 pixels of 0.5 m."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    pixels = np.stack([paint()[:, ::-1], np.full((64, 96), 9, "uint8"), paint()])
    grid = {"crs": "EPSG:32630", "transform": Affine(GSD_M, 0, 500_000, 0, -GSD_M, 600_000)}
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=3, height=64, width=96, **grid) as dst:
        dst.write(pixels)
    return path


@pytest.fixture(autouse=True)
def _own_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the command line to one thread and to the tests' own cache."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv(ONNX_CACHE_ENV, str(cache))


Outcome = tuple[int, list[str], str]


@pytest.fixture
def geoseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the whole command line in this process; gives exit code, lines of stdout, stderr."""

    def run(*args: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out.splitlines(), err

    return run
