"""geoseg's own networks: what their blocks are made of, their options, and that they export at any size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from geoseg.errors import EncoderWeightsError, UnknownNetworkError
from geoseg.networks import build_network
from geoseg.networks.atrous import AtrousBlock
from geoseg.networks.decoder import AttentionGate, ChannelSpatialAttention
from geoseg.networks.inception import InceptionBlock

TINY = "tu-test_resnet"
OWN: list[tuple[str, dict[str, Any]]] = [
    ("unet-inception", {"encoder": TINY, "decoder_channels": [16, 16, 8, 8, 8]}),
    ("unet-inception", {"encoder": TINY, "decoder_channels": [16, 8, 8], "attention": "scse", "decoder_blocks": 1}),
    ("unet-atrous", {"encoder": TINY, "decoder_channels": [32, 16, 8, 8]}),
    ("unet-atrous", {"encoder": TINY, "decoder_channels": [8, 8, 8, 8, 8], "attention": "gate", "squeeze": 1}),
    ("unet-plain", {"depth": 2, "filters": 4, "dropout": 0.2}),
    ("unet-plain", {"depth": 3, "filters": [4, 6, 6, 9], "convolutions": 1, "upsampling": "interpolated"}),
    ("unet-plain", {"depth": 2, "filters": 4, "attention": "gate", "norm": False}),
    ("unet-plain", {"depth": 2, "filters": 4, "attention": "scse"}),
]


def touched_by_the_center(block: nn.Module, channels: int, side: int) -> torch.Tensor:
    """Where (channel, y, x) an output depends on the middle pixel."""
    pixels = torch.zeros(1, channels, side, side)
    pixels[..., side // 2, side // 2] = torch.nan
    with torch.no_grad():
        touched: torch.Tensor = block.eval()(pixels)[0].isnan()
    return touched


def test_inception_branches_see_one_three_five_and_three_pixels() -> None:
    touched = touched_by_the_center(InceptionBlock(3, 8), channels=3, side=11)
    widths = [int(branch.any(dim=(0, 1)).sum()) for branch in touched.split(2)]
    assert widths == [1, 3, 5, 3]


def test_atrous_branches_see_what_their_dilations_say() -> None:
    touched = touched_by_the_center(AtrousBlock(8, 4, dilations=(1, 6, 12, 18), squeeze=4), channels=8, side=41)
    columns = [branch.any(dim=0).nonzero().flatten().tolist() for branch in touched]
    assert columns == [[20], [14, 20, 26], [8, 20, 32], [2, 20, 38]]


def test_atrous_stages_are_as_wide_as_published() -> None:
    with torch.device("meta"):
        network: Any = build_network("unet-atrous", bands=3, classes=1)
    joined = [sum(branch[0].out_channels for branch in stage.block.branches) for stage in network.stages]
    assert joined == [1024, 512, 256, 64]
    assert network.head.kernel_size == (1, 1)


def test_plain_parameters_are_those_counted_by_hand() -> None:
    network = build_network("unet-plain", bands=3, classes=1, depth=1, filters=2, convolutions=1, norm=False)
    down = (3 * 9 + 1) * 2 + (2 * 9 + 1) * 4
    up = 4 * 2 * 4 + 2  # 2x2 up-convolution from 4 to 2 channels
    merge, head = (4 * 9 + 1) * 2, 2 + 1
    assert sum(p.numel() for p in network.parameters()) == down + up + merge + head


def test_the_original_u_net_has_31_million_parameters() -> None:
    with torch.device("meta"):
        network = build_network("unet-plain", bands=1, classes=1, norm=False)
    widths = [64, 128, 256, 512, 1024]  # Ronneberger et al. 2015, figure 1
    down = sum(9 * a * b + b + 9 * b * b + b for a, b in zip([1, *widths[:-1]], widths, strict=True))
    up = sum(4 * 2 * b * b + b + 9 * 2 * b * b + b + 9 * b * b + b for b in widths[:-1])
    assert sum(p.numel() for p in network.parameters()) == down + up + 64 + 1 == 31_030_593


def test_a_gate_weighs_the_skip_between_nothing_and_all() -> None:
    skip = torch.rand(1, 4, 5, 5) + 0.1
    weight = AttentionGate(6, 4)(torch.randn(1, 6, 5, 5), skip) / skip
    assert torch.all((weight > 0) & (weight < 1))
    torch.testing.assert_close(weight.amax(dim=1), weight.amin(dim=1))  # one weight per pixel


def test_scse_adds_a_weight_per_channel_and_one_per_pixel() -> None:
    attention = ChannelSpatialAttention(2)
    for parameter in attention.parameters():
        nn.init.zeros_(parameter)  # both sigmoids are a half
    features = torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(attention(features), features)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("unet-plain", {"encoder": "resnet18"}, "has none: omit it"),
        ("unet-plain", {"depth": 9}, "found depth 9; expected 0 to 8"),
        ("unet-plain", {"depth": 2, "filters": [4, 8]}, "expected 3 widths"),
        ("unet-plain", {"upsampling": "nearest"}, "expected one of transposed, interpolated"),
        ("unet-plain", {"attention": "cbam"}, "expected one of gate, scse, none"),
        ("unet-plain", {"dropout": 1.0}, "expected a share"),
        ("unet-plain", {"convolutions": 0}, "expected 1 or more"),
        ("unet-inception", {"encoder": TINY, "decoder_channels": [6]}, "expected a multiple of 4"),
        ("unet-atrous", {"encoder": TINY, "decoder_channels": [8] * 6}, "expected 1 to 5"),
        ("unet-atrous", {"encoder": TINY, "dilation": [1, 2]}, "did you mean 'dilations'"),
    ],
)
def test_values_that_are_not_allowed_are_named(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownNetworkError, match=said):
        build_network(name, bands=3, classes=1, **options)


def test_a_network_without_encoder_takes_no_encoder_weights() -> None:
    with pytest.raises(EncoderWeightsError, match="has no encoder"):
        build_network("unet-plain", bands=3, classes=1, depth=1, filters=2, encoder_weights="imagenet")


def test_unet_inception_has_its_attention_in_every_stage() -> None:
    with torch.device("meta"):
        network = build_network("unet-inception", bands=3, classes=1, encoder=TINY, attention="scse")
    assert sum(isinstance(module, ChannelSpatialAttention) for module in network.modules()) == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's exporter about itself
@pytest.mark.parametrize(("name", "options"), OWN)
def test_own_networks_export_to_onnx_at_any_size(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    network = build_network(name, bands=3, classes=2, **options).eval()
    axes = {0: "n", 2: "y", 3: "x"}
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 64, 64),),
        str(tmp_path / "network.onnx"),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": axes, "logits": axes},
        opset_version=18,
        dynamo=False,
    )
    pixels = torch.rand(2, 3, 32, 96)
    compiled = openvino.compile_model(tmp_path / "network.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        expected = network(pixels)
    torch.testing.assert_close(torch.from_numpy(compiled(pixels.numpy())[0]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), [OWN[1], OWN[2], OWN[5]])
def test_own_networks_export_as_graphs_at_any_size(name: str, options: dict[str, Any]) -> None:
    network = build_network(name, bands=3, classes=1, **options).eval()
    # From two strides on: torch.export takes a feature map of one row for something else than a map of several
    sides = {2: 32 * torch.export.Dim("y", min=2, max=8), 3: 32 * torch.export.Dim("x", min=2, max=8)}
    program = torch.export.export(network, (torch.zeros(1, 3, 64, 96),), dynamic_shapes=(sides,))
    pixels = torch.rand(1, 3, 128, 64)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(pixels), network(pixels))


@pytest.mark.parametrize(("name", "options"), [OWN[0], OWN[2], OWN[4]])
def test_own_networks_train_in_bfloat16_with_channels_last(name: str, options: dict[str, Any]) -> None:
    network: nn.Module = build_network(name, bands=3, classes=1, **options)
    network = network.to(memory_format=torch.channels_last)
    pixels = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        network(pixels).float().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
