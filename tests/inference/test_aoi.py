"""The area that a user asked for."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import geometry_mask

from geoseg.errors import AOIError, OutsideAOIError
from geoseg.grid import Grid, Window
from geoseg.inference import read_aoi

GRID = Grid(CRS.from_epsg(32630), Affine(0.5, 0, 500_000, 0, -0.5, 600_000), (200, 300))
TURNED = Grid(
    GRID.crs, Affine.translation(500_000, 600_000) @ Affine.rotation(25) @ Affine.scale(0.5, -0.5), (200, 300)
)


def polygon_of(grid: Grid, *pixels: tuple[float, float]) -> shapely.Polygon:
    """A polygon in world coordinates from pixel coordinates `(col, row)`."""
    return shapely.Polygon([grid.transform @ xy for xy in pixels])


def write_aoi(path: Path, *shapes: shapely.Geometry, crs: object = GRID.crs, **columns: list) -> Path:
    """Write a GeoPackage."""
    geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("grid", [GRID, TURNED], ids=["north-up", "rotated"])
@pytest.mark.parametrize("crs", ["EPSG:32630", "EPSG:4326", "EPSG:3857"])
def test_an_area_in_any_CRS_covers_the_same_pixels(tmp_path: Path, crs: str, grid: Grid) -> None:
    shape = polygon_of(grid, (40.3, 20.2), (180.7, 33.4), (120.1, 150.9))
    there = geopandas.GeoSeries([shape], crs=grid.crs).to_crs(crs)
    aoi = read_aoi(write_aoi(tmp_path / "a.gpkg", there.iloc[0], crs=crs), grid)
    expected = geometry_mask([shape], grid.shape, grid.transform, invert=True) if grid is GRID else None
    mask = aoi.mask(grid.window)
    if expected is not None:
        assert (mask != expected).sum() <= 2  # a vertex may move by a micrometer
    assert mask.sum() == pytest.approx(shape.area / 0.25, rel=0.01)
    assert mask[40, 100]
    assert not mask[10, 10]


def test_masks_of_windows_are_crops_of_the_whole(tmp_path: Path) -> None:
    shapes = polygon_of(GRID, (40, 20), (180, 33), (120, 151)), shapely.box(500_100, 599_920, 500_120, 599_990)
    aoi = read_aoi(write_aoi(tmp_path / "a.gpkg", *shapes), GRID)
    whole = aoi.mask(GRID.window)
    for window in (Window(0, 0, 64, 64), Window(17, 100, 33, 90), Window(150, 200, 50, 100)):
        np.testing.assert_array_equal(aoi.mask(window), whole[window.slices])
        assert aoi.touches(window) == whole[window.slices].any()


def test_an_area_that_only_touches_a_window_burns_no_pixel_of_it(tmp_path: Path) -> None:
    aoi = read_aoi(write_aoi(tmp_path / "a.gpkg", polygon_of(GRID, (0, 0), (64, 0), (64, 64), (0, 64))), GRID)
    assert aoi.mask(GRID.window).sum() == 64 * 64
    assert not aoi.mask(Window(0, 64, 64, 64)).any()
    assert not aoi.mask(Window(64, 0, 64, 128)).any()
    assert not aoi.mask(Window(64, 64, 10, 10)).any()


def test_holes_and_overlaps_and_bow_ties_are_areas_too(tmp_path: Path) -> None:
    ring = polygon_of(GRID, (0, 0), (100, 0), (100, 100), (0, 100)).difference(
        polygon_of(GRID, (20, 20), (80, 20), (80, 80), (20, 80))
    )
    tie = polygon_of(GRID, (150, 0), (200, 50), (200, 0), (150, 50))
    aoi = read_aoi(write_aoi(tmp_path / "a.gpkg", ring, ring, tie), GRID)
    mask = aoi.mask(GRID.window)
    assert mask[:, :120].sum() == 100 * 100 - 60 * 60
    assert mask[:, 120:].sum() == pytest.approx(1250, abs=60)


def test_a_filter_picks_features(tmp_path: Path) -> None:
    shapes = [polygon_of(GRID, (c, 0), (c + 10, 0), (c + 10, 10), (c, 10)) for c in (0, 50)]
    path = write_aoi(tmp_path / "a.gpkg", *shapes, split=["train", "test"])
    mask = read_aoi(path, GRID, where="split = 'test'").mask(GRID.window)
    assert mask[:10, 50:60].all()
    assert mask.sum() == 100
    with pytest.raises(AOIError, match="`aoi_where` is \"split = 'gone'\", which matches none of the 2 features"):
        read_aoi(path, GRID, where="split = 'gone'")
    for wrong in ("nonsense ===", "splt = 'test'"):
        with pytest.raises(AOIError, match=f'`aoi_where` is "{wrong}".*columns are: split') as caught:
            read_aoi(path, GRID, where=wrong)
        assert "SQL" not in str(caught.value)


def test_an_area_outside_the_scene_names_both_bounds(tmp_path: Path) -> None:
    path = write_aoi(tmp_path / "a.gpkg", shapely.box(700_000, 600_000, 700_100, 600_100))
    with pytest.raises(AOIError, match=r"outside the scene.*\(700000\.0, 600000\.0, .*\(500000\.0, 599900\.0, .*CRS"):
        read_aoi(path, GRID)


def test_an_area_on_the_other_side_of_the_world_is_outside(tmp_path: Path) -> None:
    path = write_aoi(tmp_path / "a.gpkg", shapely.box(170, -89.9, 179, -80), crs="EPSG:4326")
    with pytest.raises(AOIError, match="outside the scene"):
        read_aoi(path, GRID)


def test_an_area_larger_than_the_scene_is_all_of_it(tmp_path: Path) -> None:
    path = write_aoi(tmp_path / "a.gpkg", shapely.box(-3.5, 5, -2.5, 6), crs="EPSG:4326")
    assert read_aoi(path, GRID).mask(GRID.window).all()


def test_files_without_polygons_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AOIError, match="no AOI file"):
        read_aoi(tmp_path / "gone.gpkg", GRID)
    with pytest.raises(AOIError, match="no polygon in the AOI"):
        read_aoi(write_aoi(tmp_path / "points.gpkg", shapely.Point(500_001, 599_999)), GRID)
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(AOIError, match="no polygon in the AOI"):
        read_aoi(empty, GRID)
    (tmp_path / "text.gpkg").write_text("hello")
    with pytest.raises(AOIError, match="cannot be read"):
        read_aoi(tmp_path / "text.gpkg", GRID)


def test_a_picture_takes_an_area_in_pixels(tmp_path: Path) -> None:
    """As drawn over it in QGIS: y = -row."""
    picture = Grid.of_raster(None, Affine.identity(), (100, 100))
    path = tmp_path / "a.geojson"
    path.write_text(shapely.to_geojson(shapely.box(10, -50, 30, -20)))
    mask = read_aoi(path, picture).mask(picture.window)
    assert mask[20:50, 10:30].all()
    assert mask.sum() == 30 * 20
    path.write_text(shapely.to_geojson(shapely.box(10, 20, 30, 50)))
    with pytest.raises(OutsideAOIError, match=r"lies outside.*y = -row.*negate"):
        read_aoi(path, picture)
    path.write_text(shapely.to_geojson(shapely.box(110, -50, 130, -20)))
    with pytest.raises(OutsideAOIError, match=r"Check the CRS of both\.$"):
        read_aoi(path, picture)


@pytest.mark.parametrize("grid", [GRID, TURNED], ids=["north-up", "rotated"])
def test_an_area_may_be_a_frame_in_any_CRS_or_a_geometry_in_that_of_the_scene(tmp_path: Path, grid: Grid) -> None:
    shape = polygon_of(grid, (40.3, 20.2), (180.7, 33.4), (120.1, 150.9))
    expected = read_aoi(write_aoi(tmp_path / "a.gpkg", shape), grid).mask(grid.window)
    frame = geopandas.GeoDataFrame(geometry=[shape, shapely.Point(0, 0)], crs=grid.crs)
    mixed = geopandas.GeoSeries([shapely.GeometryCollection([shape, shapely.Point(0, 0)])], crs=grid.crs)
    for area in (shape, frame, frame.to_crs(4326), frame.geometry, mixed):
        np.testing.assert_array_equal(read_aoi(area, grid).mask(grid.window), expected)
    with pytest.raises(AOIError, match="There is no polygon in the AOI"):
        read_aoi(frame[1:], grid)
    with pytest.raises(AOIError, match="Filter a GeoDataFrame before the call"):
        read_aoi(frame, grid, where="part = 1")
    with pytest.raises(OutsideAOIError, match="The AOI lies outside the scene"):
        read_aoi(shapely.box(0, 0, 1, 1), grid)


def test_an_area_without_a_CRS_is_taken_to_be_in_the_scenes_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape, path = polygon_of(GRID, (40, 20), (180, 33), (120, 150)), tmp_path / "a.shp"
    frame = geopandas.GeoDataFrame(geometry=[shape])
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        frame.to_file(path)
    for area in (path, frame):
        caplog.clear()
        assert read_aoi(area, GRID).mask(GRID.window).any()
        assert [" has no CRS" in said and "EPSG:32630" in said for said in caplog.messages] == [True]
    caplog.clear()
    read_aoi(shape, GRID)
    read_aoi(frame.set_crs(GRID.crs), GRID)
    read_aoi(path, Grid(None, GRID.transform, GRID.shape))
    assert caplog.messages == []
