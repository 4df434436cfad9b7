"""The engines there are, in order of preference; the device and the engine that serve a bundle best."""

import logging
import platform
from pathlib import Path

from geoseg.artifact import Form
from geoseg.bundle import Bundle
from geoseg.engines.onnxruntime import OnnxRuntimeEngine, has_cuda
from geoseg.engines.openvino import OpenVINOEngine
from geoseg.engines.protocol import Engine, EngineOptions, Support, usable_cores
from geoseg.errors import DeviceError, NetworkExportError

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("f32", "bf16", "f16")
GPU_FEEDERS = 8
"""Most threads that read for one GPU; each holds a block."""


def _load_torch(bundle: Bundle, options: EngineOptions) -> Engine:
    from geoseg.engines.torch import TorchEngine

    if options.device == "cpu" and bundle.form is Form.SAFETENSORS and not OPENVINO.is_installed():
        log.warning("OpenVINO is not installed: the network runs on torch, about half as fast. `pip install openvino`.")
    return TorchEngine.load(bundle, device=options.device, threads=options.threads, precision=options.precision)


def _torch_has_gpu(device: str) -> bool:
    import torch

    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


OPENVINO = Support(
    name="OpenVINO",
    package="openvino",
    forms=(Form.SAFETENSORS, Form.ONNX, Form.OPENVINO),
    devices=("cpu",),
    load=lambda bundle, options: OpenVINOEngine.load(bundle, chip_shape=options.chip_shape, threads=options.threads),
    is_parallel=True,
)
ONNX_RUNTIME = Support(
    name="ONNX Runtime",
    package="onnxruntime",
    forms=(Form.ONNX,),
    devices=("cuda", "cpu"),
    load=lambda bundle, options: OnnxRuntimeEngine.load(bundle, device=options.device, threads=options.threads),
    has_gpu=lambda device: has_cuda(),
    no_gpu="--device {device} runs .onnx files with ONNX Runtime, whose CUDA build is missing or finds no GPU here. "
    "`pip install onnxruntime-gpu`, use --device cpu, or give the .safetensors bundle, which torch runs.",
)
TORCH = Support(
    name="torch",
    package="torch",
    forms=(Form.SAFETENSORS, Form.PT2),
    devices=("cuda", "mps", "cpu"),
    load=_load_torch,
    precisions=PRECISIONS,
    has_gpu=_torch_has_gpu,
    no_gpu="--device {device} was asked for, but torch sees none here. Use --device cpu or auto.",
)

ENGINES = (OPENVINO, ONNX_RUNTIME, TORCH)
"""Of those that run a format on a device the first that is installed is taken. A new engine is an entry here."""


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
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    engines = [engine for engine in ENGINES if form in engine.forms]
    if device == "auto":
        gpus = [(engine, gpu) for engine in engines for gpu in engine.devices if gpu != "cpu"]
        return next((gpu for engine, gpu in gpus if engine.has_gpu(gpu)), "cpu")
    serving = [engine for engine in engines if device in engine.devices]
    if not serving:
        known = [name for name in DEVICES if any(name in engine.devices for engine in engines)]
        raise DeviceError(
            f"--device {device} was asked for, but a network exported to {form} runs on "
            f"{' or '.join(known) if len(known) > 1 else f'the {known[0]} alone'}. "
            "Use --device cpu, or give the .safetensors bundle."
        )
    if not any(engine.has_gpu(device) for engine in serving):
        raise DeviceError(serving[0].no_gpu.format(device=device))
    return device


def _may_have_gpu() -> bool:
    """Tell cheaply whether asking an engine is worth the import of its library."""
    return platform.system() in ("Darwin", "Windows") or Path("/dev/nvidiactl").exists()


def worker_threads(device: str, threads: int | None = None, form: Form = Form.SAFETENSORS) -> int:
    """Return how many threads should feed the engine of a device; see `docs/benchmarks.md` for the measurement."""
    if choose_device(device, form) != "cpu":
        return max(2, min(threads or usable_cores(), GPU_FEEDERS))
    installed = [engine for engine in ENGINES if engine.supports(form, "cpu") and engine.is_installed()]
    return (threads or usable_cores()) if installed and installed[0].is_parallel else 1


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
    options = EngineOptions(chip_shape, choose_device(device, bundle.form), threads, precision)
    _check_precision(options, bundle.form)
    *preferred, last = (engine for engine in ENGINES if engine.supports(bundle.form, options.device))
    for engine in preferred:
        if engine.is_installed():
            try:
                return engine.load(bundle, options)
            except NetworkExportError as err:
                log.warning("%s It runs on %s, more slowly.", err, last.name)
    return last.load(bundle, options)


def _check_precision(options: EngineOptions, form: Form) -> None:
    precision = options.precision
    if precision not in PRECISIONS:
        raise DeviceError(f"There is no precision {precision!r}. Choose one of {', '.join(PRECISIONS)}.")
    on_gpu = [engine for engine in ENGINES if form in engine.forms and engine.devices != ("cpu",)]
    lacking = [engine.name for engine in on_gpu if precision not in engine.precisions]
    if precision != "f32" and (options.device == "cpu" or lacking):
        where = lacking[0] if lacking else "the CPU"
        raise DeviceError(f"Precision {precision} is for torch on a GPU; {where} computes in f32. Leave it out.")
