"""Blocks in which a file's directory shows no data are left out, and nothing of the result tells."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoseg.scene import data_windows

BLOCK_PX = 40
TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}


@pytest.fixture(params=[True, False], ids=["never written", "written"])
def patchy(request: pytest.FixtureRequest, place: Any, tmp_path: Path) -> Path:
    """The scene with data in two patches only, told by a nodata value."""
    path = tmp_path / "patchy.tif"
    with rasterio.open(place.scene) as scene:
        pixels, profile = np.maximum(scene.read(), 1), scene.profile
    keep = np.zeros(pixels.shape[1:], bool)
    keep[20:110, 30:95] = keep[150:170, 200:290] = True
    profile |= {"nodata": 0, "sparse_ok": request.param, **TILED}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.where(keep, pixels, 0))
    return path


def test_results_are_the_same_with_fewer_blocks(place: Any, patchy: Path, tmp_path: Path) -> None:
    every = place.plan(patchy)
    some = replace(every, covered=data_windows(every.scene))
    blocks = []
    for name, plan in (("every", every), ("some", some)):
        result = place.run(tmp_path / name, plan=plan, block_px=BLOCK_PX)
        blocks.append(result.report["counts"]["blocks"])
    assert blocks[1] < blocks[0] / 2
    for name in ("probability.tif", "mask.tif", "buildings.parquet"):
        assert (tmp_path / "some" / name).read_bytes() == (tmp_path / "every" / name).read_bytes(), name
