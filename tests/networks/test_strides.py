"""Where a bottleneck ResNet halves its input, as its weights want it."""

from typing import Any

import pytest
import torch

from geoseg.errors import UnknownNetworkError
from geoseg.networks import build_network


def strides(encoder: Any) -> list[tuple[int, int]]:
    """Strides of the 1x1 and the 3x3 convolution of the first block of stages 2 to 4."""
    blocks = [encoder.layer2[0], encoder.layer3[0], encoder.layer4[0]]
    return [(block.conv1.stride[0], block.conv2.stride[0]) for block in blocks]


def built(name: str, **options: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(name, bands=3, classes=1, encoder="resnet50", **options)


def test_torchvision_and_smp_have_their_strides_on_the_3x3() -> None:
    assert strides(built("unet").encoder) == [(1, 2)] * 3


def test_the_option_moves_the_strides_and_keeps_the_shapes() -> None:
    network: Any = built("unet", encoder_stride_at="conv1")
    assert strides(network.encoder) == [(2, 1)] * 3
    pixels = torch.empty(1, 3, 64, 96, device="meta")
    moved = [feature.shape for feature in network.encoder(pixels)]
    usual: Any = built("unet")
    assert moved == [feature.shape for feature in usual.encoder(pixels)]


def test_the_strides_move_back() -> None:
    assert strides(built("unet", encoder_stride_at="conv2").encoder) == [(1, 2)] * 3


@pytest.mark.parametrize(("output_stride", "expected"), [(16, [(2, 1), (2, 1), (1, 1)]), (8, [(2, 1), (1, 1), (1, 1)])])
def test_dilated_stages_have_no_stride_left_to_move(output_stride: int, expected: list[tuple[int, int]]) -> None:
    network: Any = built("deeplabv3plus", encoder_stride_at="conv1", encoder_output_stride=output_stride)
    assert strides(network.encoder) == expected
    assert network.encoder.layer4[0].conv2.dilation == (32 // output_stride,) * 2
    assert network.eval()(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, 1, 64, 96)


def test_the_result_is_the_same_as_moving_the_strides_before_dilating() -> None:
    from segmentation_models_pytorch.encoders import get_encoder

    from geoseg.networks.strides import move_strides

    with torch.device("meta"):
        encoder = get_encoder("resnet50", weights=None)
        move_strides(encoder, "conv1")
        encoder.make_dilated(16)
    after: Any = built("deeplabv3plus", encoder_stride_at="conv1").encoder
    found, expected = (
        [(m.stride, m.dilation, m.padding) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        for network in (after, encoder)
    )
    assert found == expected


def test_the_strides_change_what_is_computed() -> None:
    torch.manual_seed(0)
    network: Any = build_network("pspnet", bands=3, classes=1, encoder="resnet50", encoder_depth=3).eval()
    pixels = torch.rand(1, 3, 32, 32)
    from geoseg.networks.strides import move_strides

    with torch.inference_mode():
        before = network.encoder(pixels)[-1]
        move_strides(network.encoder, "conv1")
        assert not torch.allclose(network.encoder(pixels)[-1], before)


@pytest.mark.parametrize(
    ("encoder", "at", "said"),
    [("resnet50", "conv3", "expected one of conv1, conv2"), ("resnet18", "conv1", "this encoder has none")],
)
def test_what_cannot_be_moved_is_named(encoder: str, at: str, said: str) -> None:
    with pytest.raises(UnknownNetworkError, match=said), torch.device("meta"):
        build_network("unet", bands=3, classes=1, encoder=encoder, encoder_stride_at=at)
