"""The CPU engine: OpenVINO in float32, and in bfloat16 on processors that have it."""

import importlib.util
from functools import lru_cache
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
    every stream computes a chip alone, so results never depend on batches or on the number of threads. The precision
    is always given: OpenVINO would otherwise take bfloat16, with 8 bits of mantissa, on processors that have it.
    """

    batch_size = 1

    def __init__(self, compiled: "CompiledModel", streams: int, precision: str = "f32") -> None:
        """Wrap a compiled model; see `load`."""
        from queue import SimpleQueue

        self.threads = streams
        version, rounded = import_openvino().__version__.split("-")[0], f" {precision}" if precision != "f32" else ""
        self.name = f"OpenVINO {version} CPU{rounded}"
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        *,
        chip_shape: tuple[int, int],
        threads: int | None = None,
        streams: int | None = None,
        precision: str = "f32",
    ) -> "OpenVINOEngine":
        """Compile a bundle for `(1, band, *chip_shape)` chips.

        Args:
            bundle: The model.
            chip_shape: Height and width of a chip, pixels.
            threads: CPU threads in all; every usable core by default.
            streams: Chips computed at a time, sharing the threads; one per thread by default.
            precision: `f32`, or `bf16` on a processor that has it; see `native_precisions`.

        Raises:
            DeviceError: If OpenVINO is not installed, or would compute in another precision.
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
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": str(streams or threads),
            "ENABLE_CPU_PINNING": "NO",
        }
        openvino.Type.u8.to_dtype()  # its first use is not thread-safe: two first inferences at once can deadlock
        compiled = core.compile_model(steps.build(), "CPU", settings)
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != precision:  # that of a processor without the one that is asked for
            raise DeviceError(f"OpenVINO would compute in {found}, not in {precision}. Use `precision={found!r}`.")
        return cls(compiled, streams or threads, precision)

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(n, channel, y, x)` probabilities of `(n, band, y, x)` pixel values."""
        request = self._requests.get()
        try:
            results = [request.infer([chip[None]], share_inputs=True)[0].copy() for chip in chips]
        finally:
            self._requests.put(request)
        return np.concatenate(results)


@lru_cache(maxsize=1)
def native_precisions() -> tuple[str, ...]:
    """Return the precisions that this machine's processor has instructions for; `f32` alone without OpenVINO.

    Where there are none for bfloat16, OpenVINO emulates them (AVX-512) or computes in f32 without a word (AVX2).
    """
    if importlib.util.find_spec("openvino") is None:
        return ("f32",)
    found = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("f32", "bf16") if "BF16" in found else ("f32",)


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
