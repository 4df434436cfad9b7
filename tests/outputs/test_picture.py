"""Pictures side by side in one PNG."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoseg.errors import OutputError
from geoseg.outputs.picture import GAP_PX, write_picture


def test_panels_stand_side_by_side_with_a_gap(tmp_path: Path) -> None:
    left, right = (np.random.default_rng(i).integers(0, 200, (20, 30 + i, 3), "uint8") for i in range(2))
    write_picture(tmp_path / "a.png", [left, right])
    with Image.open(tmp_path / "a.png") as picture:
        found = np.asarray(picture)
    np.testing.assert_array_equal(found[:, :30], left)
    np.testing.assert_array_equal(found[:, -31:], right)
    assert (found[:, 30 : 30 + GAP_PX] == 255).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, full_disk) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), "uint8")
    with full_disk(1000), pytest.raises(OutputError, match="Make room"):
        write_picture(tmp_path / "a.png", [noise])
    assert list(tmp_path.iterdir()) == []
