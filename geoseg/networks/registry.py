"""Build a network from its name and options; the names are those a recipe and a bundle carry."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from geoseg.errors import UnknownNetworkError
from geoseg.networks.encoder_weights import load_encoder_weights

__all__ = ["build_network", "network_names"]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "unet": smp.Unet,
    "unetplusplus": smp.UnetPlusPlus,
    "manet": smp.MAnet,
    "linknet": smp.Linknet,
    "fpn": smp.FPN,
    "pspnet": smp.PSPNet,
    "deeplabv3": smp.DeepLabV3,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "pan": smp.PAN,
    "upernet": smp.UPerNet,
    "segformer": smp.Segformer,
    "dpt": smp.DPT,
}


def network_names() -> tuple[str, ...]:
    """Name the networks that `build_network` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def build_network(
    name: str,
    *,
    bands: int,
    classes: int,
    encoder_weights: str | Path | None = None,
    encoder: str = "resnet34",
    **options: Any,
) -> nn.Module:
    """Build a segmentation network that maps (n, band, y, x) normalised pixels to (n, class, y, x) logits.

    Args:
        name: one of `network_names()`.
        bands: number of input bands; a pretrained first convolution is adapted when it is not 3.
        classes: number of output channels; 1 for a binary network.
        encoder_weights: None for random weights; "imagenet" to fetch them from the model hub; or the path of
            a safetensors file.
        encoder: an encoder of segmentation-models-pytorch, or "tu-" and the name of a timm model.
        **options: further options of the architecture, such as `decoder_channels`.

    Returns:
        The network; y and x of its input must be multiples of its stride (32 unless an option changes it).

    Raises:
        UnknownNetworkError: the name, the encoder or an option does not exist.
        EncoderWeightsError: the weights cannot be fetched, or are not those of the encoder.
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        raise UnknownNetworkError(f"found network {name!r}; expected one of {', '.join(network_names())}")
    _check_options(name, builder, options)
    try:
        network = builder(encoder, encoder_weights=None, in_channels=bands, classes=classes, **_as_python(options))
    except (KeyError, RuntimeError, ValueError, TypeError) as err:
        raise UnknownNetworkError(f"cannot build {name!r} with encoder {encoder!r} and {options}: {err}") from err
    if encoder_weights is not None:
        load_encoder_weights(network, encoder, encoder_weights, bands=bands)
    return network


def _check_options(name: str, builder: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
    signature = inspect.signature(builder).parameters
    allowed = sorted(set(signature) - {"encoder_name", "encoder_weights", "in_channels", "classes", "kwargs"})
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise UnknownNetworkError(f"network {name!r} has no option {unknown[0]!r}; expected among {', '.join(allowed)}")


def _as_python(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the lists of TOML and JSON into the tuples that the builders take."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
