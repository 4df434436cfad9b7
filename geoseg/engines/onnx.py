"""A bundle's network as ONNX, exported once on this machine and cached."""

import os
import sys
from pathlib import Path

from geoseg.bundle import Bundle
from geoseg.errors import NetworkExportError, OutputError
from geoseg.io.aside import write_aside
from geoseg.model_file import ModelFormat
from geoseg.third_party import ignore_warnings

ONNX_CACHE_ENV = "GEOSEG_CACHE_DIR"
OPSET = 18
EXPORT_VERSION = 1
"""Part of a cached file's name: raise it when the export changes."""


def cache_folder() -> Path:
    """Return the cache folder: `$GEOSEG_CACHE_DIR`, else the user's cache folder."""
    if own := os.environ.get(ONNX_CACHE_ENV):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "geoseg" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "geoseg"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoseg"


def onnx_path(bundle: Bundle) -> Path:
    """Return the bundle's ONNX file, exporting it first if it is not there yet.

    A bundle that is an ONNX or OpenVINO file itself is returned as it is.

    The file takes pixel values `(n, band, y, x)` float32 and gives probabilities `(n, channel, y, x)` for any batch and
    any multiple of the network's stride. Its name holds the bundle's key, so another model never finds it.

    Raises:
        OutputError: If the cache folder cannot be written.
    """
    if bundle.format in (ModelFormat.ONNX, ModelFormat.OPENVINO):
        return bundle.path
    folder = cache_folder()
    path = folder / f"{bundle.spec.slug}-{bundle.key}-v{EXPORT_VERSION}.onnx"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with write_aside(path, shared=True) as aside:
            export_onnx(bundle, aside)
    except (OSError, OutputError) as err:
        raise OutputError(
            f"The cache folder {folder} cannot be written ({err}). Name another one with {ONNX_CACHE_ENV}."
        ) from err
    return path


def export_onnx(bundle: Bundle, path: Path) -> None:
    """Write a bundle's network, normalization and activation included, as one ONNX file.

    Raises:
        NetworkExportError: If the network cannot be expressed in ONNX.
    """
    import torch

    from geoseg.networks import load_segmenter

    spec = bundle.spec
    model = load_segmenter(bundle)
    chip = torch.zeros(1, len(spec.bands), 4 * spec.stride_px, 4 * spec.stride_px)
    axes = {0: "n", 2: "y", 3: "x"}
    with ignore_warnings():
        try:
            torch.onnx.export(
                model,
                (chip,),
                str(path),
                input_names=["pixels"],
                output_names=["probabilities"],
                dynamic_axes={"pixels": axes, "probabilities": axes},
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as err:
            raise NetworkExportError(
                f"The network {spec.network!r} of {spec.name} cannot be exported to ONNX: {str(err).splitlines()[0]} "
                "Use the bundle itself, or a network whose export docs/export.md lists."
            ) from err
