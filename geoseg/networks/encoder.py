"""Encoders: their names, where a ResNet halves its input, and pretrained weights."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from geoseg.errors import EncoderWeightsError, UnknownNetworkError

__all__ = ["check_encoder", "load_encoder_weights", "move_strides"]

TORCHGEO = "torchgeo:"
"""In front of a name of torchgeo's pretrained weights, such as `torchgeo:ResNet50_Weights.SENTINEL2_RGB_MOCO`."""

STRIDES_AT = ("conv1", "conv2")


def check_encoder(encoder: str) -> None:
    """Refuse the name of an encoder that neither segmentation-models-pytorch nor timm knows.

    Raises:
        UnknownNetworkError: If there is no such encoder.
    """
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


def move_strides(encoder: nn.Module, at: str) -> None:
    """Put the strides of an encoder's bottlenecks on their first 1x1 or on their 3x3 convolution, in place.

    He et al. (2015) and the weights of Caffe and Keras have them on the 1x1 ("conv1"); torchvision and timm on the 3x3
    ("conv2", "ResNet V1.5"). Weights of one variant fit the other in every shape, but give poor results there. Stages
    that were dilated have no stride left to move, so the order of the two makes no difference.

    Args:
        encoder: An encoder with ResNet bottlenecks: `conv1` 1x1, `conv2` 3x3, `conv3` 1x1.
        at: "conv1" or "conv2".

    Raises:
        ValueError: If `at` is neither, or the encoder has no such bottlenecks.
    """
    if at not in STRIDES_AT:
        raise ValueError(f"found encoder_stride_at {at!r}; expected one of {', '.join(STRIDES_AT)}")
    has_bottlenecks = False
    for block in encoder.modules():
        convs = [getattr(block, name, None) for name in ("conv1", "conv2", "conv3")]
        one, three, last = (conv if isinstance(conv, nn.Conv2d) else None for conv in convs)
        if one is None or three is None or last is None:
            continue
        if [conv.kernel_size for conv in (one, three, last)] == [(1, 1), (3, 3), (1, 1)]:
            has_bottlenecks = True
            stride = max(one.stride, three.stride)
            one.stride, three.stride = (stride, (1, 1)) if at == "conv1" else ((1, 1), stride)
    if not has_bottlenecks:
        raise ValueError("encoder_stride_at moves the strides of ResNet bottlenecks; this encoder has none")


def load_encoder_weights(network: nn.Module, encoder: str, weights: str | Path, *, bands: int) -> None:
    """Load `weights` into `network.encoder`, adapting the first convolution of RGB weights to `bands`.

    Args:
        network: A network with an `encoder`, whose parameters are overwritten in place.
        encoder: The encoder's name, as given to `build_network`.
        weights: "imagenet" (fetched from the model hub), "torchgeo:" and a name of torchgeo's pretrained weights, or
            the path of a safetensors file; of weights of a whole segmenter the encoder's are used.
        bands: Number of the network's input bands.

    Raises:
        EncoderWeightsError: If the weights cannot be fetched or read, or are not those of the encoder.
    """
    from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder

    target: Any = network.encoder
    if str(weights) == "imagenet":
        source = _fetch_imagenet(encoder, is_vit=isinstance(target, TimmViTEncoder))
    else:
        is_named = str(weights).startswith(TORCHGEO)
        state = _fetch_torchgeo(str(weights).removeprefix(TORCHGEO)) if is_named else _read_file(Path(weights))
        inside = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
        source = {key.removeprefix("model."): value for key, value in inside.items()} or state
    module: nn.Module = target.model if hasattr(target, "model") else target
    own = module.state_dict()
    usable = {key: fit_bands(value, own[key]) for key, value in source.items() if key in own}
    missing = sorted(key for key in own if key not in usable and not key.endswith("num_batches_tracked"))
    wrong = sorted(key for key, value in usable.items() if value.shape != own[key].shape)
    for key in wrong:
        if own[key].ndim == 4 and own[key].shape[1] == bands and usable[key].shape[2:] == own[key].shape[2:]:
            raise EncoderWeightsError(
                f"{weights} reads {usable[key].shape[1]} bands, the network {bands}; only weights for 3 are adapted: "
                "give as many bands as the weights read, or other weights"
            )
    if missing or wrong:
        detail = f"{missing[0]} is missing" if missing else f"{wrong[0]} has another shape"
        raise EncoderWeightsError(
            f"{weights} does not fit encoder {encoder!r}: {detail} ({len(missing)} missing, {len(wrong)} of another "
            "shape); give the weights of this encoder, or another encoder"
        )
    module.load_state_dict(usable, strict=False)


