"""Networks by name: geoseg's own decoders, every segmentation-models-pytorch architecture, its and timm's encoders."""

from geoseg.networks import atrous, inception, plain  # noqa: F401 - each registers its network
from geoseg.networks.facts import NetworkFacts, network_facts
from geoseg.networks.registry import build_network, default_encoder, network_names, network_stride, register_network
from geoseg.networks.segmenter import Segmenter, load_segmenter

__all__ = [
    "NetworkFacts",
    "Segmenter",
    "build_network",
    "default_encoder",
    "load_segmenter",
    "network_facts",
    "network_names",
    "network_stride",
    "register_network",
]
