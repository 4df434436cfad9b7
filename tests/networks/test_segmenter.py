"""From raw pixels to probabilities."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geoseg.networks import Segmenter, build_network


def spec(classes: int = 1, bands: int = 3, auxiliary: tuple[str, ...] = ()) -> SimpleNamespace:
    names = tuple(f"class{i}" for i in range(classes))
    scale = {"mean": (0.5,) * bands, "std": (0.25,) * bands, "pixel_max": 200.0}
    return SimpleNamespace(**scale, classes=names, auxiliary=auxiliary)


def test_pixels_are_scaled_then_normalized() -> None:
    segmenter = Segmenter(nn.Identity(), spec())
    pixels = torch.tensor([0.0, 100.0, 200.0]).view(1, 3, 1, 1)
    expected = torch.tensor([-2.0, 0.0, 2.0]).view(1, 3, 1, 1).sigmoid()
    torch.testing.assert_close(segmenter(pixels), expected)


def test_whole_numbers_of_any_size_scale_too() -> None:
    scale = {"mean": (0, 1, 2**64), "std": (2**64,) * 3, "pixel_max": 2**64}
    segmenter = Segmenter(nn.Identity(), SimpleNamespace(**scale, classes=("building",), auxiliary=()))
    assert segmenter(torch.zeros(1, 3, 1, 1)).isfinite().all()


def test_several_classes_share_a_probability_of_one() -> None:
    probability = Segmenter(nn.Identity(), spec(classes=3))(torch.rand(2, 3, 4, 4) * 200)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(2, 4, 4))


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_auxiliary_channels_are_sigmoids_beside_the_probabilities_of_the_classes(classes: int) -> None:
    bands, pixels = classes + 2, torch.rand(2, classes + 2, 4, 4) * 200
    found = Segmenter(nn.Identity(), spec(classes, bands, ("edge", "contact")))(pixels)
    logits = (pixels / 200 - 0.5) / 0.25
    torch.testing.assert_close(found[:, classes:], logits[:, classes:].sigmoid())
    torch.testing.assert_close(
        found[:, :classes], Segmenter(nn.Identity(), spec(classes, classes))(pixels[:, :classes])
    )


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
