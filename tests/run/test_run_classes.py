"""A whole run with several classes, without a network: classes.tif beside mask and footprints of the target."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from geopandas.testing import assert_geodataframe_equal

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.engines import ONNX_CACHE_ENV, ClassSegmenter, ThresholdSegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import Plan, plan_inference, predict_scene
from geoseg.networks import build_network
from geoseg.run import RunResult, RunSettings, run_plan, run_scene
from geoseg.scene import open_scene

NAMES = ("land", "building", "road", "water", "pool")
SPEC = ModelSpec(
    name="fake",
    network="none",
    bands=("gray",),
    gsd_m=0.3,
    mean=(0.0,),
    std=(1.0,),
    min_area_m2=0.0,
    classes=NAMES,
    target="building",
    colors={"pool": "#010203"},
)
TINY = {"depth": 2, "filters": 4}
TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def write_raster(path: Path, pixels: np.ndarray, *, valid: np.ndarray | None = None, crs: str | None = "EPSG:32630"):
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": crs, "transform": TRANSFORM}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as dst,
    ):
        dst.write(pixels[None])
        if valid is not None:
            dst.write_mask(valid)
    return path


def patches(shape: tuple[int, int] = (120, 150)) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (shape[0] // 5, shape[1] // 5))
    return np.kron(coarse, np.ones((5, 5))).astype(np.uint8)


def run_classes(scene: Path, out: Path, *, spec: ModelSpec = SPEC, engine=None, **settings) -> RunResult:
    opened = open_scene(scene)
    lattice = fit_lattice(opened.grid.shape, chip_px=48, halo_px=8, multiple_px=8)
    engine = engine or ClassSegmenter(len(spec.classes))
    plan = Plan(opened, lattice, engine, spec.target_index, classes=spec.classes)
    return run_plan(plan, Bundle(spec, Path("none"), "0"), RunSettings(out=out, **settings), quiet=True)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def test_classes_are_written_with_names_and_colors(tmp_path: Path) -> None:
    pixels, valid = patches(), np.ones((120, 150), bool)
    valid[30:60, 40:70] = False
    result = run_classes(write_raster(tmp_path / "scene.tif", pixels, valid=valid), tmp_path / "out")
    np.testing.assert_array_equal(
        read(result.folder / "classes.tif"), np.where(valid, pixels.astype(int) * 5 // 256, 255)
    )
    assert {"classes.tif", "classes.tif.aux.xml", "classes.qml"} <= {Path(path).name for path in result.paths}
    assert all(Path(path).is_file() for path in result.paths)
    with rasterio.open(result.folder / "classes.tif") as src, rasterio.open(result.folder / "mask.tif") as mask:
        assert src.colormap(1)[4] == (1, 2, 3, 255)
        assert src.colormap(1)[1] == mask.colormap(1)[1]
        assert (src.transform, src.crs, src.nodata) == (mask.transform, mask.crs, 255)


def test_mask_and_footprints_are_those_of_the_target(tmp_path: Path) -> None:
    pixels = patches()
    result = run_classes(write_raster(tmp_path / "scene.tif", pixels), tmp_path / "out", outline="raw")
    is_building = pixels.astype(int) * 5 // 256 == 1
    np.testing.assert_array_equal(read(result.folder / "mask.tif"), is_building)
    footprints = geopandas.read_file(result.folder / "buildings.gpkg", layer="buildings")
    assert footprints.area.sum() == pytest.approx(is_building.sum() * 0.09)


def test_blocks_and_threads_do_not_change_the_classes(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", patches())
    one = read(run_classes(scene, tmp_path / "a", block_px=1000, threads=1).folder / "classes.tif")
    for number, (block_px, threads) in enumerate([(32, 2), (70, 3)]):
        other = run_classes(scene, tmp_path / f"b{number}", block_px=block_px, threads=threads)
        np.testing.assert_array_equal(one, read(other.folder / "classes.tif"))


def test_report_has_pixels_shares_and_areas_of_the_classes(tmp_path: Path) -> None:
    pixels, valid = patches(), np.ones((120, 150), bool)
    valid[:, :50] = False
    result = run_classes(write_raster(tmp_path / "scene.tif", pixels, valid=valid), tmp_path / "out", block_px=40)
    report = json.loads((result.folder / "run.json").read_text())
    found = np.bincount((pixels.astype(int) * 5 // 256)[valid], minlength=5)
    assert list(report["classes"]) == sorted(NAMES)
    for index, name in enumerate(NAMES):
        facts = report["classes"][name]
        assert facts["pixels"] == found[index]
        assert facts["share"] == pytest.approx(found[index] / 12_000, abs=1e-6)
        assert facts["area_m2"] == pytest.approx(found[index] * 0.09, rel=2e-3)
    assert report["model"]["target"] == "building"


def test_without_a_crs_classes_have_pixels_and_no_square_meters(tmp_path: Path) -> None:
    result = run_classes(write_raster(tmp_path / "scene.tif", patches(), crs=None), tmp_path / "out")
    assert {facts["area_m2"] for facts in result.report["classes"].values()} == {None}
    assert sum(facts["pixels"] for facts in result.report["classes"].values()) == 120 * 150


def test_two_softmax_classes_give_exactly_the_results_of_one(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", patches())
    two_spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), classes=("background", "building"))
    one_spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,))
    one = run_classes(scene, tmp_path / "one", spec=one_spec, engine=ThresholdSegmenter(128))
    two = run_classes(scene, tmp_path / "two", spec=two_spec, engine=ClassSegmenter(2, share=1.0))
    assert [Path(p).name for p in one.paths] == [Path(p).name for p in two.paths]
    for name in ("probability.tif", "mask.tif"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    first, second = (geopandas.read_parquet(r.folder / "buildings.parquet") for r in (one, two))
    assert_geodataframe_equal(first, second)
    assert len(first) > 3
    assert two.report["classes"] is None


def test_a_target_that_is_no_building_names_the_rasters(tmp_path: Path) -> None:
    spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), classes=NAMES, target="water")
    result = run_classes(write_raster(tmp_path / "scene.tif", patches()), tmp_path / "out", spec=spec)
    with rasterio.open(result.folder / "mask.tif") as mask, rasterio.open(result.folder / "probability.tif") as src:
        assert mask.descriptions == ("water mask: 0 other, 1 water",)
        assert src.descriptions == ("water probability",)


def test_overwriting_with_fewer_files_leaves_none_of_the_older_result(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", patches())
    run_classes(scene, tmp_path / "out", picture=True)
    spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,))
    again = run_classes(scene, tmp_path / "out", spec=spec, engine=ThresholdSegmenter(), overwrite=True)
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "buildings.gpkg",
        "buildings.parquet",
        "index.html",
        "item.json",
        "mask.qml",
        "mask.tif",
        "probability.qml",
        "probability.tif",
        "project.qgz",
        "run.json",
    ]


def test_a_network_of_several_classes_runs_from_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = build_network("unet-plain", bands=1, classes=5, **TINY)
    spec = replace(SPEC, network="unet-plain", network_options=TINY, chip_px=64, halo_px=8, stride_px=8)
    path = save_bundle(tmp_path / "tiny.safetensors", spec, network.state_dict())
    scene = write_raster(tmp_path / "scene.tif", patches())
    result = run_scene(scene, RunSettings(model=path, out=tmp_path / "out"), quiet=True)
    plan = plan_inference(scene, load_bundle(path))
    assert len(np.unique(read(result.folder / "classes.tif"))) > 1
    np.testing.assert_array_equal(
        read(result.folder / "classes.tif"), predict_scene(plan, block_px=40, classes=True).values
    )
