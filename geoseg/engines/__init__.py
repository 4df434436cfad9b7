"""Engines run a network: pixel values in, probabilities out."""

from geoseg.engines.onnx import ONNX_CACHE_ENV
from geoseg.engines.openvino import native_precisions
from geoseg.engines.protocol import (
    ClassSegmenter,
    DihedralEngine,
    Engine,
    IdentitySegmenter,
    ThresholdSegmenter,
    usable_cores,
)
from geoseg.engines.registry import PRECISIONS, choose_device, choose_precision, load_engine, worker_threads

__all__ = [
    "ONNX_CACHE_ENV",
    "ClassSegmenter",
    "DihedralEngine",
    "Engine",
    "IdentitySegmenter",
    "PRECISIONS",
    "ThresholdSegmenter",
    "choose_device",
    "choose_precision",
    "load_engine",
    "native_precisions",
    "usable_cores",
    "worker_threads",
]
