"""Networks by name, as recipes and bundles have it; each registers itself with its stride."""

import collections.abc
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_args, get_origin

import segmentation_models_pytorch as smp
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from geoseg.bundle import fits_options
from geoseg.errors import EncoderWeightsError, UnknownNetworkError
from geoseg.networks.encoder import check_encoder, load_encoder_weights, move_strides
from geoseg.networks.pooling import replace_pools

Build = TypeVar("Build", bound=Callable[..., nn.Module])
Stride = Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network before it is built.

    Attributes:
        build: Builds it from `bands`, `classes` and options; the network has a `stride_px`.
        defaults: The options' default values by name; `encoder_name` among them if it has an encoder.
        types: The options' types by name.
        stride_px: Returns the stride for given options; None if only the built network knows it.
        hint: Added to the message if it cannot be built.
    """

    build: Callable[..., nn.Module]
    defaults: Mapping[str, Any]
    types: Mapping[str, Any]
    stride_px: Stride | None = None
    hint: str = ""


NETWORKS: dict[str, Architecture] = {}

_NOT_OPTIONS = {"encoder_name", "encoder_weights", "in_channels", "bands", "classes", "activation", "aux_params"}

FROM_ELSEWHERE = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
"""Arguments with which timm would download weights, or unpickle a file."""

ENCODER_TYPES = {"encoder_options": dict[str, Any] | None, "encoder_stride_at": str}
"""Options that every network with an encoder has, whether or not its class names them."""

UNBUILDABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What networks raise that cannot be built from their options."""

MESSAGE_LENGTH = 300
"""Characters of a value, or of what a library says, in a message."""


def register_network(name: str, *, stride_px: Stride | None = None) -> Callable[[Build], Build]:
    """Make a decorator that registers a network's class under a name.

    Args:
        name: The name in recipes and bundles.
        stride_px: Returns the number of pixels of which the input's sides must be multiples, from all options of the
            network, default values included. If it is missing, the network is built and its `stride_px` is read.

    The class takes `bands`, `classes` and its options as keyword arguments, and `encoder_name` if it has an encoder,
    which is then its attribute `encoder`. A new network is a module with such a class, imported in
    `geoseg/networks/__init__.py`.
    """

    def register(build: Build) -> Build:
        NETWORKS[name] = Architecture(build, *_options_of(build), stride_px)
        return build

    return register


def encoder_stride_px(options: Mapping[str, Any]) -> int:
    """Return the stride of a network whose decoder gives logits of the encoder's input size."""
    halved = 2 ** options["encoder_depth"]
    return int(min(options.get("encoder_output_stride", halved), halved))


def _register_smp(name: str, build_smp: Callable[..., nn.Module], *, pools: int = 0) -> None:
    """Register a network of segmentation-models-pytorch, whose decoder halves the encoder's output `pools` times."""

    def build(
        *, bands: int, classes: int, encoder_options: Mapping[str, Any] | None = None, **options: Any
    ) -> nn.Module:
        further = {"dynamic_img_size": True} if is_vit else {}  # chips of any size, not only the classifier's
        arguments = options | further | dict(encoder_options or {})
        network: Any = build_smp(**arguments, encoder_weights=None, in_channels=bands, classes=classes)
        network.stride_px = int(network.encoder.output_stride) * 2**pools
        return network  # type: ignore[no-any-return]

    is_vit = name == "dpt"  # a vision transformer's patch, which only the model itself knows
    stride_px = None if is_vit else lambda options: encoder_stride_px(options) * 2**pools
    hint = "; dpt takes timm's plain vision transformers, such as 'tu-vit_small_patch16_224'" if is_vit else ""
    NETWORKS[name] = Architecture(build, *_options_of(build_smp), stride_px, hint)


