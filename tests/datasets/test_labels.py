"""Truth on a grid: rasters and polygons, exact positions, and label values that are not allowed."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.warp import reproject, transform_bounds

from geoseg.datasets.coding import plan_coding
from geoseg.datasets.labels import IGNORED, count_outside, rasterize_areas, read_labels, read_outlines
from geoseg.errors import LabelError, UnknownLabelError
from geoseg.grid import Grid, Window
from geoseg.third_party import allow_no_georeference

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


@pytest.mark.parametrize(
    ("offset_px", "gsd_m", "warns"), [(0.5, 1, True), (-0.3, 1, True), (0.1, 1, False), (0.5, 0.2, False)]
)
def test_labels_of_the_grids_pixel_size_that_lie_beside_it_get_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, offset_px: float, gsd_m: float, warns: bool
) -> None:
    path = write_labels(tmp_path / "l.tif", np.ones((60, 60), np.uint8), gsd_m)
    read_labels(path, Grid(UTM, GRID.transform @ Affine.translation(1 + offset_px, 1), GRID.shape))
    assert ("lie" in caplog.text and "px beside" in caplog.text) is warns


def test_labels_of_a_part_are_those_of_its_pixels_wherever_it_begins(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (60, 70)).astype(np.uint8)
    path = write_labels(tmp_path / "l.tif", values, 1.17)
    whole = Grid(UTM, Affine(1.17, 0, 500_000, 0, -1.17, 1_000_000), values.shape)
    for start in range(1, 55, 2):
        window = Window(start, start + 3, 4, 5)
        assert np.array_equal(read_labels(path, whole.crop(window)), values[window.slices]), start


def test_a_grid_beyond_the_labels_has_no_truth_there(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path / "l.tif", np.ones((6, 5), np.uint8), 1.0), GRID)
    assert (labels[:, :5] == 1).all()
    assert (labels[:, 5:] == IGNORED).all()


def test_polygons_burn_the_pixels_whose_center_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "buildings.geojson"
    shape = shapely.box(500_000 + 1.6, 1_000_000 - 3.4, 500_000 + 5.6, 1_000_000 - 0.4)
    geopandas.GeoDataFrame(geometry=[shape], crs=UTM).to_crs(4326).to_file(path)
    expected = np.zeros(GRID.shape, np.uint8)
    expected[0:3, 2:6] = 1  # of columns 1 and 5 the shape holds 0.4 and 0.6, of rows 0 and 3 0.6 and 0.4
    assert np.array_equal(read_labels(path, GRID), expected)


def test_polygons_on_both_sides_of_the_antimeridian_are_burnt(tmp_path: Path) -> None:
    """The scene lies in zone 1, whose western part is counted as 180 degrees east."""
    to_zone = Transformer.from_crs(4326, 32601, always_xy=True)
    x, y = to_zone.transform(-180, 10)
    zone = Grid(CRS.from_epsg(32601), Affine(1, 0, x - 50, 0, -1, y + 50), (100, 100))
    sides = [shapely.box(179.9, 9.9, 180, 10.1), shapely.box(-180, 9.9, -179.9, 10.1)]
    for name, shapes in (("two", sides), ("one", [shapely.box(179.9, 9.9, 180.1, 10.1)])):
        path = tmp_path / f"{name}.gpkg"
        geopandas.GeoDataFrame({"split": ["train"] * len(shapes)}, geometry=shapes, crs=4326).to_file(path)
        assert (read_labels(path, zone) == 1).all()
        assert rasterize_areas(path, ["train"], zone).all()


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


@pytest.mark.parametrize("nodata", [7, 255])
def test_pixels_of_the_nodata_value_have_no_truth(tmp_path: Path, nodata: int) -> None:
    values = np.random.default_rng(0).integers(0, 2, GRID.shape).astype(np.uint8)
    values[0, :3] = nodata
    path = write_labels(tmp_path / "l.tif", values, 1.0)
    with rasterio.open(path, "r+") as file:
        file.nodata = nodata
    assert np.array_equal(read_labels(path, GRID), np.where(values == nodata, IGNORED, values))


@pytest.mark.parametrize("nodata", [0, 1])
def test_a_nodata_value_that_is_a_class_needs_a_word(tmp_path: Path, nodata: int) -> None:
    """Without its background, a mask of 0 and 1 has no false positives."""
    values = np.random.default_rng(0).integers(0, 2, GRID.shape).astype(np.uint8)
    path = write_labels(tmp_path / "l.tif", values, 1.0)
    with rasterio.open(path, "r+") as file:
        file.nodata = nodata
    name, count = ("background", "building")[nodata], int((values == nodata).sum())
    expected = rf"nodata value {nodata}, .* stands for {name}: {count} px .*`codes`.*0=background, 1=building.*=unknown"
    with pytest.raises(LabelError, match=expected):
        read_labels(path, GRID)
    names = {"0": "background", "1": "building"}
    for given in (names, names | {str(nodata): "unknown"}):
        coding = plan_coding(["building"], values=given)
        index = {"background": 0, "building": 1, "unknown": IGNORED}
        wanted = np.where(values == 0, index[given["0"]], index[given["1"]])
        assert np.array_equal(read_labels(path, GRID, coding=coding), wanted)
    values[values == nodata] = 1 - nodata  # none has it: nothing is ambiguous
    path = write_labels(tmp_path / "l.tif", values, 1.0)
    with rasterio.open(path, "r+") as file:
        file.nodata = nodata
    assert np.array_equal(read_labels(path, GRID), values)


def test_a_part_without_polygons_of_an_image_that_has_some_is_background(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[pixel_box(slice(0, 2), slice(0, 2))], crs=UTM).to_file(tmp_path / "l.gpkg")
    part = GRID.crop(Window(3, 3, 3, 5))
    assert not read_labels(tmp_path / "l.gpkg", part, native=GRID, empty_ok=False).any()
    with pytest.raises(LabelError, match="touches the image"):
        read_labels(tmp_path / "l.gpkg", part, native=part, empty_ok=False)


def test_labels_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"none\.gpkg"):
        read_labels(tmp_path / "none.gpkg", GRID)


def test_a_file_without_polygons_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(LabelError, match=r"broken\.geojson"):
        read_labels(tmp_path / "broken.geojson", GRID)


PICTURE = Grid(None, Affine.identity(), (4, 5))
NAMES = ["building", "land", "road"]
TABLE = {"building": "#3C1098", "land": "#8429F6", "road": "#6EC1E4"}


def write_picture(path: Path, values: NDArray[np.uint8], palette: dict[int, tuple[int, ...]] | None = None) -> Path:
    """Write a mask without georeference."""
    height, width = values.shape[-2:]
    bands = np.atleast_3d(values.T).T
    profile = {"driver": path.suffix[1:].upper().replace("TIF", "GTiff"), "count": len(bands), "dtype": "uint8"}
    if palette:
        profile["photometric"] = "palette"
    with allow_no_georeference(), rasterio.open(path, "w", height=height, width=width, **profile) as file:
        if palette:
            file.write_colormap(1, palette)
        file.write(bands)
    return path


def colored(indices: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    colors = np.array([[0x3C, 0x10, 0x98], [0x84, 0x29, 0xF6], [0x6E, 0xC1, 0xE4], [0, 0, 0]], np.uint8)
    rgb = colors[indices].transpose(2, 0, 1)
    return rgb if alpha is None else np.concatenate([rgb, alpha[None]])


@pytest.fixture
def indices() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 3, PICTURE.shape).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colors_become_class_indices(tmp_path: Path, indices: NDArray[np.uint8], suffix: str) -> None:
    path = write_picture(tmp_path / f"m{suffix}", colored(indices))
    assert np.array_equal(read_labels(path, PICTURE, coding=plan_coding(NAMES, colors=TABLE)), indices)


def test_palette_colors_become_class_indices_whatever_their_numbers(tmp_path: Path, indices: NDArray[np.uint8]) -> None:
    palette = {7: (0x3C, 0x10, 0x98, 255), 8: (0x84, 0x29, 0xF6, 255), 9: (0x6E, 0xC1, 0xE4, 255)}
    path = write_picture(tmp_path / "m.tif", indices + 7, palette)
    assert np.array_equal(read_labels(path, PICTURE, coding=plan_coding(NAMES, colors=TABLE)), indices)


def test_transparent_colors_have_no_truth(tmp_path: Path, indices: NDArray[np.uint8]) -> None:
    alpha = np.full(PICTURE.shape, 255, np.uint8)
    alpha[0] = 0
    path = write_picture(tmp_path / "m.png", colored(indices, alpha))
    labels = read_labels(path, PICTURE, coding=plan_coding(NAMES, colors=TABLE))
    assert (labels[0] == IGNORED).all()
    assert np.array_equal(labels[1:], indices[1:])


def test_unknown_colors_are_named_with_counts_and_file(tmp_path: Path, indices: NDArray[np.uint8]) -> None:
    indices[2, 1:4] = 3
    path = write_picture(tmp_path / "m.png", colored(indices))
    with pytest.raises(UnknownLabelError, match=r"m\.png has #000000 \(3 px\); expected #3C1098, #8429F6, #6EC1E4"):
        read_labels(path, PICTURE, coding=plan_coding(NAMES, colors=TABLE))


@pytest.mark.parametrize(("name", "index"), [("land", 1), ("unknown", IGNORED)])
def test_further_colors_are_mapped(tmp_path: Path, indices: NDArray[np.uint8], name: str, index: int) -> None:
    indices[2, 1:4] = 3
    path = write_picture(tmp_path / "m.png", colored(indices))
    labels = read_labels(path, PICTURE, coding=plan_coding(NAMES, colors=TABLE, also={"#000000": name}))
    assert np.array_equal(labels, np.where(indices == 3, index, indices))


def test_a_mask_of_0_and_255_says_what_255_is(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "m.tif", np.array([[0, 255], [255, 0]], np.uint8).repeat(2, 0)[:, [0, 1, 0, 1, 1]])
    labels = read_labels(path, PICTURE, coding=plan_coding(["building"], values={"255": "building"}))
    assert labels[0].tolist() == [0, 1, 0, 1, 1]
    assert labels[3].tolist() == [1, 0, 1, 0, 0]


def test_a_nodata_value_with_a_meaning_is_no_nodata(tmp_path: Path) -> None:
    values = np.zeros(GRID.shape, np.uint8)
    values[0] = 255
    path = write_labels(tmp_path / "l.tif", values, 1.0)  # nodata = 255
    labels = read_labels(path, GRID, coding=plan_coding(["background", "roof"], values={"255": "roof"}))
    assert np.array_equal(labels, values // 255)


def test_class_indices_shrink_to_the_commonest_and_unknown_does_not_vote(tmp_path: Path) -> None:
    fine = np.zeros((12, 16), np.uint8)
    for corner in range(4):  # whichever pixel is looked at, the commonest is not it once
        block = np.full(4, 2, np.uint8)
        block[corner] = 1
        fine[2:4, 2 * corner : 2 * corner + 2] = block.reshape(2, 2)
    fine[0:2, 0:2] = [[2, 2], [1, 2]]
    fine[0:2, 2:4] = [[255, 255], [255, 2]]
    fine[0:2, 4:6] = 255
    labels = read_labels(write_labels(tmp_path / "l.tif", fine, 0.5), GRID, coding=plan_coding(NAMES))
    assert labels[0, :4].tolist() == [2, 2, IGNORED, 0]
    assert labels[1, :4].tolist() == [2, 2, 2, 2]


def test_polygons_without_a_class_and_of_others_are_named_with_their_counts(tmp_path: Path) -> None:
    shapes = [pixel_box(slice(0, 2), slice(n, n + 1)) for n in range(5)]
    frame = geopandas.GeoDataFrame({"kind": ["road", None, "barn", None, "road"]}, geometry=shapes, crs=UTM)
    frame.to_file(tmp_path / "l.gpkg")
    with pytest.raises(UnknownLabelError, match=r"column kind .*no class \(2 polygons\), barn \(1 polygon\); expected"):
        read_labels(tmp_path / "l.gpkg", GRID, coding=plan_coding(NAMES), column="kind")


def test_of_a_column_with_many_other_values_the_first_are_named(tmp_path: Path) -> None:
    shapes = [pixel_box(slice(0, 2), slice(n, n + 1)) for n in range(5)]
    geopandas.GeoDataFrame({"id": range(5)}, geometry=shapes, crs=UTM).to_file(tmp_path / "l.gpkg")
    with pytest.raises(UnknownLabelError, match=r"\(1 polygon\) and 2 more; expected .*Name the column with"):
        read_labels(tmp_path / "l.gpkg", GRID, coding=plan_coding(NAMES), column="id")


def test_a_number_that_codes_do_not_name_is_unknown_with_several_classes_and_background_with_one(
    tmp_path: Path,
) -> None:
    path = write_labels(tmp_path / "l.tif", np.arange(48).reshape(GRID.shape).astype(np.uint8) % 2, 1.0)
    codes = {"1": "building"}
    assert read_labels(path, GRID, coding=plan_coding(["building"], values=codes)).mean() == 0.5
    with pytest.raises(UnknownLabelError, match=r"0 \(24 px\)"):
        read_labels(path, GRID, coding=plan_coding(NAMES, values=codes))


def test_polygons_that_touch_none_of_several_images_are_counted(tmp_path: Path) -> None:
    shapes = [pixel_box(slice(0, 2), slice(n, n + 1)) for n in (0, 3, 5, 20, 30)]
    geopandas.GeoDataFrame(geometry=shapes, crs=UTM).to_file(tmp_path / "l.gpkg")
    halves = [GRID.crop(Window(0, 0, 6, 2)), GRID.crop(Window(0, 5, 6, 3))]
    assert count_outside(tmp_path / "l.gpkg", halves) == (5, 3)
    assert count_outside(tmp_path / "l.gpkg", []) == (0, 0)
    assert count_outside(write_labels(tmp_path / "l.tif", np.zeros(GRID.shape, np.uint8), 1.0), halves) is None


def test_a_class_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownLabelError, match=r"3 \(2 px\); expected 0, 1, 2, 255"):
        read_labels(
            write_labels(tmp_path / "l.tif", np.array([[3, 3, 1]], np.uint8), 1.0), GRID, coding=plan_coding(NAMES)
        )


@pytest.mark.parametrize("tint", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 2, 3)])
def test_a_mask_in_colors_without_a_table_is_said(tmp_path: Path, tint: tuple[int, int, int]) -> None:
    bands = np.ones((3, *PICTURE.shape), np.uint8) + np.array(tint, np.uint8)[:, None, None]
    with pytest.raises(LabelError, match="is in colors"):
        read_labels(write_picture(tmp_path / "m.png", bands), PICTURE, coding=plan_coding(NAMES))


def test_sizes_that_differ_are_named(tmp_path: Path, indices: NDArray[np.uint8]) -> None:
    path = write_picture(tmp_path / "m.png", indices[:, :4])
    with pytest.raises(LabelError, match="have 4 x 4 px, their image 5 x 4"):
        read_labels(path, PICTURE)


def test_a_mask_without_georeference_lies_on_the_images_own_pixels(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 4:8] = 1
    half = GRID.reshaped((3, 4))
    labels = read_labels(write_picture(tmp_path / "m.png", mask), half, native=GRID)
    assert labels.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_a_part_of_a_picture_gets_its_part_of_the_mask(tmp_path: Path, indices: NDArray[np.uint8]) -> None:
    path = write_picture(tmp_path / "m.png", colored(indices))
    part = PICTURE.crop(Window(1, 2, 2, 3))
    labels = read_labels(path, part, native=PICTURE, coding=plan_coding(NAMES, colors=TABLE))
    assert np.array_equal(labels, indices[1:3, 2:5])


def test_labels_of_another_place_are_refused_with_both_extents(tmp_path: Path) -> None:
    far = Grid(UTM, Affine(1, 0, 700_000, 0, -1, 1_000_000), (6, 8))
    with pytest.raises(LabelError, match=r"lie elsewhere: .*500000\.0.*700000\.0"):
        read_labels(write_labels(tmp_path / "l.tif", np.ones(GRID.shape, np.uint8), 1.0), far)
    gpkg = tmp_path / "far.gpkg"
    geopandas.GeoDataFrame(geometry=[pixel_box(slice(0, 3), slice(0, 3))], crs=UTM).to_file(gpkg)
    assert not read_labels(gpkg, far).any()
    with pytest.raises(LabelError, match=r"no polygon .*500000\.0.*700000\.0.*empty_ok"):
        read_labels(gpkg, far, empty_ok=False)


def test_a_geopackage_of_several_layers_wants_one_named(tmp_path: Path) -> None:
    path = tmp_path / "buildings.gpkg"
    for name, cols in (("old", slice(0, 2)), ("new", slice(4, 8))):
        frame = geopandas.GeoDataFrame(geometry=[pixel_box(slice(0, 6), cols)], crs=UTM)
        frame.to_crs(4326).to_file(path, layer=name)
    assert read_labels(path, GRID, layer="new")[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(LabelError, match=r"has the layers old, new; name one"):
        read_labels(path, GRID)
    with pytest.raises(LabelError, match=r"old, new, not newest"):
        read_labels(path, GRID, layer="newest")


def test_a_column_names_the_classes_of_polygons(tmp_path: Path) -> None:
    path = tmp_path / "land.gpkg"
    shapes = [pixel_box(slice(0, 6), slice(0, 2)), pixel_box(slice(0, 6), slice(4, 8))]
    geopandas.GeoDataFrame({"kind": ["road", "building"]}, geometry=shapes, crs=UTM).to_file(path)
    labels = read_labels(path, GRID, coding=plan_coding(NAMES), column="kind")
    assert labels[0].tolist() == [2, 2, IGNORED, IGNORED, 0, 0, 0, 0]
    with pytest.raises(UnknownLabelError, match=r"road \(1 polygon\); expected building, water, unknown"):
        read_labels(path, GRID, coding=plan_coding(["building", "water"]), column="kind")


def test_polygons_burn_the_target_of_two_classes(tmp_path: Path) -> None:
    path = tmp_path / "roofs.gpkg"
    geopandas.GeoDataFrame(geometry=[pixel_box(slice(0, 6), slice(0, 2))], crs=UTM).to_file(path)
    labels = read_labels(path, GRID, coding=plan_coding(["building", "other"]))
    assert labels[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


INSTANCES = plan_coding(["building"], instances=True)


def write_numbers(path: Path, values: NDArray[np.uint16], gsd_m: float, nodata: int | None, epsg: int = 32631) -> Path:
    """Write numbers of buildings; of another CRS, reprojected to the nearest pixel."""
    height, width = values.shape
    grid = Grid(UTM, Affine(gsd_m, 0, 500_000, 0, -gsd_m, 1_000_000), (height, width))
    if epsg != 32631:
        left, bottom, right, top = transform_bounds(UTM, f"EPSG:{epsg}", *grid.bounds)
        place = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
        out, source = np.zeros((height, width), np.uint16), {"src_transform": grid.transform, "src_crs": UTM}
        reproject(values, out, **source, dst_transform=place, dst_crs=f"EPSG:{epsg}")
        values, grid = out, Grid(CRS.from_epsg(epsg), place, (height, width))
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint16", "nodata": nodata}
    with rasterio.open(path, "w", crs=grid.crs, transform=grid.transform, **profile) as file:
        file.write(values, 1)
    return path


def bounds_of(path: Path, grid: Grid, **options: Any) -> list[tuple[float, ...]]:
    outlines = read_outlines(path, grid, **options)
    assert outlines is not None
    return [outline.bounds for outline in outlines]


@pytest.mark.parametrize(("nodata", "unknown"), [(None, 0), (0, 0), (65_535, IGNORED)])
def test_a_raster_of_numbers_is_a_mask_and_an_outline_of_each_building(
    tmp_path: Path, nodata: int | None, unknown: int
) -> None:
    numbers = np.zeros(GRID.shape, np.uint16)
    numbers[0:3, 0:4], numbers[0:3, 4:6], numbers[5, 7] = 255, 1000, nodata or 0
    path = write_numbers(tmp_path / "l.tif", numbers, 1.0, nodata)
    truth = (numbers > 0).astype(np.uint8)
    truth[5, 7] = unknown
    np.testing.assert_array_equal(read_labels(path, GRID, coding=INSTANCES), truth)
    assert bounds_of(path, GRID, coding=INSTANCES) == [(0, 0, 4, 3), (4, 0, 6, 3)]
    part = GRID.crop(Window(1, 3, 5, 5))
    beyond = [(-2, -1, 1, 2), (1, -1, 3, 2)]  # by two pixels
    assert bounds_of(path, part, coding=INSTANCES, native=GRID) == beyond


@pytest.mark.parametrize(("gsd_m", "epsg", "off"), [(0.5, 32631, 1e-6), (2.0, 32631, 1e-6), (0.1, 3857, 0.3)])
def test_outlines_of_numbers_lie_where_their_pixels_do_on_any_grid(
    tmp_path: Path, gsd_m: float, epsg: int, off: float
) -> None:
    numbers = np.zeros((round(24 / gsd_m), round(24 / gsd_m)), np.uint16)
    rows, cols = (slice(round(4 / gsd_m), round(14 / gsd_m)), slice(round(6 / gsd_m), round(20 / gsd_m)))
    numbers[rows, cols] = 7
    path = write_numbers(tmp_path / "l.tif", numbers, gsd_m, None, epsg)
    (found,) = bounds_of(path, Grid(UTM, GRID.transform, (24, 24)), coding=INSTANCES)
    assert found == pytest.approx((6, 4, 20, 14), abs=off)


def test_only_single_buildings_have_outlines(tmp_path: Path) -> None:
    numbers = np.zeros(GRID.shape, np.uint16)
    numbers[2:4, 2:4] = 9
    path = write_numbers(tmp_path / "l.tif", numbers, 1.0, None)
    assert read_outlines(path, GRID) is None
    unknown = plan_coding(["building"], values={"9": "unknown"}, instances=True)
    assert bounds_of(path, GRID, coding=unknown) == []
    houses = [pixel_box(slice(0, 2), slice(0, 3)), pixel_box(slice(3, 6), slice(3, 6))]
    frame = geopandas.GeoDataFrame({"use": ["house", "pond"]}, geometry=houses, crs=UTM.to_wkt())
    frame.to_file(tmp_path / "l.gpkg")
    coding = plan_coding(["pond", "house"], target="house")
    (house,) = bounds_of(tmp_path / "l.gpkg", GRID, coding=coding, column="use")
    assert house == pytest.approx((0, 0, 3, 2))
    beside = Grid(UTM, Affine(1, 0, 500_100, 0, -1, 1_000_000), GRID.shape)
    wide = Grid(UTM, GRID.transform, (6, 200))
    assert bounds_of(path, beside, coding=INSTANCES, native=wide) == []


def test_a_file_of_labels_that_a_VRT_cannot_open_is_an_error_and_not_background(tmp_path: Path) -> None:
    files = [write_labels(tmp_path / f"{n}.tif", np.ones((1100, 1000), np.uint8), 1.0) for n in (0, 1)]
    placed = [
        f"<ComplexSource><SourceFilename>{file}</SourceFilename><SourceBand>1</SourceBand>"
        '<SrcRect xOff="0" yOff="0" xSize="1000" ySize="1100"/>'
        f'<DstRect xOff="{1000 * n}" yOff="0" xSize="1000" ySize="1100"/></ComplexSource>'
        for n, file in enumerate(files)
    ]
    with rasterio.open(files[0]) as src:
        head = (
            f"<SRS>{src.crs.to_wkt()}</SRS><GeoTransform>{', '.join(map(str, src.transform.to_gdal()))}</GeoTransform>"
        )

    def write_vrt(name: str, *sources: str) -> Path:
        band = f'<VRTRasterBand dataType="Byte" band="1">{"".join(sources)}</VRTRasterBand>'
        path = tmp_path / name
        path.write_text(f'<VRTDataset rasterXSize="2000" rasterYSize="1100">{head}{band}</VRTDataset>')
        return path

    path, grid = write_vrt("l.vrt", *placed), Grid(UTM, GRID.transform, (1100, 2000))
    with rasterio.Env(), rasterio.open(write_vrt("other.vrt", placed[0])) as in_use:
        in_use.read(window=((0, 1), (0, 1)))  # as by another thread: GDAL keeps what it knows of sources
        assert read_labels(path, grid).all()
        files[1].unlink()
        for _ in range(3):
            with pytest.raises(LabelError, match=r"l\.vrt cannot be read"):
                read_labels(path, grid)
