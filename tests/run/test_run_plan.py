"""A whole run without a network: rasters, footprints and report, however the work is cut."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import AOIError, ExistingResultError, OutputError, UnfinishedError, UsageError
from geoseg.grid import fit_lattice
from geoseg.inference import AOI, Plan
from geoseg.run import RunResult, RunSettings, run_plan, run_scene
from geoseg.scene import open_scene

SPEC = ModelSpec(name="fake", network="none", bands=("gray",), gsd_m=0.3, mean=(0.0,), std=(1.0,), min_area_m2=0.0)
TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def blobs(height: int, width: int, seed: int = 5) -> np.ndarray:
    """Return `(y, x)` uint8: smooth random blobs, bright ones are buildings with holes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 2, width // 4 + 2))
    return np.kron(coarse, np.ones((4, 4)))[1 : height + 1, 2 : width + 2].astype(np.uint8)


def write_raster(
    path: Path, pixels: np.ndarray, *, valid: np.ndarray | None = None, transform: Affine = TRANSFORM
) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "transform": transform}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as dst,
    ):
        dst.write(pixels[None])
        if valid is not None:
            dst.write_mask(valid)
    return path


def run_fake(
    scene: Path, out: Path, *, chip_px: int = 48, halo_px: int = 8, blend: bool = False, **settings
) -> RunResult:
    opened = open_scene(scene)
    lattice = fit_lattice(opened.grid.shape, chip_px=chip_px, halo_px=halo_px, multiple_px=8)
    plan = Plan(opened, lattice, ThresholdSegmenter(), blend=blend)
    return run_plan(plan, Bundle(SPEC, Path("none"), "0"), RunSettings(out=out, **settings), quiet=True)


def read_all(result: RunResult) -> tuple[np.ndarray, np.ndarray, geopandas.GeoDataFrame]:
    with rasterio.open(result.folder / "probability.tif") as src:
        probability = src.read(1)
    with rasterio.open(result.folder / "mask.tif") as src:
        mask = src.read(1)
    return probability, mask, geopandas.read_file(result.folder / "buildings.gpkg", layer="buildings")


def test_blocks_and_threads_do_not_change_the_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    valid = np.kron(rng.random((8, 10)) < 0.85, np.ones((25, 25), bool)).astype(bool)
    scene = write_raster(tmp_path / "scene.tif", blobs(200, 250), valid=valid)
    one = read_all(run_fake(scene, tmp_path / "a", block_px=1000, threads=1))
    for number, (block_px, threads) in enumerate([(32, 2), (70, 3), (130, 1)]):
        other = read_all(run_fake(scene, tmp_path / f"b{number}", block_px=block_px, threads=threads))
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        assert len(one[2]) > 50
        assert one[2].geometry.to_wkb().tolist() == other[2].geometry.to_wkb().tolist()
        for column in ("area_m2", "perimeter_m", "confidence", "edge"):
            assert one[2][column].tolist() == other[2][column].tolist()


def test_mask_follows_the_scene_and_nodata_is_never_a_building(tmp_path: Path) -> None:
    pixels, valid = blobs(120, 160), np.ones((120, 160), bool)
    pixels[40:80, 50:90], valid[40:80, 50:90] = 255, False
    result = run_fake(write_raster(tmp_path / "scene.tif", pixels, valid=valid), tmp_path / "out", outline="raw")
    probability, mask, footprints = read_all(result)
    np.testing.assert_array_equal(mask, np.where(valid, pixels >= 128, 255))
    np.testing.assert_array_equal(probability == 255, ~valid)
    hole = shapely.box(*(TRANSFORM @ (50, 80)), *(TRANSFORM @ (90, 40)))
    assert shapely.area(shapely.intersection(footprints.geometry.values, hole)).sum() == 0
    assert footprints.is_valid.all()
    assert footprints.area.sum() == pytest.approx((mask == 1).sum() * 0.09)


def test_results_cover_exactly_the_scene_at_the_models_pixels(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "fine.tif", blobs(301, 399), transform=Affine(0.1, 0, 500_000, 0, -0.1, 600_000))
    scene = open_scene(path).at_gsd(0.3)
    plan = Plan(scene, fit_lattice(scene.grid.shape, chip_px=64, halo_px=8), ThresholdSegmenter())
    result = run_plan(plan, Bundle(SPEC, path, "0"), RunSettings(out=tmp_path / "out"), quiet=True)
    for name in ("probability.tif", "mask.tif"):
        with rasterio.open(path) as own, rasterio.open(result.folder / name) as src:
            assert src.bounds == pytest.approx(own.bounds, abs=1e-6)
            assert src.crs == own.crs
            assert src.shape == (100, 133)


