import math

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pyproj import Geod
from rasterio import warp
from rasterio.crs import CRS

from geoseg.grid import Grid
from geoseg.vectorize import Footprints, Limits, Simplify, choose_generalizer, finish_block, polygonize
from geoseg.vectorize.footprints import measure_footprints
from geoseg.vectorize.ground import to_world

UTM = Grid(CRS.from_epsg(32630), Affine(0.3, 0, 809267, 0, -0.3, 618981), (200, 200))
DEGREES = Grid(CRS.from_epsg(4326), Affine(2.7e-6, 0, 85.519, 0, -2.7e-6, 27.634), (200, 200))
ROTATED = Grid(UTM.crs, Affine(0.26, 0.11, 809267, 0.15, -0.24, 618981), (200, 200))
MIRRORED = Grid(UTM.crs, Affine(0.3, 0, 809267, 0, 0.3, 618981), (200, 200))
PICTURE = Grid(None, Affine.identity(), (200, 200))
GRIDS = {"utm": UTM, "degrees": DEGREES, "rotated": ROTATED, "south up": MIRRORED, "picture": PICTURE}


def disc(radius=40, hole=0):
    rows, cols = np.indices((200, 200)) - 99.5
    distance = np.hypot(rows, cols)
    return (distance < radius) & (distance >= hole)


def finish(mask, cut, grid=UTM, *, min_area_m2=0.0, simplify_px=1.0, probability=None):
    """Return the footprints of a mask in one block, as a frame."""
    (polygons,) = cut(mask, probability)
    grid = Grid(grid.crs, grid.transform, mask.shape)
    outlines = finish_block(polygons, grid.window, grid, limits=Limits(min_area_m2), generalizer=Simplify(simplify_px))
    assert len(outlines.pending) == 0
    return as_frame(outlines.finished, grid)


def as_frame(footprints: Footprints, grid):
    names = ("area_m2", "perimeter_m", "confidence", "edge", "orientation_deg", "vertices", "kind")
    columns = {name: getattr(footprints, name) for name in names}
    np.testing.assert_array_equal(footprints.bounds, shapely.bounds(footprints.geometry))
    return geopandas.GeoDataFrame(columns, geometry=footprints.geometry, crs=grid.crs)


@pytest.fixture(params=GRIDS.values(), ids=GRIDS.keys())
def any_grid(request):
    return request.param


def test_vertices_lie_where_the_transform_puts_the_pixels(cut, any_grid):
    mask = np.zeros((200, 200), bool)
    mask[10:30, 20:60] = True
    (polygon,) = finish(mask, cut, any_grid).geometry
    corners = [any_grid.transform @ xy for xy in ((20, 10), (60, 10), (60, 30), (20, 30))]
    assert shapely.equals(polygon, shapely.Polygon(corners)) or polygon.symmetric_difference(
        shapely.Polygon(corners)
    ).area == pytest.approx(0, abs=1e-18)


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 110, 160])
@pytest.mark.parametrize("name", ["utm", "degrees", "turned", "south up", "picture"])
@pytest.mark.parametrize("outline", ["raw", "regular"])
def test_orientation_is_that_of_the_longer_walls_clockwise_from_north(cut, name, degrees, outline):
    turned = Grid(
        UTM.crs, Affine.translation(809267, 618981) @ Affine.rotation(25) @ Affine.scale(0.3, -0.3), (200, 200)
    )
    grid, (rows, cols) = (GRIDS | {"turned": turned})[name], np.indices((200, 200)) + 0.5
    east, north = grid.transform.a * (cols - 100) + grid.transform.b * (rows - 100), grid.transform.d * (cols - 100)
    north = north + grid.transform.e * (rows - 100)
    north = -north if name == "picture" else north
    east = east * math.cos(math.radians(27.634)) if name == "degrees" else east
    sine, cosine, pixel = math.sin(math.radians(degrees)), math.cos(math.radians(degrees)), np.ptp(north) / 200
    mask = (np.abs(east * sine + north * cosine) < 30 * pixel) & (np.abs(east * cosine - north * sine) < 12 * pixel)
    (polygons,) = cut(mask)
    generalizer = choose_generalizer(outline, None, grid)
    outlines = finish_block(polygons, grid.window, grid, limits=Limits(), generalizer=generalizer)
    (footprint,) = as_frame(outlines.finished, grid).itertuples()
    assert (footprint.orientation_deg - degrees + 90) % 180 - 90 == pytest.approx(
        0, abs=1.2 if outline == "regular" else 2
    )
    assert 0 <= footprint.orientation_deg < 180


