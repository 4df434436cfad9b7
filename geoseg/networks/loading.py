"""From a bundle to a network with its weights."""

from geoseg.bundle import Bundle
from geoseg.errors import BundleError
from geoseg.networks.registry import build_network
from geoseg.networks.segmenter import Segmenter

__all__ = ["load_segmenter"]


def load_segmenter(bundle: Bundle) -> Segmenter:
    """Build a bundle's network with its weights, normalization and activation, ready to predict.

    Raises:
        BundleError: If the weights do not fit the network that the specification names.
    """
    spec = bundle.spec
    network = build_network(spec.network, bands=len(spec.bands), classes=len(spec.classes), **spec.network_options)
    try:
        network.load_state_dict(bundle.weights())
    except RuntimeError as err:
        raise BundleError(
            f"The weights of {bundle.path} do not fit the network {spec.network!r} that its specification names: "
            f"{str(err).splitlines()[0]} Give a bundle written by `geoseg train`."
        ) from err
    return Segmenter(network, spec).eval()