def test_report_says_what_was_run(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", blobs(100, 100))
    result = run_fake(scene, tmp_path / "out", min_area_m2=1.0, threshold=0.3)
    report = json.loads((result.folder / "run.json").read_text())
    assert report["counts"]["buildings"] == len(read_all(result)[2]) > 0
    assert report["counts"]["valid_pixels"] == 10_000
    assert (report["min_area_m2"], report["threshold"]) == (1.0, 0.3)
    assert report["model"]["name"] == "fake"
    assert report["seconds"]["total"] > 0
    assert {"read", "network", "stitch", "write"} <= report["thread_seconds_in_blocks"].keys()
    rasters = ["probability.tif", "probability.qml", "mask.tif", "mask.qml"]
    names = [*rasters, "buildings.gpkg", "buildings.parquet", "project.qgz", "index.html", "item.json", "run.json"]
    assert result.paths == [str(tmp_path / "out" / name) for name in names]


@pytest.mark.parametrize("first", [255, 0])
def test_a_scene_without_data_is_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture, first: int) -> None:
    valid = np.zeros((60, 60), np.uint8)
    valid[0, 0] = first
    result = run_fake(write_raster(tmp_path / "scene.tif", blobs(60, 60), valid=valid), tmp_path / "out")
    assert result.report["counts"]["valid_pixels"] == (first > 0)
    assert ("scene has no pixel with data: the result is nodata everywhere" in caplog.text) == (first == 0)


def test_scene_without_buildings_gives_empty_layers(tmp_path: Path) -> None:
    result = run_fake(write_raster(tmp_path / "scene.tif", np.zeros((60, 60), np.uint8)), tmp_path / "out")
    _, mask, footprints = read_all(result)
    assert (mask == 0).all()
    assert len(footprints) == 0
    assert footprints.crs.to_epsg() == 32630


