"""Engines: the same probabilities whatever runs the network, in whatever company a chip comes."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.engines import (
    ONNX_CACHE_ENV,
    ClassSegmenter,
    DihedralEngine,
    IdentitySegmenter,
    ThresholdSegmenter,
    choose_device,
    choose_precision,
    load_engine,
)
from geoseg.engines.onnx import cache_folder, onnx_path
from geoseg.engines.openvino import OpenVINOEngine, native_precisions
from geoseg.engines.protocol import Support
from geoseg.engines.registry import ENGINES
from geoseg.engines.torch import TorchEngine
from geoseg.errors import BundleError, DeviceError, OutputError
from geoseg.model_file import ModelFormat
from geoseg.networks import build_network, load_segmenter

CHIP = (64, 96)
SPEC = ModelSpec(
    name="tiny",
    network="unet",
    network_options={"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": (16, 8, 8)},
    bands=("red", "green", "blue"),
    gsd_m=0.3,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.2),
    chip_px=96,
    halo_px=8,
)


def make_bundle(path: Path, spec: ModelSpec = SPEC, seed: int = 0) -> Bundle:
    """A small network with random weights, its batch norms made uneven so that nothing is symmetric."""
    torch.manual_seed(seed)
    network = build_network(spec.network, bands=len(spec.bands), classes=len(spec.channels), **spec.network_options)
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_mean", "bn1.bias")):
            tensor.normal_(std=0.3)
        if name.startswith("segmentation_head"):
            tensor.mul_(4)  # away from one half
    return load_bundle(save_bundle(path, spec, state))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder shared by this module's tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model."""
    return make_bundle(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONNX_CACHE_ENV, str(cache))


@pytest.fixture(scope="module")
def chips() -> np.ndarray:
    """Chips with structure: noise, a ramp, black, white."""
    rng = np.random.default_rng(0)
    out = rng.integers(0, 256, (6, 3, *CHIP), "uint8")
    out[1] = np.linspace(0, 255, CHIP[1]).astype("uint8")
    out[2], out[3] = 0, 255
    return out


@pytest.fixture(scope="module")
def reference(bundle: Bundle, chips: np.ndarray) -> np.ndarray:
    """What torch makes of every chip alone, from the formula."""
    spec = bundle.spec
    network = build_network(spec.network, bands=3, classes=1, **spec.network_options)
    network.load_state_dict(bundle.weights())
    network.eval()
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    with torch.inference_mode():
        return np.stack(
            [torch.sigmoid(network(((torch.tensor(c) / 255 - mean) / std)[None]))[0].numpy() for c in chips]
        )


