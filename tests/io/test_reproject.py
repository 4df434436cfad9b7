"""Polygons in another CRS than the scene: where their sides run, around the globe and at its seams."""

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.crs import CRS as RASTER_CRS

from geoseg.errors import MissingCRSError
from geoseg.grid import Grid
from geoseg.inference import read_aoi, read_aoi_bounds
from geoseg.io.reproject import TOLERANCE_PX, in_degrees, reproject

BETWEEN = -180.0, 10.0
"""A place on the antimeridian."""

DEGREES_SEAM = Grid(RASTER_CRS.from_epsg(4326), Affine(1e-5, 0, 179.995, 0, -1e-5, 10.005), (1000, 1000))


def grid_at(epsg: int, lon: float, lat: float, *, px: float = 0.3, size: int = 1000) -> Grid:
    """A grid with a place in its middle."""
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    return Grid(RASTER_CRS.from_epsg(epsg), Affine(px, 0, x - px * size / 2, 0, -px, y + px * size / 2), (size, size))


SEAM = grid_at(32601, *BETWEEN)


def bring(shape: shapely.Geometry, crs: object, grid: Grid) -> shapely.Geometry:
    return reproject(np.array([shape], object), CRS.from_user_input(crs), grid)[0]


def share(shape: shapely.Geometry, grid: Grid) -> float:
    """The share of a grid that a polygon covers."""
    extent = shapely.box(*grid.bounds)
    return float(shape.intersection(extent).area / extent.area)


@pytest.mark.parametrize("width", [0.02, 0.3, 1.0, 20.0])
@pytest.mark.parametrize(("epsg", "crs"), [(32632, 4326), (32632, 3857), (32632, 2154), (4326, 32632), (3857, 3035)])
def test_a_side_through_the_scene_runs_where_it_is_straight_in_its_own_CRS(epsg: int, crs: int, width: float) -> None:
    px = 3e-6 if epsg == 4326 else 0.3
    grid = grid_at(epsg, 10.4, 50, px=px)
    there = Transformer.from_crs(4326, crs, always_xy=True).transform(10.4, 50)
    half = (width if crs == 4326 else width * 1e5) / 2
    box = shapely.box(there[0] - half, there[1] - half, there[0] + half, there[1])  # its northern side cuts the scene
    found = bring(box, crs, grid)
    side = np.linspace(there[0] - half, there[0] + half, 400_001)
    x, y = Transformer.from_crs(crs, epsg, always_xy=True).transform(side, np.full_like(side, there[1]))
    left, bottom, right, top = grid.bounds
    here = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    assert here.sum() > 3
    off = shapely.distance(found.boundary, shapely.points(x[here], y[here]))
    assert off.max() < TOLERANCE_PX * px
    assert 0.4 < share(found, grid) < 0.6


@pytest.mark.parametrize("west", [-180, 0, 90, -540])
def test_the_whole_world_is_all_of_any_scene(west: float) -> None:
    world = shapely.box(west, -90, west + 360, 90)
    for grid in (grid_at(32632, 9, 50), grid_at(3857, -75, 40), grid_at(5041, 20, 89.999), SEAM, DEGREES_SEAM):
        assert share(bring(world, 4326, grid), grid) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("crs", [4326, 4267, 3857, "EPSG:4807"])
@pytest.mark.parametrize("grid", [SEAM, DEGREES_SEAM, grid_at(3857, 179.9999, 10)], ids=["utm", "degrees", "mercator"])
def test_longitudes_may_be_counted_from_anywhere(grid: Grid, crs: object) -> None:
    there = CRS.from_user_input(crs)
    turn = {4326: 360.0, 4267: 360.0, 3857: 40075016.68557848, "EPSG:4807": 400.0}[crs]
    zero = 2.5969213 if crs == "EPSG:4807" else 0.0  # grads, from Paris
    unit = 1 if there.is_projected else turn / 360
    low, high = (0, 3e6) if there.is_projected else (0, 30 * unit)
    seam, reach = turn / 2 - zero, turn / 36
    for n in (-1, 0, 1):
        across = shapely.box(seam - reach + n * turn, low, seam + reach + n * turn, high)
        assert share(bring(across, crs, grid), grid) == pytest.approx(1, abs=1e-9)
        east = bring(shapely.box(seam + n * turn, low, seam + reach + n * turn, high), crs, grid)
        west = bring(shapely.box(seam - reach + n * turn, low, seam + n * turn, high), crs, grid)
        assert share(east, grid) + share(west, grid) == pytest.approx(1, abs=1e-6)
        assert min(share(east, grid), share(west, grid)) > 0.25 or crs == 4267 or grid.crs.to_epsg() == 3857
    halves = shapely.union(
        shapely.box(seam - reach, low, seam, high), shapely.box(seam - turn, low, seam - turn + reach, high)
    )
    assert share(bring(halves, crs, grid), grid) == pytest.approx(1, abs=1e-6)


