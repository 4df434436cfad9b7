"""Truth on a grid: rasters and polygons, exact positions, and label values that are not allowed."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geoseg.datasets.labels import IGNORED, rasterize_areas, read_labels
from geoseg.errors import LabelError
from geoseg.grid import Grid

UTM = CRS.from_epsg(32631)
GRID = Grid(UTM, Affine(1, 0, 500_000, 0, -1, 1_000_000), (6, 8))


def write_labels(path: Path, values: NDArray[np.uint8], gsd_m: float) -> Path:
    profile = {"driver": "GTiff", "count": 1, "height": values.shape[0], "width": values.shape[1], "dtype": "uint8"}
    transform = Affine(gsd_m, 0, 500_000, 0, -gsd_m, 1_000_000)
    with rasterio.open(path, "w", crs=UTM, transform=transform, nodata=255, **profile) as file:
        file.write(values, 1)
    return path


def pixel_box(rows: slice, cols: slice) -> shapely.Polygon:
    return shapely.box(500_000 + cols.start, 1_000_000 - rows.stop, 500_000 + cols.stop, 1_000_000 - rows.start)


def test_labels_on_the_same_grid_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice([0, 1, 255], GRID.shape).astype(np.uint8)
    assert np.array_equal(read_labels(write_labels(tmp_path / "l.tif", values, 1.0), GRID), values)


def test_finer_labels_are_buildings_from_one_half_on(tmp_path: Path) -> None:
    fine = np.zeros((12, 16), np.uint8)
    fine[0:2, 0:2] = [[1, 1], [0, 0]]
    fine[0:2, 2:4] = [[1, 0], [0, 0]]
    fine[0:2, 4:6] = [[255, 255], [255, 1]]
    fine[0:2, 6:8] = 255
    labels = read_labels(write_labels(tmp_path / "l.tif", fine, 0.5), GRID)
    assert labels[0, :5].tolist() == [1, 0, 1, IGNORED, 0]


def test_coarser_labels_repeat(tmp_path: Path) -> None:
    coarse = np.array([[1, 0, 255, 1], [0, 1, 0, 0], [1, 1, 0, 255]], np.uint8)
    labels = read_labels(write_labels(tmp_path / "l.tif", coarse, 2.0), GRID)
    assert np.array_equal(labels, coarse.repeat(2, axis=0).repeat(2, axis=1))


def test_a_grid_beyond_the_labels_has_no_truth_there(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path / "l.tif", np.ones((6, 5), np.uint8), 1.0), GRID)
    assert (labels[:, :5] == 1).all()
    assert (labels[:, 5:] == IGNORED).all()


def test_polygons_burn_the_pixels_whose_centre_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "buildings.geojson"
    shape = pixel_box(slice(1, 3), slice(2, 6))
    geopandas.GeoDataFrame(geometry=[shape], crs=UTM).to_crs(4326).to_file(path)
    expected = np.zeros(GRID.shape, np.uint8)
    expected[1:3, 2:6] = 1
    assert np.array_equal(read_labels(path, GRID), expected)


def test_areas_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "splits.geojson"
    shapes = [pixel_box(slice(0, 6), slice(0, 3)), pixel_box(slice(0, 6), slice(4, 8))]
    geopandas.GeoDataFrame({"split": ["train", "test"]}, geometry=shapes, crs=UTM).to_crs(4326).to_file(path)
    inside = rasterize_areas(path, ["train"], GRID)
    assert inside[:, :3].all()
    assert not inside[:, 3:].any()
    with pytest.raises(LabelError, match=r"no area 'val'; it has test, train"):
        rasterize_areas(path, ["val"], GRID)


def test_unknown_label_values_are_named_with_their_counts(tmp_path: Path) -> None:
    values = np.zeros(GRID.shape, np.uint8)
    values[0, :3] = 7
    with pytest.raises(LabelError, match=r"7 \(3 px\)"):
        read_labels(write_labels(tmp_path / "l.tif", values, 1.0), GRID)


def test_labels_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"none\.gpkg"):
        read_labels(tmp_path / "none.gpkg", GRID)


def test_a_file_without_polygons_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(LabelError, match=r"broken\.geojson"):
        read_labels(tmp_path / "broken.geojson", GRID)
