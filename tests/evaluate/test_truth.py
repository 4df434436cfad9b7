"""What counts as truth: the same figures in any order, parts of multipolygons, confidences, ground that is unknown."""

import logging
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.datasets.coding import plan_coding
from geoseg.datasets.labels import read_labels
from geoseg.engines import ClassSegmenter
from geoseg.errors import LabelError, ScoredFileError, UsageError
from geoseg.evaluate import EvaluateSettings, Evaluation, LabelSettings, evaluate_scenes
from geoseg.evaluate.polygons import BuildingPolygons, read_buildings
from geoseg.grid import Grid
from geoseg.inference import EngineRecipe
from geoseg.run import RunSettings, run_scene

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
GRID = Grid(CRS.from_epsg(32630), PLACE, (60, 80))
SPEC = ModelSpec(
    name="fake", network="unet", bands=("gray",), gsd_m=0.3, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
)
HOUSES = [(2, 2, 12, 12), (2, 20, 14, 30), (20, 2, 30, 16), (24, 24, 34, 34), (40, 50, 52, 60)]
FOUND = [(2, 2, 12, 12), (3, 20, 14, 31), (2, 2, 12, 12), (24, 25, 34, 36), (50, 70, 58, 78)]
CONFIDENCE = [0.9, 0.5, 0.5, 0.5, 0.5]


def box(top: float, left: float, bottom: float, right: float) -> shapely.Polygon:
    """Return the ground of some pixels."""
    return shapely.box(*(PLACE @ (left, bottom)), *(PLACE @ (right, top)))


def save(path: Path, shapes: list[shapely.Geometry], **columns: list[object]) -> Path:
    path.unlink(missing_ok=True)
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32630").to_file(path)
    return path


def score(scene: Path | list[Path], labels: Path, **options: object) -> Evaluation:
    return evaluate_scenes(scene, EvaluateSettings(labels=labels, **options))


def read(path: Path, **options: object) -> BuildingPolygons:
    return read_buildings(path, GRID, what="footprints", error=ScoredFileError, **options)


def write_alpha(path: Path, values: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> Path:
    """Write a mask with an alpha band."""
    shape = {"count": 2, "height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", "GTiff", dtype="uint8", crs="EPSG:32630", transform=PLACE, **shape) as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        file.write(np.stack([values, alpha]))
    return path


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(len(FOUND))))
def test_the_order_of_a_file_is_not_that_of_its_buildings(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    path = tmp_path_factory.mktemp("order") / "found.geojson"
    shapes = [box(*FOUND[n]) for n in order]
    found = read(save(path, shapes, confidence=[CONFIDENCE[n] for n in order]))
    first = read(save(path, [box(*b) for b in FOUND], confidence=CONFIDENCE))
    assert shapely.equals_exact(found.polygons, first.polygons).all()
    np.testing.assert_array_equal(found.confidence, first.confidence)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)))
def test_unknown_areas_win_over_houses_and_small_polygons_over_large_ones_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    shapes = [box(0, 0, 60, 40), box(10, 10, 30, 30), box(0, 20, 60, 28), box(15, 12, 18, 15)]
    kinds = ["background", "building", "unknown", "background"]
    path = tmp_path_factory.mktemp("kinds") / "kinds.geojson"
    save(path, [shapes[n] for n in order], kind=[kinds[n] for n in order])
    labels = read_labels(path, GRID, coding=plan_coding(["building"]), column="kind")
    expected = np.zeros(GRID.shape, np.uint8)
    expected[10:30, 10:30] = 1
    expected[15:18, 12:15] = 0
    expected[:, 20:28] = 255
    assert np.array_equal(labels, expected)


def test_figures_do_not_depend_on_the_order_of_labels_unknown_areas_and_predictions(tmp_path: Path, write) -> None:
    scene = write(tmp_path / "scene.tif", np.ones((60, 80)))
    labels, found = [box(*b) for b in HOUSES], [box(*b) for b in FOUND]
    kinds = ["building"] * len(labels) + ["unknown"]
    labels.append(box(20, 0, 40, 30))
    figures = []
    for turn in (0, 2, 5):
        truth = save(tmp_path / "truth.gpkg", np.roll(labels, turn).tolist(), kind=np.roll(kinds, turn).tolist())
        plain = save(tmp_path / "plain.gpkg", np.roll(labels[:-1], turn).tolist())
        mine = save(tmp_path / "found.gpkg", np.roll(found, -turn).tolist(), score=np.roll(CONFIDENCE, -turn).tolist())
        told = LabelSettings(column="kind")
        figures.append(
            [
                score(scene, plain, footprints=mine).total.metrics(),
                score(scene, truth, footprints=mine, label_settings=told, buildings=False).total.metrics(),
            ]
        )
    np.testing.assert_equal(figures[1], figures[0])
    np.testing.assert_equal(figures[2], figures[0])


