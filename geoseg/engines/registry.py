"""The engines, in order of preference; the choice of device and engine for a bundle."""

import logging
import platform
import socket
from pathlib import Path

from geoseg.bundle import Bundle
from geoseg.engines.onnxruntime import OnnxRuntimeEngine, has_cuda
from geoseg.engines.openvino import OpenVINOEngine, native_precisions
from geoseg.engines.protocol import Engine, EngineOptions, Support, usable_cores
from geoseg.errors import DeviceError, NetworkExportError
from geoseg.model_file import ModelFormat

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("f32", "bf16", "f16")
"""What `choose_precision` makes of `auto` is one of them."""

GPU_FEEDERS = 8
"""Most threads that read for one GPU; each holds a block."""


def _load_torch(bundle: Bundle, options: EngineOptions) -> Engine:
    from geoseg.engines.torch import TorchEngine

    if options.device == "cpu" and bundle.format is ModelFormat.SAFETENSORS and not OPENVINO.is_installed():
        log.warning("OpenVINO is not installed: the network runs on torch, about half as fast. `pip install openvino`.")
    return TorchEngine.load(bundle, device=options.device, threads=options.threads, precision=options.precision)


def _torch_has_gpu(device: str) -> bool:
    import torch

    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


OPENVINO = Support(
    name="OpenVINO",
    package="openvino",
    formats=(ModelFormat.SAFETENSORS, ModelFormat.ONNX, ModelFormat.OPENVINO),
    devices=("cpu",),
    load=lambda bundle, options: OpenVINOEngine.load(
        bundle, chip_shape=options.chip_shape, threads=options.threads, precision=options.precision
    ),
    precisions={"cpu": ("f32", "bf16")},
    is_parallel=True,
)
ONNX_RUNTIME = Support(
    name="ONNX Runtime",
    package="onnxruntime",
    formats=(ModelFormat.ONNX,),
    devices=("cuda", "cpu"),
    load=lambda bundle, options: OnnxRuntimeEngine.load(bundle, device=options.device, threads=options.threads),
    has_gpu=lambda device: has_cuda(),
    no_gpu="`device='{device}'` runs .onnx files with ONNX Runtime, which is not built for CUDA or finds no GPU. "
    "`pip install onnxruntime-gpu`, use `device='cpu'`, or give the .safetensors bundle, which torch runs.",
)
TORCH = Support(
    name="torch",
    package="torch",
    formats=(ModelFormat.SAFETENSORS, ModelFormat.PT2),
    devices=("cuda", "mps", "cpu"),
    load=_load_torch,
    precisions={"cuda": PRECISIONS, "mps": PRECISIONS, "cpu": ("f32", "bf16")},
    has_gpu=_torch_has_gpu,
    no_gpu="`device='{device}'` needs a GPU that torch can use, and torch finds none on this machine. Use "
    "`device='cpu'` or `device='auto'`.",
)

ENGINES = (OPENVINO, ONNX_RUNTIME, TORCH)
"""The first one that runs the format on the device and is installed is used. A new engine is an entry here."""


def choose_device(device: str = "auto", model_format: ModelFormat = ModelFormat.SAFETENSORS) -> str:
    """Return the device to use.

    Args:
        device: `auto` takes a CUDA GPU, then Apple's MPS, then the CPU.
        model_format: Format of the model; exported networks do not run on every device.

    Raises:
        DeviceError: If the device is unknown or absent, or does not run this format.
    """
    if device not in DEVICES:
        raise DeviceError(f"There is no device {device!r}. Choose one of {', '.join(DEVICES)}.")
    may_have_gpu = platform.system() in ("Darwin", "Windows") or Path("/dev/nvidiactl").exists()
    if device == "cpu" or (device == "auto" and not may_have_gpu):  # asking an engine imports its library
        return "cpu"
    engines = [engine for engine in ENGINES if model_format in engine.formats]
    if device == "auto":
        gpus = [(engine, gpu) for engine in engines for gpu in engine.devices if gpu != "cpu"]
        return next((gpu for engine, gpu in gpus if engine.has_gpu(gpu)), "cpu")
    serving = [engine for engine in engines if device in engine.devices]
    if not serving:
        known = [name for name in DEVICES if any(name in engine.devices for engine in engines)]
        raise DeviceError(
            f"`device={device!r}` does not run a network exported to {model_format}, which runs on "
            f"{' or '.join(known) if len(known) > 1 else f'the {known[0]} only'}. "
            "Use `device='cpu'`, or give the .safetensors bundle."
        )
    if not any(engine.has_gpu(device) for engine in serving):
        raise DeviceError(serving[0].no_gpu.format(device=device))
    return device


