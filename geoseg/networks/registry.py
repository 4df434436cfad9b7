"""Build a network from its name and options; the names are those a recipe and a bundle carry."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from geoseg.errors import EncoderWeightsError, UnknownNetworkError
from geoseg.networks.atrous import AtrousUnet
from geoseg.networks.encoder_weights import load_encoder_weights
from geoseg.networks.inception import InceptionUnet
from geoseg.networks.plain import PlainUnet
from geoseg.networks.pooling import replace_pools
from geoseg.networks.strides import move_strides

__all__ = ["OWN_NETWORKS", "build_network", "default_encoder", "network_names", "network_stride"]

Builder = Callable[..., nn.Module]

_SMP: dict[str, Builder] = {
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
OWN_NETWORKS: dict[str, Builder] = {
    "unet-atrous": AtrousUnet,
    "unet-inception": InceptionUnet,
    "unet-plain": PlainUnet,
}
"""Networks besides those of segmentation-models-pytorch: by name a callable of `bands`, `classes` and options.

`encoder_depth` among its parameters is how often it halves its input; the module says the same as `stride_px`.
"""
_POOLS_FURTHER = {"pan": 8, "dpt": 2}
"""Networks whose decoder makes what the encoder gives smaller still, and by how much."""
_HINTS = {"dpt": "; dpt takes timm's plain vision transformers, such as 'tu-vit_small_patch16_224'"}
_NOT_OPTIONS = {"encoder_name", "encoder_weights", "in_channels", "bands", "classes", "activation", "aux_params"}


def network_names() -> tuple[str, ...]:
    """Name the networks that `build_network` knows, sorted."""
    return tuple(sorted(_SMP | OWN_NETWORKS))


def build_network(
    name: str,
    *,
    bands: int,
    classes: int,
    encoder_weights: str | Path | None = None,
    encoder: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a segmentation network that maps (n, band, y, x) normalized pixels to (n, class, y, x) logits.

    Args:
        name: one of `network_names()`.
        bands: number of input bands; a pretrained first convolution is adapted when it is not 3.
        classes: number of output channels; 1 for a binary network.
        encoder_weights: None for random weights; "imagenet" to fetch them from the model hub; or the path of
            a safetensors file.
        encoder: an encoder of segmentation-models-pytorch, or "tu-" and the name of a timm model; None or "" for the
            network's own default.
        **options: further options of the architecture, such as `decoder_channels`; and of its encoder:
            `encoder_stride_at` ("conv1" or "conv2", see `geoseg.networks.strides`) and `encoder_options`, a table of
            further arguments of a timm model.

    Returns:
        The network; y and x of its input must be multiples of `network_stride(name, options)`.

    Raises:
        UnknownNetworkError: the name, the encoder or an option does not exist, or an option's value is not allowed.
        EncoderWeightsError: the weights cannot be fetched, or are not those of the encoder.
    """
    builder = _find_builder(name)
    _check_options(name, options)
    encoder = _choose_encoder(name, encoder)
    _check_encoder(encoder)
    stride_at = options.pop("encoder_stride_at", None)
    arguments = _as_arguments(name, options, bands, classes) | ({"encoder_name": encoder} if encoder else {})
    try:
        network = builder(**arguments)
        replace_pools(network)
        if stride_at is not None:
            move_strides(network.get_submodule("encoder"), stride_at)
    except (AttributeError, KeyError, RuntimeError, ValueError, TypeError) as err:
        hint = _HINTS.get(name, "")
        raise UnknownNetworkError(f"cannot build {name!r} with encoder {encoder!r} and {options}: {err}{hint}") from err
    if encoder_weights is not None:
        if encoder is None:
            raise EncoderWeightsError(f"network {name!r} has no encoder for {encoder_weights}; give no encoder_weights")
        load_encoder_weights(network, encoder, encoder_weights, bands=bands)
    return network


def default_encoder(name: str) -> str | None:
    """Name the encoder that a network has where none is chosen; None for a network without encoder.

    Raises:
        UnknownNetworkError: no network has this name.
    """
    parameter = inspect.signature(_find_builder(name)).parameters.get("encoder_name")
    return None if parameter is None else str(parameter.default)


def network_stride(name: str, options: Mapping[str, Any]) -> int:
    """Return the number of pixels of which a network's input sides must be multiples.

    Args:
        name: one of `network_names()`.
        options: the options of `build_network`, `encoder` among them if it is chosen.

    Raises:
        UnknownNetworkError: the name or an option does not exist.
    """
    own = {key: value for key, value in options.items() if key != "encoder"}
    _check_options(name, own)
    if name == "dpt":  # a vision transformer's patch, which only the model itself knows
        encoder: Any = build_network(name, bands=3, classes=1, **options).get_submodule("encoder")
        return int(encoder.output_stride) * _POOLS_FURTHER[name]
    parameters = inspect.signature(_find_builder(name)).parameters
    values = {key: parameter.default for key, parameter in parameters.items()} | own
    halvings = values["depth"] if name == "unet-plain" else values["encoder_depth"]
    return min(int(values.get("encoder_output_stride", 2**halvings)), int(2**halvings)) * _POOLS_FURTHER.get(name, 1)


def _find_builder(name: str) -> Builder:
    builder = OWN_NETWORKS.get(name) or _SMP.get(name)
    if builder is None:
        raise UnknownNetworkError(f"found network {name!r}; expected one of {', '.join(network_names())}")
    return builder


def _choose_encoder(name: str, encoder: str | None) -> str | None:
    default = default_encoder(name)
    if encoder and default is None:
        raise UnknownNetworkError(f"found encoder {encoder!r}; network {name!r} has none: leave it out")
    return encoder or default


def _check_encoder(encoder: str | None) -> None:
    """Refuse the name of an encoder that neither library knows."""
    if encoder is None:
        return
    model = encoder.removeprefix("tu-")
    if encoder.startswith("tu-") and timm.is_model(model.split(".")[0]):
        return
    names = smp.encoders.get_encoder_names()
    if encoder in names:
        return
    everything = [*names, *(f"tu-{timm_name}" for timm_name in timm.list_models())]
    near = get_close_matches(encoder, everything, n=4) or [f"tu-{model}"] * timm.is_model(model)
    meant = f"; did you mean {' or '.join(repr(found) for found in near)}?" if near else ""
    raise UnknownNetworkError(
        f"found encoder {encoder!r}; expected an encoder of segmentation-models-pytorch, or 'tu-' and the name of a "
        f"timm model{meant}"
    )


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    allowed = set(inspect.signature(_find_builder(name)).parameters) - {"kwargs"} - _NOT_OPTIONS
    if default_encoder(name) is not None:
        allowed |= {"encoder_options", "encoder_stride_at"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        near = get_close_matches(unknown[0], allowed, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownNetworkError(
            f"network {name!r} has no option {unknown[0]!r}{meant}; expected among {', '.join(sorted(allowed))}"
        )


def _as_arguments(name: str, options: Mapping[str, Any], bands: int, classes: int) -> dict[str, Any]:
    """Turn options into the arguments that a builder takes; the lists of TOML and JSON become tuples."""
    values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in options.items()}
    if name in OWN_NETWORKS:
        return {**values, "bands": bands, "classes": classes}
    further: dict[str, Any] = values.pop("encoder_options", {})
    if name == "dpt":  # for any chip, not the classifier's own size alone
        further = {"dynamic_img_size": True, **further}
    return {**values, **further, "encoder_weights": None, "in_channels": bands, "classes": classes}