def test_parts_of_a_multipolygon_are_buildings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = shapely.MultiPolygon([box(*b) for b in HOUSES])
    found = read(save(tmp_path / "dissolved.gpkg", [one, box(54, 2, 58, 6)], score=[0.25, 0.75]))
    assert len(found.polygons) == 6
    assert found.confidence is not None
    assert sorted(found.confidence.tolist()) == [0.25] * 5 + [0.75]
    assert "1 multipolygon with 5 parts, each of which counts as a building" in caplog.text


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"confidence": ["0.9", "0.1"]}, [0.9, 0.1]),
        ({"Confidence": [0.9, 0.1]}, [0.9, 0.1]),
        ({"confidence": [None, None], "score": [0.9, 0.1]}, [0.9, 0.1]),
        ({"confidence": [90, 10]}, [90, 10]),
        ({"confidence": [None, None]}, None),
    ],
)
def test_confidences_are_numbers_whatever_their_type(
    tmp_path: Path, columns: dict[str, list[object]], expected: list[float] | None
) -> None:
    found = read(save(tmp_path / "found.geojson", [box(*b) for b in HOUSES[:2]], **columns)).confidence
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize(("values", "named"), [(["high", "low"], "'high', 'low' in 2"), ([0.9, None], "nothing in 1")])
def test_confidences_that_are_no_numbers_are_refused_with_their_column(
    tmp_path: Path, values: list[object], named: str
) -> None:
    path = save(tmp_path / "found.geojson", [box(*b) for b in HOUSES[:2]], score=values)
    with pytest.raises(ScoredFileError, match=rf"column score of .* has {named} of 2 rows.*`confidence`"):
        read(path)
    assert len(read(path, are_true=True).polygons) == 2  # the truth needs none


def test_percentages_rank_buildings_but_are_no_probabilities(tmp_path: Path, write) -> None:
    scene, labels = write(tmp_path / "scene.tif", np.ones((60, 80))), save(tmp_path / "t.gpkg", [box(*HOUSES[0])])
    found = [box(*HOUSES[0]), box(*HOUSES[1])]
    figures = [
        score(scene, labels, footprints=save(tmp_path / "f.gpkg", found, score=values)).total.metrics()
        for values in ([0.9, 0.8], [90.0, 80.0])
    ]
    assert figures[0]["buildings"]["ap50"] == figures[1]["buildings"]["ap50"] == 1
    assert figures[0]["building_reliability"]
    assert not figures[1]["building_reliability"]


def test_labels_of_a_model_whose_target_is_its_first_class_are_numbered_as_in_training(
    tmp_path: Path, painted, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(EngineRecipe, "open", lambda self: ClassSegmenter(2))
    spec = replace(SPEC, name="first", classes=("building", "background"), target="building")
    model = save_bundle(tmp_path / "first.safetensors", spec, {"unused": torch.zeros(1)})
    scene, pixels = painted
    labels = write(tmp_path / "labels.tif", pixels > 99)
    told = LabelSettings(codes=(("0", "building"), ("1", "background")))
    run = run_scene(scene, RunSettings(model=model, out=tmp_path / "run", threads=1), quiet=True)
    found = [
        score(scene, labels, model=model, buildings=False).total,
        score(scene, labels, model=model, buildings=False, label_settings=told).total,
        score(run.folder, labels, buildings=False).total,
        score(run.folder, labels, buildings=False, threshold=0.5).total,
    ]
    for each in found[1:]:
        np.testing.assert_equal(each.metrics(), found[0].metrics())
        assert each.confusion == found[0].confusion
    assert found[0].confusion.classes == ("building", "background")


def test_labels_and_masks_whose_ground_is_transparent_are_refused(tmp_path: Path, write) -> None:
    houses = np.zeros((60, 80), np.uint8)
    houses[10:30, 10:30] = 1
    plain, drawn = write(tmp_path / "plain.tif", houses), write_alpha(tmp_path / "drawn.tif", houses, 255 * houses)
    with pytest.raises(LabelError, match=r"labels have no pixel of background, only 400 px of building and 4,400 px"):
        score([], drawn, mask=plain)
    with pytest.raises(ScoredFileError, match=r"mask has no pixel of background.*recall would be 1.*`mask_codes`"):
        score([], plain, mask=drawn)
    houses[50:] = 1
    seen = np.full_like(houses, 255)
    seen[40:] = 0
    assert score([], write_alpha(tmp_path / "part.tif", houses, seen), mask=plain).total.confusion.pixels == 40 * 80


def test_footprints_are_judged_on_the_ground_where_the_scene_has_data(tmp_path: Path, painted) -> None:
    scene, pixels = painted
    labels, found = save(tmp_path / "t.gpkg", [box(0, 0, 9, 9)]), save(tmp_path / "f.gpkg", [box(0, 0, 9, 149)])
    assert score(scene, labels, footprints=found).total.confusion.pixels == np.count_nonzero(pixels)


def test_what_a_model_says_of_itself_is_not_given_again(tmp_path: Path) -> None:
    for option in ({"target": "road"}, {"classes": ("land", "road")}):
        with pytest.raises(UsageError, match=f"`{next(iter(option))}`"):
            EvaluateSettings(labels=tmp_path, **option)


def test_the_share_of_the_target_and_of_unknown_pixels_is_said(
    tmp_path: Path, write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    truth, mask = np.zeros((10, 20)), np.zeros((10, 20))
    truth[:5], truth[5:, 10:], mask[:, :5] = 1, 255, 1
    score([], write(tmp_path / "truth.tif", truth), mask=write(tmp_path / "mask.tif", mask), buildings=False)
    assert "building is on 66.7 % of the labels and on 33.3 % of the prediction" in caplog.text
    assert "25.0 % of the pixels have no label, 0.0 % no prediction" in caplog.text
