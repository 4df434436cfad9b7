"""From a bundle to a network of raw pixels to probabilities: what an engine runs and what is exported."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from geoseg.bundle import Bundle, ModelSpec
from geoseg.errors import BundleError, UnknownNetworkError
from geoseg.networks.registry import build_network

GIVEN = ("name", "bands", "classes", "encoder_weights")
"""Arguments of `build_network` that a bundle itself answers: its weights are in the file, and no hub is asked."""


class Segmenter(nn.Module):
    """A network with its normalization in front and its probabilities behind.

    `forward` takes raw pixels (n, band, y, x) float in [0, pixel_max] and gives (n, channel, y, x) float in [0, 1]:
    a sigmoid for one class, a softmax over several, and a sigmoid for each auxiliary channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        """Wrap `network` with the mean, std, pixel_max and channels of `spec`."""
        super().__init__()
        self.network = network
        self.classes = len(spec.classes)
        self.auxiliary = len(spec.auxiliary)
        std = torch.tensor(list(map(float, spec.std)), dtype=torch.float32)[:, None, None]
        mean = torch.tensor(list(map(float, spec.mean)), dtype=torch.float32)[:, None, None]
        self.register_buffer("scale", 1.0 / (std * float(spec.pixel_max)), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return probabilities (n, channel, y, x) of raw pixels (n, band, y, x)."""
        logits: Tensor = self.network(pixels * self.scale + self.shift)
        if self.classes == 1:
            return logits.sigmoid()
        if not self.auxiliary:
            return logits.softmax(dim=1)
        return torch.cat([logits[:, : self.classes].softmax(dim=1), logits[:, self.classes :].sigmoid()], dim=1)


def _check_sizes(bundle: Bundle, build: Callable[[], nn.Module]) -> None:
    """Check that a network is not larger than the weights in the file, before it takes memory.

    Raises:
        BundleError: If it is.
    """
    try:
        with torch.device("meta"):
            network = build()
    except UnknownNetworkError:  # told when it is built with memory
        return
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    there = bundle.shapes()
    differing = [name for name, shape in wanted.items() if there.get(name) != shape]
    if differing:
        name = differing[0]
        raise BundleError(
            f"The weights of {bundle.path} do not fit the network {bundle.spec.network!r} of its specification: "
            f"{name} has the shape {there.get(name, 'of nothing')}; expected {wanted[name]}. Give a bundle written by "
            "`geoseg train`."
        )


def load_segmenter(bundle: Bundle) -> Segmenter:
    """Build a bundle's network with its weights, normalization and activation, ready to predict.

    Raises:
        BundleError: If the weights do not fit the network that the specification names.
    """
    spec = bundle.spec
    options = {key: value for key, value in spec.network_options.items() if key not in GIVEN}
    build = partial(build_network, spec.network, bands=len(spec.bands), classes=len(spec.channels), **options)
    _check_sizes(bundle, build)
    network = build()
    try:
        network.load_state_dict(bundle.weights())
    except RuntimeError as err:
        raise BundleError(
            f"The weights of {bundle.path} do not fit the network {spec.network!r} that its specification names: "
            f"{str(err).splitlines()[0]} Give a bundle written by `geoseg train`."
        ) from err
    return Segmenter(network, spec).eval()
