"""What the tests of jobs share: commands of this checkout, a scene of many blocks, and what a plain run makes of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from geopandas.testing import assert_geodataframe_equal

RASTERS = ("probability.tif", "mask.tif")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, str]:
    """An environment in which `geoseg`, `dask` and `python` are this checkout's and this interpreter's."""
    folder = tmp_path_factory.mktemp("bin")
    geoseg = folder / "geoseg"
    geoseg.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m geoseg "$@"\n')
    geoseg.chmod(0o755)
    path = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    return os.environ | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The sample scene four times, each mirrored at the others: nine blocks of `block_px`."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    with rasterio.open(repository / "sample_data" / "scene.tif") as sample:
        pixels, profile = sample.read(), sample.profile
    pixels = np.concatenate([pixels, pixels[:, :, ::-1]], axis=2)
    pixels = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    with rasterio.open(path, "w", **profile | {"height": pixels.shape[1], "width": pixels.shape[2]}) as file:
        file.write(pixels)
    return path


@pytest.fixture(scope="session")
def block_px() -> int:
    """Blocks so small that the scene has many: those of one chip."""
    return 512


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], scene: Path) -> Path:
    """The result folder of a plain run in one process."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    command = ["geoseg", "run", str(scene), "--out", str(folder), "--quiet"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def assert_same_as_plain(plain: Path) -> Callable[[Path], None]:
    """Assert that a result is the plain run's: rasters byte for byte, polygons vertex for vertex and in order."""

    def check(folder: Path) -> None:
        for name in RASTERS:
            assert (folder / name).read_bytes() == (plain / name).read_bytes(), name
        found, expected = gpd.read_parquet(folder / "buildings.parquet"), gpd.read_parquet(plain / "buildings.parquet")
        assert len(expected) > 20
        assert_geodataframe_equal(found, expected)

    return check