@pytest.mark.parametrize("degrees", [10, 30, 55])
def test_angles_are_right_on_the_ground_where_pixels_are_not_square(degrees):
    place = Affine(1.1e-5, 0, 25.0, 0, -1.1e-5, 60.0)  # pixels of 0.61 by 1.23 m
    rows, cols = np.indices((120, 120))
    grid = Grid(CRS.from_epsg(4326), place, rows.shape)
    to_ground = CRS.from_proj4("+proj=laea +lat_0=59.9993 +lon_0=25.0006 +datum=WGS84")
    x, y = warp.transform(grid.crs, to_ground, *to_world(place, cols.ravel() + 0.5, rows.ravel() + 0.5))
    x, y = np.reshape(x, rows.shape), np.reshape(y, rows.shape)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    mask = (np.abs(x * cosine + y * sine) < 14) & (np.abs(y * cosine - x * sine) < 8)
    (house,) = polygonize(mask, transform=place, crs=grid.crs).to_crs(to_ground).geometry
    sides = np.diff(shapely.get_coordinates(house), axis=0)
    assert len(sides) == 4
    assert np.sum(sides[0] * sides[1]) / np.hypot(*sides[0]) / np.hypot(*sides[1]) == pytest.approx(0, abs=0.01)


def test_vertices_are_those_of_all_rings_each_once(cut, picture):
    mask = picture("..... .###. .#.#. .#### .....")
    assert finish(mask, cut, PICTURE, simplify_px=0).vertices.tolist() == [6 + 4]


def test_exteriors_run_counter_clockwise_and_holes_clockwise_in_the_CRS(cut, any_grid):
    (polygon,) = finish(disc(hole=20), cut, any_grid).geometry
    assert polygon.exterior.is_ccw
    assert not polygon.interiors[0].is_ccw


def test_area_and_perimeter_are_ellipsoidal_and_hole_aware(cut):
    for grid in (UTM, DEGREES, ROTATED):
        (footprint,) = finish(disc(hole=20), cut, grid).itertuples()
        geographic = geopandas.GeoSeries([footprint.geometry], crs=grid.crs).to_crs(4326)[0]
        geod = Geod(ellps="WGS84")
        area, _ = geod.geometry_area_perimeter(shapely.orient_polygons(geographic))  # true to 10^-3 m^2 per house
        perimeter = geod.geometry_length(geographic.exterior) + geod.geometry_length(geographic.interiors[0])
        assert footprint.area_m2 == pytest.approx(area, rel=1e-6)
        assert footprint.perimeter_m == pytest.approx(perimeter, rel=1e-7)


def test_area_of_web_mercator_is_that_on_the_ground(cut):
    grid = Grid(CRS.from_epsg(3857), Affine(0.6, 0, 0, 0, -0.6, 8399737.9), (200, 200))  # 60 degrees north: scale 2
    (footprint,) = finish(disc(hole=20), cut, grid, simplify_px=0).itertuples()
    assert footprint.area_m2 == pytest.approx(disc(hole=20).sum() * 0.09, rel=0.01)


def test_grads_from_the_meridian_of_Paris_are_understood(cut):
    grid = Grid(CRS.from_epsg(27572), Affine(0.3, 0, 600000, 0, -0.3, 2428000), (200, 200))
    (footprint,) = finish(disc(), cut, grid, simplify_px=0).itertuples()
    assert footprint.area_m2 == pytest.approx(disc().sum() * 0.09, rel=0.002)


def test_without_a_CRS_areas_are_in_pixels(cut):
    (footprint,) = finish(disc(hole=20), cut, PICTURE, simplify_px=0).itertuples()
    assert footprint.area_m2 == disc(hole=20).sum()
    assert footprint.perimeter_m == 8 * 40 + 8 * 20