def test_scene_without_any_data_is_all_nodata(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", blobs(60, 60), valid=np.zeros((60, 60), bool))
    probability, mask, footprints = read_all(run_fake(path, tmp_path / "out"))
    assert (probability == 255).all()
    assert (mask == 255).all()
    assert len(footprints) == 0


def test_aoi_limits_the_result_and_changes_nothing_inside(tmp_path: Path) -> None:
    opened = open_scene(write_raster(tmp_path / "scene.tif", blobs(150, 150)))
    lattice = fit_lattice(opened.grid.shape, chip_px=48, halo_px=8, multiple_px=8)
    whole = Plan(opened, lattice, ThresholdSegmenter())
    part = replace(whole, aoi=AOI(shapely.box(30, 40, 95, 77)))
    bundle = Bundle(SPEC, Path("none"), "0")
    everywhere = read_all(run_plan(whole, bundle, RunSettings(out=tmp_path / "a", block_px=64), quiet=True))[1]
    inside = read_all(run_plan(part, bundle, RunSettings(out=tmp_path / "b", block_px=64), quiet=True))[1]
    np.testing.assert_array_equal(inside[40:77, 30:95], everywhere[40:77, 30:95])
    outside = inside.copy()
    outside[40:77, 30:95] = 255
    assert (outside == 255).all()


def test_existing_result_is_kept_unless_overwrite(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", blobs(60, 60))
    run_fake(scene, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    before = (tmp_path / "out" / "run.json").read_text()
    with pytest.raises(ExistingResultError, match=r"`threshold`: the model's before, 0\.7 now.*`overwrite=True`"):
        run_fake(scene, tmp_path / "out", threshold=0.7)
    assert not run_fake(scene, tmp_path / "out").is_new
    assert (tmp_path / "out" / "run.json").read_text() == before
    run_fake(scene, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "run.json").read_text() != before
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "scene.tif"]


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told when the bytes of the first part are to be on the disk, as network file systems do."""
    sync, noise = os.fsync, np.random.default_rng(0).integers(0, 255, (400, 400), np.uint8)

    def full(number: int) -> None:
        if os.fstat(number).st_size > 5_000:  # a part; the plan and the lock are smaller
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run_fake(write_raster(tmp_path / "scene.tif", noise), tmp_path / "out", block_px=4096)
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def test_too_small_a_disk_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OutputError, match="MB free"):
        run_fake(write_raster(tmp_path / "scene.tif", blobs(60, 60)), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def damage(path: Path) -> None:
    """Spoil one TIFF tile of a raster."""
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as src:
        offset = int(src.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(bytes(data))


def write_tiled(path: Path, pixels: np.ndarray) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "transform": TRANSFORM}
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **layout, **profile) as dst:
        dst.write(pixels[None])
    return path


def test_blocks_that_cannot_be_read_end_the_run_with_a_list_and_the_others_are_kept(tmp_path: Path) -> None:
    path = write_tiled(tmp_path / "scene.tif", blobs(128, 128))
    whole, stamp = path.read_bytes(), path.stat()
    damage(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(UnfinishedError, match=r"9 of 16 blocks failed(.|\n)*r32_c32: .*rows 24-72"):
        run_fake(path, tmp_path / "out", block_px=32)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".geoseg"]
    assert len(list((tmp_path / "out" / ".geoseg").glob("*/parts/*"))) == 7
    path.write_bytes(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    mended = run_fake(path, tmp_path / "out", block_px=32)
    assert mended.report["counts"]["blocks_done_before"] == 7
    direct = run_fake(path, tmp_path / "direct")
    for name in ("probability.tif", "mask.tif"):
        assert (mended.folder / name).read_bytes() == (direct.folder / name).read_bytes()


def test_with_errors_nodata_failed_blocks_are_nodata_and_listed(tmp_path: Path) -> None:
    pixels = np.full((128, 128), 200, np.uint8)
    path = write_tiled(tmp_path / "scene.tif", pixels)
    damage(path)
    result = run_fake(path, tmp_path / "out", block_px=32, errors="nodata")
    probability, mask, footprints = read_all(result)
    failed = np.zeros((128, 128), bool)
    failed[32:, 32:] = True
    np.testing.assert_array_equal(probability, np.where(failed, 255, 254))
    np.testing.assert_array_equal(mask, np.where(failed, 255, 1))
    assert result.report["counts"]["blocks_failed"] == 9
    assert result.report["counts"]["valid_pixels"] == (~failed).sum()
    first = result.report["failed_blocks"][0]
    assert (first["block"], first["rows"], first["cols"]) == ("r32_c32", [32, 64], [32, 64])
    assert first["bounds"] == pytest.approx([500_009.6, 599_980.8, 500_019.2, 599_990.4])
    assert len(footprints) == 1
    assert footprints["edge"].all()


def test_result_folder_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    run_fake(write_raster(tmp_path / "scene.tif", blobs(60, 60)), tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "run.json").is_file()


def test_result_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        run_fake(write_raster(tmp_path / "scene.tif", blobs(60, 60)), tmp_path / "file" / "out")


def test_result_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        run_fake(write_raster(tmp_path / "scene.tif", blobs(60, 60)), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.5),
        ("min_area_m2", -1),
        ("outline", "round"),
        ("tolerance_m", -1),
        ("threads", 0),
        ("grid", "odd"),
        ("block_px", 0),
        ("mosaic", "best"),
        ("target_crs", "EPSG:32630"),
        ("errors", "ignore"),
        ("workers", 0),
    ],
)
def test_settings_that_make_no_sense_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"`{name}"):
        RunSettings(**{name: value})


def test_shipped_model_maps_the_sample_scene(repository: Path, tmp_path: Path) -> None:
    result = run_scene(repository / "sample_data" / "scene.tif", RunSettings(out=tmp_path / "out"), quiet=True)
    _, mask, footprints = read_all(result)
    truth = geopandas.read_file(repository / "sample_data" / "buildings.gpkg", layer="buildings")
    inside = rasterio.features.rasterize(
        truth.geometry, mask.shape, transform=open_scene(repository / "sample_data" / "scene.tif").grid.transform
    )
    hits, union = ((mask == 1) & (inside == 1)).sum(), ((mask == 1) | (inside == 1)).sum()
    assert hits / union >= 0.8
    separate = shapely.get_num_geometries(shapely.union_all(truth.geometry.values))
    assert 0.7 * separate < len(footprints) < 1.3 * separate
    assert footprints["confidence"].between(0, 1).all()
    assert footprints["confidence_min"].between(0.6 - 1 / 254, 1).all()


def test_aoi_outside_the_scene_leaves_nothing_behind(repository: Path, tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[shapely.box(10, 50, 11, 51)], crs="EPSG:4326").to_file(tmp_path / "aoi.gpkg")
    with pytest.raises(AOIError, match="outside"):
        run_scene(
            repository / "sample_data" / "scene.tif",
            RunSettings(out=tmp_path / "out", aoi=tmp_path / "aoi.gpkg"),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["aoi.gpkg"]
