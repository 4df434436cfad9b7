"""Put pretrained weights into a network's encoder: from the hub, or from a safetensors file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import EncoderWeightsError

__all__ = ["load_encoder_weights"]


def load_encoder_weights(network: nn.Module, encoder: str, weights: str | Path, *, bands: int) -> None:
    """Load `weights` into `network.encoder`, adapting the first convolution to `bands`.

    Args:
        network: a network with an `encoder`, whose parameters are overwritten in place.
        encoder: the encoder's name, as given to `build_network`.
        weights: "imagenet" (fetched from the model hub) or the path of a safetensors file.
        bands: number of the network's input bands.

    Raises:
        EncoderWeightsError: the weights cannot be fetched or read, or are not those of the encoder.
    """
    source = hub_weights(encoder) if str(weights) == "imagenet" else file_weights(Path(weights))
    target: Any = network.encoder
    module: nn.Module = target.model if encoder.startswith("tu-") else target
    own = module.state_dict()
    usable = {key: _fit_bands(value, own[key], bands) for key, value in source.items() if key in own}
    missing = sorted(key for key in own if key not in usable and not key.endswith("num_batches_tracked"))
    wrong = sorted(key for key, value in usable.items() if value.shape != own[key].shape)
    if missing or wrong:
        detail = f"{missing[0]} is missing" if missing else f"{wrong[0]} has another shape"
        raise EncoderWeightsError(
            f"{weights} does not fit encoder {encoder!r}: {detail} ({len(missing)} missing, {len(wrong)} of another "
            "shape); give the weights of this encoder, or another encoder"
        )
    module.load_state_dict(usable, strict=False)


def file_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of encoder weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise EncoderWeightsError(
            f'no encoder weights at {path}; expected "imagenet", or the path of a safetensors file that exists'
        )
    try:
        return load_file(path)
    except SafetensorError as err:
        raise EncoderWeightsError(f"{path} is not a safetensors file: {err}; pickled weights are not read") from err


def hub_weights(encoder: str) -> dict[str, Tensor]:
    """Fetch the ImageNet weights of an encoder from the model hub."""
    from segmentation_models_pytorch.encoders import get_encoder

    try:
        pretrained: Any = get_encoder(encoder, in_channels=3, depth=5, weights="imagenet")
    except Exception as err:  # the hub clients raise their own errors, requests' and urllib's
        raise EncoderWeightsError(
            f"cannot fetch the ImageNet weights of {encoder!r} from the model hub: {err}; check the network, or give "
            "the path of a safetensors file as encoder_weights"
        ) from err
    state: dict[str, Tensor] = (pretrained.model if encoder.startswith("tu-") else pretrained).state_dict()
    return state


def _fit_bands(value: Tensor, own: Tensor, bands: int) -> Tensor:
    """Repeat a first convolution's RGB kernels over `bands`, keeping the size of its response."""
    if value.ndim != 4 or value.shape[1] != 3 or own.shape[1] != bands or bands == 3:
        return value
    repeated = value[:, torch.arange(bands) % 3]
    return repeated * (3.0 / bands)
