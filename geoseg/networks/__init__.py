"""Networks by name: every segmentation-models-pytorch architecture, any of its or timm's encoders."""

from geoseg.networks.loading import load_segmenter
from geoseg.networks.registry import build_network, network_names
from geoseg.networks.segmenter import Segmenter

__all__ = ["Segmenter", "build_network", "load_segmenter", "network_names"]