def fit_bands(value: Tensor, own: Tensor) -> Tensor:
    """Spread a first convolution's RGB kernels (out, 3, y, x) over the bands of `own` (out, band, y, x).

    Band i takes the kernel of red, green or blue, i modulo 3, divided by the number of bands that take it: three
    colors repeated over the bands give the same result as before. One or two bands take the mean kernel, so that gray
    gives the same result.
    """
    bands = own.shape[1] if own.ndim == 4 else 0
    if value.ndim != 4 or value.shape[1] != 3 or bands in (0, 3):
        return value
    if bands < 3:
        return value.sum(dim=1, keepdim=True).repeat(1, bands, 1, 1) / bands
    color = torch.arange(bands) % 3
    return value[:, color] / torch.bincount(color)[color][:, None, None]


def _read_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        names = _torchgeo_names() if "Weights" in str(path) else []
        near = get_close_matches(str(path), ["imagenet", *(TORCHGEO + name for name in names)], n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise EncoderWeightsError(
            f'no encoder weights at {path}; expected "imagenet", "{TORCHGEO}" and a name of torchgeo, or the path of a '
            f"safetensors file that exists{meant}"
        )
    try:
        return load_file(path)
    except SafetensorError as err:
        raise EncoderWeightsError(f"{path} is not a safetensors file: {err}; pickled weights are not read") from err


def _fetch_imagenet(encoder: str, *, is_vit: bool) -> dict[str, Tensor]:
    """Fetch the ImageNet weights of an encoder; of a plain vision transformer those of the whole model."""
    from segmentation_models_pytorch.encoders import get_encoder

    try:
        if is_vit:
            module: Any = timm.create_model(encoder.removeprefix("tu-"), pretrained=True)
        else:
            module = get_encoder(encoder, in_channels=3, depth=5, weights="imagenet")
            module = module.model if encoder.startswith("tu-") else module
    except Exception as err:  # the hub clients raise their own errors, requests' and urllib's
        raise _unreachable(f"the ImageNet weights of {encoder!r}", err) from err
    state: dict[str, Tensor] = module.state_dict()
    return state


def _fetch_torchgeo(name: str) -> dict[str, Tensor]:
    """Fetch pretrained weights of torchgeo by name: ResNets, vision transformers, U-Nets trained on satellite images.

    torch's hub keeps the file; it is read as tensors only (`weights_only`), so nothing in it is executed.
    """
    from torchgeo.models import get_weight

    try:
        weight: Any = get_weight(name)
    except ValueError as err:
        known = _torchgeo_names()
        near = get_close_matches(name, known, n=5, cutoff=0.5) or known
        raise EncoderWeightsError(
            f"torchgeo has no weights named {name!r}; expected one of {len(known)}, near it: {', '.join(near[:5])}"
        ) from err
    try:
        state: dict[str, Tensor] = weight.get_state_dict(progress=False, weights_only=True)
    except Exception as err:  # urllib's, the hub's and the unpickler's own errors
        raise _unreachable(f"torchgeo's weights {name}", err) from err
    return state


def _torchgeo_names() -> list[str]:
    """Name the pretrained weights that torchgeo knows, sorted."""
    from torchgeo.models import get_model_weights, list_models

    known = set()
    for model in list_models():
        try:
            known |= {str(weight) for weight in get_model_weights(model)}
        except KeyError:  # a model without weights
            continue
    return sorted(known)


def _unreachable(what: str, err: Exception) -> EncoderWeightsError:
    return EncoderWeightsError(
        f"cannot fetch {what} from the model hub: {err}; check the network, or give the path of a safetensors file as "
        "`encoder_weights`"
    )
