"""The CPU engine: OpenVINO in full float precision."""

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import Bundle
from geoseg.engines.onnx import onnx_path
from geoseg.engines.protocol import usable_cores
from geoseg.errors import BundleError, DeviceError
from geoseg.third_party import import_openvino

if TYPE_CHECKING:
    from openvino import CompiledModel, Model


class OpenVINOEngine:
    """One compiled model with one inference stream per core; each calling thread has a request of its own.

    Streams of one thread each gave more chips per second than one stream of all cores (`docs/benchmarks.md`), and
    every stream computes a chip alone, so results never depend on batches or on the number of threads. Precision is
    pinned to float32: on processors with bfloat16 units OpenVINO would otherwise round to 8 bits of mantissa.
    """

    batch_size = 1

    def __init__(self, compiled: "CompiledModel", streams: int) -> None:
        """Wrap a compiled model; see `load`."""
        from queue import SimpleQueue

        self.threads = streams
        self.name = f"OpenVINO {import_openvino().__version__.split('-')[0]} CPU"
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    @classmethod
    def load(
        cls, bundle: Bundle, *, chip_shape: tuple[int, int], threads: int | None = None, streams: int | None = None
    ) -> "OpenVINOEngine":
        """Compile a bundle for `(1, band, *chip_shape)` chips.

        Args:
            bundle: The model.
            chip_shape: Height and width of a chip, pixels.
            threads: CPU threads in all; every usable core by default.
            streams: Chips computed at a time, sharing the threads; one per thread by default.

        Raises:
            DeviceError: If OpenVINO is not installed.
            NetworkExportError: If the network cannot be expressed in ONNX.
            BundleError: If an exported network does not fit its specification.
        """
        if importlib.util.find_spec("openvino") is None:
            raise DeviceError(f"{bundle.path} needs OpenVINO, which is not installed. `pip install openvino`.")
        openvino = import_openvino()
        from openvino.preprocess import PrePostProcessor

        threads = threads or usable_cores()
        core = openvino.Core()
        model = core.read_model(onnx_path(bundle))
        _check_network(model, bundle)
        model.reshape([1, len(bundle.spec.bands), *chip_shape])
        steps = PrePostProcessor(model)
        is_8bit = bundle.spec.pixel_max == 255
        steps.input().tensor().set_element_type(openvino.Type.u8 if is_8bit else openvino.Type.f32)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": str(streams or threads),
            "ENABLE_CPU_PINNING": "NO",
        }
        openvino.Type.u8.to_dtype()  # its first use is not thread-safe: two first inferences at once can deadlock
        return cls(core.compile_model(steps.build(), "CPU", settings), streams or threads)

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(n, channel, y, x)` probabilities of `(n, band, y, x)` pixel values."""
        request = self._requests.get()
        try:
            results = [request.infer([chip[None]], share_inputs=True)[0].copy() for chip in chips]
        finally:
            self._requests.put(request)
        return np.concatenate(results)


def _check_network(model: "Model", bundle: Bundle) -> None:
    """Refuse an exported network whose inputs and outputs are not those of its specification."""
    found = [end.partial_shape for end in (*model.inputs, *model.outputs)]
    counts = [len(bundle.spec.bands), len(bundle.spec.channels)]
    is_fitting = len(found) == 2 and all(
        len(shape) == 4 and (shape[1].is_dynamic or shape[1].get_length() == count)
        for shape, count in zip(found, counts, strict=True)
    )
    if not is_fitting:
        raise BundleError(
            f"The network in {bundle.path} does not fit its specification: it goes from {' and '.join(map(str, found))}"
            f"; expected (n, band, y, x) with {counts[0]} bands to (n, channel, y, x) with {counts[1]}. Export again."
        )
