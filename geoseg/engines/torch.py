"""The torch engine: CUDA, Apple's MPS, and the CPU where OpenVINO is missing."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.bundle import Bundle
from geoseg.networks import load_segmenter

BATCH_CHIPS = {"cuda": 16, "mps": 4, "cpu": 1}


class TorchEngine:
    """Runs fixed-size batches, channels last, in full precision; a short batch is filled up with its last chip.

    A fixed batch size keeps the choice of kernels, and so the result of a chip, the same for every block.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        """Wrap a `Segmenter`; see `load`."""
        self.device = torch.device(device)
        self.batch_size = BATCH_CHIPS[device]
        self.threads = 1 if device == "cpu" else 2
        self.name = f"torch {torch.__version__} {device}"
        self._model = model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._lock = threading.Lock()

    @classmethod
    def load(cls, bundle: Bundle, *, device: str, threads: int | None = None) -> "TorchEngine":
        """Load a bundle onto a device."""
        if threads is not None:
            torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return cls(load_segmenter(bundle), device)

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(n, class, y, x)` probabilities of `(n, band, y, x)` pixel values."""
        parts = [self._predict_batch(chips[i : i + self.batch_size]) for i in range(0, len(chips), self.batch_size)]
        return np.concatenate(parts)

    def _predict_batch(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        index = np.minimum(np.arange(self.batch_size), len(chips) - 1)
        with self._lock, torch.inference_mode():
            batch = torch.from_numpy(chips[index]).to(self.device).float()
            out = self._model(batch.contiguous(memory_format=torch.channels_last))
            probabilities: NDArray[np.float32] = out[: len(chips)].float().cpu().numpy()
        return probabilities
