"""Facts of the figures that no change may lose, each by hand or by an authority, through `evaluate_scenes`."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.crs import CRS
from scipy.ndimage import binary_erosion

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import GeosegError
from geoseg.evaluate import EvaluateSettings, Evaluation, LabelSettings, evaluate_scenes
from geoseg.evaluate.polygons import outline_buildings
from geoseg.evaluate.rasters import Scratch
from geoseg.grid import Grid
from geoseg.inference import EngineRecipe
from geoseg.vectorize import Limits, Simplify

EPSG = "EPSG:32630"
PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
SPEC = ModelSpec(
    name="fake", network="unet", bands=("gray",), gsd_m=0.3, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
)
OBLONG = Affine(0.5, 0, 500_000, 0, -1, 600_000)  # pixels of 0.5 m by 1 m
SHAPE = (60, 80)
BOX_M = (5, 5, 15, 15)  # left, top, right, bottom: meters from the corner of the raster
GROUND = 2e-3  # the projection's own scale is 0.9996


def score(scene: Path | list[Path], labels: Path, **options: object) -> Evaluation:
    return evaluate_scenes(scene, EvaluateSettings(labels=labels, **options))


def save(path: Path, *boxes: tuple[float, float, float, float], **columns: list) -> Path:
    """Write boxes given in meters from the corner of the raster."""
    shapes = [shapely.box(500_000 + x0, 600_000 - y1, 500_000 + x1, 600_000 - y0) for x0, y0, x1, y1 in boxes]
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=EPSG).to_file(path)
    return path


@pytest.fixture
def oblong(tmp_path: Path, write) -> Path:
    """A scene whose pixels are twice as high as wide."""
    return write(tmp_path / "oblong.tif", np.full(SHAPE, 9), place=OBLONG)


@pytest.mark.parametrize(("asked_m", "px"), [(None, 1), (3.0, 4), (7.0, 10)])
def test_the_boundary_of_oblong_pixels_is_as_wide_as_that_of_square_ones_of_their_area(
    tmp_path: Path, oblong: Path, asked_m: float | None, px: int
) -> None:
    truth = save(tmp_path / "truth.gpkg", BOX_M)
    facts = score(oblong, truth, footprints=truth, boundary_m=asked_m).facts["truth"]
    side = np.sqrt(0.5 * 1)
    assert facts["boundary_px"] == px == max(1, round((asked_m or 1) / side))
    assert facts["boundary_m"] == pytest.approx(px * side, rel=GROUND)
    assert facts["gsd_m"] == pytest.approx((0.5, 1), rel=GROUND)
    assert facts["unit"] == "m"


@pytest.mark.parametrize("found", [(5, 5, 17, 15), (5, 5, 15, 17)], ids=["x", "y"])
def test_polis_of_oblong_pixels_is_in_meters_along_either_axis(tmp_path: Path, oblong: Path, found: tuple) -> None:
    truth, tool = save(tmp_path / "truth.gpkg", BOX_M), save(tmp_path / "tool.gpkg", found)
    figures = score(oblong, truth, footprints=tool).total.metrics()["buildings"]
    # Two of the four found corners lie 2 m beyond the true edge; the true corners lie on the found outline.
    assert figures["polis"] == pytest.approx((2 * 2 / 4 + 0) / 2, rel=GROUND)
    assert figures["matched_iou"] == pytest.approx(10 / 12, abs=1e-5)


@pytest.mark.parametrize(("smallest_m2", "left"), [(59, 1), (61, 0)])
def test_areas_of_oblong_pixels_are_in_square_meters(smallest_m2: float, left: int) -> None:
    pixels = np.zeros(SHAPE, np.uint8)
    pixels[10:20, 20:32] = 1  # 120 px of half a square meter
    grid = Grid(CRS.from_epsg(32630), OBLONG, SHAPE)
    found = outline_buildings(Scratch(pixels), grid, 1, limits=Limits(smallest_m2), generalizer=Simplify(0))
    assert len(found.polygons) == left


def two_scenes(tmp_path: Path, write) -> tuple[Path, Path, list[np.ndarray], list[np.ndarray]]:
    """Write a small scene with one house, found 3 px aside, and a larger one: 2 houses found, 2 missed, 1 invented."""
    values = [np.full((60, 60), 10), np.full((120, 150), 30)]
    truths = [np.zeros(v.shape, int) for v in values]
    values[0][5:25, 8:28] = 200
    truths[0][5:25, 5:25] = 1
    values[1][5:25, 5:25] = values[1][5:25, 60:80] = 240
    values[1][60:80, 5:25] = 120  # below the threshold
    values[1][90:110, 100:120] = 220
    truths[1][5:25, 5:25] = truths[1][5:25, 60:80] = truths[1][60:80, 5:25] = truths[1][60:80, 60:80] = 1
    for name, value, truth in zip("ab", values, truths, strict=True):
        write(tmp_path / "scenes" / f"{name}.tif", value)
        write(tmp_path / "labels" / f"{name}.tif", truth)
    return tmp_path / "scenes", tmp_path / "labels", values, truths


def by_hand(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    hits, found, there = (int(np.count_nonzero(x)) for x in (predicted & truth, predicted, truth))
    nan = float("nan")
    return {
        "iou": hits / (found + there - hits),
        "dice": 2 * hits / (found + there),
        "precision": hits / found if found else nan,
        "recall": hits / there,
    }


def rim(mask: np.ndarray, px: int) -> np.ndarray:
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=px)


def test_pixel_figures_of_two_scenes_are_those_of_their_pixels_together(tmp_path: Path, model: Path, write) -> None:
    scenes, labels, values, truths = two_scenes(tmp_path, write)
    found = score(scenes, labels, model=model, curve=True)
    metrics = found.total.metrics()
    value, truth = (np.concatenate([a.ravel() for a in arrays]) for arrays in (values, truths))
    predicted = value >= 127
    expected = by_hand(predicted, truth == 1)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)
    assert metrics["pixel_accuracy"] == pytest.approx(np.mean(predicted == truth))
    rims = [(rim(v >= 127, 3), rim(t == 1, 3)) for v, t in zip(values, truths, strict=True)]  # 1 m of 0.3 m pixels
    common, either = (sum(int(f(p, t).sum()) for p, t in rims) for f in (np.logical_and, np.logical_or))
    assert metrics["boundary_iou"] == pytest.approx(common / either)
    # The values 10, 30, 120, 200, 220 and 240 lie in six bins, none on a border.
    bins = np.ceil(value / 254 * 15)
    gaps = [abs(np.sum(truth[bins == b] - value[bins == b] / 254)) for b in np.unique(bins)]
    assert metrics["calibration_error"] == pytest.approx(sum(gaps) / len(value))
    assert len(found.curve) == 254
    for row in found.curve:
        at = by_hand(value >= round(row["threshold"] * 254), truth == 1)
        assert {key: row[key] for key in at} == pytest.approx(at, nan_ok=True), row["threshold"]
    for key in ("iou", "precision", "recall", "boundary_iou", "calibration_error"):
        mean = np.mean([scene.metrics()[key] for scene in found.scenes.values()])
        assert abs(metrics[key] - mean) > 0.01, f"{key} could be the mean of the scenes"


def test_building_figures_of_two_scenes_are_those_of_their_buildings_together(
    tmp_path: Path, model: Path, write
) -> None:
    scenes, labels, _, _ = two_scenes(tmp_path, write)
    figures = score(scenes, labels, model=model).total.metrics()["buildings"]
    assert [figures[key] for key in ("truth", "predicted", "right", "wrong", "missed")] == [5, 4, 3, 1, 2]
    assert (figures["precision"], figures["recall"]) == pytest.approx((3 / 4, 3 / 5))
    assert figures["f1"] == pytest.approx(2 * 3 / (3 + 1 + 5))  # the mean of the scenes: (1 + 4 / 7) / 2
    assert figures["count_error"] == pytest.approx(-1 / 5)
    # By falling confidence right, right, wrong, right: precision 1 up to recall 0.4, 3/4 up to 0.6.
    assert figures["ap50"] == pytest.approx((41 + 20 * 3 / 4) / 101, abs=0.004)
    # One of three pairs is 3 px aside: two of four corners of each lie 0.9 m from the other.
    assert figures["polis"] == pytest.approx(0.45 / 3, rel=GROUND)
    assert figures["matched_iou"] == pytest.approx((17 / 23 + 1 + 1) / 3, abs=1e-5)
    assert figures["matched_whole"] == 3


def test_missed_and_invented_buildings_leave_polis_as_it_is(tmp_path: Path, oblong: Path) -> None:
    tool = save(tmp_path / "tool.gpkg", (5, 5, 17, 15), (22, 40, 32, 50))
    truth = save(tmp_path / "truth.gpkg", BOX_M, (22, 5, 32, 15), (5, 40, 15, 50))
    figures = score(oblong, truth, footprints=tool).total.metrics()["buildings"]
    assert (figures["right"], figures["wrong"], figures["missed"]) == (1, 1, 2)
    assert figures["polis"] == pytest.approx(0.5, rel=GROUND)
    assert figures["vertex_ratio"] == 1


def test_polis_does_not_exist_where_every_building_is_missed(tmp_path: Path, oblong: Path) -> None:
    tool = save(tmp_path / "tool.gpkg", (22, 40, 32, 50))
    truth = save(tmp_path / "truth.gpkg", BOX_M)
    found = score(oblong, truth, footprints=tool, out=tmp_path / "out", pictures=False)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["total"]["buildings"]
    assert (written["polis"], written["matched_iou"], written["c_iou"]) == (None, None, None)
    assert (written["f1"], written["recall"], written["missed"]) == (0, 0, 1)
    row = next(line for line in found.table().splitlines() if line.startswith("| tool | 1 |"))
    assert row.endswith("| - | - | - |")


@pytest.mark.parametrize(
    ("codes", "houses", "unknown"),
    [
        ((("7", "building"),), {7}, {255}),
        ((("255", "building"),), {255}, set()),
        ((("255", "building"), ("7", "unknown")), {255}, {7}),
        ((("7", "building"), ("255", "background")), {7}, set()),
    ],
)
def test_255_is_unknown_beside_a_code_unless_a_code_names_it(
    tmp_path: Path, write, codes: tuple, houses: set[int], unknown: set[int]
) -> None:
    labels = np.zeros((60, 60), int)
    labels[10:30, 10:30], labels[40:50, 10:50] = 255, 7
    if 7 not in houses | unknown:
        labels[labels == 7] = 0
    mask = np.zeros_like(labels)
    mask[10:50, 10:20] = 1
    settings = LabelSettings(codes=codes)
    found = score(
        [], write(tmp_path / "labels.tif", labels), mask=write(tmp_path / "mask.tif", mask), label_settings=settings
    ).total.confusion
    known, house = ~np.isin(labels, list(unknown)), np.isin(labels, list(houses))
    expected = [[np.count_nonzero(known & (house == t) & (mask == p)) for p in (0, 1)] for t in (0, 1)]
    assert found.counts.tolist() == expected


def test_a_filter_chooses_among_the_areas(tmp_path: Path, oblong: Path) -> None:
    truth = save(tmp_path / "truth.gpkg", BOX_M, (22, 5, 32, 15))
    tool = save(tmp_path / "tool.gpkg", BOX_M)
    area = save(tmp_path / "area.gpkg", (0, 0, 20, 30), (20, 0, 40, 60), split=["test", "train"], year=[2020, 2024])

    def pixels_and_missed(where: str | None) -> tuple[int, int]:
        found = score(oblong, truth, footprints=tool, aoi=area, aoi_where=where).total
        return found.confusion.pixels, found.metrics()["buildings"]["missed"]

    west, east = 40 * 30, 40 * 60
    assert pixels_and_missed("split = 'test'") == (west, 0)
    assert pixels_and_missed("year > 2022") == (east, 1)
    assert pixels_and_missed(None) == (west + east, 1)
    with pytest.raises(GeosegError):
        pixels_and_missed("split = 'none'")


def test_the_classes_of_a_mask_are_those_of_its_numbers_however_few(tmp_path: Path, write) -> None:
    mask, truth = np.ones((40, 50), int), np.ones((40, 50), int)
    mask[5:15, 5:25] = truth[5:15, 5:15] = 0
    files = {"mask": write(tmp_path / "mask.tif", mask), "labels": write(tmp_path / "labels.tif", truth)}
    for asked in ({}, {"target": "building"}):
        found = score([], **files, classes=("building", "land"), **asked).total
        assert (found.confusion.classes, found.target) == (("building", "land"), "building")
        assert found.confusion.counts.tolist() == [[100, 0], [100, 1800]]
        assert found.metrics()["buildings"]["truth"] == 1
    found = score([], **files, classes=("building", "land"), target="land").total
    assert (found.target, found.confusion.of_class("land")["precision"]) == ("land", 1)
    with pytest.raises(GeosegError, match="roof"):
        score([], **files, classes=("building", "land"), target="roof")


def test_footprints_alone_are_the_target_whatever_the_classes(tmp_path: Path, oblong: Path) -> None:
    truth = save(tmp_path / "truth.gpkg", BOX_M)
    found = score(oblong, truth, footprints=truth, classes=("land", "road", "building"), target="building").total
    assert (found.target, found.confusion.of_class("building")["iou"]) == ("building", 1)


@pytest.mark.parametrize("codes", [(), (("7", "building"),), (("7", "building"), ("9", "unknown"))])
def test_nodata_of_labels_is_unknown_beside_any_code(tmp_path: Path, write, codes: tuple) -> None:
    labels = np.zeros((60, 60), int)
    labels[10:30, 10:30], labels[40:50, 10:50] = 99, 7 if codes else 1
    raster = write(tmp_path / "labels.tif", labels, nodata=99)
    mask = write(tmp_path / "mask.tif", np.ones((60, 60)))
    found = score([], raster, mask=mask, label_settings=LabelSettings(codes=codes)).total.confusion
    assert found.counts.tolist() == [[0, 60 * 60 - 800], [0, 400]]
    codes = (("99", "building"), ("7", "unknown"), ("1", "unknown"))
    named = score([], raster, mask=mask, label_settings=LabelSettings(codes=codes)).total.confusion
    assert named.counts.tolist() == [[0, 60 * 60 - 800], [0, 400]]


# Inside one pixel, without its center and with it; over the corner of four, without a center; and 3 x 3 centers.
SMALL = [(10.1, 10.1, 10.4, 10.9), (20.3, 20.3, 20.8, 20.8), (29.6, 29.6, 30.4, 30.4), (40.6, 40.6, 44.4, 44.4)]


@pytest.mark.parametrize("column", ["", "kind"])
def test_polygons_and_areas_have_the_pixels_whose_centers_they_hold(tmp_path: Path, write, column: str) -> None:
    place = Affine(1, 0, 500_000, 0, -1, 600_000)
    everywhere = write(tmp_path / "mask.tif", np.ones((60, 60)), place=place)
    polygons = save(tmp_path / "truth.gpkg", *SMALL, kind=["building"] * 4)
    found = score([], polygons, mask=everywhere, label_settings=LabelSettings(column=column)).total.confusion
    assert found.counts.tolist() == [[0, 60 * 60 - 10], [0, 1 + 3 * 3]]
    labels = write(tmp_path / "labels.tif", np.ones((60, 60)), place=place)
    assert score([], labels, mask=everywhere, aoi=polygons).total.confusion.pixels == 10
    tool = score(everywhere, labels, footprints=polygons).total.confusion
    assert tool.counts.tolist() == [[0, 0], [60 * 60 - 10, 10]]
    with pytest.raises(GeosegError):  # the area holds no pixel's center
        score([], labels, mask=everywhere, aoi=save(tmp_path / "area.gpkg", SMALL[0]))


def test_pixels_of_16_bits_reach_a_model_of_another_maximum_as_they_are(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((60, 60), 900, np.uint16)
    pixels[10:30, 10:30], pixels[40:50, 10:50] = 3000, 2999
    with rasterio.open(
        tmp_path / "scene.tif", "w", width=60, height=60, count=1, dtype="uint16", crs=EPSG, transform=PLACE
    ) as file:
        file.write(pixels, 1)
    monkeypatch.setattr(EngineRecipe, "open", lambda recipe: ThresholdSegmenter(3000))
    found = {}
    for most in (255.0, 4000.0):
        model = save_bundle(
            tmp_path / f"{most:g}.safetensors", replace(SPEC, pixel_max=most), {"unused": torch.zeros(1)}
        )
        found[most] = score(tmp_path / "scene.tif", write(tmp_path / "labels.tif", pixels >= 3000), model=model)
    assert found[4000].total.confusion.counts.tolist() == [[60 * 60 - 400, 0], [0, 400]]
    assert found[255].total.confusion.counts.tolist() == [[60 * 60 - 400, 0], [400, 0]]  # stretched to 0 to 255


def test_of_one_class_of_a_mask_what_has_no_class_does_not_count(tmp_path: Path, write) -> None:
    mask = np.full((40, 50), 2)
    mask[:10], mask[30:] = 255, 1
    files = {"mask": write(tmp_path / "mask.tif", mask), "labels": write(tmp_path / "labels.tif", mask == 2)}
    found = score([], **files, classes=("land", "road", "roof"), target_only=True).total.confusion
    assert found.counts.tolist() == [[500, 0], [0, 1000]]
