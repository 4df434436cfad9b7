"""A bundle's network in the formats of other runtimes, with metadata inside, each run once to check it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.bundle import Bundle
from geoseg.engines.onnx import export_onnx
from geoseg.errors import ExportError
from geoseg.export.check import Check, check_export
from geoseg.model_file import RT_INFO
from geoseg.networks import load_segmenter
from geoseg.pt2_archive import check_archive
from geoseg.third_party import ignore_warnings, import_openvino

SAME_CONVOLUTIONS = ("Conv2dSame", "Conv2dDynamicSamePadding")
"""Convolutions of timm and segmentation-models-pytorch that compute TensorFlow's "same" padding for every size."""

LARGEST_SIDE_PX = 1 << 16
"""Longest side of a chip that a `.pt2` network takes, pixels."""


def write_onnx(bundle: Bundle, path: Path, metadata: Mapping[str, str], weights: str) -> Check:
    """Write an ONNX file, metadata as metadata_props, and check it in OpenVINO."""
    import onnx

    try:
        export_onnx(bundle, path)
    except Exception as err:  # torch's exporter raises errors of many kinds
        raise _export_error(bundle, "onnx", err) from err
    model = onnx.load(path)
    model.doc_string = bundle.spec.description
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return _check_in_openvino(bundle, path, weights)


def write_openvino(bundle: Bundle, path: Path, metadata: Mapping[str, str], weights: str) -> Check:
    """Write OpenVINO's pair of .xml and .bin, metadata in rt_info, and check it there."""
    from geoseg.engines.onnx import onnx_path

    openvino = import_openvino()
    model = openvino.Core().read_model(onnx_path(bundle))
    for key, text in metadata.items():
        model.set_rt_info(text, [RT_INFO, key])
    openvino.save_model(model, path, compress_to_fp16=weights == "f16")
    return _check_in_openvino(bundle, path, weights)


def _check_in_openvino(bundle: Bundle, path: Path, weights: str) -> Check:
    openvino = import_openvino()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def predict(chips: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(compiled(chips)[0])

    return check_export(bundle, predict, runtime=f"OpenVINO {openvino.__version__.split('-')[0]}", weights=weights)


def write_pt2(bundle: Bundle, path: Path, metadata: Mapping[str, str], weights: str) -> Check:
    """Write a torch.export archive, metadata as extra files, and check it in torch.

    It holds no sample inputs, which would be a pickle, no guards, and no names of source files of this machine.
    """
    try:
        torch.export.save(_export_program(bundle), path, extra_files=dict(metadata))
    except Exception as err:  # torch.export raises errors of many kinds
        raise _export_error(bundle, "pt2", err) from err
    check_archive(path)
    loaded = torch.export.load(path).module()

    def predict(chips: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(loaded(torch.from_numpy(chips)).numpy())

    return check_export(bundle, predict, runtime=f"torch {torch.__version__}", weights=weights)


def _export_program(bundle: Bundle) -> torch.export.ExportedProgram:
    stride, largest = bundle.spec.stride_px, LARGEST_SIDE_PX // bundle.spec.stride_px
    sizes = {
        0: torch.export.Dim("n", min=1, max=LARGEST_SIDE_PX),
        2: stride * torch.export.Dim("y", min=1, max=largest),
        3: stride * torch.export.Dim("x", min=1, max=largest),
    }
    chips = torch.zeros(2, len(bundle.spec.bands), 4 * stride, 6 * stride)
    model = load_segmenter(bundle)
    fix_same_padding(model)
    with ignore_warnings():
        program = torch.export.export(model, (chips,), dynamic_shapes=(sizes,), strict=False)
    program.example_inputs = None
    program._guards_code = []  # torch >= 2.9 would run them as Python; the specification says what fits
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


class FixedSame(nn.Module):
    """A convolution with "same" padding for sizes that are multiples of its stride.

    The padding is `max((ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)`, the smaller half
    of it first (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2): without the size where the stride
    divides it, and then nothing is left that torch.export would have to reason about.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        sides = zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
        rows, cols = (max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in sides)
        self.padding = (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pad and convolve `(n, channel, y, x)`."""
        own = self.convolution
        padded = F.pad(pixels, self.padding)
        return F.conv2d(padded, own.weight, own.bias, own.stride, (0, 0), own.dilation, own.groups)


def fix_same_padding(model: nn.Module) -> None:
    """Replace every convolution with "same" padding by `FixedSame`, in place."""
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d) and type(child).__name__ in SAME_CONVOLUTIONS:
            setattr(model, name, FixedSame(child))
        else:
            fix_same_padding(child)


def _export_error(bundle: Bundle, model_format: str, err: Exception) -> ExportError:
    why = str(err).strip().splitlines()
    return ExportError(
        f"torch cannot export the network {bundle.spec.network!r} of {bundle.spec.name} to {model_format}: "
        f"{why[0] if why else repr(err)}. Nothing was written. Try another format."
    )