def worker_threads(device: str, threads: int | None = None, model_format: ModelFormat = ModelFormat.SAFETENSORS) -> int:
    """Return how many threads should feed the engine of a device; see `docs/benchmarks.md` for the measurement."""
    if choose_device(device, model_format) != "cpu":
        return max(2, min(threads or usable_cores(), GPU_FEEDERS))
    return (threads or usable_cores()) if _serving(model_format, "cpu").is_parallel else 1


def _serving(model_format: ModelFormat, device: str) -> Support:
    """Return the engine that is used: the first one that is installed, else the last one, which says what to do."""
    engines = [engine for engine in ENGINES if engine.supports(model_format, device)]
    return next((engine for engine in engines if engine.is_installed()), engines[-1])


def choose_precision(
    precision: str = "auto",
    *,
    device: str = "auto",
    model_format: ModelFormat = ModelFormat.SAFETENSORS,
    is_8bit: bool = True,
) -> str:
    """Return the precision to compute in, once for all workers of a run.

    Args:
        precision: `auto` takes bf16 for 8-bit pixels where OpenVINO runs the model on a processor that has it, and
            f32 otherwise; see `docs/benchmarks.md` for what it gains and loses.
        device: See `choose_device`.
        model_format: Format of the model.
        is_8bit: True if the pixels of the scene and of the model have 8 bits.

    Raises:
        DeviceError: If there is no such precision.
    """
    if precision in PRECISIONS:
        return precision
    if precision != "auto":
        raise DeviceError(f"There is no precision {precision!r}. Choose one of auto, {', '.join(PRECISIONS)}.")
    if not is_8bit or device not in ("auto", "cpu") or _serving(model_format, "cpu") is not OPENVINO:
        return "f32"
    is_quick = choose_device(device, model_format) == "cpu" and "bf16" in native_precisions()
    return "bf16" if is_quick else "f32"


def _check_precision(precision: str, device: str, model_format: ModelFormat) -> None:
    """Refuse a precision that the engine or the processor does not have: results would be others, or take long.

    Raises:
        DeviceError: If it is refused.
    """
    engine = _serving(model_format, device)
    if precision not in (known := engine.precisions_on(device)):
        raise DeviceError(
            f"`precision={precision!r}` is not for {engine.name} on {device!r}, which computes in "
            f"{' or '.join(known)}. Omit `precision`."
        )
    if device == "cpu" and precision not in native_precisions():
        raise DeviceError(
            f"The processor of {socket.gethostname()} has no instructions for {precision} (AMX, AVX-512 BF16) and "
            "would be slow or give other results. Use `precision='f32'`, with `overwrite=True` for a run begun "
            f"in {precision}, or continue that run on machines that have them."
        )


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
        precision: `f32`; or `bf16`, faster and less exact, on processors and GPUs that have it; or `f16` on a GPU.

    Raises:
        DeviceError: If the device is absent, or cannot do what is asked for.
        BundleError: If the weights do not fit the network.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"There is no precision {precision!r}. Choose one of {', '.join(PRECISIONS)}.")
    options = EngineOptions(chip_shape, choose_device(device, bundle.format), threads, precision)
    _check_precision(precision, options.device, bundle.format)
    *preferred, last = (engine for engine in ENGINES if engine.supports(bundle.format, options.device))
    for engine in preferred:
        if engine.is_installed():
            try:
                return engine.load(bundle, options)
            except NetworkExportError as err:
                log.warning("%s It runs on %s, more slowly.", err, last.name)
    return last.load(bundle, options)
