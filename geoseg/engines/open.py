"""Choose a device and load a bundle into the engine that serves it best."""

import importlib.util
import logging
import os
import platform
from pathlib import Path

from geoseg.bundle import Bundle
from geoseg.engines.protocol import Engine
from geoseg.errors import DeviceError

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
ONNX_CACHE_ENV = "GEOSEG_CACHE_DIR"


def choose_device(device: str = "auto") -> str:
    """Return the device to use.

    Args:
        device: `auto` takes a CUDA GPU, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: If the device is unknown or absent.
    """
    if device not in DEVICES:
        raise DeviceError(f"There is no device {device!r}. Choose one of {', '.join(DEVICES)}.")
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    present = {"cuda": _has_cuda, "mps": _has_mps}
    if device == "auto":
        return next((name for name, is_present in present.items() if is_present()), "cpu")
    if not present[device]():
        raise DeviceError(f"--device {device} was asked for, but torch sees none here. Use --device cpu or auto.")
    return device


def _may_have_gpu() -> bool:
    """Tell cheaply whether asking torch is worth its import."""
    return platform.system() in ("Darwin", "Windows") or Path("/dev/nvidiactl").exists()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_threads(device: str, threads: int | None = None) -> int:
    """Return how many threads should feed the engine of a device; see `docs/benchmarks.md` for the measurement."""
    if choose_device(device) != "cpu":
        return 2
    return (threads or usable_cores()) if _has_openvino() else 1


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def load_engine(
    bundle: Bundle, *, chip_shape: tuple[int, int], device: str = "auto", threads: int | None = None
) -> Engine:
    """Load a bundle for chips of one shape.

    Args:
        bundle: The model.
        chip_shape: Height and width of the chips, pixels.
        device: See `choose_device`.
        threads: CPU threads in all; every core by default.

    Raises:
        DeviceError: If the device is absent.
        BundleError: If the weights do not fit the network.
    """
    device = choose_device(device)
    if device == "cpu" and _has_openvino():
        from geoseg.engines.openvino import OpenVINOEngine

        return OpenVINOEngine.load(bundle, chip_shape=chip_shape, threads=threads)
    if device == "cpu":
        log.warning("OpenVINO is not installed: the network runs on torch, about half as fast. `pip install openvino`.")
    from geoseg.engines.torch import TorchEngine

    return TorchEngine.load(bundle, device=device, threads=threads)
