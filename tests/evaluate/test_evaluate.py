"""Scores of models, runs and other tools' files on scenes with labels."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from geoseg.errors import ExistingResultError, LabelError, OutputError, ScoredFileError, UsageError
from geoseg.evaluate import Confusion, EvaluateSettings, Evaluation, LabelSettings, evaluate_scenes
from geoseg.run import RunSettings, run_scene

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
CRS = "EPSG:32630"
LAND = ("land", "building", "road", "unlabelled")


def score(scene: Path | list[Path], labels: Path, **options: object) -> Evaluation:
    return evaluate_scenes(scene, EvaluateSettings(labels=labels, **options))


def box(top: float, left: float, bottom: float, right: float) -> shapely.Polygon:
    """Return the ground of some pixels."""
    return shapely.box(*(PLACE @ (left, bottom)), *(PLACE @ (right, top)))


def save(path: Path, *shapes: shapely.Geometry, **columns: list) -> Path:
    geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=CRS).to_file(path)
    return path


def flat(figures: object, name: str = "") -> dict[str, object]:
    """Return nested figures under names of their whole path."""
    if isinstance(figures, dict | list):
        inner = figures.items() if isinstance(figures, dict) else enumerate(figures)
        return {path: value for key, item in inner for path, value in flat(item, f"{name}/{key}").items()}
    return {name: figures}


def counts(hits: int, false_alarms: int, misses: int, rejections: int) -> Confusion:
    return Confusion(np.array([[rejections, false_alarms], [misses, hits]]))


def test_a_score_counts_what_the_network_got_right_and_wrong(tmp_path: Path, painted, model: Path, write) -> None:
    scene, pixels = painted
    truth = np.random.default_rng(1).random(pixels.shape) < 0.5
    labels = np.where(np.random.default_rng(2).random(pixels.shape) < 0.1, 255, truth)
    found = score(scene, write(tmp_path / "labels.tif", labels), model=model, buildings=False)
    known = (pixels > 0) & (labels != 255)
    expected = Confusion.count((pixels >= 127).astype(np.uint8), np.where(known, truth, 255).astype(np.uint8))
    assert found.total.confusion == expected
    assert found.scenes["scene"].confusion == expected
    assert found.total.levels is not None
    assert found.total.levels.counts.sum() == known.sum()


def test_polygons_are_labels_too_and_an_area_bounds_the_score(tmp_path: Path, painted, model: Path) -> None:
    scene, pixels = painted
    geopandas.GeoSeries([box(20.2, 10.2, 40.2, 60.2)], crs=CRS).to_crs(4326).to_file(tmp_path / "b.gpkg")
    area = save(tmp_path / "area.gpkg", box(0, 0, 50, 170), box(60, 0, 90, 170), split=["test", "train"])
    truth = np.full(pixels.shape, 255, np.uint8)
    truth[:50] = 0
    truth[20:40, 10:60] = 1
    found = score(scene, tmp_path / "b.gpkg", model=model, aoi=area, aoi_where="split = 'test'").total
    assert found.confusion == Confusion.count((pixels >= 127).astype(np.uint8), truth)
    assert found.buildings is not None
    assert found.buildings.truths == 1


def test_a_run_folder_scores_as_the_model_that_made_it(tmp_path: Path, painted, model: Path, write) -> None:
    scene, pixels = painted
    labels = write(tmp_path / "labels.tif", np.roll(pixels, 2) >= 140)
    run = run_scene(scene, RunSettings(model=model, out=tmp_path / "run"), quiet=True).folder
    by_model, by_run = score(scene, labels, model=model), score(run, labels)
    metrics = by_model.total.metrics()
    assert flat(by_run.total.metrics()) == pytest.approx(flat(metrics), nan_ok=True)
    assert metrics["buildings"]["truth"] > 20
    assert 0 < metrics["buildings"]["ap50"] < 1
    assert by_run.facts["run"]["model"] == "fake"
    (run / "buildings.gpkg").rename(tmp_path / "buildings.gpkg")
    assert flat(score(run, labels).total.metrics()) == pytest.approx(flat(metrics), nan_ok=True)  # of the GeoParquet
    files = score([], labels, mask=run / "mask.tif", footprints=tmp_path / "buildings.gpkg").total.metrics()
    assert files["buildings"] == pytest.approx(metrics["buildings"], nan_ok=True)
    assert files["boundary_iou"] == metrics["boundary_iou"]
    assert "calibration_error" not in files


def test_another_threshold_scores_a_run_folder_anew(tmp_path: Path, painted, model: Path, write) -> None:
    scene, pixels = painted
    labels = write(tmp_path / "labels.tif", pixels >= 180)
    run = run_scene(scene, RunSettings(model=model, out=tmp_path / "run"), quiet=True).folder
    at_half, higher = score(run, labels).total, score(run, labels, threshold=0.7).total
    expected = score(scene, labels, model=model, threshold=0.7).total
    assert flat(higher.metrics()) == pytest.approx(flat(expected.metrics()), nan_ok=True)
    assert higher.confusion.of_class("building")["iou"] > at_half.confusion.of_class("building")["iou"]


def test_footprints_of_any_tool_are_burnt_on_the_scene_or_on_the_labels(tmp_path: Path, painted, write) -> None:
    scene, pixels = painted
    truth = np.zeros(pixels.shape, np.uint8)
    truth[20:40, 10:60] = truth[60:80, 10:30] = 1
    raster = write(tmp_path / "labels.tif", truth)
    vector = save(tmp_path / "truth.gpkg", box(20, 10, 40, 60), box(60, 10, 80, 30))
    tool = save(tmp_path / "tool.gpkg", box(20, 10, 40, 60), box(60, 20, 80, 40), score=[0.9, 0.2])
    on_labels, on_scene = score([], raster, footprints=tool).total, score(scene, vector, footprints=tool).total
    assert on_labels.confusion == counts(1200, 200, 200, pixels.size - 1600)
    assert on_scene.confusion == counts(1200, 200, 200, np.count_nonzero(pixels) - 1600)  # not where it has no data
    assert on_scene.buildings is not None
    assert (on_scene.buildings.truths, on_scene.buildings.predictions) == (2, 2)
    metrics = on_scene.metrics()["buildings"]
    assert (metrics["right"], metrics["wrong"], metrics["missed"]) == (1, 1, 1)
    assert metrics["ap50"] == pytest.approx(51 / 101)
    with pytest.raises(UsageError, match="Give the scene"):
        score([], vector, footprints=tool)


def test_several_classes_are_scored_by_the_likeliest(tmp_path: Path, land_model: Path, write) -> None:
    values = np.repeat(np.arange(4), 30)[None] * 64 + 10 + np.zeros((70, 1), int)
    scene = write(tmp_path / "scene.tif", values)
    truth = values // 64
    truth[:10] = 255
    truth[20:30] = 1
    found = score(scene, write(tmp_path / "labels.tif", truth), model=land_model, out=tmp_path / "out")
    metrics = found.total.metrics()
    assert found.total.confusion == Confusion.count((values // 64).astype(np.uint8), truth.astype(np.uint8), LAND)
    assert found.total.unscored == ("unlabelled",)
    scored = [metrics["classes"][name]["iou"] for name in LAND[:3]]
    assert metrics["mean_iou"] == pytest.approx(np.mean(scored))
    assert metrics["buildings"]["truth"] == 1
    assert "| unlabelled (not in the mean) |" in found.table()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("metrics.json", "confusion.png", "reliability.png", "building_reliability.png", "pictures")
    }


def test_the_target_alone_may_be_scored_and_is_where_labels_are_polygons(
    tmp_path: Path, land_model: Path, write
) -> None:
    values = np.repeat(np.arange(4), 30)[None] * 64 + 10 + np.zeros((70, 1), int)
    scene = write(tmp_path / "scene.tif", values)
    expected = counts(70 * 30, 0, 0, 70 * 90)
    polygons = save(tmp_path / "b.gpkg", box(0, 30, 70, 60))
    found = score(scene, polygons, model=land_model).total.confusion
    assert np.array_equal(found.counts, expected.counts)
    mask = write(tmp_path / "mask.tif", values // 64)
    found = score([], polygons, mask=mask, classes=LAND).total.confusion
    assert np.array_equal(found.counts, expected.counts)
    raster = write(tmp_path / "labels.tif", values // 64 == 1)
    found = score(scene, raster, model=land_model, target_only=True).total.confusion
    assert np.array_equal(found.counts, expected.counts)


def test_colors_of_labels_are_given_a_class(tmp_path: Path, land_model: Path, write) -> None:
    values = np.repeat(np.arange(4), 20)[None] * 64 + 10 + np.zeros((70, 1), int)
    scene = write(tmp_path / "scene.tif", values)
    palette = np.array([(1, 2, 3), (60, 16, 152), (7, 8, 9), (0, 0, 0)])
    colors = write(tmp_path / "colors.tif", palette[values // 64].transpose(2, 0, 1))
    codes = (("#010203", "land"), ("#3C1098", "building"), ("#070809", "road"), ("#000000", "unknown"))
    found = score(scene, colors, model=land_model, label_settings=LabelSettings(codes=codes)).total
    assert np.array_equal(found.confusion.counts, np.diag([1400, 1400, 1400, 0]))
    with pytest.raises(LabelError, match="#3C1098"):
        score(scene, colors, model=land_model)
    with pytest.raises(UsageError, match=r"`codes` cannot be used: there is no class 'roof'"):
        score(scene, colors, model=land_model, label_settings=LabelSettings(codes=(("#010203", "roof"),)))


def test_codes_explain_rasters_and_not_polygons(tmp_path: Path, painted, model: Path, write) -> None:
    polygons = save(tmp_path / "b.gpkg", box(20, 10, 40, 60), kind=["building"])
    for column, code in (("", "7"), ("", "#010203"), ("kind", "7")):
        settings = LabelSettings(codes=((code, "building"),), column=column)
        with pytest.raises(UsageError, match=r"`codes` applies .*b\.gpkg contains polygons"):
            score(painted[0], polygons, model=model, label_settings=settings)
    mask = write(tmp_path / "mask.tif", np.ones((150, 170)))
    with pytest.raises(UsageError, match=r"`mask_codes` cannot be used: there is no class 'roof'"):
        score([], polygons, mask=mask, mask_codes=(("1", "roof"),))
    colors = LabelSettings(codes=(("#010203", "building"),), column="kind")  # of the picture
    assert score([], polygons, mask=mask, label_settings=colors).total.confusion.pixels


def test_a_target_may_be_named_by_codes_instead_of_classes(tmp_path: Path, write) -> None:
    raster, codes = write(tmp_path / "sevens.tif", np.full((60, 60), 7)), (("7", "roof"),)
    labels = LabelSettings(codes=codes)
    found = score([], raster, mask=raster, mask_codes=codes, target="roof", label_settings=labels).total
    assert (found.target, found.confusion.counts[1, 1]) == ("roof", 3600)


def test_white_masks_of_255_are_read_with_a_code(tmp_path: Path, write) -> None:
    truth = np.zeros((70, 80), np.uint8)
    truth[10:30, 10:40] = 255
    mask = write(tmp_path / "mask.tif", np.where(np.roll(truth, 5, axis=1) > 0, 255, 0))
    options = {"mask_codes": (("255", "building"),), "label_settings": LabelSettings(codes=(("255", "building"),))}
    found = score([], write(tmp_path / "labels.tif", truth), mask=mask, **options).total
    assert found.confusion == counts(500, 100, 100, 70 * 80 - 700)
    assert found.metrics()["buildings"]["right"] == 1


def test_pictures_without_georeference_are_scored_pixel_for_pixel(tmp_path: Path, model: Path, write, caplog) -> None:
    for name, value in (("one", 200), ("two", 10)):
        write(tmp_path / "scenes" / f"{name}.png", np.full((70, 80), value), crs=None)
        write(tmp_path / "labels" / f"{name}_label.png", np.ones((70, 80)), crs=None)
    found = score(tmp_path / "scenes", tmp_path / "labels", model=model)
    assert found.total.confusion == counts(5600, 0, 5600, 0)
    assert found.facts["one"]["unit"] == "px"
    assert found.facts["one"]["boundary_px"] == 3
    assert "has no CRS" in caplog.text


def test_polygons_of_a_picture_are_where_QGIS_draws_them(tmp_path: Path, model: Path, write) -> None:
    values = np.full((70, 80), 10)
    values[5:25, 10:40] = 200
    picture = write(tmp_path / "a.png", values, crs=None)
    truth = tmp_path / "truth.parquet"
    geopandas.GeoDataFrame(geometry=[shapely.box(10, -25, 40, -5)]).to_parquet(truth)
    assert score(picture, truth, model=model).total.confusion == counts(600, 0, 0, 5000)
    mask = write(tmp_path / "mask.png", values > 100, crs=None)
    assert score([], truth, mask=mask).total.confusion == counts(600, 0, 0, 5000)
    geopandas.GeoDataFrame(geometry=[shapely.box(10, 5, 40, 25)]).to_parquet(truth)
    with pytest.raises(LabelError, match=r"touches the scene.*y = -row.*negate"):
        score(picture, truth, model=model)


def test_a_folder_of_labels_scores_every_scene_by_name(tmp_path: Path, model: Path, write) -> None:
    for name, value in (("one", 200), ("two", 10)):
        write(tmp_path / "scenes" / f"{name}.tif", np.full((70, 70), value))
        write(tmp_path / "labels" / f"{name}.tif", np.ones((70, 70)))
    found = score(tmp_path / "scenes", tmp_path / "labels", model=model)
    assert found.scenes["one"].confusion == counts(4900, 0, 0, 0)
    assert found.scenes["two"].confusion == counts(0, 0, 4900, 0)
    assert found.total.metrics()["recall"] == 0.5
    rows = found.table().splitlines()
    assert any(row.startswith("| all | 0.5000 | 0.6667 | 1.0000 | 0.5000 |") for row in rows)


def test_labels_of_another_place_are_an_error_and_no_score(tmp_path: Path, painted, model: Path, write) -> None:
    elsewhere = write(tmp_path / "labels.tif", np.ones((50, 50)), place=Affine(0.3, 0, 700_000, 0, -0.3, 600_000))
    with pytest.raises(LabelError, match="lie elsewhere"):
        score(painted[0], elsewhere, model=model)
    polygons = save(tmp_path / "b.gpkg", shapely.box(700_000, 600_000, 700_010, 600_010))
    with pytest.raises(LabelError, match=r"\(700000\.0, 600000\.0, .*\(500000\.0, 599955\.0, .*\(elsewhere=True\)`"):
        score(painted[0], polygons, model=model)
    found = score(painted[0], polygons, model=model, label_settings=LabelSettings(elsewhere=True)).total
    assert found.confusion.counts[1].sum() == 0
    assert found.metrics()["buildings"]["precision"] == 0
    with pytest.raises(ScoredFileError, match="footprints"):
        score(painted[0], save(tmp_path / "t.gpkg", box(0, 0, 9, 9)), footprints=polygons)


def test_labels_of_a_part_score_that_part(tmp_path: Path, painted, model: Path, write) -> None:
    part = write(tmp_path / "labels.tif", np.ones((50, 50)), place=PLACE @ Affine.translation(20, 30))
    found = score(painted[0], part, model=model).total
    assert found.confusion.pixels == 2500
    assert found.metrics()["precision"] == 1


def test_labels_that_are_no_labels_are_refused(tmp_path: Path, painted, model: Path, write) -> None:
    with pytest.raises(LabelError, match="no labels at"):
        score(painted[0], tmp_path / "gone.tif", model=model)
    with pytest.raises(LabelError, match=r"7 \(25500 px\)"):
        score(painted[0], write(tmp_path / "sevens.tif", np.full((150, 170), 7)), model=model)


def test_the_threshold_is_the_models_unless_another_is_given(tmp_path: Path, painted, model: Path, write) -> None:
    scene, pixels = painted
    labels = write(tmp_path / "labels.tif", np.ones((150, 170)))
    for threshold, least in ((None, 127), (0.9, 229)):
        found = score(scene, labels, model=model, threshold=threshold)
        assert found.to_dict()["threshold"] == (threshold or 0.5)
        assert found.total.confusion.counts[1, 1] == (pixels >= least).sum()


def test_the_curve_finds_the_threshold_that_was_hidden(tmp_path: Path, painted, model: Path, write) -> None:
    scene, pixels = painted
    labels = write(tmp_path / "labels.tif", np.where(pixels > 0, pixels >= 173, 255))
    found = score(scene, labels, model=model, curve=True, out=tmp_path / "out")
    best = next(line for line in found.table().splitlines() if line.endswith("| best |"))
    assert best.startswith("| 0.6")
    assert "| 1.0000 |" in best
    assert (tmp_path / "out" / "curve.png").is_file()
    assert len(json.loads((tmp_path / "out" / "metrics.json").read_text())["curve"]) == 254


def test_metrics_say_how_labels_footprints_and_area_came_from_another_datum(tmp_path: Path, write) -> None:
    scene = write(tmp_path / "scene.tif", np.full((60, 80), 9))
    for name, shape, crs in (("truth", box(5, 5, 30, 30), 2136), ("tool", box(5, 5, 30, 30), 4326)):
        geopandas.GeoSeries([shape], crs=CRS).to_crs(crs).to_file(tmp_path / f"{name}.gpkg")
    area = save(tmp_path / "area.gpkg", box(0, 0, 50, 70))
    options = {"footprints": tmp_path / "tool.gpkg", "aoi": area, "out": tmp_path / "out", "pictures": False}
    score(scene, tmp_path / "truth.gpkg", **options)
    ((_, found),) = json.loads((tmp_path / "out" / "metrics.json").read_text())["scenes"].items()
    shifts = {shift["what"].split()[0]: shift for shift in found["datum_shifts"]}
    assert len(found["datum_shifts"]) == len(shifts)
    assert {what: shift["source"] for what, shift in shifts.items()} == {
        "labels": "EPSG:2136",
        "footprints": "EPSG:4326",
    }
    assert shifts["labels"]["accuracy_m"] > 1
    assert {shift["target"] for shift in shifts.values()} == {CRS}


def test_metrics_are_written_and_never_replaced_unasked(tmp_path: Path, painted, model: Path, write) -> None:
    labels = write(tmp_path / "labels.tif", np.ones((150, 170)))
    out = tmp_path / "out"
    found = score(painted[0], labels, model=model, out=out)
    written = json.loads((out / "metrics.json").read_text())
    assert written["total"]["iou"] == found.total.metrics()["iou"]
    assert written["model"] == "fake"
    assert written["scenes"]["scene"]["boundary_m"] == pytest.approx(0.9, rel=0.01)
    with pytest.raises(ExistingResultError, match=r"metrics\.json exists.*`overwrite=True`"):
        score(painted[0], labels, model=model, out=out)
    score(painted[0], labels, model=model, out=out, overwrite=True)


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match=r"is a file.*`out`"):
            score(tmp_path / "gone.tif", tmp_path / "gone.gpkg", out=out)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # whoever runs the tests may write anywhere
    for out in (tmp_path, tmp_path / "new" / "out"):
        with pytest.raises(OutputError, match=r"cannot be written \(Permission denied.*`out`"):
            score(tmp_path / "gone.tif", tmp_path / "gone.gpkg", out=out)


def test_a_figure_that_does_not_exist_is_null_in_the_file(tmp_path: Path, model: Path, write) -> None:
    scene = write(tmp_path / "scene.tif", np.full((70, 70), 10))
    labels = write(tmp_path / "labels.tif", np.zeros((70, 70)))
    score(scene, labels, model=model, out=tmp_path / "out", pictures=False)
    text = (tmp_path / "out" / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["total"]["iou"] is None
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.json"]


CONTRADICTIONS = {
    "a model and a mask": {"model": "buildings-30cm", "mask": Path("m.tif")},
    "a threshold of a mask": {"threshold": 0.4, "mask": Path("m.tif")},
    "a curve of footprints": {"curve": True, "footprints": Path("f.gpkg")},
    "features of no area": {"aoi_where": "split = 'test'"},
    "two widths": {"boundary_m": 1.0, "boundary_px": 3},
    "a confidence of no footprints": {"confidence": "score", "mask": Path("m.tif")},
    "codes of no mask": {"mask_codes": (("1", "building"),)},
    "a target of no classes": {"target": "road", "mask": Path("m.tif")},
    "no width": {"boundary_px": 0},
    "no probability": {"threshold": 50.0},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_options_that_contradict_each_other_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        EvaluateSettings(labels=Path("labels.tif"), **CONTRADICTIONS[name])


def test_a_run_keeps_its_own_model(tmp_path: Path, painted, model: Path, write) -> None:
    run = run_scene(painted[0], RunSettings(model=model, out=tmp_path / "run"), quiet=True).folder
    labels = write(tmp_path / "labels.tif", np.ones((150, 170)))
    with pytest.raises(UsageError, match="its own model"):
        score(run, labels, model=model)
    with pytest.raises(UsageError, match="separately"):
        score([run, painted[0]], labels)
    with pytest.raises(UsageError, match="nothing to score"):
        score([], labels)
