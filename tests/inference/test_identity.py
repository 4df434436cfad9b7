"""A scene whose pixels say where they are comes back unchanged, however it is cut."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.engines import IdentitySegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import NODATA, Plan, predict_block, predict_scene
from geoseg.scene import open_scene

HIGHEST = 254
"""Largest value that the stored probabilities can hold."""


def write_scene(folder: Path, pixels: np.ndarray, *, valid: np.ndarray | None = None) -> Path:
    """Write `(band, y, x)` uint8 pixels at 0.3 m in UTM, with a mask band where `valid` is given."""
    path = folder / f"scene_{pixels.shape[1]}x{pixels.shape[2]}_{valid is None}.tif"
    transform = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": len(pixels), "crs": "EPSG:32630", "transform": transform}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=pixels.shape[1], width=pixels.shape[2], **profile) as dst,
    ):
        dst.write(pixels)
        if valid is not None:
            dst.write_mask(valid)
    return path


def numbered(height: int, width: int) -> np.ndarray:
    """Return `(1, y, x)`: a value that neighbors never share and that a shift by any small amount changes."""
    rows, cols = np.mgrid[:height, :width]
    return ((rows * 101 + cols * 37 + rows * cols) % (HIGHEST + 1)).astype(np.uint8)[None]


def predict_all(plan: Plan, block_px: int) -> np.ndarray:
    """Predict every block and put them together."""
    out = np.zeros(plan.scene.grid.shape, np.uint8)
    for block in plan.blocks(block_px):
        out[block.window.slices] = predict_block(plan, block).probability
    return out


def plan_of(path: Path, *, chip_px: int, halo_px: int, multiple_px: int = 1, blend: bool = False) -> Plan:
    """Plan an identity run at the scene's own pixels."""
    scene = open_scene(path)
    lattice = fit_lattice(scene.grid.shape, chip_px=chip_px, halo_px=halo_px, multiple_px=multiple_px)
    return Plan(scene, lattice, IdentitySegmenter(), blend=blend)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    core=st.integers(5, 40),
    halo=st.integers(0, 20),
    multiple=st.sampled_from([1, 2, 8]),
    block_px=st.integers(10, 120),
    blend=st.booleans(),
)
def test_positions_come_back_unchanged(
    tmp_path: Path, height: int, width: int, core: int, halo: int, multiple: int, block_px: int, blend: bool
) -> None:
    path = write_scene(tmp_path, numbered(height, width))
    chip = -(-(core + 2 * halo) // multiple) * multiple
    plan = plan_of(path, chip_px=chip, halo_px=halo, multiple_px=multiple, blend=blend)
    np.testing.assert_array_equal(predict_all(plan, block_px), numbered(height, width)[0])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 2**32 - 1), block_a=st.integers(15, 90), block_b=st.integers(15, 90), blend=st.booleans())
def test_nodata_stays_nodata_and_nothing_else_changes(
    tmp_path: Path, seed: int, block_a: int, block_b: int, blend: bool
) -> None:
    rng = np.random.default_rng(seed)
    valid = np.kron(rng.random((7, 9)) < 0.7, np.ones((10, 7), bool)).astype(bool)
    pixels = numbered(*valid.shape)
    path = write_scene(tmp_path, pixels, valid=valid)
    plan = plan_of(path, chip_px=32, halo_px=6, blend=blend)
    whole = predict_all(plan, block_a)
    np.testing.assert_array_equal(whole, np.where(valid, pixels[0], NODATA))
    np.testing.assert_array_equal(whole, predict_all(plan, block_b))


def test_lazy_scene_equals_its_blocks(tmp_path: Path) -> None:
    path = write_scene(tmp_path, numbered(70, 50))
    plan = plan_of(path, chip_px=32, halo_px=4)
    array = predict_scene(plan, block_px=30)
    assert array.dims == ("y", "x")
    assert array.data.npartitions > 1
    np.testing.assert_allclose(array.values * HIGHEST, numbered(70, 50)[0], atol=1e-4)
    assert array.x.values[0] == pytest.approx(500_000.15)
    assert array.y.values[-1] == pytest.approx(600_000 - 70 * 0.3 + 0.15)
