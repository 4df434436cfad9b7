"""TensorRT engines, built from ONNX where NVIDIA's `tensorrt` is installed.

An engine fits one type of GPU and one version of TensorRT: build it where it will run. Written after the documentation
of TensorRT 10 (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html) and tested
with a fake of its API; it has not been run on a GPU yet.
"""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.bundle import Bundle, ModelSpec
from geoseg.errors import ExportError, MissingPackageError

log = logging.getLogger(__name__)

BEST_BATCH = 8
LARGEST_BATCH = 16
WORKSPACE_BYTES = 4 << 30
"""Memory that kernels may use while they are tried and run."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes `(n, band, y, x)` that an engine takes: the smallest, those it is tuned for, the largest."""

    smallest: tuple[int, int, int, int]
    best: tuple[int, int, int, int]
    largest: tuple[int, int, int, int]


def plan_profile(spec: ModelSpec) -> Profile:
    """Return the shapes of a model: any chip up to the model's own, tuned for batches of those."""
    bands, smallest, chip = len(spec.bands), spec.stride_px, spec.chip_px
    return Profile((1, bands, smallest, smallest), (BEST_BATCH, bands, chip, chip), (LARGEST_BATCH, bands, chip, chip))


def require_tensorrt() -> Any:
    """Import TensorRT.

    Raises:
        MissingPackageError: If it is not installed.
    """
    if importlib.util.find_spec("tensorrt") is None:
        raise MissingPackageError(
            "TensorRT is not installed. An engine is built on the type of GPU that it will run on: there, with "
            "NVIDIA's driver, `pip install tensorrt`; or export with `to='onnx'` and build the engine with trtexec."
        )
    import tensorrt

    return tensorrt


def build_engine(bundle: Bundle, onnx: bytes, path: Path, *, weights: str = "f32") -> None:
    """Build an engine from an ONNX network and write it.

    Args:
        bundle: The model, for the shapes.
        onnx: The network.
        path: Where to.
        weights: `f32`, or `f16` to let TensorRT choose half precision layer by layer.

    Raises:
        MissingPackageError: If TensorRT is not installed.
        ExportError: If it cannot parse or build the network.
    """
    trt = require_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    explicit_batch = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # needed until TensorRT 10
    network = builder.create_network(0 if explicit_batch is None else 1 << int(explicit_batch))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT {trt.__version__} does not understand the network: {errors}. Nothing was written.")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; it rounds to 10 bits of mantissa
    if weights == "f16":
        config.set_flag(trt.BuilderFlag.FP16)
    shapes = plan_profile(bundle.spec)
    profile = builder.create_optimization_profile()
    profile.set_shape("pixels", shapes.smallest, shapes.best, shapes.largest)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f"TensorRT {trt.__version__} could not build an engine; its messages above say why. Nothing was written."
        )
    path.write_bytes(engine)