@pytest.fixture(scope="module")
def openvino_engine(bundle: Bundle, cache: Path) -> OpenVINOEngine:
    """The CPU engine with two streams."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ONNX_CACHE_ENV, str(cache))
        return OpenVINOEngine.load(bundle, chip_shape=CHIP, threads=2)


@pytest.fixture(scope="module")
def torch_engine(bundle: Bundle) -> TorchEngine:
    """Torch on the CPU with the batches of a GPU."""
    engine = TorchEngine(load_segmenter(bundle), "cpu")
    engine.batch_size = 16
    return engine


@pytest.mark.parametrize("name", ["openvino_engine", "torch_engine"])
def test_an_engine_equals_the_formula_in_torch(name: str, chips, reference, request: pytest.FixtureRequest) -> None:
    assert reference.std() > 0.05
    found = request.getfixturevalue(name).predict(chips)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference, atol=1e-4)


@pytest.mark.parametrize("name", ["openvino_engine", "torch_engine"])
def test_a_chip_does_not_depend_on_its_company(name: str, chips, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(name)
    together = engine.predict(chips)
    for i in range(len(chips)):
        np.testing.assert_array_equal(engine.predict(chips[i : i + 1])[0], together[i])
    np.testing.assert_array_equal(engine.predict(chips[::-1])[::-1], together)


@pytest.mark.parametrize("name", ["openvino_engine", "torch_engine"])
def test_threads_get_what_one_thread_gets(name: str, chips, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(name)
    alone = engine.predict(chips)
    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(lambda n: engine.predict(chips[n % 6 : n % 6 + 1]), range(24))):
            np.testing.assert_array_equal(found[0], alone[i % 6])


def test_more_chips_than_a_batch_come_back_in_order(torch_engine: TorchEngine, chips) -> None:
    many = np.concatenate([chips] * 4)
    np.testing.assert_array_equal(torch_engine.predict(many), np.concatenate([torch_engine.predict(chips)] * 4))


def test_a_short_batch_equals_the_same_chips_in_a_full_one(torch_engine: TorchEngine, chips) -> None:
    full = np.concatenate([chips, chips, chips])[:16]
    np.testing.assert_array_equal(torch_engine.predict(full[:3]), torch_engine.predict(full)[:3])


def test_several_classes_are_a_softmax(tmp_path: Path, chips) -> None:
    spec = replace(SPEC, name="two", classes=("ground", "building", "road"))
    found = OpenVINOEngine.load(make_bundle(tmp_path / "two.safetensors", spec), chip_shape=CHIP).predict(chips[:2])
    assert found.shape == (2, 3, *CHIP)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "uint16"])
def test_a_model_of_wider_pixels_takes_pixels_of_any_type(tmp_path: Path, chips, dtype: str) -> None:
    bundle = make_bundle(tmp_path / "wide.safetensors", replace(SPEC, name="wide", pixel_max=1000.0))
    widest = 1 if dtype == "uint8" else 3.9
    pixels = (chips[:2] * widest).astype(dtype)
    expected = TorchEngine(load_segmenter(bundle), "cpu").predict(pixels.astype("float32"))
    found = OpenVINOEngine.load(bundle, chip_shape=CHIP, threads=1).predict(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_network_is_exported_once_and_kept_under_the_key_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path / "cache"))
    bundle = make_bundle(tmp_path / "a.safetensors")
    path = onnx_path(bundle)
    assert bundle.key in path.name
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    stamp = path.stat().st_mtime_ns
    assert onnx_path(load_bundle(tmp_path / "a.safetensors")) == path
    assert path.stat().st_mtime_ns == stamp
    assert onnx_path(make_bundle(tmp_path / "b.safetensors", seed=1)) != path


def test_an_export_that_is_killed_leaves_nothing_that_is_taken_for_a_network(
    tmp_path: Path, bundle: Bundle, chips, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, cache, killed = torch.onnx.export, tmp_path / "cache", tmp_path / "killed"

    def export_half(model: torch.nn.Module, chip: object, path: str, **options: object) -> None:
        export(model, chip, path, **options)
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
        shutil.copytree(cache, killed)  # what kill -9 would leave
        raise KeyboardInterrupt

    monkeypatch.setenv(ONNX_CACHE_ENV, str(cache))
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", export_half)
        with pytest.raises(KeyboardInterrupt):
            onnx_path(bundle)
    assert list(cache.iterdir()) == []
    monkeypatch.setenv(ONNX_CACHE_ENV, str(killed))
    engine = OpenVINOEngine.load(bundle, chip_shape=CHIP, threads=1)
    np.testing.assert_allclose(engine.predict(chips[:2]), reference[:2], atol=1e-4)


def test_one_cached_network_serves_chips_of_every_shape(bundle: Bundle, chips, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [onnx_path(bundle)]}
    square = np.ascontiguousarray(chips[:1, :, :, :64])
    found = OpenVINOEngine.load(bundle, chip_shape=(64, 64), threads=1).predict(square)
    expected = TorchEngine(load_segmenter(bundle), "cpu").predict(square)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_version_of_the_export_is_part_of_the_name(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = onnx_path(bundle)
    monkeypatch.setattr("geoseg.engines.onnx.EXPORT_VERSION", 999_999)
    assert onnx_path(bundle) != before


def test_the_cache_lies_where_the_environment_says_else_with_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(ONNX_CACHE_ENV)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "geoseg"


def test_a_cache_that_cannot_be_written_is_said(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match=ONNX_CACHE_ENV):
        onnx_path(bundle)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    network = build_network("unet", bands=3, classes=1, **SPEC.network_options)
    spec = replace(SPEC, network="linknet", network_options={"encoder": "resnet18"})
    bundle = load_bundle(save_bundle(tmp_path / "a.safetensors", spec, network.state_dict()))
    with pytest.raises(BundleError, match="do not fit the network 'linknet'"):
        load_engine(bundle, chip_shape=CHIP, device="cpu")


def test_a_network_that_onnx_cannot_say_runs_on_torch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    chips,
    bundle: Bundle,
    reference: np.ndarray,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operator\nmore lines")

    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path))
    monkeypatch.setattr(torch.onnx, "export", refuse)
    engine = load_engine(bundle, chip_shape=CHIP, device="cpu", threads=1)
    assert isinstance(engine, TorchEngine)
    assert "cannot be exported to ONNX: no such operator" in caplog.text
    np.testing.assert_allclose(engine.predict(chips), reference, atol=1e-4)
    assert not list(tmp_path.iterdir())


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(DeviceError, match=r"no device 'tpu'.*auto, cpu, cuda, mps"):
        choose_device("tpu")


def devices(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    """A machine on which torch finds these, as on a Mac, where it is always asked."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    devices(monkeypatch, cuda=device == "mps", mps=device == "cuda")
    with pytest.raises(DeviceError, match=f"`device='{device}'` needs a GPU that torch can use.*`device='cpu'`"):
        choose_device(device)


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_best_device_there_is(cuda: bool, mps: bool, best: str, monkeypatch) -> None:
    devices(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto") == choose_device() == choose_device(best) == best
    assert choose_device("cpu") == "cpu"


def test_the_CPU_runs_OpenVINO_and_torch_where_it_is_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(load_engine(bundle, chip_shape=CHIP, device="cpu", threads=1), OpenVINOEngine)
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine = load_engine(bundle, chip_shape=CHIP, device="cpu")
    assert isinstance(engine, TorchEngine)
    assert "pip install openvino" in caplog.text


@pytest.mark.parametrize(("chosen", "is_present"), [("cuda", True), ("cpu", False)])
def test_a_new_engine_is_one_entry(
    chosen: str, is_present: bool, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices(monkeypatch, cuda=False, mps=False)
    mine = Support(
        name="mine",
        package="numpy",
        formats=(ModelFormat.SAFETENSORS, ModelFormat.OPENVINO),
        devices=("cuda", "cpu"),
        load=lambda bundle, options: IdentitySegmenter(f"mine on {options.device}"),
        has_gpu=lambda device: is_present,
    )
    monkeypatch.setattr("geoseg.engines.registry.ENGINES", (mine, *ENGINES))
    assert choose_device("auto") == choose_device("auto", ModelFormat.OPENVINO) == chosen
    assert choose_device("auto", ModelFormat.PT2) == "cpu"
    assert load_engine(bundle, chip_shape=CHIP).name == f"mine on {chosen}"


def test_no_library_is_imported_before_an_engine_is_loaded() -> None:
    code = """
import sys
from geoseg.engines import choose_device, worker_threads
assert choose_device("cpu") == "cpu"
assert worker_threads("cpu", 3) == 3
assert not {"torch", "openvino", "onnxruntime"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_fakes_are_what_their_names_say() -> None:
    chips = np.arange(256, dtype="uint8").reshape(1, 1, 16, 16).repeat(3, 1)
    assert (np.round(IdentitySegmenter().predict(chips) * 254) == np.minimum(chips[:, :1], 254)).all()
    np.testing.assert_array_equal(ThresholdSegmenter(100).predict(chips), chips[:, :1] >= 100)
    shares = ClassSegmenter(4).predict(chips)
    np.testing.assert_array_equal(shares.argmax(axis=1), chips[:, 0] // 64)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_mixed_precision_is_near_and_says_so(bundle: Bundle, chips, reference) -> None:
    engine = TorchEngine(load_segmenter(bundle), "cpu", "bf16")
    found = engine.predict(chips[:1])
    assert engine.name.endswith("cpu bf16")
    assert found.dtype == np.float32
    assert 1e-6 < np.abs(found - reference[:1]).mean() < 0.01


def test_a_precision_that_is_not_to_be_had_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"no precision 'int8'.*f32, bf16, f16"):
        load_engine(bundle, chip_shape=CHIP, device="cpu", precision="int8")
    with pytest.raises(DeviceError, match=r"no precision 'int8'.*auto, f32, bf16, f16"):
        choose_precision("int8")
    with pytest.raises(
        DeviceError, match="`precision='f16'` is not for OpenVINO on 'cpu', which computes in f32 or bf16"
    ):
        load_engine(bundle, chip_shape=CHIP, device="cpu", precision="f16")


class Corner:
    """A network that sees the corners of a chip: its answer for a pixel depends on where in the chip it lies."""

    name, batch_size, threads = "corner", 1, 1

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def predict(self, chips: np.ndarray) -> np.ndarray:
        """Return `(n, 2, y, x)`: a pixel's row and column and its value, and the mean of the first row."""
        assert chips.shape[2:] == self.shape  # as of a compiled network
        assert chips.flags["C_CONTIGUOUS"]
        rows, cols = np.indices(self.shape)
        place = chips[:, :1] / 8 + rows + 16 * cols
        return np.concatenate(
            [place, np.broadcast_to(chips[:, :1, :1].mean(-1, keepdims=True), place.shape)], 1
        ).astype("f4")


@pytest.mark.parametrize("shape", [(6, 6), (4, 6)])
def test_the_views_of_a_chip_are_averaged_where_their_pixels_lie(shape: tuple[int, int]) -> None:
    chips = np.random.default_rng(1).integers(0, 255, (2, 1, *shape), np.uint8)
    turns = [lambda x: x, lambda x: x.swapaxes(2, 3)]
    flips = [lambda x: x, lambda x: x[..., ::-1], lambda x: x[:, :, ::-1], lambda x: x[:, :, ::-1, ::-1]]
    views = [
        flip(turn(Corner(turn(chips).shape[2:]).predict(turn(flip(chips)).copy()))) for turn in turns for flip in flips
    ]
    found = DihedralEngine(Corner(shape), Corner(shape[::-1])).predict(chips)
    np.testing.assert_allclose(found, np.mean(views, axis=0), rtol=1e-6)
    assert found.dtype == np.float32


def test_with_all_views_a_turned_chip_gives_the_turned_answer(bundle: Bundle, chips) -> None:
    upright, turned = (OpenVINOEngine.load(bundle, chip_shape=shape, threads=1) for shape in (CHIP, CHIP[::-1]))
    both, swapped = DihedralEngine(upright, turned), DihedralEngine(turned, upright)
    found = both.predict(chips[:1])
    assert both.name == f"{upright.name}, d4"
    np.testing.assert_array_equal(both.predict(chips[:1]), found)
    np.testing.assert_allclose(
        swapped.predict(np.rot90(chips[:1], axes=(2, 3)).copy()), np.rot90(found, axes=(2, 3)), atol=1e-5
    )
    np.testing.assert_allclose(both.predict(chips[:1, ..., ::-1].copy()), found[..., ::-1], atol=1e-5)
    assert np.abs(found - upright.predict(chips[:1])).max() > 1e-3


def on_processor(monkeypatch: pytest.MonkeyPatch, *precisions: str) -> None:
    """Play a processor that has these precisions."""
    monkeypatch.setattr("geoseg.engines.registry.native_precisions", lambda: precisions)


def test_a_precision_that_the_processor_does_not_have_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_processor(monkeypatch, "f32")
    with pytest.raises(DeviceError, match=r"processor of \S+ has no instructions for bf16.*Use `precision='f32'`"):
        load_engine(bundle, chip_shape=CHIP, device="cpu", precision="bf16")


def test_openvino_does_not_compute_in_another_precision_without_a_word(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does on a processor that has only AVX2."""
    from openvino import Core

    compile_model = Core.compile_model

    def without(core: Core, model: object, device: str, settings: dict[str, str]) -> object:
        return compile_model(core, model, device, settings | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(Core, "compile_model", without)
    with pytest.raises(DeviceError, match="would compute in f32, not in bf16"):
        OpenVINOEngine.load(bundle, chip_shape=CHIP, precision="bf16")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "bf16"),
        ({"device": "cpu"}, "bf16"),
        ({"model_format": ModelFormat.ONNX, "device": "cpu"}, "bf16"),
        ({"model_format": ModelFormat.OPENVINO, "device": "cpu"}, "bf16"),
        ({"model_format": ModelFormat.PT2, "device": "cpu"}, "f32"),
        ({"is_8bit": False}, "f32"),
        ({"device": "cuda"}, "f32"),
        ({"precision": "f32"}, "f32"),
        ({"precision": "f16"}, "f16"),
    ],
)
def test_auto_is_what_loses_nothing_and_is_fast(
    asked: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices(monkeypatch, cuda=False, mps=False)
    on_processor(monkeypatch, "f32", "bf16")
    assert choose_precision(**asked) == expected
    on_processor(monkeypatch, "f32")
    assert choose_precision(**asked) == (expected if "precision" in asked else "f32")


def test_auto_is_float32_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    devices(monkeypatch, cuda=True, mps=False)
    on_processor(monkeypatch, "f32", "bf16")
    assert choose_precision() == "f32"


def test_a_network_that_onnx_cannot_say_keeps_its_precision_on_torch(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chips, reference: np.ndarray
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path))
    monkeypatch.setattr(torch.onnx, "export", refuse)
    on_processor(monkeypatch, "f32", "bf16")
    engine = load_engine(bundle, chip_shape=CHIP, device="cpu", threads=1, precision="bf16")
    assert engine.name.endswith("cpu bf16")
    assert 1e-6 < np.abs(engine.predict(chips[:1]) - reference[:1]).mean() < 0.01


@pytest.mark.skipif("bf16" not in native_precisions(), reason="the processor has no bfloat16 (AMX, AVX-512 BF16)")
def test_bfloat16_is_near_float32_says_so_and_gives_a_chip_the_same_numbers_in_any_company(
    bundle: Bundle, chips, reference: np.ndarray
) -> None:
    one, two = (load_engine(bundle, chip_shape=CHIP, device="cpu", threads=n, precision="bf16") for n in (1, 2))
    found = one.predict(chips)
    assert one.name.endswith("CPU bf16")
    assert found.dtype == np.float32
    assert 1e-6 < np.abs(found - reference).mean() < 0.01
    np.testing.assert_array_equal(two.predict(chips), found)
    np.testing.assert_array_equal(two.predict(chips[1:2]), found[1:2])


def test_a_strange_name_is_safe_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path / "cache"))
    bundle = make_bundle(tmp_path / "a.safetensors", replace(SPEC, name="../me/houses"))
    assert onnx_path(bundle).parent == tmp_path / "cache"
    assert onnx_path(bundle).name.startswith("me-houses-")
