"""Pooling to parts is torch's adaptive pooling, and exports at any size."""

from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from geoseg.networks import build_network
from geoseg.networks.pooling import PartsPool


@pytest.mark.parametrize("parts", [2, 3, 6])
@pytest.mark.parametrize(("height", "width"), [(6, 12), (7, 16), (13, 5), (4, 4)])
def test_the_matrix_form_is_torchs_adaptive_pooling(
    parts: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.rand(2, 3, height, width)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    torch.testing.assert_close(PartsPool(parts)(features), torch.nn.AdaptiveAvgPool2d(parts)(features))


def test_a_pyramid_with_pools_replaced_gives_what_smp_gives() -> None:
    torch.manual_seed(0)
    theirs = smp.PSPNet("tu-test_resnet", encoder_weights=None, psp_out_channels=12).eval()
    own = build_network("pspnet", bands=3, classes=1, encoder="tu-test_resnet", psp_out_channels=12).eval()
    own.load_state_dict(theirs.state_dict())
    pixels = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(own(pixels), theirs(pixels))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's exporter about itself
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # smp looks at sizes in Python, which do not matter here
@pytest.mark.parametrize(("name", "side"), [("pspnet", 32), ("upernet", 64)])
def test_networks_that_pool_to_parts_export_to_onnx_at_any_size(name: str, side: int, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    options: dict[str, Any] = {"psp_out_channels": 12} if name == "pspnet" else {"decoder_channels": 16}
    network = build_network(name, bands=3, classes=2, encoder="tu-test_resnet", **options).eval()
    axes = {0: "n", 2: "y", 3: "x"}
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 128, 128),),
        str(tmp_path / "network.onnx"),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": axes, "logits": axes},
        opset_version=18,
        dynamo=False,
    )
    pixels = torch.rand(2, 3, side, 3 * side)
    compiled = openvino.compile_model(tmp_path / "network.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        expected = network(pixels)
    torch.testing.assert_close(torch.from_numpy(compiled(pixels.numpy())[0]), expected, rtol=1e-4, atol=1e-4)
