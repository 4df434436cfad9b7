"""From rasters to footprints in files: the same bytes whatever the windows are."""

from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
import shapely
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from rasterio.crs import CRS

from geoseg.errors import OutputError
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA
from geoseg.outputs.rasters import open_rasters, probability_file
from geoseg.run import results
from geoseg.run.report import FootprintCounts
from geoseg.run.results import stored_pixels, write_footprints
from geoseg.vectorize import Limits, OutlineOptions, Simplify, Split

TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def roofs(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return `(y, x)` stored probabilities: slanted roofs side by side, some nodata."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    walls = ((rows - 0.3 * cols) % 11 > 2) & ((cols + 0.3 * rows) % 17 > 3)
    probability = np.where(walls ^ (rng.random(shape) < 0.01), rng.integers(127, 255, shape), 20).astype(np.uint8)
    probability[60:75, 40:70] = NODATA
    return probability


def run_polygons(
    folder: Path, probability: np.ndarray, *, crs: str | None = "EPSG:32630", windows: list[Window] | None = None
) -> FootprintCounts:
    """Write the raster of a run and outline its buildings."""
    grid = Grid(CRS.from_user_input(crs) if crs else None, TRANSFORM, probability.shape)
    folder.mkdir(exist_ok=True)
    with open_rasters([probability_file(folder / "probability.tif", description="p")], grid, inputs=1) as rasters:
        rasters.put(grid.window, probability[None])
    options = OutlineOptions(
        threshold=127, limits=Limits(0.5), generalizer=Simplify(1.0), split=Split.on(grid, 0.03, has_interior=False)
    )
    return write_footprints(stored_pixels(grid, folder), folder, windows or [grid.window], options)


@pytest.mark.parametrize("crs", ["EPSG:32630", None])
def test_files_do_not_depend_on_the_windows(tmp_path: Path, crs: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "BATCH", 17)
    monkeypatch.setattr(results, "ROW_GROUP", 13)
    probability = roofs((150, 130))
    counts = run_polygons(tmp_path / "one", probability, crs=crs)
    table = geopandas.read_file(tmp_path / "one" / "buildings.gpkg", layer="buildings")
    assert len(table) > 60
    for window_px in (16, 64):
        monkeypatch.setattr(results, "WINDOW_PX", window_px)
        other = tmp_path / f"px{window_px}"
        found = run_polygons(other, probability, crs=crs)
        assert (found.count, found.at_edge) == (counts.count, counts.at_edge)
        assert found.area_m2 == pytest.approx(counts.area_m2)
        assert (other / "buildings.parquet").read_bytes() == (tmp_path / "one" / "buildings.parquet").read_bytes()
        assert_geodataframe_equal(geopandas.read_file(other / "buildings.gpkg", layer="buildings"), table)


def test_both_files_hold_the_same_and_the_counts_say_what(tmp_path: Path) -> None:
    counts = run_polygons(tmp_path, roofs((200, 170)))
    package = geopandas.read_file(tmp_path / "buildings.gpkg", layer="buildings")
    parquet = geopandas.read_parquet(tmp_path / "buildings.parquet")
    assert_geodataframe_equal(parquet, package, check_like=True)
    assert counts == FootprintCounts(len(package), int(package["edge"].sum()), pytest.approx(package["area_m2"].sum()))
    assert 0 < counts.at_edge < counts.count


def test_footprints_lie_along_a_curve_in_row_groups_of_fixed_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "BATCH", 70)
    monkeypatch.setattr(results, "ROW_GROUP", 50)
    monkeypatch.setattr(results, "WINDOW_PX", 16)
    probability = np.kron(roofs((80, 20))[60:] >= 127, np.pad(np.full((3, 3), 200), (0, 3))).astype(np.uint8)
    counts = run_polygons(tmp_path, probability)
    shapes = geopandas.read_parquet(tmp_path / "buildings.parquet").geometry
    bounds = Grid(None, TRANSFORM, probability.shape).bounds
    assert shapes.hilbert_distance(total_bounds=bounds).is_monotonic_increasing
    found = pyarrow.parquet.read_metadata(tmp_path / "buildings.parquet")
    sizes = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert sizes[:-1] == [50] * (counts.count // 50)
    assert sum(sizes) == counts.count > 200


def test_one_building_all_over_the_scene_keeps_its_courtyards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "WINDOW_PX", 32)
    probability = np.full((100, 90), 200, np.uint8)
    probability[3:-3:6, 3:-3:6] = 0
    courtyards = int((probability == 0).sum())
    counts = run_polygons(tmp_path, probability)
    (shape,) = geopandas.read_parquet(tmp_path / "buildings.parquet").geometry
    assert (counts.count, shapely.get_num_interior_rings(shape)) == (1, courtyards)


def test_scene_without_buildings_gives_empty_files(tmp_path: Path) -> None:
    assert run_polygons(tmp_path, np.zeros((50, 60), np.uint8)) == FootprintCounts(0, 0, 0.0)
    assert len(geopandas.read_file(tmp_path / "buildings.gpkg", layer="buildings")) == 0
    assert len(geopandas.read_parquet(tmp_path / "buildings.parquet")) == 0


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "buildings.gpkg").mkdir()
    with pytest.raises(OutputError, match=r"buildings\.gpkg"):
        run_polygons(tmp_path, roofs((50, 60)))


def test_nodata_cuts_what_lies_along_it_and_not_what_meets_its_corner(tmp_path: Path) -> None:
    """As a block that has failed is nodata."""
    probability = np.full((64, 64), 20, np.uint8)
    probability[32:, 32:] = NODATA
    probability[32 - 9 : 32, 32 - 9 : 32] = 250  # meets the corner
    probability[32 - 7 : 32, 32 + 8 : 32 + 16] = 250  # lies along the upper side
    run_polygons(tmp_path, probability)
    found = geopandas.read_parquet(tmp_path / "buildings.parquet")
    sides = found.total_bounds[0] + 9 * 0.3
    assert found["edge"].tolist() == [bool(left > sides) for left in found.geometry.bounds["minx"]]
    assert sorted(found["edge"]) == [False, True]
