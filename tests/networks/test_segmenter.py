"""From raw pixels to probabilities."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geoseg.networks import Segmenter, build_network


def spec(classes: int = 1, bands: int = 3) -> SimpleNamespace:
    names = tuple(f"class{i}" for i in range(classes))
    return SimpleNamespace(mean=(0.5,) * bands, std=(0.25,) * bands, pixel_max=200.0, classes=names)


def test_pixels_are_scaled_then_normalized() -> None:
    segmenter = Segmenter(nn.Identity(), spec())
    pixels = torch.tensor([0.0, 100.0, 200.0]).view(1, 3, 1, 1)
    expected = torch.tensor([-2.0, 0.0, 2.0]).view(1, 3, 1, 1).sigmoid()
    torch.testing.assert_close(segmenter(pixels), expected)


def test_several_classes_share_a_probability_of_one() -> None:
    probability = Segmenter(nn.Identity(), spec(classes=3))(torch.rand(2, 3, 4, 4) * 200)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(2, 4, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's exporter about itself
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # smp checks the input's size in Python
def test_a_segmenter_exports_to_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    segmenter = Segmenter(build_network("unet", bands=3, classes=1, encoder="mobilenet_v2"), spec()).eval()
    path = tmp_path / "network.onnx"
    axes = {"pixels": {0: "n", 2: "y", 3: "x"}}
    torch.onnx.export(
        segmenter, (torch.zeros(1, 3, 64, 64),), path, input_names=["pixels"], dynamic_axes=axes, dynamo=False
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)