def test_what_lies_elsewhere_becomes_empty_and_what_is_near_stays_whole() -> None:
    grid = grid_at(32632, 9, 50)
    lon, lat = 9.002, 50.001
    house, far = shapely.box(lon, lat, lon + 1e-4, lat + 1e-4), shapely.box(-100, 20, -99, 21)
    found = reproject(np.array([far, house, far], object), CRS.from_epsg(4326), grid)
    assert shapely.is_empty(found).tolist() == [True, False, True]
    plain = geopandas.GeoSeries([house], crs=4326).to_crs(32632)[0]
    assert found[1].equals_exact(plain, 1e-9)


def test_polygons_in_the_CRS_of_the_scene_are_not_touched() -> None:
    grid = grid_at(32632, 9, 50)
    shapes = np.array([shapely.box(0, 0, 1e7, 1e7), shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])], object)
    assert reproject(shapes, CRS.from_epsg(32632), grid) is shapes


def test_a_CRS_that_knows_no_place_on_earth_is_refused_by_name() -> None:
    site = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]')
    with pytest.raises(MissingCRSError, match=r"from building site to EPSG:32601 .*Check both"):
        bring(shapely.box(0, 0, 1, 1), site, SEAM)


def test_polygons_that_cannot_be_transformed_are_refused_not_left_out() -> None:
    world = Grid(RASTER_CRS.from_epsg(4326), Affine(0.1, 0, -180, 0, -0.1, 90), (1800, 3600))
    with pytest.raises(MissingCRSError, match=r"reach beyond what can be transformed to WGS 84\. Cut them"):
        bring(shapely.box(0, 0, 1e9, 1e9), 32632, world)


def test_in_degrees_a_polygon_at_the_antimeridian_has_two_parts_and_one_at_a_pole_goes_around_it() -> None:
    zone = in_degrees(np.array([shapely.box(1e5, 1e6, 3e5, 1.2e6)], object), CRS.from_epsg(32601))[0]
    assert [round(part.bounds[i]) for part in zone.geoms for i in (0, 2)] in (
        [179, 180, -180, -179],
        [-180, -179, 179, 180],
    )
    pole = in_degrees(np.array([shapely.box(-1e6, -1e6, 1e6, 1e6)], object), CRS.from_epsg(3031))[0]
    assert pole.is_valid
    assert pole.bounds[:3:2] == (-180, 180)
    assert pole.bounds[1] == -90
    assert pole.covers(shapely.points([-170, 0, 170], [-85, -85, -85])).all()


def test_the_bounds_of_an_area_cross_the_antimeridian_where_it_does() -> None:
    area = geopandas.GeoDataFrame(geometry=[shapely.box(1e5, 1e6, 3e5, 1.2e6)], crs=32601)
    west, south, east, north = read_aoi_bounds(area)
    assert 179 < west < 180
    assert -180 < east < -178
    assert 9 < south < north < 11
    assert read_aoi_bounds(geopandas.GeoDataFrame(geometry=[shapely.box(170, 0, 190, 9)], crs=4326)) == (
        170,
        0,
        -170,
        9,
    )
    assert read_aoi_bounds(geopandas.GeoDataFrame(geometry=[shapely.box(-5, 0, 5, 9)], crs=4326)) == (-5, 0, 5, 9)
    wide = geopandas.GeoDataFrame(geometry=[shapely.box(-180, -90, 180, 90)], crs=4326)
    assert read_aoi_bounds(wide) == (-180, -90, 180, 90)


def test_an_area_at_the_antimeridian_has_both_halves_on_the_scene() -> None:
    halves = geopandas.GeoDataFrame(geometry=[shapely.box(170, 0, 180, 20), shapely.box(-180, 0, -170, 20)], crs=4326)
    assert read_aoi(halves, SEAM).mask(SEAM.window).all()
    east = read_aoi(halves[1:], SEAM).mask(SEAM.window)
    assert east[:, 520:].all()
    assert not east[:, :480].any()


def test_a_hole_or_part_that_is_a_single_point_is_left_out() -> None:
    box = shapely.box(500_000, 500_000, 500_040, 600_000)
    point = [(500_009, 599_980)] * 4
    shapes = np.array([shapely.MultiPolygon([box, shapely.Polygon(point)]), shapely.Polygon(box.exterior, [point])])
    for found in in_degrees(shapes, CRS.from_epsg(32630)):
        assert found.bounds == pytest.approx(in_degrees(np.array([box]), CRS.from_epsg(32630))[0].bounds)


def test_a_CRS_whose_own_degrees_cannot_be_read_brings_polygons_to_a_scene_nevertheless() -> None:
    parts = CRS.from_epsg(32630).to_json_dict()
    del parts["base_crs"]["coordinate_system"]["axis"][1]["unit"]
    shapes = np.array([shapely.box(500_000, 599_970, 500_040, 600_000)])
    found = in_degrees(shapes, CRS.from_json_dict(parts))
    assert found[0].bounds == pytest.approx(in_degrees(shapes, CRS.from_epsg(32630))[0].bounds, abs=1e-6)
