"""Engines run a network: pixel values in, probabilities out."""

from geoseg.engines.onnx import ONNX_CACHE_ENV
from geoseg.engines.protocol import ClassSegmenter, Engine, IdentitySegmenter, ThresholdSegmenter, usable_cores
from geoseg.engines.registry import choose_device, load_engine, worker_threads

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
