"""Real QGIS (Debian's python3-qgis) opens, styles and draws what geoseg writes."""

import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from shapely.geometry import Polygon, box

from geoseg import VectorizeSettings, vectorize_raster
from geoseg.grid import Grid, Window
from geoseg.outputs import class_file, mask_file, probability_file, write_geopackage, write_raster
from geoseg.scene import open_scene

WHITE = (255, 255, 255)
GRID = Grid(CRS.from_epsg(32630), Affine(0.5, 0, 500_000, 0, -0.5, 600_000), (600, 800))
RASTERS = ("probability.tif", "mask.tif", "classes.tif", "unstyled.tif")
NAMES, COLORS = ("bare & open", "building", "<road>", "water"), ("#c9a66b", "#ff7a1a", "#b4b4be", "#2f7fd6")
WHOLE = box(500_010, 599_720, 500_090, 599_790)
COURTYARD = box(500_230, 599_760, 500_330, 599_860)
HOLE = box(500_260, 599_790, 500_300, 599_830)


@dataclass(frozen=True)
class Look:
    """What QGIS saw, by file name, and the folder of its pictures."""

    facts: dict[str, dict[str, Any]]
    pictures: Path

    def picture(self, name: str) -> NDArray[np.uint8]:
        """Return the picture of one layer as `(3, y, x)`."""
        with Image.open(self.pictures / f"{name}.png") as picture:
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def look(ask_qgis: Any, tmp_path_factory: pytest.TempPathFactory) -> Look:
    folder = tmp_path_factory.mktemp("qgis")
    write_geopackage(_footprints(), folder / "buildings.gpkg")
    write_geopackage(_footprints().iloc[:0], folder / "empty.gpkg")
    write_raster(probability_file(folder / "probability.tif"), _blocks(_probability()), GRID)
    write_raster(mask_file(folder / "mask.tif"), _blocks(_mask()), GRID)
    write_raster(class_file(folder / "classes.tif", names=NAMES, colors=COLORS), _blocks(_classes()), GRID)
    write_raster(class_file(folder / "unstyled.tif", names=NAMES, colors=COLORS), _blocks(_classes()), GRID)
    (folder / "unstyled.qml").unlink()
    _write_picture(folder)
    request = {
        "vectors": [str(folder / name) for name in ("buildings.gpkg", "empty.gpkg", "town.gpkg")],
        "rasters": [str(folder / name) for name in (*RASTERS, "town.png", "town_mask.tif")],
        "over": {str(folder / "town.gpkg"): str(folder / "town.png")},
        "pictures": str(folder),
    }
    return Look(ask_qgis("look.py", request, folder), folder)


def _town() -> NDArray[np.uint8]:
    """A picture without georeference: white buildings, most of them at the top."""
    town = np.zeros((200, 200), np.uint8)
    town[10:50, 20:160], town[60:100, 20:60], town[150:170, 120:150] = 255, 255, 255
    return town


