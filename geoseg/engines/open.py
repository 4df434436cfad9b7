"""Choose a device and load a bundle into the engine that serves it best."""

import importlib.util
import logging
import platform
from pathlib import Path

from geoseg.artifact import Form
from geoseg.bundle import Bundle
from geoseg.engines.protocol import Engine, usable_cores
from geoseg.errors import DeviceError, NetworkExportError
from geoseg.telemetry import import_onnxruntime

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("f32", "bf16", "f16")
GPU_FEEDERS = 8
"""Most threads that read for one GPU; each holds a block."""


def choose_device(device: str = "auto", form: Form = Form.SAFETENSORS) -> str:
    """Return the device to use.

    Args:
        device: `auto` takes a CUDA GPU, then Apple's MPS, then the CPU.
        form: Format of the model: exported networks do not run everywhere.

    Raises:
        DeviceError: If the device is unknown or absent, or does not run this format.
    """
    if device not in DEVICES:
        raise DeviceError(f"There is no device {device!r}. Choose one of {', '.join(DEVICES)}.")
    if form in (Form.ONNX, Form.OPENVINO):
        return _choose_for_exported(device, form)
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    present = {"cuda": _has_cuda, "mps": _has_mps}
    if device == "auto":
        return next((name for name, is_present in present.items() if is_present()), "cpu")
    if not present[device]():
        raise DeviceError(f"--device {device} was asked for, but torch sees none here. Use --device cpu or auto.")
    return device


def _choose_for_exported(device: str, form: Form) -> str:
    """Return where a file runs that torch does not read: an ONNX file on CPU or CUDA, an OpenVINO one on the CPU."""
    if device == "cpu" or (device == "auto" and (form is Form.OPENVINO or not _may_have_gpu())):
        return "cpu"
    if form is Form.ONNX and device in ("auto", "cuda") and _has_onnxruntime_cuda():
        return "cuda"
    if device == "auto":
        return "cpu"
    if form is Form.ONNX and device == "cuda":
        raise DeviceError(
            "--device cuda runs .onnx files with ONNX Runtime, whose CUDA build is missing or finds no GPU here. "
            "`pip install onnxruntime-gpu`, use --device cpu, or give the .safetensors bundle, which torch runs."
        )
    raise DeviceError(
        f"--device {device} was asked for, but a network exported to {form} runs on "
        f"{'cpu or cuda' if form is Form.ONNX else 'the cpu alone'}. Use --device cpu, or give the .safetensors bundle."
    )


def _has_onnxruntime_cuda() -> bool:
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


def _may_have_gpu() -> bool:
    """Tell cheaply whether asking torch is worth its import."""
    return platform.system() in ("Darwin", "Windows") or Path("/dev/nvidiactl").exists()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def worker_threads(device: str, threads: int | None = None, form: Form = Form.SAFETENSORS) -> int:
    """Return how many threads should feed the engine of a device; see `docs/benchmarks.md` for the measurement."""
    if choose_device(device, form) != "cpu":
        return max(2, min(threads or usable_cores(), GPU_FEEDERS))
    return (threads or usable_cores()) if _has_openvino() and form is not Form.PT2 else 1


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def load_engine(
    bundle: Bundle,
    *,
    chip_shape: tuple[int, int],
    device: str = "auto",
    threads: int | None = None,
    precision: str = "f32",
) -> Engine:
    """Load a bundle, or a network exported from one, for chips of one shape.

    Args:
        bundle: The model.
        chip_shape: Height and width of the chips, pixels.
        device: See `choose_device`.
        threads: CPU threads in all; every core by default.
        precision: `f32`; or `bf16` or `f16`, faster and less exact, where torch runs the network on a GPU.

    Raises:
        DeviceError: If the device is absent, or cannot do what is asked for.
        BundleError: If the weights do not fit the network.
    """
    device = choose_device(device, bundle.form)
    _check_precision(precision, device, bundle.form)
    if device == "cpu" and bundle.form is not Form.PT2 and _has_openvino():
        from geoseg.engines.openvino import OpenVINOEngine

        try:
            return OpenVINOEngine.load(bundle, chip_shape=chip_shape, threads=threads)
        except NetworkExportError as err:
            log.warning("%s It runs on torch, more slowly.", err)
    if bundle.form is Form.OPENVINO:
        raise DeviceError(f"{bundle.path} needs OpenVINO, which is not installed. `pip install openvino`.")
    if bundle.form is Form.ONNX:
        from geoseg.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine.load(bundle, device=device, threads=threads)
    if device == "cpu" and bundle.form is Form.SAFETENSORS and not _has_openvino():
        log.warning("OpenVINO is not installed: the network runs on torch, about half as fast. `pip install openvino`.")
    from geoseg.engines.torch import TorchEngine

    return TorchEngine.load(bundle, device=device, threads=threads, precision=precision)


def _check_precision(precision: str, device: str, form: Form) -> None:
    if precision not in PRECISIONS:
        raise DeviceError(f"There is no precision {precision!r}. Choose one of {', '.join(PRECISIONS)}.")
    if precision != "f32" and (device == "cpu" or form is Form.ONNX):
        where = "ONNX Runtime" if form is Form.ONNX else "the CPU"
        raise DeviceError(f"Precision {precision} is for torch on a GPU; {where} computes in f32. Leave it out.")
