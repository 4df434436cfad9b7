"""Put pretrained weights into a network's encoder: from a hub, by torchgeo's name, or from a safetensors file."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import EncoderWeightsError

__all__ = ["is_named_weights", "load_encoder_weights"]

TORCHGEO = "torchgeo:"
"""In front of a name of torchgeo's pretrained weights, such as `torchgeo:ResNet50_Weights.SENTINEL2_RGB_MOCO`."""


def is_named_weights(weights: str | Path) -> bool:
    """Tell whether `weights` is a name, fetched from a hub, and not the path of a file."""
    return str(weights) == "imagenet" or str(weights).startswith(TORCHGEO)


def load_encoder_weights(network: nn.Module, encoder: str, weights: str | Path, *, bands: int) -> None:
    """Load `weights` into `network.encoder`, adapting the first convolution of RGB weights to `bands`.

    Args:
        network: a network with an `encoder`, whose parameters are overwritten in place.
        encoder: the encoder's name, as given to `build_network`.
        weights: "imagenet" (fetched from the model hub), "torchgeo:" and a name of torchgeo's pretrained weights, or
            the path of a safetensors file.
        bands: number of the network's input bands.

    Raises:
        EncoderWeightsError: the weights cannot be fetched or read, or are not those of the encoder.
    """
    from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder

    target: Any = network.encoder
    source = read_weights(encoder, weights, is_vit=isinstance(target, TimmViTEncoder))
    module: nn.Module = target.model if hasattr(target, "model") else target
    own = module.state_dict()
    usable = {key: fit_bands(value, own[key]) for key, value in source.items() if key in own}
    _check_fit(usable, own, encoder=encoder, weights=weights, bands=bands)
    module.load_state_dict(usable, strict=False)


def read_weights(encoder: str, weights: str | Path, *, is_vit: bool) -> dict[str, Tensor]:
    """Read or fetch weights by what their name says; those of a whole segmenter give its encoder's."""
    if str(weights) == "imagenet":
        return hub_weights(encoder, is_vit=is_vit)
    if str(weights).startswith(TORCHGEO):
        state = torchgeo_weights(str(weights).removeprefix(TORCHGEO))
    else:
        state = file_weights(Path(weights))
    inside = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    return {key.removeprefix("model."): value for key, value in inside.items()} or state


def file_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of encoder weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        names = torchgeo_names() if "Weights" in str(path) else []
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


def hub_weights(encoder: str, *, is_vit: bool) -> dict[str, Tensor]:
    """Fetch the ImageNet weights of an encoder from the model hub; those of a plain vision transformer whole."""
    import timm
    from segmentation_models_pytorch.encoders import get_encoder

    try:
        if is_vit:
            vit: dict[str, Tensor] = timm.create_model(encoder.removeprefix("tu-"), pretrained=True).state_dict()
            return vit
        pretrained: Any = get_encoder(encoder, in_channels=3, depth=5, weights="imagenet")
    except Exception as err:  # the hub clients raise their own errors, requests' and urllib's
        raise _out_of_reach(f"the ImageNet weights of {encoder!r}", err) from err
    state: dict[str, Tensor] = (pretrained.model if encoder.startswith("tu-") else pretrained).state_dict()
    return state


def torchgeo_names() -> list[str]:
    """Name the pretrained weights that torchgeo knows, sorted."""
    from torchgeo.models import get_model_weights, list_models

    known = set()
    for model in list_models():
        try:
            known |= {str(weight) for weight in get_model_weights(model)}
        except KeyError:  # a model without weights
            continue
    return sorted(known)


def torchgeo_weights(name: str) -> dict[str, Tensor]:
    """Fetch pretrained weights of torchgeo by name: ResNets, vision transformers, U-Nets trained on satellite images.

    torch's hub keeps the file; it is read as tensors alone (`weights_only`), so nothing in it is executed.
    """
    from torchgeo.models import get_weight

    try:
        weight: Any = get_weight(name)
    except ValueError as err:
        known = torchgeo_names()
        near = get_close_matches(name, known, n=5, cutoff=0.5) or known
        raise EncoderWeightsError(
            f"torchgeo has no weights named {name!r}; expected one of {len(known)}, near it: {', '.join(near[:5])}"
        ) from err
    try:
        state: dict[str, Tensor] = weight.get_state_dict(progress=False, weights_only=True)
    except Exception as err:  # urllib's, the hub's and the unpickler's own errors
        raise _out_of_reach(f"torchgeo's weights {name}", err) from err
    return state


def _out_of_reach(what: str, err: Exception) -> EncoderWeightsError:
    return EncoderWeightsError(
        f"cannot fetch {what} from the model hub: {err}; check the network, or give the path of a safetensors file as "
        "encoder_weights"
    )


def fit_bands(value: Tensor, own: Tensor) -> Tensor:
    """Spread a first convolution's RGB kernels (out, 3, y, x) over the bands of `own` (out, band, y, x).

    Band i takes the kernel of red, green or blue, i modulo 3, divided by the number of bands that take it: three
    colors repeated over the bands are answered as they were before. One or two bands take the mean kernel, so that
    gray is.
    """
    bands = own.shape[1] if own.ndim == 4 else 0
    if value.ndim != 4 or value.shape[1] != 3 or bands in (0, 3):
        return value
    if bands < 3:
        return value.sum(dim=1, keepdim=True).repeat(1, bands, 1, 1) / bands
    color = torch.arange(bands) % 3
    return value[:, color] / torch.bincount(color)[color][:, None, None]


def _check_fit(
    usable: Mapping[str, Tensor], own: Mapping[str, Tensor], *, encoder: str, weights: str | Path, bands: int
) -> None:
    """Refuse weights that leave a parameter of the encoder as it was, or that have other shapes."""
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
