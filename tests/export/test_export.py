"""`export_model`: what it refuses, what it checks, what it leaves behind; TensorRT by a stand-in of its API."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from segmentation_models_pytorch.encoders._efficientnet import Conv2dDynamicSamePadding
from timm.layers import Conv2dSame
from torch import nn

from geoseg.engines import ONNX_CACHE_ENV
from geoseg.errors import ExistingResultError, ExportError, MissingPackageError, OutputError, UsageError
from geoseg.export import check as check_module
from geoseg.export import export_model, writers
from geoseg.export.check import check_export, check_shapes
from geoseg.export.tensorrt import plan_profile
from geoseg.export.writers import FixedSame, fix_same_padding
from geoseg.networks import load_segmenter


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path / "cache"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "cache"}


def test_files_lie_in_the_working_folder_under_the_models_name(exports, tmp_path: Path) -> None:
    done = export_model(exports.bundle.path, "onnx")
    assert [str(path) for path in done.paths] == ["me-tiny-houses.onnx", "me-tiny-houses.onnx.stac.json"]
    assert names(tmp_path) == {"me-tiny-houses.onnx", "me-tiny-houses.onnx.stac.json"}
    assert done.check["max_difference"] <= done.check["tolerance"] == 1e-4
    item = json.loads(done.paths[1].read_text())
    assert item["properties"]["geoseg:check"]["max_difference"] == done.check["max_difference"]


def test_an_ONNX_file_names_its_ends_and_fields(exports) -> None:
    model = onnx.load(exports.files["onnx"])
    assert [i.name for i in model.graph.input] == ["pixels"]
    assert [o.name for o in model.graph.output] == ["probabilities"]
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["n", 3, "y", "x"]
    texts = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(texts["stac_mlm"])["mlm:name"] == "me-tiny houses"


@pytest.mark.parametrize("model", ["onnx", "openvino", "pt2", "three pt2"])
def test_no_path_of_this_machine_is_in_a_file(exports, model: str, repository: Path) -> None:
    content = exports.files[model].read_bytes()
    for trace in ("site-packages", str(repository), str(Path.home()), "segmenter.py"):
        assert trace.encode() not in content


def test_what_is_there_is_not_replaced_unasked(exports, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(ExistingResultError, match=r"a\.onnx is already there.*`overwrite=True`"):
        export_model(exports.bundle.path, "onnx", out=tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "mine"
    export_model(exports.bundle.path, "onnx", out=tmp_path / "a.onnx", overwrite=True)
    assert onnx.load(tmp_path / "a.onnx").producer_name == "pytorch"


@pytest.mark.parametrize("to", ["onnx", "openvino", "pt2"])
def test_an_export_that_differs_from_torch_is_not_written(exports, tmp_path: Path, to: str, monkeypatch) -> None:
    monkeypatch.setitem(check_module.TOLERANCES, "f32", -1.0)
    with pytest.raises(ExportError, match="gives other probabilities than torch"):
        export_model(exports.bundle.path, to)
    assert names(tmp_path) == set()


def test_a_network_that_torch_cannot_export_is_said(exports, tmp_path: Path, monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(writers, "export_onnx", fail)
    monkeypatch.setattr(torch.export, "export", fail)
    for to in ("onnx", "pt2"):
        with pytest.raises(ExportError, match=f"'unet-plain' of me/tiny houses to {to}: no such operator. Nothing"):
            export_model(exports.bundle.path, to)
    assert names(tmp_path) == set()


def test_the_check_sees_wrong_values_no_values_and_frozen_sizes(exports) -> None:
    model = load_segmenter(exports.bundle)

    def run(chips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(chips)).numpy()

    def only_large_ones_are_wrong(chips: np.ndarray) -> np.ndarray:
        return run(chips) + (0.001 if len(chips) == 1 else 0)

    assert check_export(exports.bundle, run, runtime="torch").max_difference == 0
    for wrong, message in (
        (only_large_ones_are_wrong, "differ by up to 0.001"),
        (lambda chips: run(chips) * np.float32("nan"), "differ by up to nan"),
        (lambda chips: run(chips)[:, :, :36, :36], "froze the sizes"),
    ):
        with pytest.raises(ExportError, match=message):
            check_export(exports.bundle, wrong, runtime="torch")


@pytest.mark.parametrize(("stride", "small", "large"), [(32, (96, 160), 512), (4, (36, 44), 512), (1, (33, 35), 512)])
def test_what_is_compared_are_odd_multiples_of_the_stride(exports, stride: int, small, large: int) -> None:
    spec = SimpleNamespace(stride_px=stride, bands=("a", "b"), chip_px=1024)
    assert check_shapes(spec) == ((2, 2, *small), (1, 2, large, large))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "caffe"}, r"no format 'caffe'.*onnx, openvino, pt2, tensorrt"),
        ({"to": "onnx", "weights": "int8"}, r"no weights 'int8'.*f32 or f16"),
        ({"to": "onnx", "weights": "f16"}, "`weights='f16'` is for openvino and tensorrt"),
        ({"to": "onnx", "out": "model.pb"}, r"does not end in \.onnx"),
        ({"to": "openvino", "out": "model"}, r"does not end in \.xml"),
    ],
)
def test_choices_that_make_no_sense_are_refused(exports, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(exports.bundle.path, **options)


def test_an_export_is_not_exported_again(exports) -> None:
    with pytest.raises(ExportError, match=r"is an export itself.*\.safetensors"):
        export_model(exports.files["onnx"], "pt2")


def test_a_slash_at_the_end_means_a_folder_which_is_created(exports, tmp_path: Path) -> None:
    export_model(exports.bundle.path, "onnx", out="new/models/")
    assert names(tmp_path / "new" / "models") == {"me-tiny-houses.onnx", "me-tiny-houses.onnx.stac.json"}


def test_a_folder_that_cannot_be_made_is_said(exports, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        export_model(exports.bundle.path, "onnx", out=tmp_path / "file" / "a.onnx")


@pytest.mark.parametrize("kind", [Conv2dSame, Conv2dDynamicSamePadding])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 4), (2, 2, 1)]
)
def test_same_padding_made_constant_is_the_same(kind: type, kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    own = nn.Sequential(kind(4, 6, kernel, stride=stride, dilation=dilation), nn.ReLU())
    fixed = nn.Sequential(*own)
    fix_same_padding(fixed)
    assert isinstance(fixed[0], FixedSame)
    for shape in ((1, 4, 8, 8), (2, 4, 12, 20)):
        pixels = torch.randn(shape)
        torch.testing.assert_close(fixed(pixels), own(pixels), rtol=0, atol=1e-6)


def test_TensorRT_that_is_missing_is_named_before_any_work(exports, tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"TensorRT is not installed.*`pip install tensorrt`.*`to='onnx'`"):
        export_model(exports.bundle.path, "tensorrt")
    assert names(tmp_path) == set()


class FakeTensorRT(ModuleType):
    """The calls that geoseg makes, written down."""

    def __init__(self, *, version: int = 10, parses: bool = True, builds: bool = True) -> None:
        super().__init__("tensorrt")
        self.__version__, self.said, builder = f"{version}.0", [], SimpleNamespace
        self.__spec__ = SimpleNamespace(name="tensorrt")
        say = self.said.append
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: say(("level", level))})
        self.NetworkDefinitionCreationFlag = builder(**({"EXPLICIT_BATCH": 0} if version < 10 else {}))
        self.MemoryPoolType, self.BuilderFlag = builder(WORKSPACE="workspace"), builder(TF32="tf32", FP16="fp16")
        config = builder(
            set_memory_pool_limit=lambda pool, size: say((pool, size)),
            clear_flag=lambda flag: say(("clear", flag)),
            set_flag=lambda flag: say(("set", flag)),
            add_optimization_profile=lambda profile: say("profile added"),
        )
        self.Builder = lambda logger: builder(
            create_network=lambda flags: say(("network", flags)),
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: builder(set_shape=lambda *shapes: say(shapes)),
            build_serialized_network=lambda network, config: b"an engine" if builds else None,
        )
        self.OnnxParser = lambda network, logger: builder(
            parse=lambda content: say(("onnx bytes", len(content))) or parses,
            num_errors=1,
            get_error=lambda number: f"error {number}",
        )


@pytest.mark.parametrize(("version", "flags"), [(8, 1), (10, 0)])
@pytest.mark.parametrize("weights", ["f32", "f16"])
def test_a_TensorRT_engine_is_built_for_the_models_chips(
    exports, weights: str, version: int, flags: int, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeTensorRT(version=version)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    done = export_model(exports.bundle.path, "tensorrt", weights=weights)
    assert [path.name for path in done.paths] == ["me-tiny-houses.engine", "me-tiny-houses.engine.stac.json"]
    assert done.paths[0].read_bytes() == b"an engine"
    assert ("network", flags) in fake.said
    assert ("pixels", (1, 3, 4, 4), (8, 3, 96, 96), (16, 3, 96, 96)) in fake.said
    assert "profile added" in fake.said
    assert ("clear", "tf32") in fake.said
    assert (("set", "fp16") in fake.said) == (weights == "f16")
    assert done.check["engine"] == "not run"
    assert "TensorRT engine made of it was not run" in caplog.text
    properties = json.loads(done.paths[1].read_text())["properties"]
    assert properties["geoseg:spec"]["name"] == "me/tiny houses"
    assert properties["geoseg:weights"] == weights


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (FakeTensorRT(parses=False), "does not understand the network: error 0"),
        (FakeTensorRT(builds=False), "could not"),
    ],
)
def test_what_TensorRT_refuses_is_said_and_nothing_written(exports, tmp_path: Path, fake, message, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    with pytest.raises(ExportError, match=message):
        export_model(exports.bundle.path, "tensorrt")
    assert names(tmp_path) == set()


def test_the_profile_reaches_from_one_stride_to_the_models_chip(exports) -> None:
    profile = plan_profile(exports.several.spec)
    assert (profile.smallest, profile.largest) == ((1, 3, 4, 4), (16, 3, 96, 96))
