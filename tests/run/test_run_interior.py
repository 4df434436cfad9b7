"""A whole run of a model that says where buildings end: interior.tif, the same whatever the blocks and workers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import Resampling

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.engines import ONNX_CACHE_ENV, ClassSegmenter
from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.export import export_model
from geoseg.grid import fit_lattice
from geoseg.inference import InferenceOptions, Plan, plan_inference, predict_scene
from geoseg.networks import build_network
from geoseg.run import RunResult, RunSettings, run_plan, run_scene
from geoseg.scene import open_scene

TINY = {"depth": 2, "filters": 4, "convolutions": 1}
SPEC = ModelSpec(
    name="apart",
    network="unet-plain",
    network_options=TINY,
    bands=("gray",),
    gsd_m=0.3,
    mean=(0.5,),
    std=(0.2,),
    auxiliary=("contact", "distance", "edge"),
    chip_px=64,
    halo_px=8,
    stride_px=8,
    min_area_m2=0.0,
)
TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def write_raster(path: Path, pixels: np.ndarray, *, valid: np.ndarray | None = None) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630", "transform": TRANSFORM}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as dst,
    ):
        dst.write(pixels[None])
        if valid is not None:
            dst.write_mask(valid)
    return path


def patches(shape: tuple[int, int] = (180, 220)) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (shape[0] // 5, shape[1] // 5))
    return np.kron(coarse, np.ones((5, 5))).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ONNX_CACHE_ENV, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights of four channels, whose probabilities are spread over 0 to 1."""
    torch.manual_seed(0)
    state = build_network("unet-plain", bands=1, classes=4, **TINY).state_dict()
    state["head.weight"] *= 6
    return dict(state)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Path:
    return save_bundle(tmp_path_factory.mktemp("model") / "apart.safetensors", SPEC, state)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    valid = np.ones((180, 220), bool)
    valid[30:90, 40:100] = False
    return write_raster(tmp_path / "scene.tif", patches(), valid=valid)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def run(scene: Path, out: Path, model: Path, **settings) -> RunResult:
    return run_scene(scene, RunSettings(model=model, out=out, device="cpu", **settings), quiet=True)


@pytest.mark.parametrize("blend", [False, True])
def test_blocks_and_threads_do_not_change_a_byte(tmp_path: Path, scene: Path, model: Path, blend: bool) -> None:
    one = run(scene, tmp_path / "one", model, block_px=1000, threads=1, blend=blend)
    expected = (one.folder / "interior.tif").read_bytes()
    found = read(one.folder / "interior.tif")
    assert found[found != 255].std() > 5
    for number, (block_px, threads) in enumerate([(48, 2), (100, 3)]):
        other = run(scene, tmp_path / f"b{number}", model, block_px=block_px, threads=threads, blend=blend)
        assert (other.folder / "interior.tif").read_bytes() == expected
    plan = plan_inference(scene, load_bundle(model), InferenceOptions(blend=blend))
    lazy = predict_scene(plan, block_px=70, layer="interior").values
    np.testing.assert_array_equal(lazy, np.where(found == 255, np.nan, found / np.float32(254)).astype(np.float32))


@pytest.mark.slow
def test_worker_processes_do_not_change_a_byte(tmp_path: Path, scene: Path, model: Path) -> None:
    one = run(scene, tmp_path / "one", model, block_px=1000)
    two = run(scene, tmp_path / "two", model, block_px=64, workers=2)
    assert (one.folder / "interior.tif").read_bytes() == (two.folder / "interior.tif").read_bytes()


def test_the_interior_is_a_raster_like_the_probability(tmp_path: Path, scene: Path, model: Path) -> None:
    result = run(scene, tmp_path / "out", model)
    assert "interior.tif" in {Path(path).name for path in result.paths}
    folder = result.folder
    with rasterio.open(folder / "interior.tif") as found, rasterio.open(folder / "probability.tif") as other:
        assert found.descriptions == ("building interior probability",)
        assert (found.scales, found.nodata) == (other.scales, other.nodata) == ((1 / 254,), 255)
        assert (found.transform, found.crs, found.shape) == (other.transform, other.crs, other.shape)
        assert found.overviews(1) == other.overviews(1) != []
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        pixels, probability = found.read(1), other.read(1)
        coarse = found.read(1, out_shape=(90, 110), resampling=Resampling.nearest)
    np.testing.assert_array_equal(pixels == 255, probability == 255)
    assert (pixels <= probability).all()
    assert (pixels < probability).any()
    assert abs(coarse[coarse != 255].mean() - pixels[pixels != 255].mean()) < 2  # an average, not a majority


