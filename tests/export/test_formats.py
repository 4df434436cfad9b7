"""Exports give what the bundle gives: as files of their own libraries, as engines, in whole runs."""

import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import rasterio
import torch
from affine import Affine

from geoseg.bundle import load_bundle
from geoseg.engines import choose_device, load_engine, worker_threads
from geoseg.engines.onnxruntime import OnnxRuntimeEngine
from geoseg.engines.openvino import OpenVINOEngine
from geoseg.engines.torch import TorchEngine
from geoseg.errors import BundleError, DeviceError, MissingPackageError
from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.inference import InferenceOptions, plan_inference, predict_block
from geoseg.model_file import ModelFormat
from geoseg.networks import load_segmenter
from geoseg.run import RunSettings, run_scene

FORMATS = ("onnx", "openvino", "pt2")
SIZES = ((1, 3, 16, 16), (3, 3, 48, 80), (2, 3, 96, 96))


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, "uint8")


def in_torch(bundle, chips: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return load_segmenter(bundle)(torch.from_numpy(chips).float()).numpy()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("model", ["onnx", "three onnx"])
def test_ONNX_Runtime_gets_what_torch_gets_at_any_batch_and_size(exports, model: str, shape) -> None:
    session = onnxruntime.InferenceSession(str(exports.files[model]), providers=["CPUExecutionProvider"])
    bundle = exports.several if "three" in model else exports.bundle
    (found,) = session.run(["probabilities"], {"pixels": pixels(shape).astype("float32")})
    expected = in_torch(bundle, pixels(shape))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("model", ["pt2", "three pt2"])
def test_torch_export_loads_it_again_at_any_batch_and_size(exports, model: str, shape) -> None:
    extras = {"geoseg_spec": ""}
    loaded = torch.export.load(exports.files[model], extra_files=extras).module()
    bundle = exports.several if "three" in model else exports.bundle
    with torch.inference_mode():
        found = loaded(torch.from_numpy(pixels(shape)).float()).numpy()
    np.testing.assert_allclose(found, in_torch(bundle, pixels(shape)), atol=1e-4)
    assert f'"{bundle.spec.name}"' in extras["geoseg_spec"]


@pytest.mark.parametrize(("model", "tolerance"), [("openvino", 1e-4), ("half", 0.02)])
def test_OpenVINO_reads_the_IR_by_itself(exports, model: str, tolerance: float) -> None:
    core = openvino.Core()
    read = core.read_model(exports.files[model])
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in SIZES:
        found = compiled(pixels(shape).astype("float32"))[0]
        np.testing.assert_allclose(found, in_torch(exports.bundle, pixels(shape)), atol=tolerance)


def test_half_weights_are_half_the_size(exports) -> None:
    sizes = [exports.files[name].with_suffix(".bin").stat().st_size for name in ("half", "openvino")]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.02)


@pytest.mark.parametrize("model", [*FORMATS, "half", "three onnx", "three pt2"])
def test_an_export_carries_the_specification(exports, model: str) -> None:
    loaded, bundle = load_bundle(exports.files[model]), exports.several if "three" in model else exports.bundle
    assert loaded.spec == bundle.spec
    assert loaded.format is not ModelFormat.SAFETENSORS
    assert loaded.header["geoseg_bundle_key"] == bundle.key


def test_the_model_of_these_tests_has_a_value_of_its_own_in_every_field(exports) -> None:
    spec = exports.several.spec
    same = [each.name for each in fields(spec) if getattr(spec, each.name) == each.default]
    assert not same
    assert all(getattr(spec, each.name) for each in fields(spec))


def test_keys_differ_by_what_is_in_the_file_and_not_by_where_it_lies(exports, tmp_path: Path) -> None:
    keys = {load_bundle(path).key for path in exports.files.values()} | {exports.bundle.key, exports.several.key}
    assert len(keys) == len(exports.files) + 2
    for suffix in (".xml", ".bin"):
        (tmp_path / f"copy{suffix}").write_bytes(exports.files["openvino"].with_suffix(suffix).read_bytes())
    assert load_bundle(tmp_path / "copy.xml").key == load_bundle(exports.files["openvino"]).key
    weights = bytearray((tmp_path / "copy.bin").read_bytes())
    weights[1000] ^= 1
    (tmp_path / "copy.bin").write_bytes(weights)
    assert load_bundle(tmp_path / "copy.xml").key != load_bundle(exports.files["openvino"]).key


