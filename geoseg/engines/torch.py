"""The torch engine: CUDA, Apple's MPS, `.pt2` files, and the CPU if OpenVINO is not installed."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.bundle import Bundle
from geoseg.errors import BundleError, DeviceError
from geoseg.model_file import ModelFormat
from geoseg.networks import load_segmenter
from geoseg.pt2_archive import check_archive

BATCH_CHIPS = {"cuda": 16, "mps": 4, "cpu": 1}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchEngine:
    """Run fixed-size batches, channels last; a short batch is filled up with its last chip.

    A fixed batch size keeps the choice of kernels, and so the result of a chip, the same for every block. Full
    precision is really full: TF32, which rounds to 10 bits of mantissa, stays off.
    Pixels travel as they are (8 bits) through pinned memory and become floats on the device.
    """

    def __init__(self, model: torch.nn.Module, device: str, precision: str = "f32") -> None:
        """Wrap a `Segmenter` in evaluation mode; see `load`."""
        self.device = torch.device(device)
        self.batch_size = BATCH_CHIPS[device]
        self.threads = 1 if device == "cpu" else 2
        self.name = f"torch {torch.__version__} {device}" + (f" {precision}" if precision != "f32" else "")
        self._dtype = DTYPES[precision]
        self._model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._lock = threading.Lock()

    @classmethod
    def load(cls, bundle: Bundle, *, device: str, threads: int | None = None, precision: str = "f32") -> "TorchEngine":
        """Load a bundle onto a device.

        Args:
            bundle: The model, or its `.pt2` export.
            device: `cuda`, `mps` or `cpu`.
            threads: CPU threads; torch's choice by default.
            precision: `f32`, or `bf16` or `f16` for automatic mixed precision.

        Raises:
            BundleError: If the weights do not fit the network, or torch cannot read the export.
            DeviceError: If the GPU cannot compute in `bf16`.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported():
            raise DeviceError(f"{torch.cuda.get_device_name()} does not compute in bf16. Use f16 or f32.")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        model = load_exported(bundle, device) if bundle.format is ModelFormat.PT2 else load_segmenter(bundle)
        return cls(model, device, precision)

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(n, channel, y, x)` probabilities of `(n, band, y, x)` pixel values."""
        parts = [self._predict_batch(chips[i : i + self.batch_size]) for i in range(0, len(chips), self.batch_size)]
        return np.concatenate(parts)

    def _predict_batch(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict one batch; the lock covers only the launch.

        On a GPU all threads share torch's default stream, which runs what is launched in that order: while one thread
        waits for its result, the next copies its pixels and launches its network, and the GPU does not wait.
        """
        index = np.minimum(np.arange(self.batch_size), len(chips) - 1)
        is_mixed = self._dtype != torch.float32
        staged = torch.from_numpy(chips[index])
        if self.device.type == "cuda":
            staged = staged.pin_memory()  # from where the GPU fetches it by itself
        with torch.inference_mode():
            with self._lock, torch.autocast(self.device.type, self._dtype if is_mixed else None, enabled=is_mixed):
                batch = staged.to(self.device, non_blocking=True).float()
                out = self._model(batch.contiguous(memory_format=torch.channels_last))
            probabilities: NDArray[np.float32] = out[: len(chips)].float().cpu().numpy()
        return probabilities


def load_exported(bundle: Bundle, device: str) -> torch.nn.Module:
    """Load a `.pt2` network onto a device, after inspecting the archive.

    Raises:
        PickledModelError: If loading it would run code.
        BundleError: If this torch cannot read it.
    """
    from torch.export.passes import move_to_device_pass

    check_archive(bundle.path)
    try:
        program = torch.export.load(bundle.path)
        moved = program if device == "cpu" else move_to_device_pass(program, device)
        return moved.module()
    except Exception as err:  # torch's own, many kinds: assertions, schema and key errors
        raise BundleError(
            f"torch {torch.__version__} cannot load {bundle.path} ({str(err).splitlines()[0] if str(err) else err!r}). "
            "torch reads .pt2 files of its own and near versions: export the bundle again with this one."
        ) from err
