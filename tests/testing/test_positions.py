"""Position scenes: every pixel says where it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from geoseg.testing import decode_positions, position_values, write_position_scene


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_positions_come_back_from_values(dtype: str) -> None:
    shape = (600, 777)
    rows, cols = decode_positions(position_values(shape, dtype=dtype))
    np.testing.assert_array_equal(rows, np.indices(shape)[0])
    np.testing.assert_array_equal(cols, np.indices(shape)[1])


def test_every_8bit_pixel_is_unique() -> None:
    values = position_values((520, 520)).reshape(3, -1).T
    assert len(np.unique(values, axis=0)) == 520 * 520


def test_largest_8bit_scene_still_decodes() -> None:
    rows, cols = decode_positions(position_values((2, 4016)))
    assert (rows[1, -1], cols[1, -1]) == (1, 4015)


def test_too_large_a_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4016"):
        position_values((1, 4017))


def test_written_scene_has_the_grid_asked_for(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    path = write_position_scene(tmp_path / "p.tif", (40, 30), dtype="uint16", gsd_m=0.5, nodata=65535, **options)
    with rasterio.open(path) as scene:
        assert (scene.shape, scene.count, scene.dtypes[0], scene.nodata) == ((40, 30), 3, "uint16", 65535)
        assert (scene.crs.to_epsg(), scene.res, scene.block_shapes[0]) == (32630, (0.5, 0.5), (16, 16))
        np.testing.assert_array_equal(scene.read(), position_values((40, 30), dtype="uint16"))


def test_scene_may_be_rotated(tmp_path: Path) -> None:
    turned = Affine.translation(5e5, 1e6) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3)
    with rasterio.open(write_position_scene(tmp_path / "p.tif", (8, 8), transform=turned)) as scene:
        assert scene.transform.almost_equals(turned)


def test_scene_may_lack_a_georeference(tmp_path: Path) -> None:
    path = write_position_scene(tmp_path / "p.tif", (8, 8), crs=None)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as scene:
        assert scene.crs is None
