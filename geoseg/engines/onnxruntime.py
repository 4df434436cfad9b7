"""ONNX files on a CUDA GPU, and on the CPU if OpenVINO is not installed."""

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import Bundle
from geoseg.errors import DeviceError, MissingPackageError
from geoseg.third_party import import_onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH_CHIPS = {"cuda": 16, "cpu": 1}

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    # TF32 rounds to 10 bits of mantissa; a heuristic choice of kernels is the same in every process, a timed one is not
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
    "cpu": ("CPUExecutionProvider", {}),
}


class OnnxRuntimeEngine:
    """Run batches of a fixed size in full precision; a short batch is filled up with its last chip."""

    def __init__(self, session: "InferenceSession", device: str) -> None:
        """Wrap a session; see `load`."""
        self.batch_size = BATCH_CHIPS[device]
        self.threads = 1 if device == "cpu" else 2
        self.name = f"ONNX Runtime {import_onnxruntime().__version__} {device}"
        self._session = session
        self._input = session.get_inputs()[0].name

    @classmethod
    def load(cls, bundle: Bundle, *, device: str, threads: int | None = None) -> "OnnxRuntimeEngine":
        """Open an ONNX file on a device.

        Args:
            bundle: The model, an ONNX file.
            device: `cuda` or `cpu`.
            threads: CPU threads; every core by default.

        Raises:
            MissingPackageError: If ONNX Runtime is not installed.
            DeviceError: If it falls back to another device.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingPackageError(
                f"{bundle.path} runs on OpenVINO or ONNX Runtime, and neither is installed. `pip install openvino`."
            )
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(bundle.path), options, providers=[PROVIDERS[device]])
        if (found := session.get_providers()[0]) != PROVIDERS[device][0]:
            raise DeviceError(
                f"ONNX Runtime cannot run {bundle.path} on {device}: it would fall back to {found}. Check that its "
                "version fits the CUDA and cuDNN installed, or use `device='cpu'`."
            )
        return cls(session, device)

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(n, channel, y, x)` probabilities of `(n, band, y, x)` pixel values."""
        parts = [self._predict_batch(chips[i : i + self.batch_size]) for i in range(0, len(chips), self.batch_size)]
        return np.concatenate(parts)

    def _predict_batch(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        index = np.minimum(np.arange(self.batch_size), len(chips) - 1)
        (out,) = self._session.run(None, {self._input: chips[index].astype(np.float32)})
        return np.asarray(out[: len(chips)], np.float32)


def has_cuda() -> bool:
    """Return True where ONNX Runtime is installed and sees a CUDA GPU."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()
