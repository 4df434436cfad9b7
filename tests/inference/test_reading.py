"""What a block reads: nothing where there is nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.engines import ThresholdSegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import NODATA, Plan, predict_block
from geoseg.scene import Scene, close_readers, open_scene

TILE = 64
SHAPE = (256, 320)


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


def write_sparse(path: Path, kind: str) -> Path:
    """A scene with data in its third row and fourth column of TIFF tiles alone."""
    mask = np.zeros(SHAPE, bool)
    mask[2 * TILE : 3 * TILE, 3 * TILE : 4 * TILE] = True
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": SHAPE[0], "width": SHAPE[1]}
    profile |= {"crs": "EPSG:32630", "transform": Affine(0.3, 0, 5e5, 0, -0.3, 6e5), "sparse_ok": True, "tiled": True}
    profile |= {"blockxsize": TILE, "blockysize": TILE, "nodata": 0 if kind == "nodata" else None}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as dst:
        dst.write(np.where(mask, np.random.default_rng(0).integers(1, 256, SHAPE), 0).astype("uint8")[None])
        if kind == "mask":
            dst.write_mask(mask)
    return path


def plan_of(path: Path) -> Plan:
    scene = open_scene(path)
    return Plan(scene, fit_lattice(scene.grid.shape, chip_px=80, halo_px=8, multiple_px=2), ThresholdSegmenter())


@pytest.mark.parametrize("kind", ["nodata", "mask"])
def test_pixels_are_read_where_the_mask_says_that_there_are_some(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(write_sparse(tmp_path / "a.tif", kind))
    read, inner = [], Scene.read

    def counted(self: Scene, window: Any) -> Any:
        read.append(window)
        return inner(self, window)

    monkeypatch.setattr(Scene, "read", counted)
    blocks = plan.blocks(64)
    out = np.full(SHAPE, NODATA, np.uint8)
    for block in blocks:
        out[block.window.slices] = predict_block(plan, block).probability
    assert 0 < len(read) < len(blocks) / 2
    whole = inner(plan.scene, plan.scene.grid.window)
    expected = np.where(whole.valid, np.where(whole.values[0] >= 128, 254, 0), NODATA)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("blocks_px", [64, 200])
def test_looking_first_changes_no_result(tmp_path: Path, blocks_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(write_sparse(tmp_path / "a.tif", "mask"))
    plan = replace(plan, scene=plan.scene.at_shape((110, 130)), lattice=plan.lattice)
    plan = replace(plan, lattice=fit_lattice((110, 130), chip_px=48, halo_px=6, multiple_px=2))
    looked = [predict_block(plan, block) for block in plan.blocks(blocks_px)]
    monkeypatch.setattr(Scene, "may_hold_data", lambda self, window: True)
    for block, pixels in zip(plan.blocks(blocks_px), looked, strict=True):
        plain = predict_block(plan, block)
        np.testing.assert_array_equal(pixels.probability, plain.probability)
        np.testing.assert_array_equal(pixels.valid, plain.valid)