def test_weights_of_an_export_cannot_be_taken_out_again(exports) -> None:
    with pytest.raises(BundleError, match=r"exported network \(onnx\).*\.safetensors bundle that it was exported from"):
        load_bundle(exports.files["onnx"]).weights()


@pytest.mark.parametrize("model", [*FORMATS, "three onnx", "three pt2"])
def test_an_engine_of_an_export_equals_that_of_the_bundle(exports, model: str) -> None:
    bundle = exports.several if "three" in model else exports.bundle
    chips = pixels((3, 3, 64, 96))
    engine = load_engine(load_bundle(exports.files[model]), chip_shape=(64, 96), device="cpu", threads=1)
    assert isinstance(engine, TorchEngine if "pt2" in model else OpenVINOEngine)
    np.testing.assert_allclose(engine.predict(chips), in_torch(bundle, chips), atol=1e-4)
    np.testing.assert_array_equal(engine.predict(chips[1:2])[0], engine.predict(chips)[1])


def test_ONNX_Runtime_serves_where_OpenVINO_is_missing(exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine = load_engine(load_bundle(exports.files["onnx"]), chip_shape=(64, 96), device="cpu", threads=1)
    assert isinstance(engine, OnnxRuntimeEngine)
    engine.batch_size = 4  # as a GPU takes them
    chips = pixels((6, 3, 64, 96))
    np.testing.assert_allclose(engine.predict(chips), in_torch(exports.bundle, chips), atol=1e-4)
    with pytest.raises(DeviceError, match="pip install openvino"):
        load_engine(load_bundle(exports.files["openvino"]), chip_shape=(64, 96), device="cpu")


def test_no_runtime_at_all_is_said(exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match="neither is installed"):
        load_engine(load_bundle(exports.files["onnx"]), chip_shape=(64, 96), device="cpu")


def test_a_GPU_runtime_that_falls_back_to_the_CPU_is_refused(exports, monkeypatch) -> None:
    from geoseg.engines import onnxruntime as engine_module

    monkeypatch.setitem(engine_module.PROVIDERS, "cuda", ("CPUExecutionProvider", {}))
    OnnxRuntimeEngine.load(load_bundle(exports.files["onnx"]), device="cuda")
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["AzureExecutionProvider"])
    with pytest.raises(DeviceError, match="would fall back to AzureExecutionProvider"):
        OnnxRuntimeEngine.load(load_bundle(exports.files["onnx"]), device="cuda")


@pytest.mark.parametrize(
    ("model", "device", "message"),
    [
        ("onnx", "cuda", r"pip install onnxruntime-gpu.*\.safetensors bundle"),
        ("onnx", "mps", r"exported to onnx, which runs on cpu or cuda"),
        ("openvino", "cuda", r"exported to openvino, which runs on the cpu only.*`device='cpu'`"),
    ],
)
def test_a_device_that_does_not_run_a_format_is_refused(exports, model: str, device: str, message) -> None:
    with pytest.raises(DeviceError, match=message):
        load_engine(load_bundle(exports.files[model]), chip_shape=(64, 96), device=device)


@pytest.mark.parametrize("has_runtime", [True, False])
def test_auto_finds_what_runs_a_format_on_a_GPU_machine(has_runtime: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = ["CUDAExecutionProvider"] * has_runtime + ["CPUExecutionProvider"]
    monkeypatch.setattr("platform.system", lambda: "Windows")  # where torch is always asked
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    chosen = {model_format: choose_device("auto", model_format) for model_format in ModelFormat}
    assert chosen[ModelFormat.SAFETENSORS] == chosen[ModelFormat.PT2] == "cuda"
    assert chosen[ModelFormat.OPENVINO] == "cpu"
    assert chosen[ModelFormat.ONNX] == ("cuda" if has_runtime else "cpu")
    assert worker_threads("auto", 7, ModelFormat.OPENVINO) == 7
    assert worker_threads("cpu", 7, ModelFormat.PT2) == 1


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster of 150 x 130 pixels at the model's GSD, with a corner of nodata."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    data = np.kron(pixels((3, 22, 19)), np.ones((1, 7, 7), "uint8"))[:, :150, :130]
    data[:, :20, :20] = 0
    transform = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "crs": "EPSG:32630", "transform": transform}
    with rasterio.open(path, "w", height=150, width=130, nodata=0, **profile) as dst:
        dst.write(data)
    return path


