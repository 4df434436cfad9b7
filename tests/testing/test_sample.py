"""The committed sample: what the generator makes today, small, and worth looking at."""

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio

from geoseg.testing import SAMPLE_SEED, PaintedScene, paint_scene, write_sample, write_training_scenes
from geoseg.testing.sample import SAMPLE_REGION


@pytest.fixture(scope="module")
def painted() -> PaintedScene:
    """The sample, painted again."""
    return paint_scene(SAMPLE_SEED, region=SAMPLE_REGION)


@pytest.fixture(scope="module")
def committed(repository: Path) -> Path:
    """The committed folder."""
    return repository / "sample_data"


def test_committed_scene_is_what_the_generator_paints(painted: PaintedScene, committed: Path) -> None:
    """Pixel for pixel; versions of GEOS and GDAL may place a road's edge a sample apart, so 0.1 % may differ."""
    with rasterio.open(committed / "scene.tif") as scene:
        values = scene.read()
        assert (scene.crs, scene.transform) == (painted.grid.crs, painted.grid.transform)
        assert scene.shape == painted.grid.shape
    apart = np.abs(values.astype(np.int16) - painted.image)
    assert (apart > 1).mean() <= 1e-3


def test_committed_footprints_are_what_the_generator_builds(painted: PaintedScene, committed: Path) -> None:
    frame = geopandas.read_file(committed / "buildings.gpkg", layer="buildings")
    assert painted.grid.crs is not None
    assert frame.crs.to_epsg() == painted.grid.crs.to_epsg()
    assert len(frame) == len(painted.footprints)
    truth = geopandas.GeoSeries(painted.footprints, crs=frame.crs)
    assert frame.geometry.symmetric_difference(truth).area.max() < 1e-2


def test_sample_has_many_buildings_courtyards_and_terraces(painted: PaintedScene) -> None:
    frame = geopandas.GeoSeries(painted.footprints)
    first, second = frame.sindex.query(frame, "touches")
    assert len(frame) >= 150
    assert frame.interiors.map(bool).sum() >= 4
    assert len(set(first)) >= 30
    assert (first != second).all()


def test_sample_files_are_small(committed: Path) -> None:
    assert sum(path.stat().st_size for path in committed.iterdir()) < 3e6


def test_committed_readme_counts_its_buildings(painted: PaintedScene, committed: Path) -> None:
    assert f"the {len(painted.footprints)} true roof outlines" in (committed / "README.md").read_text(encoding="utf-8")


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_sample(tmp_path / name, size_px=96) for name in "ab")
    assert [path.name for path in first] == ["scene.tif", "buildings.gpkg", "README.md"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_is_left_beside_the_files(tmp_path: Path) -> None:
    write_sample(tmp_path, size_px=96)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "buildings.gpkg", "scene.tif"]


def test_the_sample_is_never_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not be trained on"):
        write_training_scenes(tmp_path, [SAMPLE_SEED], size_px=64)


def test_module_runs_from_the_command_line() -> None:
    command = [sys.executable, "-m", "geoseg.testing", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "true footprints" in done.stdout