def _options_of(build: Callable[..., nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the default values and the types of what a network is built from."""
    parameters = inspect.signature(build).parameters
    types = ENCODER_TYPES | {name: parameter.annotation for name, parameter in parameters.items()}
    return {name: parameter.default for name, parameter in parameters.items()}, types


_register_smp("unet", smp.Unet)
_register_smp("unetplusplus", smp.UnetPlusPlus)
_register_smp("manet", smp.MAnet)
_register_smp("linknet", smp.Linknet)
_register_smp("fpn", smp.FPN)
_register_smp("pspnet", smp.PSPNet)
_register_smp("deeplabv3", smp.DeepLabV3)
_register_smp("deeplabv3plus", smp.DeepLabV3Plus)
_register_smp("pan", smp.PAN, pools=3)
_register_smp("upernet", smp.UPerNet)
_register_smp("segformer", smp.Segformer)
_register_smp("dpt", smp.DPT, pools=1)


def network_names() -> tuple[str, ...]:
    """Name the networks that `build_network` knows, sorted."""
    return tuple(sorted(NETWORKS))


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
        name: One of `network_names()`.
        bands: Number of input bands; a pretrained first convolution is adapted when it is not 3.
        classes: Number of output channels; 1 for a binary network.
        encoder_weights: None for random weights; or what `geoseg.networks.encoder.load_encoder_weights` takes.
        encoder: An encoder of segmentation-models-pytorch, or "tu-" and the name of a timm model; None or "" for the
            network's own default.
        **options: Further options of the architecture, such as `decoder_channels`; and of its encoder:
            `encoder_stride_at` ("conv1" or "conv2", see `geoseg.networks.encoder.move_strides`) and `encoder_options`,
            a table of further arguments of a timm model.

    Returns:
        The network; y and x of its input must be multiples of its `stride_px`.

    Raises:
        UnknownNetworkError: If the name, the encoder or an option does not exist, or a value is not allowed.
        EncoderWeightsError: If the weights cannot be fetched, or are not those of the encoder.
    """
    architecture = _check_options(name, options)
    default = default_encoder(name)
    if encoder and default is None:
        raise UnknownNetworkError(f"found encoder {encoder!r}; network {name!r} has none: omit it")
    encoder = encoder or default
    if encoder is not None:
        check_encoder(encoder)
    stride_at = options.pop("encoder_stride_at", None)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if encoder is not None:
        arguments["encoder_name"] = encoder
    try:
        network = architecture.build(bands=bands, classes=classes, **arguments)
        replace_pools(network)
        if stride_at is not None:
            move_strides(network.get_submodule("encoder"), stride_at)
    except UNBUILDABLE as err:
        raise UnknownNetworkError(
            f"cannot build {name!r} with encoder {encoder!r} and {_shorten(str(options))}: "
            f"{_shorten(str(err)) or type(err).__name__}{architecture.hint}"
        ) from err
    if encoder_weights is not None:
        if encoder is None:
            raise EncoderWeightsError(f"network {name!r} has no encoder for {encoder_weights}; omit `encoder_weights`")
        load_encoder_weights(network, encoder, encoder_weights, bands=bands)
    return network


def default_encoder(name: str) -> str | None:
    """Name the encoder that a network has if none is chosen; None for a network without an encoder.

    Raises:
        UnknownNetworkError: If no network has this name.
    """
    encoder = _find(name).defaults.get("encoder_name")
    return None if encoder is None else str(encoder)


def network_stride(name: str, options: Mapping[str, Any]) -> int:
    """Return the number of pixels of which a network's input sides must be multiples.

    Args:
        name: One of `network_names()`.
        options: The options of `build_network`, `encoder` among them if it is chosen.

    Raises:
        UnknownNetworkError: If the name or an option does not exist.
    """
    own = {key: value for key, value in options.items() if key != "encoder"}
    architecture = _check_options(name, own)
    if architecture.stride_px is None:
        network: Any = build_network(name, bands=3, classes=1, **options)
        return int(network.stride_px)
    return architecture.stride_px({**architecture.defaults, **own})


def _find(name: str) -> Architecture:
    if name not in NETWORKS:
        raise UnknownNetworkError(f"found network {name!r}; expected one of {', '.join(network_names())}")
    return NETWORKS[name]


def _check_options(name: str, options: Mapping[str, Any]) -> Architecture:
    """Return the architecture if it has these options, and they have values of its types."""
    architecture = _find(name)
    allowed = set(architecture.defaults) - {"kwargs"} - _NOT_OPTIONS
    if "encoder_name" in architecture.defaults:
        allowed |= {"encoder_options", "encoder_stride_at"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        near = get_close_matches(unknown[0], allowed, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownNetworkError(
            f"network {name!r} has no option {_shorten(repr(unknown[0]))}{meant}; expected among "
            f"{', '.join(sorted(allowed))}"
        )
    for option, value in options.items():
        try:
            _checker(architecture.types[option]).validate_python(value)
        except ValidationError as err:
            allowed_values = " or ".join(dict.fromkeys(one["msg"].replace("Input", "it") for one in err.errors()))
            raise UnknownNetworkError(
                f"network {name!r} has the option {option!r} {_shorten(repr(value))}; {allowed_values} (by default "
                f"{architecture.defaults.get(option)!r})"
            ) from None
    fits, expected, found = fits_options(options)
    if not fits:
        raise UnknownNetworkError(f"{found}; expected {expected}")
    from_elsewhere = sorted(FROM_ELSEWHERE & set(options.get("encoder_options") or {}))
    if from_elsewhere:
        raise UnknownNetworkError(
            f"`encoder_options` has {from_elsewhere[0]!r}, with which the encoder would fetch or unpickle weights; "
            "omit it, and choose pretrained weights with `encoder_weights`"
        )
    return architecture


@cache
def _checker(kind: Any) -> TypeAdapter[Any]:
    """Return what checks values of a type, of which nothing is guessed: neither numbers in texts, nor 1 as True."""
    if get_origin(kind) is collections.abc.Iterable:  # pydantic would look into these only when they are read
        kind = GenericAlias(Sequence, get_args(kind))
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _shorten(text: str) -> str:
    """Return a text of one line, and not of many."""
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_LENGTH else f"{line[:MESSAGE_LENGTH]}..."