def stored(bundle, scene: Path) -> np.ndarray:
    plan = plan_inference(str(scene), bundle, InferenceOptions(device="cpu", threads=1))
    (block,) = plan.blocks(1024)
    return predict_block(plan, block).probability


@pytest.mark.parametrize("model", FORMATS)
def test_a_block_of_an_export_equals_that_of_the_bundle(exports, scene: Path, model: str) -> None:
    expected, found = stored(exports.bundle, scene), stored(load_bundle(exports.files[model]), scene)
    assert (expected == 255).sum() == (found == 255).sum() == 400
    assert expected[expected != 255].std() > 3
    assert np.abs(expected.astype(int) - found).max() <= 1  # a stored level is 1/254: rounding alone may differ


@pytest.mark.parametrize("model", FORMATS)
def test_geoseg_run_and_evaluate_take_the_file(exports, scene: Path, tmp_path: Path, model: str) -> None:
    path = exports.files[model]
    result = run_scene(str(scene), RunSettings(model=path, out=tmp_path / "out", device="cpu", threads=1), quiet=True)
    assert result.report["model"]["key"] == load_bundle(path).key
    with rasterio.open(tmp_path / "out" / "probability.tif") as src:
        assert np.abs(src.read(1).astype(int) - stored(exports.bundle, scene)).max() <= 1
    settings = EvaluateSettings(model=path, labels=tmp_path / "out" / "mask.tif", device="cpu", threads=1)
    assert " 1.0000 |" in evaluate_scenes([str(scene)], settings).table()


def strip_onnx(source: Path, target: Path) -> None:
    model = onnx.load(source)
    del model.metadata_props[:]
    onnx.save(model, target)


def strip_openvino(source: Path, target: Path) -> None:
    model = openvino.Core().read_model(source)
    openvino.save_model(openvino.Model(model.outputs, model.get_parameters(), "bare"), target)


def strip_pt2(source: Path, target: Path) -> None:
    program = torch.export.load(source)
    program.example_inputs = None
    program._guards_code = []
    torch.export.save(program, target)


STRIPPERS = {"onnx": strip_onnx, "openvino": strip_openvino, "pt2": strip_pt2}


@pytest.mark.parametrize("model", FORMATS)
def test_a_network_without_a_specification_is_refused(exports, tmp_path: Path, model: str) -> None:
    target = tmp_path / exports.files[model].name
    STRIPPERS[model](exports.files[model], target)
    with pytest.raises(BundleError, match=rf"without a geoseg specification: .*`geoseg models export --to {model}`"):
        load_bundle(target)


@pytest.mark.parametrize(
    "change",
    [
        {"bands": ("red",), "mean": (0.5,), "std": (0.2,)},
        {"classes": ("building", "b")},
        {"auxiliary": ("edge",)},
    ],
)
def test_a_specification_of_another_network_is_refused(exports, tmp_path: Path, change: dict) -> None:
    bundle = replace(load_bundle(exports.files["onnx"]), spec=replace(exports.bundle.spec, **change))
    with pytest.raises(BundleError, match="does not fit its specification: it goes from"):
        OpenVINOEngine.load(bundle, chip_shape=(64, 96), threads=1)


@pytest.mark.parametrize("model", FORMATS)
def test_a_file_that_was_cut_short_is_refused(exports, tmp_path: Path, model: str) -> None:
    source = exports.files[model]
    target = tmp_path / source.name
    target.with_suffix(".bin").write_bytes(b"")
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(BundleError, match=r"(damaged|cut short)"):
        load_bundle(target)


def test_an_IR_without_its_weights_is_refused(exports, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(exports.files["openvino"].read_bytes())
    with pytest.raises(BundleError, match=r"weights are missing: expected a\.bin beside it"):
        load_bundle(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?><annotation/>')
    (tmp_path / "a.bin").touch()
    with pytest.raises(BundleError, match="expected the <net>"):
        load_bundle(tmp_path / "a.xml")