def test_an_export_has_the_interior_of_the_bundle(tmp_path: Path, scene: Path, model: Path) -> None:
    exported = export_model(model, "onnx", out=tmp_path / "apart.onnx").paths[0]
    expected = read(run(scene, tmp_path / "bundle", model).folder / "interior.tif").astype(int)
    found = read(run(scene, tmp_path / "onnx", exported).folder / "interior.tif")
    np.testing.assert_array_equal(found == 255, expected == 255)
    assert np.abs(found - expected).max() <= 1  # a stored level is 1/254: rounding alone may differ


def without_auxiliary(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """The same network without its last three channels."""
    kept = {name: tensor[:1] if name.startswith("head.") else tensor for name, tensor in state.items()}
    return save_bundle(folder / "alone.safetensors", replace(SPEC, name="alone", auxiliary=()), kept)


def test_everything_else_is_what_the_class_channels_alone_give(tmp_path: Path, scene: Path, model, state) -> None:
    alone = without_auxiliary(tmp_path, state)
    expected, found = run(scene, tmp_path / "alone", alone), run(scene, tmp_path / "found", model)
    assert "interior.tif" not in {path.name for path in expected.folder.iterdir()}
    with rasterio.open(expected.folder / "probability.tif") as src:
        stored = src.read(1)
    assert np.abs(read(found.folder / "probability.tif").astype(int) - stored).max() <= 1
    labels = tmp_path / "labels.tif"
    write_raster(labels, (patches() > 128).astype(np.uint8))
    options = [EvaluateSettings(model=path, labels=labels, device="cpu") for path in (alone, model)]
    scores = [evaluate_scenes([scene], each).total for each in options]
    assert scores[1].metrics()["iou"] == pytest.approx(scores[0].metrics()["iou"], abs=2e-3)
    of_run = evaluate_scenes([found.folder], EvaluateSettings(labels=labels)).total
    assert of_run.metrics()["iou"] == pytest.approx(scores[1].metrics()["iou"])


def test_overwriting_with_a_model_of_one_channel_leaves_no_interior(tmp_path: Path, scene: Path, model, state) -> None:
    run(scene, tmp_path / "out", model)
    assert (tmp_path / "out" / "interior.tif").is_file()
    run(scene, tmp_path / "out", without_auxiliary(tmp_path, state), overwrite=True)
    assert not (tmp_path / "out" / "interior.tif").exists()


def run_classes(scene: Path, out: Path, **settings) -> RunResult:
    spec = replace(SPEC, network="none", classes=("land", "building", "road"), auxiliary=("edge", "contact"))
    opened = open_scene(scene)
    lattice = fit_lattice(opened.grid.shape, chip_px=48, halo_px=8, multiple_px=8)
    engine = ClassSegmenter(3, auxiliary=2)
    plan = Plan(opened, lattice, engine, spec.target_index, classes=spec.classes, auxiliary=spec.auxiliary)
    return run_plan(plan, Bundle(spec, Path("none"), "0"), RunSettings(out=out, **settings), quiet=True)


def test_several_classes_have_a_class_raster_and_an_interior(tmp_path: Path) -> None:
    pixels = patches()
    result = run_classes(write_raster(tmp_path / "scene.tif", pixels), tmp_path / "out", block_px=64)
    classes = pixels.astype(int) * 3 // 256
    np.testing.assert_array_equal(read(result.folder / "classes.tif"), classes)
    expected = 254 * np.where(classes == 1, 0.75, 0.125) * (1 - pixels / 510) * (1 - pixels / 765)
    np.testing.assert_allclose(read(result.folder / "interior.tif"), expected, atol=0.51)
    report = json.loads((result.folder / "run.json").read_text())
    counts = [report["classes"][name]["pixels"] for name in ("land", "building", "road")]
    assert counts == np.bincount(classes.ravel()).tolist()


def test_a_disk_without_room_for_the_interior_is_noticed_at_the_start(tmp_path: Path, monkeypatch) -> None:
    from geoseg.run import session

    asked = []
    monkeypatch.setattr(session, "check_room", lambda out, pixels, rasters: asked.append(rasters))
    run_classes(write_raster(tmp_path / "scene.tif", patches()), tmp_path / "out")
    assert asked == [4]
