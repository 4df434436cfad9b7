"""Engines run a network: pixel values in, probabilities out."""

from geoseg.engines.fakes import ClassSegmenter, IdentitySegmenter, ThresholdSegmenter
from geoseg.engines.open import ONNX_CACHE_ENV, choose_device, load_engine, usable_cores, worker_threads
from geoseg.engines.protocol import Engine

__all__ = [
    "ONNX_CACHE_ENV",
    "ClassSegmenter",
    "Engine",
    "IdentitySegmenter",
    "ThresholdSegmenter",
    "choose_device",
    "load_engine",
    "usable_cores",
    "worker_threads",
]