@pytest.mark.parametrize("grid", [UTM, DEGREES, ROTATED], ids=["utm", "degrees", "rotated"])
def test_smallest_area_is_that_of_the_pixels_before_simplification(cut, grid):
    raw = finish(disc(), cut, grid, simplify_px=0).area_m2[0]
    assert len(finish(disc(), cut, grid, min_area_m2=raw * (1 - 1e-6), simplify_px=3)) == 1
    assert len(finish(disc(), cut, grid, min_area_m2=raw * (1 + 1e-6), simplify_px=3)) == 0


def test_building_of_just_the_smallest_area_is_kept(cut):
    area = float(disc().sum())
    assert len(finish(disc(), cut, PICTURE, min_area_m2=area)) == 1
    assert len(finish(disc(), cut, PICTURE, min_area_m2=area + 1)) == 0


def test_confidence_is_the_mean_probability_inside(cut):
    mask = disc()
    probability = np.random.default_rng(1).integers(127, 255, mask.shape).astype(np.uint8)
    (footprint,) = finish(mask, cut, probability=probability).itertuples()
    assert footprint.confidence == pytest.approx(probability[mask].mean() / 254, rel=1e-12)
    assert finish(mask, cut).confidence.tolist() == [1.0]


def test_with_coefficients_the_confidence_is_that_of_their_regression(cut):
    (polygons,) = cut(disc())
    found = measure_footprints(
        polygons, Simplify(0).outlines(polygons.polygons), UTM, coefficients={"constant": -9.0, "area_log": 1.5}
    )
    assert found.confidence == pytest.approx([1 / (1 + math.exp(9 - 1.5 * math.log(found.area_m2[0])))], abs=1e-4)


def test_simplification_stays_within_its_tolerance_and_drops_most_vertices(cut):
    rows, cols = np.indices((200, 200))
    mask = (np.abs(rows - 100 - 0.3 * (cols - 100)) < 20) & (np.abs(cols - 100 + 0.3 * (rows - 100)) < 40)
    raw, simple = (finish(mask, cut, PICTURE, simplify_px=px).geometry[0] for px in (0, 1.0))
    assert shapely.hausdorff_distance(raw.exterior, simple.exterior, densify=0.05) <= 1.0 + 1e-9
    assert shapely.get_num_coordinates(simple) < 0.2 * shapely.get_num_coordinates(raw)


def test_building_of_few_pixels_keeps_its_outline(cut, picture):
    footprints = finish(picture("..... .#... ....."), cut, PICTURE, simplify_px=2)
    assert footprints.area_m2.tolist() == [1]


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=16)), st.sampled_from([0.0, 0.5, 1.0, 2.5]))
def test_footprints_are_valid_keep_their_holes_and_never_overlap(cut, mask, simplify_px):
    (polygons,) = cut(mask)
    footprints = finish(mask, cut, PICTURE, simplify_px=simplify_px)
    assert footprints.is_valid.all()
    shapes = footprints.geometry.to_numpy()
    assert shapely.get_num_interior_rings(shapes).tolist() == shapely.get_num_interior_rings(polygons.polygons).tolist()
    assert shapely.union_all(shapes).area == pytest.approx(shapely.area(shapes).sum(), abs=1e-6)


def test_footprints_are_in_reading_order_of_their_first_pixel(cut, picture):
    mask = picture("....#. .#..#. .#.... ...###")
    footprints = finish(mask, cut, UTM, simplify_px=0)
    inverse = ~UTM.transform
    firsts = [(inverse @ shape.bounds[::3])[::-1] for shape in footprints.geometry]
    assert [(round(row), round(col)) for row, col in firsts] == [(0, 4), (1, 1), (3, 3)]


def test_no_polygons_give_no_footprints(cut, any_grid):
    assert len(finish(np.zeros((200, 200), bool), cut, any_grid)) == 0


def test_building_across_the_antimeridian_has_its_size(cut):
    grid = Grid(CRS.from_epsg(4326), Affine(1e-5, 0, 179.999, 0, -1e-5, 0.001), (200, 200))
    (footprint,) = finish(disc(), cut, grid, simplify_px=0).itertuples()
    meter = math.radians(1e-5) * 6378137
    assert footprint.area_m2 == pytest.approx(disc().sum() * meter**2, rel=0.01)