def _write_picture(folder: Path) -> None:
    """Write a picture, its polygons and its mask."""
    Image.fromarray(_town()).save(folder / "town.png")
    vectorize_raster(folder / "town.png", VectorizeSettings(out=folder / "town", outline="raw"))
    shutil.copy(folder / "town" / "buildings.gpkg", folder / "town.gpkg")
    grid = open_scene(folder / "town.png").grid
    write_raster(mask_file(folder / "town_mask.tif"), [(grid.window, _town() // 255)], grid)


def _footprints() -> gpd.GeoDataFrame:
    polygons = [WHOLE, Polygon(COURTYARD.exterior, [HOLE.exterior])]
    return gpd.GeoDataFrame(
        {
            "area_m2": [p.area for p in polygons],
            "perimeter_m": [p.length for p in polygons],
            "confidence": [0.95, 0.3],
            "edge": [False, True],
        },
        geometry=polygons,
        crs=GRID.crs,
    )


def _probability() -> NDArray[np.uint8]:
    """Every column another value; the last hundred columns are no data."""
    values = np.minimum(np.arange(GRID.width), 254).astype(np.uint8)
    values[-100:] = 255
    return np.tile(values, (GRID.height, 1))


def _mask() -> NDArray[np.uint8]:
    """Left half background, then buildings, then a hundred columns of no data."""
    mask = np.zeros(GRID.shape, np.uint8)
    mask[:, 400:] = 1
    mask[:, -100:] = 255
    return mask


def _classes() -> NDArray[np.uint8]:
    """Four upright bands of classes, then a hundred columns of no data."""
    classes = np.tile(np.arange(GRID.width) // 175, (GRID.height, 1)).astype(np.uint8)
    classes[:, -100:] = 255
    return classes


def _blocks(values: NDArray[np.uint8]) -> list[tuple[Window, NDArray[np.uint8]]]:
    windows = [Window(row, col, 300, 400) for row in (0, 300) for col in (0, 400)]
    return [(window, values[window.slices]) for window in windows]


def _style_colors(geopackage: Path) -> set[str]:
    """Return the fill colors of the default style in a GeoPackage, as `#rrggbb`."""
    with sqlite3.connect(geopackage) as database:
        ((qml,),) = database.execute("SELECT styleQML FROM layer_styles WHERE useAsDefault = 1")
    database.close()
    rgb = re.findall(r'(?:name|k)="color"[^>]*?(?:value|v)="(\d+),(\d+),(\d+)', qml)
    rgb += re.findall(r'(?:value|v)="(\d+),(\d+),(\d+)[^"]*"[^>]*?(?:name|k)="color"', qml)
    return {"#" + "".join(f"{int(part):02x}" for part in color) for color in rgb}


def _share_of_color(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a picture is not gray or white."""
    return np.ptp(picture.astype(int), axis=0) > 20


def test_qgis_shows_picture_mask_and_polygons_at_one_place(look: Look) -> None:
    for name in ("town.png", "town_mask.tif"):
        assert look.facts[name]["extent"] == [0, -200, 200, 0], name
    white = _town() > 0
    picture, mask, polygons = (look.picture(name) for name in ("town.png", "town_mask.tif", "town.gpkg"))
    np.testing.assert_array_equal(picture[0] > 128, white)
    np.testing.assert_array_equal(_share_of_color(mask), white)
    drawn = _share_of_color(polygons)  # with their borders
    assert (drawn & white).sum() > 0.9 * (drawn | white).sum()
    assert (drawn & white[::-1]).sum() < 0.6 * white.sum()


def test_qgis_draws_the_polygons_of_a_mask_though_they_have_no_confidence(look: Look) -> None:
    facts, inside = look.facts["town.gpkg"], _style_colors(look.pictures / "town.gpkg")
    assert "confidence" not in facts["fields"]
    assert set(facts["colors"]) == inside, "QGIS does not use the style in the GeoPackage"
    assert (_share_of_color(look.picture("town.gpkg")) & (_town() > 0)).sum() > 0.9 * (_town() > 0).sum()


def test_qgis_counts_every_footprint(look: Look) -> None:
    assert look.facts["buildings.gpkg"]["feature_count"] == 2
    assert look.facts["empty.gpkg"]["feature_count"] == 0


def test_qgis_reads_the_footprints_attributes(look: Look) -> None:
    facts = look.facts["buildings.gpkg"]
    assert {"area_m2", "perimeter_m", "confidence", "edge"} <= set(facts["fields"])
    assert sorted(facts["area_m2"]) == pytest.approx(sorted([WHOLE.area, COURTYARD.area - HOLE.area]))
    assert facts["geometries_valid"]


@pytest.mark.parametrize("name", ["buildings.gpkg", "empty.gpkg", *RASTERS])
def test_qgis_knows_the_crs_by_its_code(look: Look, name: str) -> None:
    assert look.facts[name]["crs"] == "EPSG:32630"


def test_qgis_places_the_footprints(look: Look) -> None:
    left, bottom, right, top = WHOLE.union(COURTYARD).bounds
    assert look.facts["buildings.gpkg"]["extent"] == pytest.approx([left, bottom, right, top])


@pytest.mark.parametrize("name", RASTERS)
def test_qgis_places_the_rasters_on_exactly_the_scenes_extent(look: Look, name: str) -> None:
    assert look.facts[name]["extent"] == pytest.approx(list(GRID.bounds), abs=1e-9)
    assert look.facts[name]["shape"] == list(GRID.shape)


def test_qgis_applies_the_style_in_the_geopackage(look: Look) -> None:
    inside = _style_colors(look.pictures / "buildings.gpkg")
    assert inside, "the GeoPackage has no default style with a color"
    assert set(look.facts["buildings.gpkg"]["colors"]) <= inside


def test_qgis_draws_the_footprints_in_color_and_leaves_the_courtyard_open(look: Look) -> None:
    colored = _share_of_color(look.picture("buildings.gpkg"))
    bounds = WHOLE.union(COURTYARD).bounds
    for shape, filled in ((WHOLE, True), (HOLE, False)):
        row, col = _pixel_of(shape, bounds, colored.shape)
        assert colored[row - 3 : row + 4, col - 3 : col + 4].all() == filled, shape
    assert 0.1 < colored.mean() < 0.6


def test_qgis_draws_sure_and_unsure_footprints_differently(look: Look) -> None:
    picture, bounds = look.picture("buildings.gpkg"), WHOLE.union(COURTYARD).bounds
    wing = box(*COURTYARD.bounds[:3], HOLE.bounds[1])
    sure, unsure = (picture[:, *_pixel_of(shape, bounds, picture.shape[1:])].astype(int) for shape in (WHOLE, wing))
    assert np.abs(sure - unsure).max() > 20


def _pixel_of(shape: Any, bounds: tuple[float, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Return where the middle of a shape lies in a picture that shows `bounds` in full, centerd."""
    meters = max((bounds[2] - bounds[0]) / size[1], (bounds[3] - bounds[1]) / size[0])
    middle_x, middle_y = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    return (
        round(size[0] / 2 - (shape.centroid.y - middle_y) / meters),
        round(size[1] / 2 + (shape.centroid.x - middle_x) / meters),
    )


def test_qgis_reads_probabilities_between_0_and_1(look: Look) -> None:
    facts = look.facts["probability.tif"]
    assert facts["nodata"] == 255
    assert facts["scale"] == pytest.approx(1 / 254)
    expected = np.minimum(np.arange(700), 254) / 254
    assert facts["first_row"][:700] == pytest.approx(expected)
    assert facts["first_row"][700:] == [None] * 100


def test_qgis_draws_the_buildings_of_the_mask_in_its_color_table_and_lets_the_ground_show(look: Look) -> None:
    facts = look.facts["mask.tif"]
    assert facts["renderer"] == "paletted"
    picture = look.picture("mask.tif")
    with rasterio.open(look.pictures / "mask.tif") as source:
        table = source.colormap(1)
    for fraction, color in ((0.25, WHITE), (0.75, table[1][:3])):
        assert tuple(picture[:, 100, round(200 * fraction)]) == color


def test_qgis_lets_the_ground_show_where_the_probability_is_0(look: Look) -> None:
    assert look.facts["probability.tif"]["renderer"] == "singlebandpseudocolor"
    picture = look.picture("probability.tif")[:, 100].astype(int)
    assert picture[:, 0].min() > 250
    assert picture[:, 100].min() < 150  # 254 of 254
    assert (np.diff(picture[1, :63]) <= 0).all()  # more of the ramp the surer


def test_qgis_lists_background_and_building_alone(look: Look) -> None:
    assert look.facts["mask.tif"]["legend"] == [[0, "background", "#262626"], [1, "building", "#ff7a1a"]]


def test_qgis_leaves_nodata_of_the_mask_undrawn(look: Look) -> None:
    assert look.facts["mask.tif"]["nodata"] == 255
    assert (look.picture("mask.tif")[:, 100, -20:-2] == 255).all()


def test_qgis_lists_the_classes_alone_with_names_and_colors(look: Look) -> None:
    facts = look.facts["classes.tif"]
    assert facts["renderer"] == "paletted"
    assert facts["nodata"] == 255
    assert facts["legend"] == [[i, name, color] for i, (name, color) in enumerate(zip(NAMES, COLORS, strict=True))]


def test_qgis_finds_the_names_without_the_style_too(look: Look) -> None:
    legend = look.facts["unstyled.tif"]["legend"]
    assert [label for _, label, _ in legend[:4]] == list(NAMES)


def test_qgis_draws_the_classes_in_their_colors(look: Look) -> None:
    picture = look.picture("classes.tif")
    for index, color in enumerate(COLORS):
        drawn = picture[:, 100, round(200 * (175 * index + 87) / GRID.width)]
        assert tuple(drawn) == tuple(bytes.fromhex(color[1:])), NAMES[index]
    assert (picture[:, 100, -20:-2] == 255).all()
